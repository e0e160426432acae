"""Runs a sync in its three phases, which may happen in three processes: each gets only a reference."""

from __future__ import annotations

from sync_pipelines.engine.results import SyncResults
from sync_pipelines.runner.calls.target_driver import TargetDriver
from sync_pipelines.runner.context.lease import HeldLease
from sync_pipelines.runner.decide.rules import RunRules
from sync_pipelines.runner.plans.plan_summary import PlanSummary
from sync_pipelines.runner.runs.comparing_run import ComparingRun, PlanRef
from sync_pipelines.runner.runs.differ import Differ
from sync_pipelines.runner.runs.session import FULL_RUN, RunSession
from sync_pipelines.runner.write.plan_writer import PlanWriter
from sync_pipelines.snapshots.parquet_pages import read_summary
from sync_pipelines.snapshots.store import RunFiles


class SyncRun(ComparingRun):
    """Fetches, compares and applies, and keeps the ledger."""

    kind = FULL_RUN

    def apply(self, plan: PlanRef) -> SyncResults:
        """Writes what the plan says; goes on where an earlier attempt broke off. Calls `on_complete`.

        Raises:
            TargetError: The target broke off; what was applied is accounted for.
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

    def _apply_plan(self, session: RunSession, held: HeldLease) -> None:
        run_id = session.run_id
        files = self._workspace.store.files_of(run_id)
        has_plan = files.plan.exists()  # else one that is newer may have cleaned up
        with self._ledger.together():
            self._require_newest(session, held)
            session.look_up()
            verify = has_plan and self._ledger.begin_apply(run_id, self._workspace.clock())
            if has_plan:  # also if it has nothing to write: what one has left that died is counted here
                session.begin_writing()
        planned = PlanSummary.of_summary(read_summary(files.plan))
        if verify:
            self._report.line("apply: going on after an attempt that broke off")
            session.sort_batches(is_staged=planned.staged is not None)
        if planned.writes:
            self._report.line(f"apply: writing {planned.writes:,} records")
        is_applied = planned.staged is not None and session.batches.is_complete
        with self._opened(files, run_id, held) as (driver, differ):
            if is_applied:
                differ.clean_up(planned)
                return
            if planned.writes and not differ.is_ready(planned):
                planned = self._diff_again(session, files, driver, differ, planned)
            rules = RunRules.for_changes(self.job, driver, self._workspace.versions)
            writer = PlanWriter(session.run, session.batches, self._workspace, rules, self._report, verify=verify)
            differ.apply(planned, writer, verify=verify)

    def _diff_again(
        self, session: RunSession, files: RunFiles, driver: TargetDriver, differ: Differ, planned: PlanSummary
    ) -> PlanSummary:
        """Makes the plan again where the staging tables that held it have gone: they are caches of the snapshot."""
        if planned.staged is not None and not planned.staged.temporary:
            self._report.warning("apply: the staging tables of the plan are gone; it is made again from the snapshot")
        return self._diff(session, files, driver, differ)
