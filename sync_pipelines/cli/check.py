"""`check`: settings, ledger, snapshot store, job files, Dagster, target tables; for each problem what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sync_pipelines.cli.check_webhooks import webhook_problems
from sync_pipelines.cli.columns import Column, document, show_rows
from sync_pipelines.cli.formats import automation_text, target_text
from sync_pipelines.cli.output import remark, show_json, show_line
from sync_pipelines.cli.program import CLEAN, WRONG
from sync_pipelines.database.batches import Batches
from sync_pipelines.database.connections import Limits, database_url, file_of
from sync_pipelines.database.ledger import open_ledger
from sync_pipelines.database.private_files import open_to_others
from sync_pipelines.database.rewritten import RewrittenColumns
from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.engine.declaration_checks import require_callable_as_declared
from sync_pipelines.engine.redaction import exception_type, message_of
from sync_pipelines.engine.set_back import set_back_notes
from sync_pipelines.errors import ConfigurationError, TargetError
from sync_pipelines.registry.registry import JobFiles, read_job_files
from sync_pipelines.runner.calls.target_driver import open_target
from sync_pipelines.settings.model import Settings, load_settings
from sync_pipelines.snapshots.durable_files import is_local
from sync_pipelines.snapshots.store import SnapshotStore

_CORRECT_VARIABLE = "correct the environment variable"
_REACH_LEDGER = "start the ledger's database, or correct where it is"
_REACH_SNAPSHOTS = "let this user write there, or correct where it is"
_CORRECT_FILE = "correct the job file"
_CORRECT_JOB = "correct the job file, or the table"
_REACH_TARGET = "start the database, or correct SYNC_PIPELINES_DATABASE_URL or the target's `database`"
_KEEP_COLUMN = "see which trigger or program writes it; keep it from that, or leave the column out of `columns`"
_CORRECT_WEBHOOK = "correct the environment variable, or the job file"
_ALL_WELL = "all is well; the sources were not asked: sync-pipelines run NAME --limit 1 does that"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, of `settings`, `ledger`, `snapshots`, `job files`, `Dagster` or a sync job."""

    subject: str
    ok: bool
    message: str
    to_do: str = ""


_COLUMNS: Sequence[Column[Finding]] = (
    Column("subject", "what"),
    Column("ok", "state", cell=lambda ok: "ok" if ok else "problem"),
    Column("message", "found"),
    Column("to_do"),
)


def check(names: Sequence[str], *, as_json: bool) -> int:
    """Shows what is in order and what is not, of these sync jobs or, without a name, of all; gives the exit code."""
    findings = list(_findings(names))
    problems = sum(not finding.ok for finding in findings)
    if as_json:
        show_json({"ok": not problems, "findings": [document(_COLUMNS, finding) for finding in findings]})
    else:
        _show(findings)
        remark(f"{problems} to mend" if problems else _ALL_WELL)
    return WRONG if problems else CLEAN


def _show(findings: Sequence[Finding]) -> None:
    show_rows(_COLUMNS, findings)
    for finding in findings:
        if not finding.ok:
            show_line(f"to do: {finding.subject}: {finding.to_do}")


def _findings(names: Sequence[str]) -> Iterator[Finding]:
    try:
        settings = load_settings()
    except ConfigurationError as error:
        yield _problem("settings", error, _CORRECT_VARIABLE)
        return
    summary = f"data in {settings.data_dir.resolve()}, jobs in {_listed(settings.jobs)}"
    with suppress(ConfigurationError):  # the ledger's own check says it
        summary += _open_to_others(settings)
    yield Finding("settings", ok=True, message=summary)
    yield _check_ledger(settings)
    yield _check_snapshots(settings)
    files = read_job_files(settings.jobs)
    jobs = files.jobs
    yield from (_problem("job files", problem, _CORRECT_FILE) for problem in files.problems)
    if not files.problems:
        yield Finding("job files", ok=True, message=f"{len(jobs)} sync jobs" if jobs else "no sync job yet")
    if jobs:
        yield from _check_dagster(files)
    yield from _check_jobs(jobs, names, complete=not files.problems)
    with suppress(Exception):  # that the ledger does not answer has been told
        yield from _check_columns(settings, [name for name in names or jobs if name in jobs])
    for name, told, is_problem in webhook_problems(jobs.values()):
        if not names or name in names:
            yield Finding(name, ok=not is_problem, message=told, to_do=_CORRECT_WEBHOOK if is_problem else "")


def _check_ledger(settings: Settings) -> Finding:
    try:
        with open_ledger(settings.ledger_database_url(), limits=Limits(**settings.database_limits())) as ledger:
            shown = ledger.database.url.set(query={}).render_as_string(hide_password=True)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checks go on
        return _problem("ledger", error, _REACH_LEDGER)
    return Finding("ledger", ok=True, message=shown)


def _check_snapshots(settings: Settings) -> Finding:
    try:
        SnapshotStore(settings.snapshot_dir(), settings.work_dir()).try_out()
    except Exception as error:  # noqa: BLE001 - object stores differ in what they raise; the other checks go on
        return _problem("snapshots", error, _REACH_SNAPSHOTS)
    return Finding("snapshots", ok=True, message=str(settings.snapshot_dir()))


def _open_to_others(settings: Settings) -> str:
    """Says whether others on this machine can read what is kept here, which may be meant; empty if they can't."""
    ledger = file_of(database_url(settings.ledger_database_url()))
    files = [] if ledger is None else [Path(f"{ledger}{end}") for end in ("", "-wal", "-shm")]
    folders: list[Path] = [settings.data_dir.resolve(), settings.work_dir()]
    if is_local(snapshots := settings.snapshot_dir()):
        folders.append(Path(str(snapshots)))
    commands = "; ".join(dict.fromkeys(open_to_others([*folders, *files])))
    return f"; other users of this machine can read there, unless you run: {commands}" if commands else ""


def _check_dagster(files: JobFiles) -> Iterator[Finding]:
    """Loads the jobs as Dagster would, where it is installed; yields what it can't load, and why."""
    try:
        from sync_pipelines.orchestration.build import require_loadable  # noqa: PLC0415 - Dagster is slow to import
        from sync_pipelines.orchestration.job_files import loadable_together  # noqa: PLC0415
    except ImportError:
        return
    try:
        jobs, conflicts = loadable_together(files)
        yield from (_problem("Dagster", conflict, _CORRECT_FILE) for conflict in conflicts)
        require_loadable(jobs)
    except ConfigurationError as error:
        yield _problem("Dagster", error, _CORRECT_FILE)


def _check_jobs(jobs: Mapping[str, AnyJob], names: Sequence[str], *, complete: bool) -> Iterator[Finding]:
    for name in names or jobs:
        if name in jobs:
            yield _check_target(jobs[name])
        elif complete:
            message = f"there is no such sync job; there are: {_listed(jobs)}"
            yield Finding(name, ok=False, message=message, to_do="correct the name, or write it: sync-pipelines new")


def _check_columns(settings: Settings, names: Sequence[str]) -> list[Finding]:
    """Finds the columns that something has set back after each of the last runs."""
    with open_ledger(settings.ledger_database_url()) as ledger:
        kept = RewrittenColumns(ledger, Batches(ledger))
        last = [(name, each) for name in names for each in kept.of_last_runs(name, 1)]
    return [
        Finding(name, ok=False, message=note, to_do=_KEEP_COLUMN)
        for name, each in last
        for note in set_back_notes(each)
    ]


def _check_target(job: AnyJob) -> Finding:
    try:
        require_callable_as_declared(job)
        with open_target(job):
            pass
    except ConfigurationError as error:
        return _problem(job.name, error, _CORRECT_JOB)
    except TargetError as error:
        return _problem(job.name, error, _REACH_TARGET)
    except Exception as error:  # noqa: BLE001 - a target may raise what it likes; the other checks go on
        return _problem(job.name, error, f"see where it comes from: sync-pipelines run {job.name} --limit 1 --debug")
    started = f"; started by {automation}" if (automation := automation_text(job)) else ""
    if not hasattr(job.target, "open"):
        return Finding(job.name, ok=True, message=f"{target_text(job)}: there is nothing to open{started}")
    key = getattr(job.target, "key_columns", ())
    return Finding(job.name, ok=True, message=target_text(job) + (f" with key {_listed(key)}" if key else "") + started)


def _problem(subject: str, error: Exception, to_do: str) -> Finding:
    kind = "" if isinstance(error, (ConfigurationError, TargetError)) else f"{exception_type(error)}: "
    message = f"{kind}{message_of(error)}".removeprefix(f"{subject}: ").removeprefix(f"sync job {subject!r}: ")
    return Finding(subject, ok=False, message=message, to_do=to_do)


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(names) or "none"
