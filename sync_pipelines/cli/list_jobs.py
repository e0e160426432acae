"""`list`: the sync jobs and their last runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sync_pipelines.cli.formats import UNFINISHED, local_time, run_document, source_text, target_text
from sync_pipelines.cli.output import remark, show_json, show_table
from sync_pipelines.database.ledger import RunRow, open_ledger
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.registry.registry import find_jobs
from sync_pipelines.settings.model import load_settings

AnyJob = SyncJob[Any, Any]


def list_jobs(*, as_json: bool) -> None:
    """Shows all sync jobs.

    Raises:
        ConfigurationError: A job file or a setting is wrong, or the ledger can't be opened.
    """
    settings = load_settings()
    jobs = find_jobs(settings.jobs)
    with open_ledger(settings.ledger_database_url()) as ledger:
        last = {name: next(iter(ledger.latest_runs(name, limit=1)), None) for name in jobs}
    if as_json:
        show_json({"jobs": [_document(job, last[name]) for name, job in jobs.items()]})
    elif jobs:
        _show(jobs, last)
    else:
        remark(f"there is no sync job in {', '.join(settings.jobs)}; `sync-pipelines new NAME` writes a first one")


def _show(jobs: Mapping[str, AnyJob], last: Mapping[str, RunRow | None]) -> None:
    rows = [
        [name, _schedule(job), source_text(job), target_text(job), *_last_run(last[name])] for name, job in jobs.items()
    ]
    show_table(["sync", "schedule", "source", "target", "last run", "at"], rows)


def _schedule(job: AnyJob) -> str:
    return job.interval.description if job.interval is not None else "none"


def _last_run(run: RunRow | None) -> tuple[str, str]:
    return ("never", "") if run is None else (run.outcome or UNFINISHED, local_time(run.started_at))


def _document(job: AnyJob, last: RunRow | None) -> dict[str, Any]:
    interval = job.interval
    return {
        "name": job.name,
        "description": job.description,
        "schedule": None
        if interval is None
        else {
            "description": interval.description,
            "cron_lines": list(interval.cron_lines),
            "timezone": interval.timezone,
        },
        "source": source_text(job),
        "target": target_text(job),
        "last_run": run_document(last) if last is not None else None,
    }
