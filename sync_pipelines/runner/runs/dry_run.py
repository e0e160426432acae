"""A dry run: fetches and compares as any run, writes nothing to the target, and keeps the plan."""

from __future__ import annotations

from sync_pipelines.database.plans import PlanRow
from sync_pipelines.engine.plan import PlanCounts
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.runner.calls.target_driver import TargetDriver
from sync_pipelines.runner.plans.fingerprint import fingerprint_of
from sync_pipelines.runner.plans.plan_summary import PlanSummary
from sync_pipelines.runner.plans.plan_view import entry_line, first_entries
from sync_pipelines.runner.runs.comparing_run import ComparingRun, PlanRef
from sync_pipelines.runner.runs.differ import Differ
from sync_pipelines.runner.runs.session import PLANNING
from sync_pipelines.snapshots.store import RunFiles

_LINES_SHOWN = 20


class DryRun(ComparingRun):
    """Fetches, compares, and leaves a plan that `apply_plan` can apply. Calls `on_start`, but no `on_complete`."""

    kind = PLANNING

    def _compare(self, run_id: str, files: RunFiles, driver: TargetDriver, differ: Differ) -> PlanSummary:
        planned = super()._compare(run_id, files, driver, differ)
        self._workspace.plans.save(
            PlanRow(
                id=run_id,
                job=self.job.name,
                created_at=self._workspace.clock(),
                expires_at=self._workspace.plan_expires_at(),
                counts=(planned.planned or PlanCounts()).to_dict(),
                made_for=fingerprint_of(self.job),
                guarded=planned.verdict.reasons if planned.verdict.withheld else (),
            )
        )
        return planned

    def _note_withheld(self, run_id: str, planned: PlanSummary) -> list[str]:
        del run_id, planned  # it withholds nothing: it writes nothing
        return []

    def finish(self, plan: PlanRef) -> SyncResults:
        """Ends the run, and shows the first lines of its plan. Nothing is written to the target."""
        session = self._session(plan.run_id)
        with session.phase("plan"):
            session.require_good_accounts()
        results = session.finish(None, applied_all=False)
        for entry in first_entries(self._workspace.store.files_of(plan.run_id), _LINES_SHOWN):
            self._report.result(f"plan: {entry_line(entry)}")
        if results.planned is not None and results.planned.writes > _LINES_SHOWN:
            self._report.result(f"plan: {results.planned.writes - _LINES_SHOWN:,} more entries")
        self._report.result(f"plan: nothing was written; the plan is {plan.run_id}")
        self._report.finished(results)
        return results
