"""One run of a sync in its three phases, which may happen in three processes: each gets only a reference."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sync_pipelines.database.applied_since import AppliedSince
from sync_pipelines.database.batches import EARLIER, STAGED, BatchKey, WrittenBatches
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import RunError
from sync_pipelines.runner.calls.target_driver import Staged, TargetDriver, open_target
from sync_pipelines.runner.context.lease import HeldLease
from sync_pipelines.runner.context.run_log import RunReport
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.decide.limits import note_withheld
from sync_pipelines.runner.decide.page_diff import diff_snapshot
from sync_pipelines.runner.decide.rules import RunRules
from sync_pipelines.runner.decide.staged_diff import FROM_ITEMS, StagedDiff, open_staged, staging_request
from sync_pipelines.runner.fetch.fetch import fetch_snapshot, select
from sync_pipelines.runner.plans.plan_file import read_failed
from sync_pipelines.runner.plans.plan_summary import PlanSummary
from sync_pipelines.runner.runs.session import FULL_RUN, RunSession
from sync_pipelines.runner.write.plan_writer import PlanWriter, error_row
from sync_pipelines.runner.write.record_history import move_left
from sync_pipelines.runner.write.staged_writer import StagedWriter
from sync_pipelines.snapshots.parquet_pages import read_summary
from sync_pipelines.snapshots.snapshot import Snapshot
from sync_pipelines.snapshots.store import RunFiles


@dataclass(frozen=True, slots=True)
class SnapshotRef:
    """Where the snapshot of a fetch is: the run it belongs to.

    Args:
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
        workspace: Ledger, snapshot store and clock.
        dagster_run_id: The Dagster run that carries out the phases, if any.
        wait_s: Seconds to wait at most for another run of the same sync.
    """

    kind = FULL_RUN

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

    @property
    def applies(self) -> bool:
        """False for a run that only plans."""
        return self.kind.applies

    def _session(self, run_id: str | None = None) -> RunSession:
        """Returns a new run, or the one of that id."""
        return RunSession(
            self.job, self._workspace, self.kind, self._report, self._dagster_run_id, self._wait_s, run_id
        )

    def fetch(self, *, limit: int | None = None, only: Collection[str] = ()) -> SnapshotRef:
        """Begins a run: calls `on_start` and fetches all items into a snapshot.

        Raises:
            SyncBusyError: Another run of this sync is under way.
            FetchError: The source broke off; nothing is applied.
            HookError: `on_start` failed; nothing was fetched.
            ConfigurationError: The declaration or the selection is wrong.
        """
        selection = select(limit, only)
        session = self._session()
        with session.leased() as held:
            keep = session.start({"limit": selection.limit, "only": sorted(selection.only)})
            with session.phase("fetch", keep=held) as notes:
                self._workspace.remove_files(keep)
                session.on_start()
                self._report.line(f"fetch: asking the source of {self.job.name}")
                files = self._workspace.store.files_of(session.run_id)
                items, found = fetch_snapshot(self.job, files, selection, self._report)
                notes.extend(found)
                self._report.line(f"fetch: {items:,} items")
        return SnapshotRef(session.run_id, items)

    def diff(self, snapshot: SnapshotRef) -> PlanRef:
        """Compares the snapshot with the local records and leaves a plan. Writes nothing to the target.

        Raises:
            ConfigurationError: The target does not fit its database.
            TargetError: The target does not answer.
        """
        files = self._workspace.store.files_of(snapshot.run_id)
        session = self._session(snapshot.run_id)
        with session.leased() as held, session.phase("diff", keep=held if self.applies else None) as notes:
            with self._ledger.together():
                self._require_newest(session, held)
                session.look_up()
            if session.batches:
                notes.append("diffed again after a part was applied; that part counts as unchanged")
            with self._opened(files, snapshot.run_id) as (driver, staged):
                notes.extend(driver.notes())
                planned = self._diff(session, files, driver, staged)
            notes.extend(planned.notes)
        return PlanRef(snapshot.run_id, planned.writes)

    @contextmanager
    def _opened(
        self, files: RunFiles, run_id: str, held: HeldLease | None = None
    ) -> Iterator[tuple[TargetDriver, Staged | None]]:
        """Opens the target, and what it offers for many items at once."""
        request = staging_request(self.job, self._workspace, files, run_id, is_dry=not self.applies)
        with open_target(self.job, held) as driver, open_staged(driver, request) as staged:
            yield driver, staged

    def _diff(self, session: RunSession, files: RunFiles, driver: TargetDriver, staged: Staged | None) -> PlanSummary:
        run_id, noted = session.run_id, session.batches
        session.forget_batches()
        if staged is not None and self.applies:
            move_left(self._workspace, session.run, driver, staged)
        planned = self._compare(run_id, files, driver, staged, noted)
        with self._ledger.together():
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
        session = self._session(plan.run_id)
        with session.leased() as held:
            with session.phase("apply"):
                self._apply_plan(session, held)
                session.require_good_accounts()
            results = session.finish(None, applied_all=True)
            self._report.finished(results)
            session.on_complete(results)
        return results

    def _require_newest(self, session: RunSession, held: HeldLease) -> None:
        """Refuses to write what was fetched before somebody else wrote, which a re-execution may ask for."""
        since = AppliedSince(self._ledger, self.job.name, asks_source=self.job.fetch_one is not None)
        newer = since.whole_run(session.run)
        if newer is not None:
            raise RunError(
                f"{self.job.name}: the newer run {newer} has applied since this one fetched; its items may be older "
                "than the local records. Start a new run instead of re-executing this one."
            )
        is_continued = self.job.get_version is not None or held.lease.is_continued
        if not is_continued and since.single_items(session.run.started_at):
            raise RunError(
                f"{self.job.name}: single items have been applied since this run fetched; its items may be older than "
                "the local records. Start a new run instead of re-executing this one."
            )

    def _apply_plan(self, session: RunSession, held: HeldLease) -> None:
        run_id = session.run_id
        files = self._workspace.store.files_of(run_id)
        has_plan = files.plan.exists()  # else one that is newer may have cleaned up
        with self._ledger.together():
            self._require_newest(session, held)
            session.look_up()
            verify = has_plan and self._ledger.begin_apply(run_id, self._workspace.clock())
        planned = PlanSummary.of_summary(read_summary(files.plan))
        if verify:
            self._report.line("apply: going on after an attempt that broke off")
            session.sort_batches(is_staged=planned.staged is not None)
        if planned.writes:
            self._report.line(f"apply: writing {planned.writes:,} records")
        is_applied = planned.staged is not None and session.batches.is_complete
        with self._opened(files, run_id, held) as (driver, staged):
            if is_applied:
                if staged is not None and driver.at_once(lambda: _is_ready(planned, staged)):
                    driver.at_once(staged.drop)
                return
            if planned.writes and not driver.at_once(lambda: _is_ready(planned, staged)):
                planned = self._diff_again(session, files, driver, staged, planned)
            rules = RunRules.for_changes(self.job, driver, self._workspace.versions)
            applier = PlanWriter(session.run, session.batches, self._workspace, rules, self._report, verify=verify)
            if planned.staged is None:
                applier.apply_plan(files, planned)
            elif planned.writes and staged is not None:
                StagedWriter(run_id, files, self._workspace, driver, staged, applier).run(planned, verify=verify)

    def _diff_again(
        self, session: RunSession, files: RunFiles, driver: TargetDriver, staged: Staged | None, planned: PlanSummary
    ) -> PlanSummary:
        """Makes the plan again where the working tables that held it have gone: they are caches of the snapshot."""
        if planned.staged is not None and not planned.staged.temporary:
            self._report.warning("apply: the working tables of the plan are gone; it is made again from the snapshot")
        return self._diff(session, files, driver, staged)


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
