"""How rows of an opened table are marked as deleted, and which of them a sync answers for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from sync_pipelines.errors import ConfigurationError, ItemError
from sync_pipelines.targets.table.reflection import ReflectedTable
from sync_pipelines.targets.table.soft_delete import MOMENT, SoftDelete
from sync_pipelines.targets.types.codec import ColumnCodec
from sync_pipelines.targets.types.unwrap import shortened

_COMPARED = frozenset({"text", "int", "bool", "numeric", "date", "datetime", "uuid", "enum", "asked", "own"})
_EXACT = frozenset({"int", "bool", "numeric", "date", "datetime", "uuid"})
_MOMENTS = frozenset({"text", "date", "datetime", "own"})


@dataclass(frozen=True, slots=True)
class Mark:
    """The column that marks deleted rows.

    Args:
        codec: Its codec.
        is_moment: True if it holds the moment of the delete.
        deleted: What it holds of a deleted row, None for a moment.
        live: What it holds of a new or restored row.
    """

    codec: ColumnCodec
    is_moment: bool
    deleted: Any
    live: Any

    @property
    def name(self) -> str:
        """The column's name."""
        return self.codec.name

    @property
    def shown(self) -> Any:
        """What a plan shows that a delete writes."""
        return MOMENT if self.is_moment else self.deleted

    @property
    def is_told_by_value(self) -> bool:
        """True if the database can't take another value for that of deleted rows, as it may with texts."""
        return self.is_moment or self.codec.facts.family in _EXACT

    def is_off(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """The condition that a row is not marked; only where it is told by the value."""
        return column.is_(None) if self.is_moment else sa.or_(column.is_(None), column != self.deleted)

    def is_set(self, local: Mapping[str, Any]) -> bool:
        """True if the row is marked."""
        held = local[self.name]
        return held is not None if self.is_moment else self.codec.same(held, self.deleted)

    def written(self) -> Any:
        """What a delete writes now."""
        return self.codec.from_item(datetime.now(UTC)) if self.is_moment else self.deleted

    def identity(self) -> list[Any]:
        """What makes it another one."""
        return [self.name, self.is_moment, repr(self.deleted), repr(self.live)]


@dataclass(frozen=True, slots=True)
class ScopeColumn:
    """A column of the scope, and the values that are within it.

    Args:
        codec: Its codec.
        values: The values; None is NULL.
        fills: True if new rows get the value, of which there is one then.
    """

    codec: ColumnCodec
    values: tuple[Any, ...]
    fills: bool

    def has(self, held: Any) -> bool:
        """True if a row that holds that value is within."""
        return any(self.codec.same(held, value) for value in self.values)

    def condition(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """The condition that a row is within; true of some others where the column's collation is loose."""
        some = column.in_([value for value in self.values if value is not None])
        return sa.or_(some, column.is_(None)) if None in self.values else some


@dataclass(frozen=True, slots=True)
class Scope:
    """The rows that a sync answers for: whatever else is in the table is never deleted by it.

    Args:
        columns: The columns that say so, none if all rows are within.
    """

    columns: tuple[ScopeColumn, ...] = ()

    def has(self, local: Mapping[str, Any]) -> bool:
        """True if a row is within."""
        return all(each.has(local[each.codec.name]) for each in self.columns)

    def fillings(self) -> dict[str, Any]:
        """What new rows get, unless the item says otherwise."""
        return {each.codec.name: each.values[0] for each in self.columns if each.fills}

    def require(self, local: Mapping[str, Any]) -> None:
        """Refuses a row that is outside.

        Raises:
            ItemError: It is; the message names the column.
        """
        for each in self.columns:
            held = local[each.codec.name]
            if not each.has(held):
                wanted = " or ".join(shortened(value) for value in each.values)
                raise ItemError(
                    f"the local record is outside of the scope of this sync: its {each.codec.name} is "
                    f"{shortened(held)}, not {wanted}. It was not deleted."
                )

    def identity(self) -> list[Any]:
        """What makes it another one."""
        return [[each.codec.name, [repr(value) for value in each.values], each.fills] for each in self.columns]


EVERYTHING = Scope()
"""The scope of a sync that answers for all rows."""


def open_mark(soft_delete: SoftDelete, reflected: ReflectedTable) -> Mark:
    """Checks a declared mark against its column.

    Raises:
        ConfigurationError: The column is missing or can't be written, or a value does not fit.
    """
    name = soft_delete.column
    codec = _column(reflected, "soft_delete", name)
    refusal = f"it is generated by {reflected.label!r}" if name in reflected.generated else None
    refusal = refusal or reflected.unwritable.get(name)
    if refusal is None and soft_delete.is_moment and codec.facts.family not in _MOMENTS:
        refusal = f"it is of the type {codec.type_name}, which holds no moment; give deleted=..."
    if refusal is not None:
        raise ConfigurationError(f"SqlTable: soft_delete: {name!r} of {reflected.label!r} can't mark rows: {refusal}")
    with _naming("soft_delete", reflected):
        if soft_delete.is_moment:
            codec.from_item(datetime.now(UTC))
        deleted = None if soft_delete.is_moment else codec.from_item(soft_delete.deleted)
        live = codec.from_item(soft_delete.live_for(deleted))
    _check_values(soft_delete, reflected, deleted, live)
    return Mark(codec, soft_delete.is_moment, deleted, live)


def _check_values(soft_delete: SoftDelete, reflected: ReflectedTable, deleted: Any, live: Any) -> None:
    name = soft_delete.column
    where = f"SqlTable: soft_delete: column {name!r} of {reflected.label!r}"
    if not soft_delete.is_moment and deleted is None:
        raise ConfigurationError(f"{where}: deleted={soft_delete.deleted!r} would be NULL; give another value")
    if live is None and name in reflected.not_null:
        raise ConfigurationError(f"{where} can't be NULL, which live rows would have; give live=..., or let it be NULL")
    if not soft_delete.is_moment and reflected.codecs[name].same(live, deleted):
        raise ConfigurationError(f"{where}: deleted and live are both {shortened(deleted)}; give two values")


def open_scope(scope: Mapping[str, Any], reflected: ReflectedTable) -> Scope:
    """Checks a declared scope against its columns.

    Raises:
        ConfigurationError: A column is missing or can't be compared, or a value does not convert.
    """
    columns: list[ScopeColumn] = []
    for name, given in scope.items():
        codec = _column(reflected, "scope", name)
        is_one = not isinstance(given, list | tuple)
        with _naming("scope", reflected):
            values = tuple(codec.from_item(each) for each in ([given] if is_one else given))
        is_written = name not in reflected.generated and name not in reflected.unwritable
        columns.append(ScopeColumn(codec, values, fills=is_one and is_written))
    return Scope(tuple(columns))


def _column(reflected: ReflectedTable, where: str, name: str) -> ColumnCodec:
    codec = reflected.codecs.get(name)
    if codec is None:
        raise ConfigurationError(
            f"SqlTable: {where} names the column {name!r}, which the table {reflected.label!r} lacks; "
            f"{reflected.close_names(name)}"
        )
    if codec.facts.family not in _COMPARED:
        raise ConfigurationError(
            f"SqlTable: {where} names the column {name!r} of {reflected.label!r}, whose type {codec.type_name} is "
            "compared in a way of its own; take a column of text, whole numbers, booleans, dates or moments"
        )
    return codec


@contextmanager
def _naming(where: str, reflected: ReflectedTable) -> Iterator[None]:
    """Lets a value that does not convert be an error of the declaration."""
    try:
        yield
    except ItemError as error:
        raise ConfigurationError(f"SqlTable: {where} of {reflected.label!r}: {error}") from error


def check_scope(scope: Any) -> dict[str, Any]:
    """Checks what can be checked of a declared scope without its table. Gives a copy.

    Raises:
        ConfigurationError: It is no mapping of columns to values.
    """
    if scope is None:
        return {}
    if not isinstance(scope, Mapping) or not all(isinstance(name, str) and name for name in scope):
        raise ConfigurationError(
            f"SqlTable: scope={scope!r} is not understood; give a mapping of column to value, or to a list of values"
        )
    for name, given in scope.items():
        if (
            isinstance(given, Mapping | set | frozenset)
            or callable(given)
            or (isinstance(given, list | tuple) and not given)
        ):
            raise ConfigurationError(
                f"SqlTable: scope: {name!r}: {given!r} is not understood; give a value, or a list of values"
            )
    return dict(scope)
