"""Updates and deletes rows that are there: as many in a statement as is worth it with the database's driver."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from sync_pipelines.targets.dialects.profile import DialectProfile

ChangedRow = dict[str, Any]
"""A row's key values as `key_0`, `key_1`, ... and its new values as `new_0`, `new_1`, ..."""

# A statement must not grow longer than a server takes.
_CHARACTERS_AT_ONCE = 250_000
_STATEMENTS_KEPT = 100
_STATES_CONFLICT_RULE = "states_conflict_rule"


def state_conflict_rule(table: sa.Table) -> None:
    """Has statements say themselves that a conflict is an error, whatever the table on SQLite has declared."""
    table.info[_STATES_CONFLICT_RULE] = True


def states_conflict_rule(table: sa.Table) -> bool:
    """True if statements about the table say themselves that a conflict is an error."""
    return _STATES_CONFLICT_RULE in table.info


def insert_into(table: sa.Table) -> sa.Insert:
    """Begins an INSERT."""
    statement = sa.insert(table)
    return statement.prefix_with("OR ABORT", dialect="sqlite") if states_conflict_rule(table) else statement


def update_of(table: sa.Table) -> sa.Update:
    """Begins an UPDATE."""
    statement = sa.update(table)
    return statement.prefix_with("OR ABORT", dialect="sqlite") if states_conflict_rule(table) else statement


def changed_row(key: Sequence[Any], new: Iterable[Any] = ()) -> ChangedRow:
    """Returns a row for `RowChanges`, of its key values and its new values (none for a delete)."""
    return {f"key_{number}": value for number, value in enumerate(key)} | {
        f"new_{number}": value for number, value in enumerate(new)
    }


class RowChanges:
    """Changes rows of one table, and counts how many were there.

    Args:
        counts_many: True if the driver counts the rows of many statements.
    """

    def __init__(
        self, table: sa.Table, key_columns: Sequence[sa.Column[Any]], profile: DialectProfile, *, counts_many: bool
    ) -> None:
        self._table = table
        self._key_columns = key_columns
        self._profile = profile
        self._counts_many = counts_many
        self._updates_of_many = lru_cache(maxsize=_STATEMENTS_KEPT)(self._update_many)
        self._deletes_of_many = lru_cache(maxsize=1)(self._delete_many)

    def update(self, connection: sa.Connection, columns: tuple[str, ...], rows: Sequence[ChangedRow]) -> int:
        """Writes the columns of the rows, and returns how many of the rows were there."""
        new = {column: self._bound(f"new_{number}", column) for number, column in enumerate(columns)}
        one = update_of(self._table).where(self._is_row()).values(new)
        return self._execute(connection, rows, one, lambda: self._updates_of_many(columns))

    def delete(self, connection: sa.Connection, keys: Sequence[Sequence[Any]], *, at_once: bool = False) -> int:
        """Deletes the rows with those keys, and returns how many of them were there.

        Args:
            at_once: True for one statement, by which rows that refer to each other can go.
        """
        if at_once and 1 < len(keys) <= self._profile.values_per_lookup // len(self._key_columns):
            statement = sa.delete(self._table).where(self._profile.among(self._key_columns, keys))
            return connection.execute(statement).rowcount
        rows = [changed_row(key) for key in keys]
        return self._execute(connection, rows, sa.delete(self._table).where(self._is_row()), self._deletes_of_many)

    def _execute(
        self, connection: sa.Connection, rows: Sequence[ChangedRow], one: Any, of_many: Callable[[], Any]
    ) -> int:
        size, hit, done = self._profile.rows_at_once, 0, 0
        while size and len(rows) - done >= size:
            batch = rows[done : done + size]
            if sum(map(_length, batch)) > _CHARACTERS_AT_ONCE:
                hit += self._one_by_one(connection, batch, one)
            else:
                hit += connection.execute(of_many(), _numbered(batch)).rowcount
            done += size
        return hit + self._one_by_one(connection, rows[done:], one)

    def _one_by_one(self, connection: sa.Connection, rows: Sequence[ChangedRow], one: Any) -> int:
        if not rows:
            return 0
        if self._counts_many:
            return connection.execute(one, rows).rowcount
        return sum(connection.execute(one, row).rowcount for row in rows)

    def _bound(self, name: str, column: str) -> sa.BindParameter[Any]:
        return sa.bindparam(name, type_=self._table.c[column].type)

    def _is_row(self, suffix: str = "") -> sa.ColumnElement[bool]:
        return sa.and_(
            *(column == sa.bindparam(f"key_{number}{suffix}") for number, column in enumerate(self._key_columns))
        )

    def _is_any(self) -> sa.ColumnElement[bool]:
        keys = [
            [self._bound(f"key_{number}_{row}", column.name) for number, column in enumerate(self._key_columns)]
            for row in range(self._profile.rows_at_once)
        ]
        return self._profile.among(self._key_columns, keys)

    def _update_many(self, columns: tuple[str, ...]) -> Any:
        """Builds one UPDATE that looks up the new values of each of its rows in a CASE."""
        rows = range(self._profile.rows_at_once)
        new = {
            column: sa.case(*((self._is_row(f"_{row}"), self._bound(f"new_{number}_{row}", column)) for row in rows))
            for number, column in enumerate(columns)
        }
        return update_of(self._table).where(self._is_any()).values(new)

    def _delete_many(self) -> Any:
        return sa.delete(self._table).where(self._is_any())


def _length(row: ChangedRow) -> int:
    return sum(len(value) for value in row.values() if isinstance(value, str | bytes))


def _numbered(rows: Sequence[ChangedRow]) -> ChangedRow:
    return {f"{name}_{number}": value for number, row in enumerate(rows) for name, value in row.items()}
