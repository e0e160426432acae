"""Runs and retries in a process that ends by SIGKILL at a chosen instant, for `test_failure_crashes.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import sqlalchemy as sa

from sync_pipelines.database.batches import Batches
from sync_pipelines.database.connections import create_database
from sync_pipelines.database.failures import Failures
from sync_pipelines.database.ledger import Ledger
from sync_pipelines.database.run_causes import RunCauses
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.runner.changes import retry_failures as retrying_failures
from sync_pipelines.runner.failures import reconcile as failures_of_runs
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.runner.write.batch_writer import BatchWriter
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.testing import MemorySource
from sync_pipelines_tests.runner.crash_child import killed_at

SKUS = 30
INSTANTS: Mapping[str, tuple[Any, str]] = {
    "note": (Failures, "save"),
    "resolve": (Failures, "resolve"),
    "put off": (Failures, "reschedule"),
    "causes": (RunCauses, "keep"),
    "finish": (Ledger, "finish_run"),
    "write": (BatchWriter, "write"),
    "chunk": (Batches, "save"),
}


def settings_of(folder: Path, url: str) -> Settings:
    return Settings(data_dir=folder, database_url=url, ledger_url=url)


def make_table(url: str) -> None:
    database = create_database(url)
    with database.begin() as connection:
        connection.execute(sa.text("CREATE TABLE variants (sku TEXT PRIMARY KEY, stock INTEGER CHECK (stock >= 0))"))
    database.dispose()


def job(url: str, bad: set[int]) -> SyncJob[Any, Any]:
    """The sync of so many items, of which some are refused."""
    items = [{"sku": f"A{number:02}", "stock": -1 if number in bad else number} for number in range(SKUS)]
    by_sku = {each["sku"]: each for each in items}
    return SyncJob(
        name="stock",
        fetch_external=MemorySource(items),
        target=SqlTable(table="variants", key="sku", columns=["stock"], database=url),
        fetch_one=by_sku.get,
    )


def sync(folder: Path, url: str, bad: set[int]) -> Any:
    return run_sync(job(url, bad), settings=settings_of(folder, url))


def retry(folder: Path, url: str, bad: set[int]) -> Any:
    with patch.object(retrying_failures, "BATCH_SIZE", 4):
        return retrying_failures.retry_failures(job(url, bad), everything=True, settings=settings_of(folder, url))


def be_killed(folder: Path, url: str, what: str, instant: str, number: int, bad: set[int]) -> None:  # noqa: PLR0913, PLR0917
    """Syncs or tries again until that instant comes for the n-th time."""
    word, _, step = instant.partition(" ")
    owner, name = INSTANTS[step]
    killing = patch.object(owner, name, killed_at(getattr(owner, name), number, after=word == "after"))
    with killing, patch.object(failures_of_runs, "_NOTED_CHARS", 100):  # so that there are several parts
        {"sync": sync, "retry": retry}[what](folder, url, bad)
