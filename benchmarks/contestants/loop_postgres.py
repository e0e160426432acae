"""The loop that everybody writes first, on PostgreSQL: find, create or update, a transaction per item."""

from __future__ import annotations

from typing import Any

import psycopg

from benchmarks.contestants.loop import sync_one_by_one
from benchmarks.task import Report, Run, Task
from benchmarks.work import COLUMNS, FIELDS, Item

_NAMES = ", ".join(COLUMNS)
_FIND = f"SELECT id, {_NAMES} FROM variants WHERE sku = %s"
_CREATE = f"INSERT INTO variants ({_NAMES}) VALUES ({', '.join(f'%({name})s' for name in COLUMNS)})"
_UPDATE = f"UPDATE variants SET {', '.join(f'{name} = %({name})s' for name in FIELDS)} WHERE id = %(id)s"


class Shop:
    """The local records, one at a time."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)

    def find_local(self, sku: str) -> tuple[Any, ...] | None:
        """The row with this key: its surrogate key, then the columns."""
        row: tuple[Any, ...] | None = self._connection.execute(_FIND, (sku,)).fetchone()
        return row

    def has_changed(self, item: Item, local: tuple[Any, ...]) -> bool:
        """True if a column differs."""
        return local[1:] != tuple(item.values())

    def create(self, item: Item) -> None:
        """Inserts a row."""
        self._connection.execute(_CREATE, item)

    def update(self, item: Item, local: tuple[Any, ...]) -> None:
        """Updates a row."""
        self._connection.execute(_UPDATE, {**item, "id": local[0]})

    def list_local(self) -> list[str]:
        """All keys."""
        return [row[0] for row in self._connection.execute("SELECT sku FROM variants")]

    def delete(self, sku: str) -> None:
        """Deletes a row."""
        self._connection.execute("DELETE FROM variants WHERE sku = %s", (sku,))


def prepare(task: Task) -> Run:
    """Connects."""
    shop = Shop(task.url)

    def run() -> Report:
        return sync_one_by_one(shop, task.work)

    return run
