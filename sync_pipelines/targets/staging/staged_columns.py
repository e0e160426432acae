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
# the types in which keys are staged: without their size, for an id that is too long is no record's id
_KEY_TYPES = {"character varying": "text", "character": "bpchar"}
_C_COLLATION = "C"


@dataclass(frozen=True, slots=True)
class StagedColumn:
    """A column of the table in the staging tables.

    Args:
        codec: The column's codec.
        label: Its name in the staging tables.
        type_name: Its type there.
        as_text: True to compare the local value's text, as the database writes it.
        exact: True to compare texts byte by byte, where the column's collation finds different ones equal.
        loose: True if values that the database finds different may still be the same: then each is looked at.
        cast_to: The type to cast to when it is written, None where the database does so by itself.
    """

    codec: ColumnCodec
    label: str
    type_name: str
    as_text: bool = False
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
        if self.as_text:
            compared = sa.cast(local, sa.Text())
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


def staged_key(codec: ColumnCodec, number: int, dialect: str) -> StagedColumn:
    """How a key column is staged."""
    if dialect == "sqlite":
        return StagedColumn(codec, f"sp_k{number}", codec.type_name)
    bare = _SIZE.sub("", codec.type_name) if codec.facts.family in {"text", "numeric"} else codec.type_name
    return StagedColumn(codec, f"sp_k{number}", _KEY_TYPES.get(bare, bare))


def staged_value(codec: ColumnCodec, number: int, dialect: str, *, is_loose: bool) -> StagedColumn:
    """How another column is staged.

    Args:
        number: Its place among the values.
        dialect: `postgresql` or `sqlite`.
        is_loose: True if its collation finds different texts equal.
    """
    label, family = f"sp_v{number}", codec.facts.family
    if dialect == "sqlite":
        return StagedColumn(codec, label, codec.type_name, exact=False, loose=family == "json")
    base = _SIZE.sub("", codec.type_name)
    if family == "text":
        return StagedColumn(codec, label, "text", as_text=base in {"character", "citext"}, exact=is_loose)
    if family in {"enum", "asked"}:
        return StagedColumn(codec, label, "text", as_text=True, cast_to=codec.type_name)
    if base.removesuffix("[]") == "json":
        return StagedColumn(codec, label, "text", as_text=True, loose=True, cast_to=codec.type_name)
    return StagedColumn(codec, label, codec.type_name)
