"""The sync of `bulk_child` with soft deletes, a scope and a grace, in a process that ends by SIGKILL."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sync_pipelines.database.connections import create_database
from sync_pipelines.database.missed_fetches import MissedFetches
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.open_table import OpenedSqlTable
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.targets.table.soft_delete import SoftDelete
from sync_pipelines_tests.runner import bulk_child
from sync_pipelines_tests.runner.crash_child import killed_at

_JOB = bulk_child.job
RESTORED = 40
"""Records that are marked although their item is there, and that differ in nothing else."""


def make_table(url: str) -> None:
    """The table of `bulk_child` with a column that marks rows."""
    bulk_child.make_table(url)
    database = create_database(url)
    marked = [f"same-{number}" for number in range(RESTORED)]
    with database.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE variants ADD COLUMN active boolean NOT NULL DEFAULT true")
        connection.exec_driver_sql(f"UPDATE variants SET active = false WHERE sku IN ({', '.join(map(repr, marked))})")
        connection.exec_driver_sql("DELETE FROM written")
    database.dispose()


def job(url: str, **fields: Any) -> SyncJob[Any, Any]:
    """The sync."""
    target = SqlTable(
        table="variants", key="sku", columns=["stock", "shop", "name"], database=url, scope={"shop": [1]},
        soft_delete=SoftDelete("active", deleted=False),
    )  # fmt: skip
    return _JOB(url, **{"target": target, "deletes": "soft", **fields})


def run_and_be_killed(folder: Path, url: str, instant: str, number: int) -> None:
    """A whole run, up to that instant."""
    with patch.object(bulk_child, "job", job):
        bulk_child.run_and_be_killed(folder, url, instant, number)


def graced_job(url: str, items: list[dict[str, Any]]) -> SyncJob[Any, Any]:
    """A sync that deletes what the second fetch in a row is without."""
    return job(url, name="graced", fetch_external=lambda: items, delete_after=2)


def count_and_be_killed(
    folder: Path, url: str, items: list[dict[str, Any]], instant: tuple[str, int], *, in_bulk: bool
) -> None:
    """A run that is killed while it counts misses."""
    when, _, method = instant[0].partition(" ")
    dying = killed_at(getattr(MissedFetches, method), instant[1], after=when == "after")
    settings = Settings(data_dir=folder, database_url=None, ledger_url=None)
    with small_pages(in_bulk=in_bulk), patch.object(MissedFetches, method, dying):
        run_sync(graced_job(url, items), settings=settings)


def small_pages(*, in_bulk: bool) -> ExitStack:
    """Few misses at a time, on one of the paths."""
    stack = ExitStack()
    if in_bulk:
        stack.enter_context(patch("sync_pipelines.targets.staging.spare_deletes._ROWS_IN_BATCH", 30))
    else:
        stack.enter_context(patch("sync_pipelines.runner.decide.page_diff.PAGE_SIZE", 30))
        stack.enter_context(patch.object(OpenedSqlTable, "open_staged", lambda _self, _request: None))
    return stack
