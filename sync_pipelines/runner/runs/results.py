"""Puts the results of a run together from the ledger and the run's files, and checks that they add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from sync_pipelines.database.batches import WrittenBatches
from sync_pipelines.database.data_versions import Writing
from sync_pipelines.database.ledger import ErrorRow, RunRow
from sync_pipelines.database.plans import PlanRow
from sync_pipelines.database.run_causes import RunCauses
from sync_pipelines.database.tables import DRY_RUN, FULL
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.plan import PlanCounts
from sync_pipelines.engine.results import MAX_LISTED, Counts, Duplicate, SyncError, SyncResults
from sync_pipelines.engine.set_back import set_back_notes
from sync_pipelines.errors import AccountsError, RunError, TooManyFailedError
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.failures.reconcile import CausesOfRun, causes_of_run
from sync_pipelines.runner.plans.plan_file import files_of_plan, read_duplicates
from sync_pipelines.snapshots.parquet_pages import read_summary
from sync_pipelines.snapshots.snapshot import Snapshot
from sync_pipelines.snapshots.store import RunFiles


@dataclass(frozen=True, slots=True)
class KnownRun:
    """Holds what the ledger has of a run."""

    workspace: Workspace
    run: RunRow
    batches: WrittenBatches
    withheld: PlanRow | None
    errors: Sequence[ErrorRow]
    causes: CausesOfRun

    @staticmethod
    def of(workspace: Workspace, run_id: str) -> KnownRun:
        """Asks the ledger, in one transaction.

        Raises:
            RunError: The ledger does not know the run.
        """
        ledger = workspace.ledger
        with ledger.together():
            run = ledger.run(run_id)
            if run is None:
                raise RunError(f"the ledger has no run {run_id}")
            return KnownRun(
                workspace,
                run,
                workspace.batches.of_run(run_id),
                workspace.plans.withheld_of(run_id),
                ledger.errors(run_id, MAX_LISTED),
                causes_of_run(RunCauses(ledger), run_id),
            )

    def results(self) -> SyncResults:
        """Returns the results of the run, complete or as far as it got."""
        run, withheld, files = self.run, self.withheld, self._files()
        counts, fetched = self._counts(files)
        completed_at = run.completed_at or self.workspace.clock()
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
            errors=tuple(_sync_error(row) for row in self.errors),
            duplicates=_duplicates(files),
            causes=self.causes.found,
            gone_causes=self.causes.gone,
            notes=run.notes,
            set_back=tuple(set_back_notes(self.batches.rewritten)),
            phase_ms=dict(run.phase_ms),
            failure=run.failure,
            planned=_planned(run, files),
            not_found=_not_found(run, files),
            no_deletes=run.no_deletes,
            plan_id=_plan_id(run, files) or (withheld.id if withheld is not None else None),
            withheld=PlanCounts(**withheld.counts) if withheld is not None else PlanCounts(),
            guarded=withheld.guarded if withheld is not None else (),
        )

    def finish(self, failure: str | None, *, applied_all: bool) -> SyncResults:
        """Notes in the ledger that the run has ended, and returns its results.

        Args:
            applied_all: True if everything that it was to write is written.
        """
        now = self.workspace.clock()
        results = replace(self, run=replace(self.run, failure=failure, completed_at=now)).results()
        written = results.created + results.updated + results.deleted + results.recovered
        with self.workspace.ledger.together():
            self.workspace.ledger.finish_run(
                self.run.id,
                outcome=results.outcome,
                counts=results.counts(),
                failure=failure,
                applied_all=applied_all,
                at=now,
            )
            if self.run.kind != DRY_RUN:
                writing = Writing(self.run.job, self.run.id)
                self.workspace.data_versions.settle(writing, written, now, is_certain=applied_all)
        return results

    def _files(self) -> RunFiles:
        """Returns the files of the run; of one that applies a plan, those of the run that left it."""
        options = self.run.options
        if "plan" in options:
            return files_of_plan(self.workspace, options["plan"], options.get("kind", DRY_RUN))
        return self.workspace.store.files_of(self.run.id)

    def _counts(self, files: RunFiles) -> tuple[Counts, int]:
        """Returns what became of the items, and how many there were."""
        run, written = self.run, Counts(**self.batches.total())
        if files.plan.exists():
            summary = read_summary(files.plan)
            return Counts(**summary["settled"]) + written, int(summary["fetched"])
        if Snapshot(files.folder).is_complete():
            return written, int(Snapshot(files.folder).summary()["items"])
        if run.counts:  # of a finished run the files may be gone; the ledger has the sums
            sums = {each.name: run.counts[each.name] for each in fields(Counts) if each.name in run.counts}
            items_failed = sums["failed"] - written.failed_deletes
            rest = {"failed_deletes": written.failed_deletes, "recovered": written.recovered}
            return Counts(**{**sums, "failed": items_failed, **rest}), run.counts["fetched"]
        return written, written.items()  # a drain has no files


def results_of_run(workspace: Workspace, run_id: str) -> SyncResults:
    """Returns the results of a run, complete or as far as it got."""
    return KnownRun.of(workspace, run_id).results()


def require_good_accounts(job: SyncJob[Any, Any], results: SyncResults, *, fail_above: bool) -> None:
    """Makes sure that every fetched item has one outcome, and that no more failed than the job allows.

    Args:
        fail_above: False to allow any number of failed items.

    Raises:
        AccountsError: The outcomes do not add up.
        TooManyFailedError: More items failed than the job's `fail_above` allows.
    """
    if not results.accounts_balance:
        raise AccountsError(
            f"{job.name}: the accounts of run {results.run_id} do not balance: {results.counts()}. This is a defect of "
            "the engine or of a target that reports what it did not do; keep the run's files and report it."
        )
    if fail_above and results.exceeds(job.fail_above):
        raise TooManyFailedError(
            f"{job.name}: {results.error_count:,} of {results.fetched:,} items failed, and fail_above is "
            f"{job.fail_above}; all others were applied. `sync-pipelines show {results.run_id[:8]}` lists the errors."
        )


def _planned(run: RunRow, files: RunFiles) -> PlanCounts | None:
    """Returns what a dry run planned; None of any other run."""
    if run.kind != DRY_RUN:
        return None
    if files.plan.exists():
        return PlanCounts(**read_summary(files.plan)["planned"])
    return PlanCounts(**{each: run.counts.get(f"to_{each}", 0) for each in PlanCounts().to_dict()})


def _not_found(run: RunRow, files: RunFiles) -> int:
    """Returns how many of the ids that the run was asked for did not come."""
    if run.kind in {FULL, DRY_RUN} and Snapshot(files.folder).is_complete():
        return int(Snapshot(files.folder).summary().get("not_found", 0))
    return int(run.counts.get("not_found", 0))


def _plan_id(run: RunRow, files: RunFiles) -> str | None:
    """Returns the plan that a dry run left, or that the run applied."""
    if run.kind != DRY_RUN:
        return run.options.get("plan")
    return run.id if files.plan.exists() or run.outcome == "planned" else None


def _duplicates(files: RunFiles) -> tuple[Duplicate, ...]:
    return tuple(read_duplicates(files, MAX_LISTED)) if files.findings.exists() else ()


def _sync_error(row: ErrorRow) -> SyncError:
    return SyncError(row.external_id, row.message, row.exception_type, row.position, row.trace or "")
