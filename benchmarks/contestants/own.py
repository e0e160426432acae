"""This engine's job, as a user declares it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.contestants import WITHOUT_HISTORY
from benchmarks.tables import TABLE, WARM_UP
from benchmarks.task import Report, Task
from benchmarks.work import FIELDS, KEY, Work
from sync_pipelines import Settings, SqlTable, SyncJob, SyncResults

JOB_NAME = "bench-variants"
WARM_UP_NAME = "bench-warm-up"
_WARM_UP_ITEMS = 20

Job = SyncJob[Any, Any]


def settings_of(task: Task) -> Settings:
    """Ledger and snapshots in the contestant's own folder; the local records are where the job says."""
    return Settings(data_dir=Path(task.folder) / "data", database_url=None, ledger_url=None)


def build_job(task: Task, on_complete: Callable[[SyncResults], object] | None = None) -> Job:
    """The sync that is measured."""
    return _job(task, JOB_NAME, TABLE, task.work, on_complete)


def build_warm_up_job(task: Task) -> Job:
    """A few items into another table: it makes the ledger and loads what is imported late."""
    return _job(task, WARM_UP_NAME, WARM_UP, Work(task.scenario, _WARM_UP_ITEMS), None)


def report_of(results: SyncResults) -> Report:
    """What the engine reports."""
    return Report(results.counts(), tuple(error.message for error in results.errors))


def _job(task: Task, name: str, table: str, work: Work, on_complete: Callable[[SyncResults], object] | None) -> Job:
    target = SqlTable(table=table, key=KEY, columns={field: field for field in FIELDS}, database=task.url)
    given: dict[str, Any] = {"deletes": "hard" if work.deletes else "off", "guards": None}
    if task.contestant == WITHOUT_HISTORY:
        given["keep_history_days"] = 0
    return SyncJob(name=name, fetch_external=work.pages, target=target, on_complete=on_complete, **given)
