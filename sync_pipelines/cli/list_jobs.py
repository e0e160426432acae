"""`list`: the sync jobs and their last runs, and what is wrong with job files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sync_pipelines.cli.columns import Column, document, show_list
from sync_pipelines.cli.formats import UNFINISHED, automation_text, source_text, target_text
from sync_pipelines.cli.output import remark, show_json
from sync_pipelines.cli.program import CLEAN, WRONG
from sync_pipelines.cli.runs import RUN_COLUMNS
from sync_pipelines.database.ledger import RunRow, open_ledger
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.registry.job_file_errors import JobFileError
from sync_pipelines.registry.registry import read_job_files
from sync_pipelines.settings.model import load_settings


@dataclass(frozen=True, slots=True)
class _Listed:
    """A sync job and its last run."""

    job: SyncJob[Any, Any]
    last: RunRow | None


def _schedule(listed: _Listed) -> dict[str, Any] | None:
    interval = listed.job.interval
    if interval is None:
        return None
    return {
        "description": interval.description,
        "cron_lines": list(interval.cron_lines),
        "timezone": interval.timezone,
    }


def _started_by(listed: _Listed) -> str:
    interval = listed.job.interval
    return interval.description if interval is not None else automation_text(listed.job) or "none"


def _outcome(listed: _Listed) -> str:
    return "never" if listed.last is None else listed.last.outcome or UNFINISHED


_COLUMNS: Sequence[Column[_Listed]] = (
    Column("name", "sync", lambda listed: listed.job.name),
    Column("description", value=lambda listed: listed.job.description),
    Column("schedule", value=_schedule),
    Column("automation", value=lambda listed: automation_text(listed.job)),
    Column(None, "schedule", _started_by),
    Column("source", "source", lambda listed: source_text(listed.job)),
    Column("target", "target", lambda listed: target_text(listed.job)),
    Column(None, "last run", _outcome),
    Column(None, "at", lambda listed: listed.last and listed.last.started_at),
    Column("last_run", value=lambda listed: listed.last and document(RUN_COLUMNS, listed.last)),
)


_PROBLEM_COLUMNS: Sequence[Column[JobFileError]] = (
    Column("message", value=str),
    Column("module"),
    Column("file"),
    Column("line"),
    Column("jobs", value=lambda problem: [job.name for job in problem.jobs]),
)


def list_jobs(*, as_json: bool) -> int:
    """Shows all sync jobs, and what is wrong with job files; gives the exit code."""
    settings = load_settings()
    files = read_job_files(settings.jobs)
    with open_ledger(settings.ledger_database_url()) as ledger:
        listed = [_Listed(job, next(iter(ledger.latest_runs(name, limit=1)), None)) for name, job in files.jobs.items()]
    none = f"there is no sync job in {', '.join(settings.jobs)}; `sync-pipelines new NAME` writes a first one"
    if as_json:
        problems = [document(_PROBLEM_COLUMNS, problem) for problem in files.problems]
        show_json({"jobs": [document(_COLUMNS, each) for each in listed], "problems": problems})
    elif listed or not files.problems:
        show_list("jobs", _COLUMNS, listed, if_none=none, as_json=False)
    for problem in files.problems:
        remark(f"error: {problem}")
    return WRONG if files.problems else CLEAN
