"""One run of a sync in its three phases, which may happen in three processes: each gets only a reference."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from sync_pipelines.database.batches import EARLIER, STAGED, BatchKey, WrittenBatches
from sync_pipelines.database.ledger import RunRow
from sync_pipelines.database.run_queries import RunQueries
from sync_pipelines.database.tables import FULL
from sync_pipelines.engine.calls import call
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.plan import Outcome
from sync_pipelines.engine.redaction import exception_type, message_of
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import HookError, RunError, TooManyFailedError
from sync_pipelines.runner.calls.target_driver import Staged, TargetDriver, open_target
from sync_pipelines.runner.context.lease import HeldLease, renewing, take_lease
from sync_pipelines.runner.context.run_log import RunReport
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.decide.limits import note_withheld
from sync_pipelines.runner.decide.page_diff import diff_snapshot
from sync_pipelines.runner.decide.rules import RunRules
from sync_pipelines.runner.decide.staged_diff import FROM_ITEMS, StagedDiff, open_staged, staging_request
from sync_pipelines.runner.failures.reconcile import note_run
from sync_pipelines.runner.fetch.fetch import Selection, fetch_snapshot, select
from sync_pipelines.runner.plans.plan_file import read_failed
from sync_pipelines.runner.plans.plan_summary import PlanSummary
from sync_pipelines.runner.runs.accounts import require_good_accounts
from sync_pipelines.runner.runs.results import finish_run
from sync_pipelines.runner.write.plan_writer import PlanWriter, error_row
from sync_pipelines.runner.write.record_history import forget_old_history, move_left
from sync_pipelines.runner.write.staged_writer import StagedWriter
from sync_pipelines.snapshots.parquet_pages import read_summary
from sync_pipelines.snapshots.snapshot import Snapshot
from sync_pipelines.snapshots.store import RunFiles

WRITES = tuple(each.value for each in (Outcome.CREATED, Outcome.UPDATED, Outcome.DELETED))
"""What becomes of single items that are written."""


@dataclass(frozen=True, slots=True)
class SnapshotRef:
    """Where the snapshot of a fetch is: the run it belongs to.

    Args:
        run_id: The run.
        items: How many items it has.
        dry_run: True if the run only plans.
        plan_id: The plan to apply instead, of a run that fetches nothing.
        reason: Why that plan is right.
    """

    run_id: str
    items: int
    dry_run: bool = False
    plan_id: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class PlanRef:
    """Where the plan of a diff is: the run it belongs to.

    Args:
        run_id: The run.
        writes: How many records it writes.
        dry_run: True if the run only plans.
        plan_id: The plan to apply instead, of a run that fetches nothing.
        reason: Why that plan is right.
    """

    run_id: str
    writes: int
    dry_run: bool = False
    plan_id: str | None = None
    reason: str | None = None


class SyncRun:
    """Carries out the phases of a run and keeps the ledger.

    Args:
        job: The sync job.
        workspace: Ledger, snapshot store and clock.
        report: The run log.
        dagster_run_id: The Dagster run that carries out the phases, if any.
        wait_s: Seconds to wait at most for another run of the same sync.
    """

    kind = FULL
    """What the ledger calls such a run."""
    undone = "nothing was fetched"
    """What has not happened when `on_start` fails."""
    applies = True
    """False for a run that only plans: it keeps no lease for the applying, and calls no `on_complete`."""

    def __init__(
        self,
        job: SyncJob[Any, Any],
        workspace: Workspace,
        report: RunReport | None = None,
        dagster_run_id: str | None = None,
        wait_s: float = 0.0,
    ) -> None:
        self.job = job
        self._workspace = workspace
        self._ledger = workspace.ledger
        self._report = report or RunReport()
        self._dagster_run_id = dagster_run_id
        self._wait_s = wait_s

    def fetch(self, *, limit: int | None = None, only: Collection[str] = ()) -> SnapshotRef:
        """Begins a run: calls `on_start` and fetches all items into a snapshot.

        Raises:
            SyncBusyError: Another run of this sync is under way.
            FetchError: The source broke off; nothing is applied.
            HookError: `on_start` failed; nothing was fetched.
            ConfigurationError: The declaration or the selection is wrong.
        """
        selection = select(limit, only)
        run_id = str(uuid4())
        with self._leased(run_id, keep=True), self._phase(run_id, "fetch", selection) as notes:
            self._workspace.clean_up()
            forget_old_history(self.job, self._workspace)
            self._on_start()
            self._report.line(f"fetch: asking the source of {self.job.name}")
            files = self._workspace.store.files_of(run_id)
            items, found = fetch_snapshot(self.job, files, selection, self._report)
            notes.extend(found)
            self._report.line(f"fetch: {items:,} items")
        return SnapshotRef(run_id, items)

    def diff(self, snapshot: SnapshotRef) -> PlanRef:
        """Compares the snapshot with the local records and leaves a plan. Writes nothing to the target.

        Raises:
            ConfigurationError: The target does not fit its database.
            TargetError: The target does not answer.
        """
        files = self._workspace.store.files_of(snapshot.run_id)
        keep = self.applies
        with self._leased(snapshot.run_id, keep=keep) as held, self._phase(snapshot.run_id, "diff") as notes:
            self._require_newest(snapshot.run_id, held)
            if self._workspace.batches.of_run(snapshot.run_id):
                notes.append("diffed again after a part was applied; that part counts as unchanged")
            with self._opened(files, snapshot.run_id) as (driver, staged):
                notes.extend(driver.notes())
                planned = self._diff(snapshot.run_id, files, driver, staged)
            notes.extend(planned.notes)
        return PlanRef(snapshot.run_id, planned.writes)

    @contextmanager
    def _opened(
        self, files: RunFiles, run_id: str, held: HeldLease | None = None
    ) -> Iterator[tuple[TargetDriver, Staged | None]]:
        """The target, and what it offers for many items at once."""
        request = staging_request(self.job, self._workspace, files, run_id, is_dry=not self.applies)
        with open_target(self.job, held) as driver, open_staged(driver, request) as staged:
            yield driver, staged

    def _diff(self, run_id: str, files: RunFiles, driver: TargetDriver, staged: Staged | None) -> PlanSummary:
        noted = self._workspace.batches.of_run(run_id)
        self._workspace.batches.forget(run_id)
        if staged is not None and self.applies:
            move_left(self._workspace, run_id, driver, staged)
        planned = self._compare(run_id, files, driver, staged, noted)
        planned = replace(planned, notes=[*planned.notes, *self._note_withheld(run_id, planned)])
        failed = map(error_row, read_failed(files))
        self._ledger.save_diff_errors(run_id, failed, deletes_withheld=planned.deletes_withheld)
        settled = planned.settled
        self._report.line(
            f"diff: {planned.writes:,} to write, {settled.unchanged:,} unchanged, {settled.skipped:,} skipped, "
            f"{settled.duplicate:,} duplicates, {settled.failed:,} failed"
        )
        return planned

    def _compare(
        self, run_id: str, files: RunFiles, driver: TargetDriver, staged: Staged | None, noted: WrittenBatches
    ) -> PlanSummary:
        """Makes the plan: by the database itself where that is worth it, else page by page."""
        rules = RunRules.for_changes(self.job, driver, self._workspace.versions).for_fetch(
            self._workspace, run_id, files, is_dry=not self.applies
        )
        if staged is not None and self._is_worth_it(files):
            found = driver.at_once(StagedDiff(rules, files, staged, self._report, durable=not self.applies).run)
            if isinstance(found, str):
                self._report.line(f"diff: page by page, not in bulk: {found}")
            else:
                self._tell_recovered(run_id, staged, noted)
                if not found.writes:
                    driver.at_once(staged.drop)  # nobody will apply anything
                return found
        return diff_snapshot(rules, files, self._report, durable=not self.applies)

    def _note_withheld(self, run_id: str, planned: PlanSummary) -> list[str]:
        """Keeps what guards withhold as a plan; gives what a person should know of it."""
        return note_withheld(self.job, self._workspace, run_id, planned)

    def _tell_recovered(self, run_id: str, staged: Staged, noted: WrittenBatches) -> None:
        """Notes what an earlier attempt had written and was killed before it could note it in the ledger."""
        unnoted = staged.recovered - noted.written(STAGED)
        if unnoted > 0:
            counts = {"recovered": unnoted + noted.written()}
            self._workspace.batches.replace(run_id, BatchKey(EARLIER), counts, self._workspace.clock())

    def _is_worth_it(self, files: RunFiles) -> bool:
        return int(Snapshot(files.folder).summary()["items"]) >= FROM_ITEMS or self.job.deletes != "off"

    def apply(self, plan: PlanRef) -> SyncResults:
        """Writes what the plan says; goes on where an earlier attempt broke off. Calls `on_complete`.

        Raises:
            TargetError: The target broke off; what was applied is accounted for.
            AccountsError: The outcomes do not add up.
            TooManyFailedError: More items failed than `fail_above` allows; all others were applied.
            HookError: `on_complete` failed, after the applying was done.
        """
        with self._leased(plan.run_id, keep=False) as held:
            with self._phase(plan.run_id, "apply"):
                self._require_newest(plan.run_id, held)
                self._apply_plan(plan.run_id, held)
                require_good_accounts(self.job, self._workspace, plan.run_id)
            results = self._finish(plan.run_id, None, applied_all=True)
            self._report.finished(results)
            self._on_complete(results)
        return results

    @contextmanager
    def _leased(self, run_id: str, *, keep: bool) -> Iterator[HeldLease]:
        """Has the lease of the sync for the time of a phase; keeps it for the next one unless this one fails."""
        held = take_lease(self._workspace, self.job.name, run_id, self._dagster_run_id, self._wait_s)
        kept = False
        try:
            with renewing(held):
                yield held
            kept = keep
        finally:
            if kept:
                to_another = self._dagster_run_id is not None  # without Dagster all phases are of one process
                self._workspace.leases.hand_over(held.lease, self._workspace.lease, to_another=to_another)
            else:
                self._workspace.leases.release(held.lease)

    def _require_newest(self, run_id: str, held: HeldLease) -> None:
        """Refuses to write what was fetched before somebody else wrote, which a re-execution may ask for."""
        newer = self._ledger.newer_applied_run(run_id)
        if newer is not None:
            raise RunError(
                f"{self.job.name}: the newer run {newer} has applied since this one fetched; its items may be older "
                "than the local records. Start a new run instead of re-executing this one."
            )
        if self.job.get_version is None and not held.lease.is_continued and self._was_overtaken(run_id):
            raise RunError(
                f"{self.job.name}: single items have been applied since this run fetched; its items may be older than "
                "the local records. Start a new run instead of re-executing this one."
            )

    def _was_overtaken(self, run_id: str) -> bool:
        """True if single items have been written since the run began."""
        run = self._ledger.run(run_id)
        if run is None:
            return False
        retried = RunQueries(self._ledger).has_retried_since(self.job.name, run.started_at)
        if retried and self.job.fetch_one is not None:  # else what was tried again is no newer than this run
            return True
        return self._workspace.inbox.has_applied_since(self.job.name, run.started_at, WRITES)

    def _start(self, run_id: str, options: Mapping[str, Any]) -> None:
        self._ledger.start_run(
            RunRow(
                id=run_id,
                job=self.job.name,
                kind=self.kind,
                dagster_run_id=self._dagster_run_id,
                options=options,
                started_at=self._workspace.clock(),
            )
        )

    def _apply_plan(self, run_id: str, held: HeldLease) -> None:
        files = self._workspace.store.files_of(run_id)
        planned = PlanSummary.of_summary(read_summary(files.plan))
        verify = self._ledger.begin_apply(run_id, self._workspace.clock())
        if verify:
            self._report.line("apply: going on after an attempt that broke off")
            self._workspace.batches.sort(run_id, is_staged=planned.staged is not None)
        if planned.writes:
            self._report.line(f"apply: writing {planned.writes:,} records")
        is_applied = planned.staged is not None and self._workspace.batches.of_run(run_id).is_complete
        with self._opened(files, run_id, held) as (driver, staged):
            if is_applied:
                if staged is not None and driver.at_once(lambda: _is_ready(planned, staged)):
                    driver.at_once(staged.drop)
                return
            if planned.writes and not driver.at_once(lambda: _is_ready(planned, staged)):
                planned = self._diff_again(run_id, files, driver, staged, planned)
            rules = RunRules.for_changes(self.job, driver, self._workspace.versions)
            applier = PlanWriter(run_id, self._workspace, rules, self._report, verify=verify)
            if planned.staged is None:
                applier.apply_plan(files, planned)
            elif planned.writes and staged is not None:
                StagedWriter(run_id, files, self._workspace, driver, staged, applier).run(planned, verify=verify)

    def _diff_again(
        self, run_id: str, files: RunFiles, driver: TargetDriver, staged: Staged | None, planned: PlanSummary
    ) -> PlanSummary:
        """Makes the plan again where the working tables that held it have gone: they are caches of the snapshot."""
        if planned.staged is not None and not planned.staged.temporary:
            self._report.warning("apply: the working tables of the plan are gone; it is made again from the snapshot")
        return self._diff(run_id, files, driver, staged)

    @contextmanager
    def _phase(self, run_id: str, phase: str, begin: Selection | None = None) -> Iterator[list[str]]:
        """Times a phase; if it fails, the ledger and `on_complete` hear of it before the error goes on."""
        if begin is not None:
            self._start(run_id, {"limit": begin.limit, "only": sorted(begin.only)})
        notes: list[str] = []
        began_s = time.monotonic()
        try:
            yield notes
        except Exception as error:
            results = self._fail(run_id, phase, began_s, notes, error)
            if isinstance(error, RunError):
                error.results = results
            self._report.finished(results)
            self._tell_of_failure(results, error)
            raise
        except BaseException:
            self._finish(run_id, f"{phase}: interrupted", applied_all=False)
            raise
        self._save_phase(run_id, phase, began_s, notes)
        for note in notes:
            self._report.warning(note)

    def _fail(self, run_id: str, phase: str, began_s: float, notes: list[str], error: Exception) -> SyncResults:
        self._save_phase(run_id, phase, began_s, notes)
        failure = f"{phase}: {exception_type(error)}: {message_of(error)}"
        return self._finish(run_id, failure, applied_all=isinstance(error, TooManyFailedError))

    def _save_phase(self, run_id: str, phase: str, began_s: float, notes: list[str]) -> None:
        duration_ms = round((time.monotonic() - began_s) * 1000)
        self._ledger.save_phase(run_id, phase, duration_ms, notes=notes, dagster_run_id=self._dagster_run_id)

    def _finish(self, run_id: str, failure: str | None, *, applied_all: bool) -> SyncResults:
        note_run(self._workspace, self.job, run_id, failure, applied_all=applied_all)
        return finish_run(self._workspace, run_id, failure, applied_all=applied_all)

    def _on_start(self) -> None:
        if self.job.on_start is None:
            return
        try:
            call(self.job.on_start)
        except Exception as error:
            raise HookError(f"{self.job.name}: on_start failed, {self.undone}: {_told(error)}") from error

    def _on_complete(self, results: SyncResults) -> None:
        if self.job.on_complete is None or not self.applies:
            return
        try:
            call(self.job.on_complete, results)
        except Exception as error:
            failure = f"on_complete failed after the applying was done: {_told(error)}"
            failed = self._finish(results.run_id, failure, applied_all=True)
            raise HookError(f"{self.job.name}: {failure}", results=failed) from error

    def _tell_of_failure(self, results: SyncResults, failure: Exception) -> None:
        if self.job.on_complete is None or not self.applies:
            return
        try:
            call(self.job.on_complete, results)
        except Exception as error:  # noqa: BLE001 - the run's own failure is the one to be raised
            failure.add_note(f"on_complete failed as well: {_told(error)}")
            self._report.warning(f"on_complete failed as well: {_told(error)}")


def _is_ready(planned: PlanSummary, staged: Staged | None) -> bool:
    """True if the plan is where the diff left it: in the plan file, or still in the target's working tables."""
    if planned.staged is None:
        return True
    plan = planned.staged
    if staged is None or plan.temporary:
        return False
    if staged.fingerprint(plan.written) != plan.fingerprint:
        raise RunError(
            "the table or its declaration has changed since this run compared them, and its plan may say something "
            "else now; nothing more was written. Start a new run instead of re-executing this one."
        )
    return staged.resume(plan)


def _told(error: Exception) -> str:
    return f"{exception_type(error)}: {message_of(error)}"
