"""Which columns are staged, as what type, and how the database compares and writes them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from sync_pipelines.targets.table.reflection import ReflectedTable
from sync_pipelines.targets.types.codec import ColumnCodec
from sync_pipelines.targets.types.sqlalchemy_types import NamedType

_SIZE = re.compile(r"\([^)]*\)")
_KEY_FAMILIES = frozenset({"text", "int", "uuid", "numeric", "date", "datetime"})
# an id that is too long is no record's id
_TYPES_WITHOUT_SIZE = {"character varying": "text", "character": "bpchar"}
_C_COLLATION = "C"


@dataclass(frozen=True, slots=True)
class StagedColumn:
    """A column of the table in the staging tables.

    Args:
        codec: The column's codec.
        label: Its name in the staging tables.
        type_name: Its type there.
        compared_as: The type that the local value is cast to, to be compared; None to compare it as it is.
        exact: True to compare texts byte by byte, where the column's collation finds different ones equal.
        loose: True if values that the database finds different may still be the same: then each is looked at.
        cast_to: The type to cast to when it is written, None where the database does so by itself.
    """

    codec: ColumnCodec
    label: str
    type_name: str
    compared_as: str | None = None
    exact: bool = False
    loose: bool = False
    cast_to: str | None = None

    @property
    def name(self) -> str:
        """The column's name in the table."""
        return self.codec.name

    def differs(self, staged: sa.ColumnElement[Any], local: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """The condition that a staged value differs from the local one."""
        compared: sa.ColumnElement[Any] = local
        if self.compared_as:
            compared = sa.cast(local, NamedType(self.compared_as))
        elif self.exact:
            staged = sa.collate(staged, _C_COLLATION)
        return staged.is_distinct_from(compared)

    def written(self, staged: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """The staged value as it is written."""
        return sa.cast(staged, NamedType(self.cast_to)) if self.cast_to else staged


def why_not_compared(
    reflected: ReflectedTable,
    key: Sequence[str],
    written: Sequence[str],
    create_only: Collection[str],
    own: Collection[str] = (),
) -> str | None:
    """Why the database can't compare these columns; None if it can.

    Args:
        key: Its key columns.
        written: The other columns that are written.
        create_only: Those of them that an update does not write.
        own: Columns that the target itself writes.
    """
    for name in key:
        codec = reflected.codecs[name]
        if codec.facts.family not in _KEY_FAMILIES or codec.fold is not None or name in reflected.case_insensitive:
            return f"the key column {name!r} ({codec.type_name}) is compared in a way of its own"
    for name in written:
        codec = reflected.codecs[name]
        if codec.facts.family == "own":
            return f"the column {name!r} has a type that only the application knows"
    given, updated = {*key, *written, *own}, {*key, *written} - {*create_only}
    for name, column in reflected.table.c.items():
        if (name not in given and _is_lazy(column.default)) or (name not in updated and _is_lazy(column.onupdate)):
            return f"the default of the column {name!r} is made in Python, row by row"
    return None


def _is_lazy(default: Any) -> bool:
    return default is not None and (default.is_callable or default.is_sequence)


def bare_type(codec: ColumnCodec) -> str:
    """The type in which a value may be longer than its column: a cast to that one's size would cut it silently."""
    if codec.facts.family not in {"text", "numeric"}:
        return codec.stored_type
    bare = _SIZE.sub("", codec.stored_type)
    return _TYPES_WITHOUT_SIZE.get(bare, bare)


def staged_key(codec: ColumnCodec, number: int, dialect: str) -> StagedColumn:
    """How a key column is staged."""
    if dialect == "sqlite":
        return StagedColumn(codec, f"sp_k{number}", codec.stored_type)
    return StagedColumn(codec, f"sp_k{number}", bare_type(codec))


def staged_value(codec: ColumnCodec, number: int, dialect: str, *, is_loose: bool) -> StagedColumn:
    """How another column is staged.

    Args:
        number: Its place among the values.
        dialect: `postgresql` or `sqlite`.
        is_loose: True if its collation finds different texts equal.
    """
    label, family, kind = f"sp_v{number}", codec.facts.family, codec.stored_type
    if dialect == "sqlite":
        return StagedColumn(codec, label, kind, exact=False, loose=family == "json")
    base = _SIZE.sub("", kind)
    if family == "text":
        compared_as = "text" if base in {"character", "citext"} else None
        return StagedColumn(codec, label, "text", compared_as=compared_as, exact=is_loose)
    if family == "money":
        return StagedColumn(codec, label, "numeric", compared_as="numeric", cast_to=kind)
    if family in {"enum", "asked"}:
        return StagedColumn(codec, label, "text", compared_as="text", cast_to=codec.type_name)
    if base.removesuffix("[]") == "json":
        return StagedColumn(codec, label, "text", compared_as="text", loose=True, cast_to=kind)
    return StagedColumn(codec, label, kind)
