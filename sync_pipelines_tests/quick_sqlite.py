"""SQLite that does not wait for its disk, and whose ledgers compile a statement once in a process.

Nobody pulls the plug of a test: what a process has written is there after its death, whether or not it was synced.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import sqlalchemy as sa

from sync_pipelines.database import connections, ledger

_create_database = ledger.create_database
_prepare_target = connections._prepare_sqlite
_prepare_ledger = ledger._leave_transactions_to_us


@contextmanager
def quick_sqlite() -> Iterator[None]:
    """Lets SQLite be quick in this process."""
    model = sa.create_engine("sqlite://")
    with model.connect():  # which tells its dialect what this SQLite can do
        pass

    def quick_ledger(url: sa.URL, **options: Any) -> sa.Engine:
        database = _create_database(url, **options)
        if database.dialect.name == "sqlite":
            database.dialect, database._compiled_cache = model.dialect, model._compiled_cache
        return database

    with (
        patch.object(ledger, "create_database", quick_ledger),
        patch.object(connections, "_prepare_sqlite", _without_disk(_prepare_target)),
        patch.object(ledger, "_leave_transactions_to_us", _without_disk(_prepare_ledger)),
    ):
        yield


@contextmanager
def durable_sqlite() -> Iterator[None]:
    """Lets it wait for its disk, as users have it."""
    with (
        patch.object(ledger, "create_database", _create_database),
        patch.object(connections, "_prepare_sqlite", _prepare_target),
        patch.object(ledger, "_leave_transactions_to_us", _prepare_ledger),
    ):
        yield


def _without_disk(prepare: Any) -> Any:
    def prepared(connection: Any, record: Any) -> None:
        prepare(connection, record)
        connection.execute("PRAGMA synchronous = OFF").close()

    return prepared
