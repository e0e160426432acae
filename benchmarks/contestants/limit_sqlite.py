"""The limit on SQLite: what a script written by hand for this one table reaches with `sqlite3` and executemany.

One transaction, no error of a single item; every variant gives the right end state whatever the table held before.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.databases.sqlite import file_of
from benchmarks.tables import sqlite_row
from benchmarks.task import Report, Run, Task
from benchmarks.work import COLUMNS, FIELDS, KEY, Work

_NAMES = ", ".join(COLUMNS)
_MARKS = ", ".join("?" for _ in COLUMNS)
_UPSERT = (
    f"ON CONFLICT (sku) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in FIELDS)} "
    f"WHERE ({', '.join(f'variants.{name}' for name in FIELDS)}) "
    f"IS NOT ({', '.join(f'excluded.{name}' for name in FIELDS)})"
)


def prepare(task: Task) -> Run:
    """Connects."""
    connection = sqlite3.connect(file_of(task.url), isolation_level=None)

    def run() -> Report:
        connection.execute("BEGIN IMMEDIATE")
        VARIANTS[task.variant](connection, task.work)
        connection.execute("COMMIT")
        return Report()

    return run


def direct(connection: sqlite3.Connection, work: Work) -> None:
    """Upsert into the table itself; keys go to a stage as well if what is gone must be deleted."""
    seen: list[tuple[str]] = []
    if work.deletes:
        connection.execute("CREATE TEMP TABLE stage (sku PRIMARY KEY) WITHOUT ROWID")
    for page in work.pages():
        connection.executemany(f"INSERT INTO variants ({_NAMES}) VALUES ({_MARKS}) {_UPSERT}", map(sqlite_row, page))
        if work.deletes:
            seen = [(item[KEY],) for item in page]
            connection.executemany("INSERT INTO stage VALUES (?)", seen)
    _delete_gone(connection, work)


def staged(connection: sqlite3.Connection, work: Work) -> None:
    """Everything into a stage, then one upsert."""
    typed = {"stock": "integer", "price": "numeric"}
    columns = ", ".join(f"{name} {typed.get(name, 'text')}" for name in COLUMNS)
    connection.execute(f"CREATE TEMP TABLE stage ({columns}, PRIMARY KEY (sku)) WITHOUT ROWID")
    connection.executemany(f"INSERT INTO stage ({_NAMES}) VALUES ({_MARKS})", _rows(work))
    connection.execute(f"INSERT INTO variants ({_NAMES}) SELECT {_NAMES} FROM stage WHERE true {_UPSERT}")
    _delete_gone(connection, work)


VARIANTS: dict[str, Callable[[sqlite3.Connection, Work], None]] = {"direct": direct, "staged": staged}


def _rows(work: Work) -> Iterator[tuple[Any, ...]]:
    for page in work.pages():
        yield from map(sqlite_row, page)


def _delete_gone(connection: sqlite3.Connection, work: Work) -> None:
    if work.deletes:
        connection.execute("DELETE FROM variants WHERE sku NOT IN (SELECT sku FROM stage)")
