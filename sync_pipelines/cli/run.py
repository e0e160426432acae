"""`run`: a sync now, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from sync_pipelines.cli.columns import document
from sync_pipelines.cli.formats import counts_text, duration, short_id
from sync_pipelines.cli.output import is_terminal, remark, show_facts, show_json, show_line
from sync_pipelines.cli.program import exit_code_of
from sync_pipelines.cli.run_progress import watch_run
from sync_pipelines.cli.runs import ERROR_COLUMNS
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import RunError
from sync_pipelines.registry.registry import find_job
from sync_pipelines.runner.run_sync import run_sync


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Which items to take, and how many seconds to wait while another run of the sync is under way."""

    limit: int | None
    only: Sequence[str]
    wait_s: float


def run(name: str, options: RunOptions, *, as_json: bool) -> int:
    """Runs the sync, shows its results, and gives the exit code."""
    job = find_job(name)
    stays = f"What {name} had applied stays; run it again to go on from a consistent state."
    with showing_what_is_known(as_json=as_json, if_stopped=stays), watch_run(name) as on_progress:
        results = run_sync(
            job, limit=options.limit, only=options.only or None, on_progress=on_progress, wait_s=options.wait_s
        )
    show_results(results, as_json=as_json)
    return exit_code_of(results.outcome)


@contextmanager
def showing_what_is_known(*, as_json: bool, if_stopped: str | None = None) -> Iterator[None]:
    """Shows the results of a run that fails, as far as they are known, before its error goes on.

    Args:
        if_stopped: What the operator should know who stops it.
    """
    try:
        yield
    except RunError as error:
        if isinstance(error.results, SyncResults):
            show_results(error.results, as_json=as_json)
        raise
    except KeyboardInterrupt as stop:
        if if_stopped is not None:
            stop.add_note(if_stopped)
        raise


def show_results(results: SyncResults, *, as_json: bool) -> None:
    """Shows the results of a run."""
    if as_json:
        show_json(results_document(results))
    elif is_terminal():
        _show_facts(results)
    else:
        show_line(results.summary())
        for note in results.notes:
            show_line(f"note: {note}")
    if not as_json:
        remark(f"all about this run: sync-pipelines show {short_id(results.run_id)}")


def _show_facts(results: SyncResults) -> None:
    facts = {
        "sync": results.name,
        "outcome": results.outcome,
        "items": counts_text(results.counts()),
        "recovered": f"{results.recovered:,}" if results.recovered else "",
        "duration": f"{duration(results.duration_ms)}, {results.items_per_s:,.0f} items/s",
        "failure": results.failure or "",
    }
    show_facts(facts | {f"note {number}": note for number, note in enumerate(results.notes, start=1)})


def results_document(results: SyncResults) -> dict[str, Any]:
    """Returns the results of a run as JSON has them."""
    return {
        "job": results.name,
        "run_id": results.run_id,
        "outcome": results.outcome,
        "started_at": results.started_at.isoformat(),
        "completed_at": results.completed_at.isoformat(),
        "duration_ms": results.duration_ms,
        "items_per_s": round(results.items_per_s, 1),
        "counts": results.counts(),
        "recovered": results.recovered,
        "withheld": results.withheld.to_dict(),
        "guarded": list(results.guarded),
        "plan_id": results.plan_id,
        "phase_ms": dict(results.phase_ms),
        "notes": list(results.notes),
        "failure": results.failure,
        "error_count": results.error_count,
        "errors": [document(ERROR_COLUMNS, error) for error in results.errors],
        "causes": [asdict(cause) for cause in results.causes],
        "gone_causes": [asdict(cause) for cause in results.gone_causes],
    }
