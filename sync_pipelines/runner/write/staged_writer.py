"""Applies what the database has planned: its batches, then quarantined rows of the plan file, then refused rows."""

from __future__ import annotations

from functools import partial

from sync_pipelines.database.batches import COMPLETE, REFUSED, STAGED, BatchKey
from sync_pipelines.engine.pages import PAGE_SIZE, batches
from sync_pipelines.engine.progress import Progress
from sync_pipelines.engine.results import Counts
from sync_pipelines.runner.calls.target_driver import Staged, TargetDriver
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.decide.staged_diff import quarantined_entries
from sync_pipelines.runner.plans.plan_summary import PlanSummary
from sync_pipelines.runner.write.plan_writer import PlanWriter
from sync_pipelines.snapshots.store import RunFiles


class StagedWriter:
    """Applies one run's plan.

    Args:
        staged: Its staging tables, opened with the plan.
        plan_writer: Applies the plan file, and what is written one by one.
    """

    def __init__(
        self, files: RunFiles, workspace: Workspace, driver: TargetDriver, staged: Staged, plan_writer: PlanWriter
    ) -> None:
        self._run_id = plan_writer.run_id
        self._files = files
        self._workspace = workspace
        self._driver = driver
        self._staged = staged
        self._plan_writer = plan_writer

    def run(self, planned: PlanSummary, *, verify: bool) -> None:
        """Applies what is not applied yet.

        Args:
            verify: True if an earlier attempt may have written something.

        Raises:
            TargetError: The target does not answer; what was applied is accounted for.
        """
        first_load = planned.staged is not None and planned.staged.first_load
        for batch in self._driver.at_once(lambda: self._staged.batches(verify=verify, first_load=first_load)):
            self._driver.check_lease()
            self._driver.at_once(partial(self._staged.apply, batch))
            counts = self._save()
            self._move_recorded()
            done = counts.items() + counts.deleted
            self._plan_writer.report.progress(Progress("apply", planned.fetched, done, planned.writes))
        self._plan_writer.in_rounds(lambda: self._apply_singly(planned), batches=planned.writes)
        self._move_recorded()
        self._workspace.batches.replace(self._run_id, BatchKey(COMPLETE), {}, self._workspace.clock())
        self._driver.at_once(self._staged.drop)

    def _save(self) -> Counts:
        """Notes in the ledger what all batches have done so far, by whatever attempt."""
        counts = self._driver.at_once(self._staged.applied)
        self._driver.others.note_written(counts)
        self._workspace.batches.replace(self._run_id, BatchKey(STAGED), counts.to_dict(), self._workspace.clock())
        return counts

    def _move_recorded(self) -> None:
        if self._plan_writer.recorder is not None:
            self._plan_writer.recorder.move(self._driver, self._staged)

    def _apply_singly(self, planned: PlanSummary) -> None:
        """Writes what the database did not, in batches of the plan file and of quarantined rows."""
        self._plan_writer.apply_plan_file(self._files, planned)
        self._apply_quarantined()

    def _apply_quarantined(self) -> None:
        """Writes what the database refused, or what somebody else has changed, one by one."""
        given = number = 0
        while found := self._driver.at_once(partial(self._staged.quarantined, given)):
            if not given:
                self._plan_writer.report.line("apply: writing refused or changed records one by one")
            given += len(found)
            for rows in batches(found, PAGE_SIZE):
                self._plan_writer.apply_entries(BatchKey(REFUSED, number), quarantined_entries(self._files, rows))
                number += 1
