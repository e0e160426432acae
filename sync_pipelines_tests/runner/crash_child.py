"""A sync, page by page, in a process of its own that ends by SIGKILL at a chosen instant, for `test_crashes.py`."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sync_pipelines.database.batches import Batches
from sync_pipelines.database.ledger import Ledger
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.registry.plans import apply_plan
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.runner.runs.comparing_run import ComparingRun
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.testing import MemorySource

ITEMS = [{"sku": f"A{number:03}", "stock": number % 7} for number in range(95)]
BEFORE = [("A000", 99), ("A001", 1), ("A050", 99), ("gone", 1), ("gone too", 1)]
PAGE_SIZE = 10


def killed() -> None:
    """Ends this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at(function: Callable[..., Any], number: int, *, after: bool = False) -> Callable[..., Any]:
    """The function, whose call of that number (from 1) kills before or after it has done its work.

    After means after so many calls that did not raise.
    """
    calls = 0

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal calls
        if calls == number - 1 and not after:
            killed()
        answer = function(*args, **options)
        calls += 1
        if calls == number:
            killed()
        return answer

    return counted


def make_table(folder: Path) -> None:
    """The table with the records that are there before."""
    with sqlite3.connect(folder / "local.sqlite") as connection:
        connection.execute("CREATE TABLE variants (sku TEXT PRIMARY KEY, stock INTEGER)")
        connection.execute("CREATE TABLE written (sku TEXT)")
        connection.execute(
            "CREATE TRIGGER note_insert AFTER INSERT ON variants BEGIN INSERT INTO written VALUES (new.sku); END"
        )
        connection.execute(
            "CREATE TRIGGER note_update AFTER UPDATE ON variants BEGIN INSERT INTO written VALUES (new.sku); END"
        )
        connection.executemany("INSERT INTO variants VALUES (?, ?)", BEFORE)
        connection.execute("DELETE FROM written")
    connection.close()


def table_job(folder: Path, **fields: Any) -> SyncJob[Any, Any]:
    """The sync with a table target."""
    target = SqlTable(table="variants", key="sku", columns=["stock"], database=f"sqlite:///{folder / 'local.sqlite'}")
    given = {"name": "crashing", "fetch_external": MemorySource(ITEMS), "target": target}
    return SyncJob(**{**given, "deletes": "hard", "guards": None, **fields})


def record_job(folder: Path, create_killed_at: int = 0, **fields: Any) -> SyncJob[Any, Any]:
    """The sync with per-record functions, each write its own transaction."""

    def execute(statement: str, *values: Any) -> list[Any]:
        connection = sqlite3.connect(folder / "local.sqlite")
        try:
            with connection:
                return connection.execute(statement, values).fetchall()
        finally:
            connection.close()

    def create(item: Any) -> None:
        execute("INSERT INTO variants VALUES (?, ?)", item["sku"], item["stock"])

    given = {
        "name": "crashing",
        "fetch_external": MemorySource(ITEMS),
        "get_external_id": "sku",
        "find_local": lambda sku: next(iter(execute("SELECT * FROM variants WHERE sku = ?", sku)), None),
        "create": killed_at(create, create_killed_at, after=True),
        "update": lambda item, local: execute("UPDATE variants SET stock = ? WHERE sku = ?", item["stock"], local[0]),
        "delete": lambda local: execute("DELETE FROM variants WHERE sku = ?", local[0]),
        "list_local": lambda: [row[0] for row in execute("SELECT sku FROM variants")],
        "has_changed": lambda item, local: local[1] != item["stock"],
        "deletes": "hard",
        "guards": None,
    }
    return SyncJob(**{**given, **fields})


def breaking_source() -> Iterator[Any]:
    """Gives some items, then ends the process."""
    yield from ITEMS[:42]
    killed()


@contextmanager
def page_by_page() -> Iterator[None]:
    """Chunks of ten, and nothing in bulk."""
    with (
        patch("sync_pipelines.runner.plans.plan_file.PAGE_SIZE", PAGE_SIZE),
        patch.object(ComparingRun, "_is_worth_it", lambda _run, _files: False),
    ):
        yield


def main(folder: Path, instant: str, number: int, plan_id: str | None = None) -> None:
    """Runs the sync, or applies a plan, and is killed on the way."""
    settings = Settings(data_dir=folder)
    skip = killed_at(lambda _item: False, number)
    jobs: dict[str, Callable[[], SyncJob[Any, Any]]] = {
        "fetch": lambda: table_job(folder, fetch_external=breaking_source),
        "diff": lambda: table_job(folder, should_skip=skip),
        "on_complete": lambda: table_job(folder, on_complete=lambda _results: killed()),
        "record": lambda: record_job(folder, number),
        "blind record": lambda: record_job(folder, number, has_changed=None),
    }
    patches: dict[str, Any] = {
        "before progress": patch.object(Batches, "save", killed_at(Batches.save, number)),
        "after progress": patch.object(Batches, "save", killed_at(Batches.save, number, after=True)),
        "before finish": patch.object(Ledger, "finish_run", killed_at(Ledger.finish_run, 1)),
        "diff errors": patch.object(Ledger, "save_diff_errors", killed_at(Ledger.save_diff_errors, 1)),
    }
    job = jobs.get(instant, lambda: table_job(folder))()
    with page_by_page(), patches.get(instant, patch.dict({})):
        if plan_id is not None:
            apply_plan(plan_id, job=job, settings=settings)
        else:
            run_sync(job, settings=settings)
