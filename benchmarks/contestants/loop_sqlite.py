"""The loop that everybody writes first, on SQLite: find, create or update, a transaction per item."""

from __future__ import annotations

import sqlite3
from decimal import Decimal
from typing import Any

from benchmarks.contestants.loop import sync_one_by_one
from benchmarks.databases.sqlite import file_of
from benchmarks.tables import sqlite_row
from benchmarks.task import Report, Run, Task
from benchmarks.work import COLUMNS, FIELDS, Item

_NAMES = ", ".join(COLUMNS)
_FIND = f"SELECT id, {_NAMES} FROM variants WHERE sku = ?"
_CREATE = f"INSERT INTO variants ({_NAMES}) VALUES ({', '.join('?' for _ in COLUMNS)})"
_UPDATE = f"UPDATE variants SET {', '.join(f'{name} = ?' for name in FIELDS)} WHERE id = ?"
_PRICE = COLUMNS.index("price")


class Shop:
    """The local records, one at a time."""

    def __init__(self, url: str) -> None:
        self._connection = sqlite3.connect(file_of(url), isolation_level=None)

    def find_local(self, sku: str) -> tuple[Any, ...] | None:
        """The row with this key: its surrogate key, then the columns."""
        row: tuple[Any, ...] | None = self._connection.execute(_FIND, (sku,)).fetchone()
        return row

    def has_changed(self, item: Item, local: tuple[Any, ...]) -> bool:
        """True if a column differs; prices are compared as exact numbers."""
        return _comparable(local[1:]) != _comparable(sqlite_row(item))

    def create(self, item: Item) -> None:
        """Inserts a row."""
        self._connection.execute(_CREATE, sqlite_row(item))

    def update(self, item: Item, local: tuple[Any, ...]) -> None:
        """Updates a row."""
        self._connection.execute(_UPDATE, (*sqlite_row(item)[1:], local[0]))

    def list_local(self) -> list[str]:
        """All keys."""
        return [row[0] for row in self._connection.execute("SELECT sku FROM variants")]

    def delete(self, sku: str) -> None:
        """Deletes a row."""
        self._connection.execute("DELETE FROM variants WHERE sku = ?", (sku,))


def prepare(task: Task) -> Run:
    """Connects."""
    shop = Shop(task.url)

    def run() -> Report:
        return sync_one_by_one(shop, task.work)

    return run


def _comparable(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*row[:_PRICE], Decimal(str(row[_PRICE])), *row[_PRICE + 1 :])
