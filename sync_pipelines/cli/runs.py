"""`runs` and `show`: what the ledger remembers."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sync_pipelines.cli.formats import (
    UNFINISHED,
    counts_text,
    duration,
    error_document,
    local_time,
    run_document,
    run_duration_ms,
    short_id,
)
from sync_pipelines.cli.output import is_terminal, remark, show_facts, show_json, show_line, show_table
from sync_pipelines.database.ledger import ErrorRow, Ledger, RunRow, open_ledger
from sync_pipelines.database.run_queries import RunQueries
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.registry.registry import find_job
from sync_pipelines.settings.model import load_settings

_CANDIDATES = 5


def list_runs(name: str | None, *, limit: int, as_json: bool) -> None:
    """Shows the newest runs, of one sync job or of all.

    Raises:
        ConfigurationError: There is neither a run nor a sync job of that name, or the ledger can't be opened.
    """
    with open_ledger(load_settings().ledger_database_url()) as ledger:
        runs = RunQueries(ledger).latest(limit) if name is None else ledger.latest_runs(name, limit)
    if not runs and name is not None:
        find_job(name)
    if as_json:
        show_json({"runs": [run_document(run) for run in runs]})
    elif runs:
        _show_runs(runs)
    else:
        remark(f"no runs{f' of {name}' if name else ''} yet")


def show_run(given: str, *, errors: int, as_json: bool) -> None:
    """Shows one run.

    Args:
        given: The run's id or the beginning of it, or the id of its Dagster run.
        errors: How many of the failed items.
        as_json: Show a document for machines.

    Raises:
        ConfigurationError: No run has that id, or several begin with it.
    """
    with open_ledger(load_settings().ledger_database_url()) as ledger:
        run = _find_run(ledger, given)
        failed, count = ledger.errors(run.id, limit=errors), ledger.count_errors(run.id)
    if as_json:
        found = [error_document(error) for error in failed]
        show_json({**run_document(run), "error_count": count, "errors": found})
    else:
        _show_run(run)
        _show_errors(failed, count)


def _find_run(ledger: Ledger, given: str) -> RunRow:
    wanted = given.strip()
    runs = RunQueries(ledger).starting_with(wanted, _CANDIDATES) if wanted else []
    if len(runs) > 1:
        told = ", ".join(f"{run.id} ({run.job}, {local_time(run.started_at)})" for run in runs)
        raise ConfigurationError(f"several runs begin with {given!r}, e.g. {told}; give more of the id")
    run = runs[0] if runs else ledger.run_of_dagster(wanted)
    if run is None:
        raise ConfigurationError(f"the ledger has no run {given!r}; `sync-pipelines runs` lists those it has")
    return run


def _show_runs(runs: Sequence[RunRow]) -> None:
    shorten = short_id if is_terminal() else str
    rows = [
        [
            shorten(run.id),
            run.job,
            local_time(run.started_at),
            run.kind,
            run.outcome or UNFINISHED,
            counts_text(run.counts),
            duration(run_duration_ms(run)),
            shorten(run.dagster_run_id or ""),
        ]
        for run in runs
    ]
    titles = ["run", "sync", "started", "kind", "outcome", "items", "duration", "Dagster run"]
    show_table(titles, rows, numbers={"duration"})


def _show_run(run: RunRow) -> None:
    facts = {
        "run": run.id,
        "sync": run.job,
        "kind": run.kind,
        "outcome": run.outcome or UNFINISHED,
        "failure": run.failure or "",
        "started": local_time(run.started_at),
        "completed": local_time(run.completed_at) if run.completed_at else "",
        "duration": duration(run_duration_ms(run)),
        "Dagster run": run.dagster_run_id or "",
    }
    facts |= {f"option {name}": json.dumps(value) for name, value in run.options.items() if value}
    facts |= {name.replace("_", " "): f"{count:,}" for name, count in run.counts.items()}
    facts |= {f"{phase} took": duration(ms) for phase, ms in run.phase_ms.items()}
    facts |= {f"note {number}": note for number, note in enumerate(run.notes, start=1)}
    show_facts(facts)


def _show_errors(failed: Sequence[ErrorRow], count: int) -> None:
    if failed:
        rows = [[_position(each), each.external_id or "", each.exception_type, each.message] for each in failed]
        show_line("")
        show_table(["item", "external id", "error", "message"], rows, numbers={"item"})
    if count > len(failed):
        remark(f"{len(failed):,} of {count:,} failed items are shown; --errors {count} shows all")


def _position(error: ErrorRow) -> str:
    return str(error.position) if error.position >= 0 else ""  # a delete has no place in the fetch
