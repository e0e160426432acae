"""The profile of a dialect: how its tables are read, and how they are worked with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import ReflectedColumn

from sync_pipelines.targets.types.codec import ColumnCodec

MakeCodec = Callable[[ReflectedColumn, sa.Column[Any] | None], ColumnCodec]


def _nothing_against(_column: str) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Details:
    """What is read of one table, beside SQLAlchemy's reflection.

    SQLAlchemy's reflection leaves out the database's names of types and how text is compared. It also gives unique
    indexes that PostgreSQL marks invalid, and overlooks `VARCHAR(40) NOT NULL UNIQUE` on SQLite.

    Args:
        make_codec: Reflected column and the application's own (None if it declares none) -> codec.
        unique_keys: Sets of columns each of which identifies a row.
        case_insensitive: Columns whose collation takes different texts for equal (it ignores case, accents or blanks)
            in a way that only the database knows.
        has_addresses: True if its rows have addresses: it is a plain table of PostgreSQL.
        generated: Generated columns that SQLAlchemy's reflection does not report.
        states_conflict_rule: True if statements must say themselves that a conflict is an error.
        unwritable: Column -> why no sync can write it.
        why_no_key: Column -> why it can't be a key column; None if it can.
    """

    make_codec: MakeCodec
    unique_keys: tuple[frozenset[str], ...]
    case_insensitive: frozenset[str] = frozenset()
    has_addresses: bool = False
    generated: frozenset[str] = frozenset()
    states_conflict_rule: bool = False
    unwritable: Mapping[str, str] = field(default_factory=dict)
    why_no_key: Callable[[str], str | None] = _nothing_against


def _as_it_is(_connection: sa.Connection) -> AbstractContextManager[object]:
    return nullcontext()


@dataclass(frozen=True, slots=True)
class DialectProfile:
    """How a database is worked with.

    Args:
        read: Engine and bare table -> its details.
        names_default_schema: True if people should see the schema of a table that was named without one.
        has_staging: True if a table is compared and written by the database itself, with staging tables.
        lists_in_pages: True if keys are listed in pages, each a query of its own, and not in one stream.
        has_tuples: True if several columns can be compared at once, `(a, b) IN (...)`.
        values_per_lookup: How many bound values a look-up has at most.
        rows_at_once: How many rows one update or delete is for; 0 where the driver itself sends many at once.
        in_order: Connection -> context manager in which its session has the settings that conversions rely on.
        note: What an operator should know, None if nothing.
    """

    read: Callable[[sa.Engine, sa.Table], Details]
    names_default_schema: bool = False
    has_staging: bool = False
    lists_in_pages: bool = False
    has_tuples: bool = True
    # PostgreSQL takes 65,535 bound values in a statement, SQLite 32,766.
    values_per_lookup: int = 10_000
    rows_at_once: int = 0
    in_order: Callable[[sa.Connection], AbstractContextManager[object]] = _as_it_is
    note: str | None = None

    def among(self, columns: Sequence[sa.ColumnElement[Any]], keys: Sequence[Sequence[Any]]) -> sa.ColumnElement[bool]:
        """Returns the condition that the columns have the values of one of the keys."""
        if len(columns) == 1:
            return columns[0].in_([key[0] for key in keys])
        if self.has_tuples:
            return sa.tuple_(*columns).in_([tuple(key) for key in keys])
        return sa.or_(*(sa.and_(*map(_equals, columns, key)) for key in keys))

    def after(self, columns: Sequence[sa.ColumnElement[Any]], key: Sequence[Any]) -> sa.ColumnElement[bool]:
        """Returns the condition that the columns come after that key, in their own order."""
        if self.has_tuples:
            return sa.tuple_(*columns) > sa.tuple_(*map(_bound, key, columns))
        return sa.or_(
            *(
                sa.and_(*map(_equals, columns[:place], key), columns[place] > _bound(key[place], columns[place]))
                for place in range(len(columns))
            )
        )


def _bound(value: Any, column: sa.ColumnElement[Any]) -> sa.BindParameter[Any]:
    return sa.literal(value, column.type)


def _equals(column: sa.ColumnElement[Any], value: Any) -> sa.ColumnElement[bool]:
    return column == _bound(value, column)
