"""`runs` and `show`: what the ledger remembers."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sync_pipelines.cli.columns import Column, document, show_list, show_rows, shown_id
from sync_pipelines.cli.formats import UNFINISHED, counts_text, duration, local_time
from sync_pipelines.cli.output import remark, show_facts, show_json, show_line
from sync_pipelines.database.ledger import ErrorRow, Ledger, RunRow, open_ledger
from sync_pipelines.database.run_queries import RunQueries, took_all_items
from sync_pipelines.engine.item_shapes import PREFIX
from sync_pipelines.engine.results import SyncError
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.registry.registry import find_job
from sync_pipelines.settings.model import load_settings

_CANDIDATES = 5


def _duration_ms(run: RunRow) -> int | None:
    if run.completed_at is None:
        return None
    return round((run.completed_at - run.started_at).total_seconds() * 1000)


RUN_COLUMNS: Sequence[Column[RunRow]] = (
    Column("id", "run", cell=shown_id),
    Column("job", "sync"),
    Column("started_at", "started"),
    Column("completed_at"),
    Column("kind", "kind"),
    Column("outcome", "outcome", cell=lambda outcome: outcome or UNFINISHED),
    Column("counts", "items", cell=counts_text),
    Column("duration_ms", "duration", _duration_ms, duration, is_number=True),
    Column("phase_ms"),
    Column("options"),
    Column("completeness"),
    Column("notes"),
    Column("failure"),
    Column("dagster_run_id", "Dagster run", cell=shown_id),
    Column(None, "", lambda run: "source drift" if any(note.startswith(PREFIX) for note in run.notes) else ""),
)
ERROR_COLUMNS: Sequence[Column[ErrorRow | SyncError]] = (
    Column(
        "position", "item", cell=lambda place: str(place) if place >= 0 else "", is_number=True
    ),  # no delete has one
    Column("external_id", "external id"),
    Column("exception_type", "error"),
    Column("message", "message"),
)


def list_runs(name: str | None, *, limit: int, as_json: bool) -> None:
    """Shows the newest runs, of one sync job or of all."""
    with open_ledger(load_settings().ledger_database_url()) as ledger:
        runs = RunQueries(ledger).latest(limit) if name is None else ledger.latest_runs(name, limit)
    if not runs and name is not None:
        find_job(name)
    show_list("runs", RUN_COLUMNS, runs, if_none=f"no runs{f' of {name}' if name else ''} yet", as_json=as_json)


def show_run(run_id: str, *, errors: int, as_json: bool) -> None:
    """Shows a run, by its id or the beginning of it, or by the id of its Dagster run."""
    with open_ledger(load_settings().ledger_database_url()) as ledger:
        run = _find_run(ledger, run_id)
        failed, count = ledger.errors(run.id, limit=errors), ledger.count_errors(run.id)
    if as_json:
        errors_document = [document(ERROR_COLUMNS, error) for error in failed]
        show_json({**document(RUN_COLUMNS, run), "error_count": count, "errors": errors_document})
    else:
        _show_run(run)
        _show_errors(failed, count)


def _find_run(ledger: Ledger, run_id: str) -> RunRow:
    prefix = run_id.strip()
    runs = RunQueries(ledger).starting_with(prefix, _CANDIDATES) if prefix else []
    if len(runs) > 1:
        candidates = ", ".join(f"{run.id} ({run.job}, {local_time(run.started_at)})" for run in runs)
        raise ConfigurationError(f"several runs begin with {run_id!r}, e.g. {candidates}; give more of the id")
    run = runs[0] if runs else ledger.run_of_dagster(prefix)
    if run is None:
        raise ConfigurationError(f"the ledger has no run {run_id!r}; `sync-pipelines runs` lists those it has")
    return run


def _show_run(run: RunRow) -> None:
    facts = {
        "run": run.id,
        "sync": run.job,
        "kind": run.kind,
        "outcome": run.outcome or UNFINISHED,
        "failure": run.failure or "",
        "started": local_time(run.started_at),
        "completed": local_time(run.completed_at) if run.completed_at else "",
        "duration": duration(_duration_ms(run)),
        "Dagster run": run.dagster_run_id or "",
        "all items": _all_items(run),
    }
    facts |= {f"end {number}": said for number, said in enumerate(run.completeness.get("ended_by", ()), start=1)}
    facts |= {f"option {name}": json.dumps(value) for name, value in run.options.items() if value}
    facts |= {name.replace("_", " "): f"{count:,}" for name, count in run.counts.items()}
    facts |= {f"{phase} took": duration(ms) for phase, ms in run.phase_ms.items()}
    facts |= {f"note {number}": note for number, note in enumerate(run.notes, start=1)}
    show_facts(facts)


def _all_items(run: RunRow) -> str:
    """Says whether the fetch of a run was complete, which deletes need; nothing of a run that fetched nothing."""
    if not run.completeness:
        return ""
    if not took_all_items(run.options):
        return "no, the run was limited"
    doubts = run.completeness.get("doubts", ())
    return f"no: {'; '.join(doubts)}" if doubts else "yes"


def _show_errors(failed: Sequence[ErrorRow], count: int) -> None:
    if failed:
        show_line("")
        show_rows(ERROR_COLUMNS, failed)
    if count > len(failed):
        remark(f"{len(failed):,} of {count:,} failed items are shown; --errors {count} shows all")
