"""This engine through `run_sync`: snapshot, plan, ledger and an error for every item that fails included."""

from __future__ import annotations

from benchmarks.contestants.own import build_job, build_warm_up_job, report_of, settings_of
from benchmarks.task import Report, Run, Task
from sync_pipelines import run_sync


def prepare(task: Task) -> Run:
    """Lets a first run make the ledger and import what is imported late."""
    settings, job = settings_of(task), build_job(task)
    run_sync(build_warm_up_job(task), settings=settings)

    def run() -> Report:
        return report_of(run_sync(job, settings=settings))

    return run
