"""Which rows of a table a sync answers for: declared as a mapping, opened on a table as its `Scope`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from sync_pipelines.errors import ConfigurationError, ItemError
from sync_pipelines.targets.table.reflection import ReflectedTable
from sync_pipelines.targets.types.codec import ColumnCodec
from sync_pipelines.targets.types.unwrap import shortened


@dataclass(frozen=True, slots=True)
class ScopeColumn:
    """A column of the scope, and the values that are within it.

    Args:
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
        """Returns the condition that a row is within; true of some others where the collation ignores case, say."""
        some = column.in_([value for value in self.values if value is not None])
        return sa.or_(some, column.is_(None)) if None in self.values else some


@dataclass(frozen=True, slots=True)
class Scope:
    """The rows that a sync answers for: whatever else is in the table is never deleted by it."""

    columns: tuple[ScopeColumn, ...] = ()

    def has(self, local: Mapping[str, Any]) -> bool:
        """True if a row is within."""
        return all(column.has(local[column.codec.name]) for column in self.columns)

    def fillings(self) -> dict[str, Any]:
        """Returns what new rows get, unless the item says otherwise."""
        return {column.codec.name: column.values[0] for column in self.columns if column.fills}

    def require(self, local: Mapping[str, Any]) -> None:
        """Refuses a row that is outside, with an `ItemError` that names the column."""
        for column in self.columns:
            held = local[column.codec.name]
            if not column.has(held):
                wanted = " or ".join(shortened(value) for value in column.values)
                raise ItemError(
                    f"the local record is outside of the scope of this sync: its {column.codec.name} is "
                    f"{shortened(held)}, not {wanted}. It was not deleted."
                )

    def identity(self) -> list[Any]:
        """Returns what makes it another scope if it changes."""
        return [[column.codec.name, [repr(value) for value in column.values], column.fills] for column in self.columns]


EVERYTHING = Scope()
"""The scope of a sync that answers for all rows."""


def open_scope(scope: Mapping[str, Any], reflected: ReflectedTable) -> Scope:
    """Checks a declared scope against its columns."""
    columns: list[ScopeColumn] = []
    for name, declared in scope.items():
        codec = reflected.comparable_codec_of(name, "scope")
        is_one = not isinstance(declared, list | tuple)
        wanted = [declared] if is_one else declared
        values = tuple(reflected.declared_value(codec, value, "scope") for value in wanted)
        is_written = name not in reflected.generated and name not in reflected.unwritable
        columns.append(ScopeColumn(codec, values, fills=is_one and is_written))
    return Scope(tuple(columns))


def check_scope(scope: Any) -> dict[str, Any]:
    """Checks what can be checked of a declared scope without its table, and returns a copy.

    Raises:
        ConfigurationError: It is no mapping of columns to values.
    """
    if scope is None:
        return {}
    if not isinstance(scope, Mapping) or not all(isinstance(name, str) and name for name in scope):
        raise ConfigurationError(
            f"SqlTable: scope={scope!r} is not understood; give a mapping of column to value, or to a list of values"
        )
    for name, declared in scope.items():
        if (
            isinstance(declared, Mapping | set | frozenset)
            or callable(declared)
            or (isinstance(declared, list | tuple) and not declared)
        ):
            raise ConfigurationError(
                f"SqlTable: scope: {name!r}: {declared!r} is not understood; give a value, or a list of values"
            )
    return dict(scope)
