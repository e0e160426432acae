"""Puts a run's results together from what the ledger and the run's files say was done."""

from __future__ import annotations

from dataclasses import fields, replace

from sync_pipelines.database.ledger import ErrorRow, RunRow
from sync_pipelines.database.run_causes import RunCauses
from sync_pipelines.database.tables import DRY_RUN
from sync_pipelines.engine.plan import PlanCounts
from sync_pipelines.engine.results import MAX_LISTED, Counts, Duplicate, SyncError, SyncResults
from sync_pipelines.errors import RunError
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.failures.reconcile import causes_of_run
from sync_pipelines.runner.plans.plan_file import files_of_plan, read_duplicates
from sync_pipelines.snapshots.parquet_pages import read_summary
from sync_pipelines.snapshots.snapshot import Snapshot
from sync_pipelines.snapshots.store import RunFiles


def results_of_run(workspace: Workspace, run_id: str) -> SyncResults:
    """The results of a run, complete or as far as it got.

    Raises:
        RunError: The ledger does not know the run.
    """
    run = workspace.ledger.run(run_id)
    if run is None:
        raise RunError(f"the ledger has no run {run_id}")
    files = workspace.store.files_of(run_id)
    if "plan" in run.options:  # it is applied; its files are those of the run that left it
        files = files_of_plan(workspace, run.options["plan"], run.options.get("kind", DRY_RUN))
    counts, fetched = _counts(workspace, run, files)
    return _results(workspace, run, files, counts, fetched)


def finish_run(workspace: Workspace, run_id: str, failure: str | None, *, applied_all: bool) -> SyncResults:
    """Notes in the ledger that the run has ended, and gives its results.

    Args:
        workspace: Has the ledger and the files.
        run_id: The run.
        failure: Why it failed as a whole, None if it did not.
        applied_all: True if everything that it was to write is written.
    """
    results = replace(results_of_run(workspace, run_id), failure=failure, completed_at=workspace.clock())
    duration_ms = round((results.completed_at - results.started_at).total_seconds() * 1000)
    workspace.ledger.finish_run(
        run_id,
        outcome=results.outcome,
        counts=results.counts(),
        failure=failure,
        applied_all=applied_all,
        at=results.completed_at,
    )
    return replace(results, duration_ms=duration_ms)


def _counts(workspace: Workspace, run: RunRow, files: RunFiles) -> tuple[Counts, int]:
    applied = Counts(**workspace.batches.of_run(run.id).total())
    if files.plan.exists():
        summary = read_summary(files.plan)
        return Counts(**summary["settled"]) + applied, int(summary["fetched"])
    if Snapshot(files.folder).is_complete():
        return applied, int(Snapshot(files.folder).summary()["items"])
    if run.counts:  # of a finished run the files may be gone; the ledger has the sums
        sums = {each.name: run.counts[each.name] for each in fields(Counts) if each.name in run.counts}
        items_failed = sums["failed"] - applied.failed_deletes
        rest = {"failed_deletes": applied.failed_deletes, "recovered": applied.recovered}
        return Counts(**{**sums, "failed": items_failed, **rest}), run.counts["fetched"]
    return applied, applied.items()  # a drain has no files


def _planned(run: RunRow, files: RunFiles) -> PlanCounts | None:
    """What a dry run planned; None of any other run."""
    if run.kind != DRY_RUN:
        return None
    if files.plan.exists():
        return PlanCounts(**read_summary(files.plan)["planned"])
    return PlanCounts(**{each: run.counts.get(f"to_{each}", 0) for each in PlanCounts().to_dict()})


def _plan_id(run: RunRow, files: RunFiles) -> str | None:
    """The plan that a dry run left, or that the run applied."""
    if run.kind != DRY_RUN:
        return run.options.get("plan")
    return run.id if files.plan.exists() or run.outcome == "planned" else None


def _results(workspace: Workspace, run: RunRow, files: RunFiles, counts: Counts, fetched: int) -> SyncResults:
    completed_at = run.completed_at or workspace.clock()
    causes, gone_causes = causes_of_run(RunCauses(workspace.ledger), run.id)
    withheld = workspace.plans.withheld_of(run.id)
    return SyncResults(
        name=run.job,
        run_id=run.id,
        started_at=run.started_at,
        completed_at=completed_at,
        duration_ms=round((completed_at - run.started_at).total_seconds() * 1000),
        fetched=fetched,
        created=counts.created,
        updated=counts.updated,
        deleted=counts.deleted,
        unchanged=counts.unchanged,
        skipped=counts.skipped,
        error_count=counts.failed + counts.failed_deletes,
        failed_deletes=counts.failed_deletes,
        duplicate_count=counts.duplicate,
        recovered=counts.recovered,
        errors=tuple(_sync_error(row) for row in workspace.ledger.errors(run.id, MAX_LISTED)),
        duplicates=_duplicates(files),
        causes=causes,
        gone_causes=gone_causes,
        notes=run.notes,
        phase_ms=dict(run.phase_ms),
        failure=run.failure,
        planned=_planned(run, files),
        plan_id=_plan_id(run, files) or (withheld.id if withheld is not None else None),
        withheld=PlanCounts(**withheld.counts) if withheld is not None else PlanCounts(),
        guarded=withheld.guarded if withheld is not None else (),
    )


def _duplicates(files: RunFiles) -> tuple[Duplicate, ...]:
    return tuple(read_duplicates(files, MAX_LISTED)) if files.findings.exists() else ()


def _sync_error(row: ErrorRow) -> SyncError:
    return SyncError(row.external_id, row.message, row.exception_type, row.position)
