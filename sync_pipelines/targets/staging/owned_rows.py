"""Which rows a sync may delete, and how it marks and fills them, as SQL for the staging tables' statements."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from sync_pipelines.targets.staging.staged_columns import bare_type
from sync_pipelines.targets.table.reflection import ReflectedTable
from sync_pipelines.targets.table.scope import Scope, ScopeColumn
from sync_pipelines.targets.table.soft_delete import Mark
from sync_pipelines.targets.types.codec import ColumnCodec
from sync_pipelines.targets.types.sqlalchemy_types import NamedType

_TEXTS = frozenset({"text", "enum", "asked"})


class Ownership:
    """Conditions and values of the columns that are no item's: the mark of deleted rows, and the scope.

    Args:
        dialect: `postgresql` or `sqlite`.
        mark: The column that marks deleted rows, None if a delete removes them.
        scope: The rows that the sync answers for.
    """

    def __init__(self, reflected: ReflectedTable, dialect: sa.Dialect, mark: Mark | None, scope: Scope) -> None:
        self._table = reflected.table
        self._codecs = reflected.codecs
        self._dialect = dialect
        self._on_sqlite = dialect.name == "sqlite"
        self._mark = mark
        self._scope = scope

    @property
    def names(self) -> list[str]:
        """The columns that a write may change besides the staged ones."""
        return [*([self._mark.name] if self._mark is not None else []), *self._scope.fillings()]

    def codec(self, name: str) -> ColumnCodec:
        """The codec of a column."""
        return self._codecs[name]

    def why_not(self) -> str | None:
        """Why the database can't tell these rows; None if it can."""
        codecs = [self._mark.codec] if self._mark is not None else []
        codecs += [each.codec for each in self._scope.columns]
        own = [codec.name for codec in codecs if codec.facts.family == "own"]
        return f"the column {own[0]!r} has a type that only the application knows" if own else None

    def identity(self) -> list[Any]:
        """What makes it another one; empty if there is neither mark nor scope."""
        return [*(self._mark.identity() if self._mark is not None else []), *self._scope.identity()]

    def is_marked(self) -> sa.ColumnElement[bool] | None:
        """The condition that a row is marked; None if none ever is."""
        if self._mark is None:
            return None
        column = self._table.c[self._mark.name]
        if self._mark.is_moment:
            return column.is_not(None)
        return self._equals(self._mark.codec, self._mark.deleted)

    def may_be_deleted(self) -> list[sa.ColumnElement[bool]]:
        """The conditions under which a row without an item is deleted: it is in the scope, and not marked."""
        conditions = [self._is_within(each) for each in self._scope.columns]
        if self._mark is not None:
            held = self._table.c[self._mark.name].is_(None)
            marked = self.is_marked()
            conditions.append(held if self._mark.is_moment or marked is None else sa.or_(held, ~marked))
        return conditions

    def _is_within(self, column: ScopeColumn) -> sa.ColumnElement[bool]:
        return sa.or_(
            *(
                self._table.c[column.codec.name].is_(None) if value is None else self._equals(column.codec, value)
                for value in column.values
            )
        )

    def created(self, staged: Collection[str]) -> dict[str, sa.ColumnElement[Any]]:
        """What a new row gets besides what is staged."""
        written = {
            each.codec.name: self._written(each.codec, each.values[0])
            for each in self._scope.columns
            if each.fills and each.codec.name not in staged
        }
        if self._mark is not None:
            written[self._mark.name] = self._written(self._mark.codec, self._mark.live)
        return written

    def filled(self) -> list[str]:
        """The columns of the scope that new rows get, unless the item says otherwise."""
        return list(self._scope.fillings())

    def restored(self) -> dict[str, sa.ColumnElement[Any]]:
        """What an update writes besides what is staged: it takes the mark off rows that have one."""
        marked = self.is_marked()
        if self._mark is None or marked is None:
            return {}
        live = self._written(self._mark.codec, self._mark.live)
        return {self._mark.name: sa.case((marked, live), else_=self._table.c[self._mark.name])}

    @cached_property
    def deleted(self) -> dict[str, sa.ColumnElement[Any]] | None:
        """What a delete writes, the same moment of all rows; None if it removes them."""
        if self._mark is None:
            return None
        return {self._mark.name: self._written(self._mark.codec, self._mark.written())}

    def _equals(self, codec: ColumnCodec, value: Any) -> sa.ColumnElement[bool]:
        """The condition that a row holds exactly that value, whatever the column's collation finds equal."""
        column: sa.ColumnElement[Any] = self._table.c[codec.name]
        if codec.facts.family not in _TEXTS:
            return column == self._written(codec, value)
        text = sa.literal(str(self._bound(codec, value)), sa.Text())
        if self._on_sqlite:
            return sa.collate(sa.type_coerce(column, sa.Text()), "BINARY") == text
        return sa.collate(sa.cast(column, sa.Text()), "C") == text

    def _written(self, codec: ColumnCodec, value: Any) -> sa.ColumnElement[Any]:
        """A value as it is written, and compared with those that were."""
        bound = None if value is None else self._bound(codec, value)
        if self._on_sqlite:
            return sa.null() if bound is None else sa.literal(int(bound) if isinstance(bound, bool) else bound)
        kind = NamedType(bare_type(codec))
        return sa.cast(sa.null() if bound is None else sa.literal(_text_of(bound), sa.Text()), kind)

    def _bound(self, codec: ColumnCodec, value: Any) -> Any:
        """A value as the driver gets it."""
        process = codec.storage.dialect_impl(self._dialect).bind_processor(self._dialect)
        return value if process is None else process(value)


def _text_of(bound: Any) -> str:
    if isinstance(bound, bool):
        return "true" if bound else "false"
    return bound.isoformat() if hasattr(bound, "isoformat") else str(bound)
