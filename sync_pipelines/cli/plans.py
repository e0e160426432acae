"""`plan`, `plans` and `apply`: what a sync would write, and writing exactly that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from sync_pipelines.cli.columns import Column, show_rows, shown_id
from sync_pipelines.cli.formats import local_time, short_id
from sync_pipelines.cli.output import remark, result_stream, show_facts, show_json, show_line
from sync_pipelines.cli.program import CLEAN, FAILED, GUARDED, exit_code_of
from sync_pipelines.cli.run import RunOptions, results_document, show_results, showing_what_is_known
from sync_pipelines.cli.run_progress import watch_run
from sync_pipelines.database.plans import SUPERSEDED
from sync_pipelines.engine.plan import PlanEntry
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.registry.plans import apply_plan
from sync_pipelines.registry.registry import find_job
from sync_pipelines.runner.plans.plan_view import Plan, entry_document, entry_line, list_plans, open_plan
from sync_pipelines.runner.run_sync import run_sync

_ENTRIES_SHOWN = 20


def _records(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} to {action}" for action, count in counts.items() if count) or "nothing"


_COLUMNS: Sequence[Column[Plan]] = (  # JSON is the plan's own document, as in `plan show`
    Column(None, "plan", lambda plan: plan.id, shown_id),
    Column(None, "sync", lambda plan: plan.job),
    Column(None, "kind", lambda plan: plan.kind),
    Column(None, "made", lambda plan: plan.created_at),
    Column(None, "expires", lambda plan: plan.expires_at),
    Column(None, "state", lambda plan: plan.state),
    Column(None, "records", lambda plan: plan.counts.to_dict(), _records),
    Column(None, "applied by", lambda plan: plan.applied_by if plan.state != SUPERSEDED else None, shown_id),
)


@dataclass(frozen=True, slots=True)
class Filters:
    """Which entries of a plan to show, and how many at most."""

    action: str | None = None
    field: str | None = None
    limit: int | None = None


def make_plan(name: str, options: RunOptions, *, as_json: bool) -> int:
    """Makes a plan, shows its first entries and its id, and gives the exit code."""
    job = find_job(name)
    with showing_what_is_known(as_json=as_json), watch_run(name) as on_progress:
        results = run_sync(
            job,
            limit=options.limit,
            only=options.only or None,
            on_progress=on_progress,
            wait_s=options.wait_s,
            dry_run=True,
        )
    plan = open_plan(results.plan_id or "")
    if as_json:
        first = [entry_document(entry) for entry in islice(plan.entries(), _ENTRIES_SHOWN)]
        show_json({**results_document(results), "plan": plan.document(), "first_entries": first})
    else:
        _show_made(results, plan)
    if plan.guarded:
        return GUARDED
    return FAILED if results.error_count or results.not_found else CLEAN


def _show_made(results: SyncResults, plan: Plan) -> None:
    show_results(results, as_json=False)
    _show_entries(plan.entries(), _ENTRIES_SHOWN)
    if plan.counts.writes > _ENTRIES_SHOWN:
        remark(f"{_ENTRIES_SHOWN} of {plan.counts.writes:,} entries are shown; sync-pipelines plan show has all")
    remark(f"nothing was written. The whole plan: sync-pipelines plan show {short_id(plan.id)}")
    with_reason = " --reason '...'" if plan.guarded else ""
    remark(
        f"to apply exactly this, until {local_time(plan.expires_at)}: "
        f"sync-pipelines apply {short_id(plan.id)}{with_reason}"
    )


def show_plan(plan_id: str, filters: Filters, *, as_json: bool, as_csv: bool) -> None:
    """Shows a plan, or some of its entries."""
    if as_json and as_csv:
        raise ConfigurationError("--json and --csv exclude each other; give one of them")
    plan = open_plan(plan_id)
    entries = plan.entries(action=filters.action, field=filters.field)
    if as_csv:
        plan.to_csv(result_stream(), action=filters.action, field=filters.field, limit=filters.limit)
    elif as_json:
        plan.to_json(result_stream(), action=filters.action, field=filters.field, limit=filters.limit)
    else:
        show_facts(
            {
                "plan": plan.id,
                "sync": plan.job,
                "kind": plan.kind,
                "state": plan.state,
                **{f"guarded {number}": reason for number, reason in enumerate(plan.guarded, start=1)},
                "released by": plan.released_by or "",
                "reason": plan.reason or "",
                "made": local_time(plan.created_at),
                "expires": local_time(plan.expires_at),
                "superseded by run" if plan.state == SUPERSEDED else "applied by run": plan.applied_by or "",
                "applied": local_time(plan.applied_at) if plan.applied_at else "",
                **{f"to {action}": f"{count:,}" for action, count in plan.counts.to_dict().items()},
            }
        )
        show_line("")
        if not _show_entries(entries, filters.limit):
            remark(_nothing_shown(filters))


def _show_entries(entries: Iterator[PlanEntry], limit: int | None) -> int:
    shown = 0
    for entry in islice(entries, limit):
        show_line(entry_line(entry))
        shown += 1
    return shown


def _nothing_shown(filters: Filters) -> str:
    if filters.field is not None:
        action = f"{filters.action} that changes" if filters.action else "entry that changes"
        return f"the plan has no {action} {filters.field!r}"
    return f"the plan has no {filters.action}" if filters.action else "the plan has nothing to write"


def show_plans(name: str | None, *, limit: int, as_json: bool) -> None:
    """Shows the newest plans, of one sync job or of all."""
    plans = list_plans(name, limit)
    if not plans and name is not None:
        find_job(name)
    if as_json:
        show_json({"plans": [plan.document() for plan in plans]})
    elif plans:
        show_rows(_COLUMNS, plans)
    else:
        remark(f"no plans{f' of {name}' if name else ''} yet; sync-pipelines plan NAME makes one")


def apply(plan_id: str, *, reason: str | None, released_by: str | None, wait_s: float, as_json: bool) -> int:
    """Applies a plan, shows the results, and gives the exit code."""
    plan = open_plan(plan_id)
    stays = f"What was applied stays; `sync-pipelines apply {short_id(plan.id)}` goes on."
    with showing_what_is_known(as_json=as_json, if_stopped=stays), watch_run(plan.job) as on_progress:
        results = apply_plan(plan.id, reason=reason, released_by=released_by, on_progress=on_progress, wait_s=wait_s)
    show_results(results, as_json=as_json)
    return exit_code_of(results.outcome)
