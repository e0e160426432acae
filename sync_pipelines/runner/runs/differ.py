"""`Differ`: how a run compares its snapshot and writes its plan: page by page, or by way of staging tables."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from sqlalchemy.exc import DBAPIError

from sync_pipelines.database.batches import STAGED, WrittenBatches
from sync_pipelines.database.faults import first_line
from sync_pipelines.database.ledger import RunRow
from sync_pipelines.engine.staged_target import StagedPlan
from sync_pipelines.errors import RunError, TargetError
from sync_pipelines.runner.calls.target_driver import Staged, TargetDriver
from sync_pipelines.runner.context.run_log import RunReport
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.decide.page_diff import diff_snapshot
from sync_pipelines.runner.decide.rules import RunRules
from sync_pipelines.runner.decide.staged_diff import StagedDiff
from sync_pipelines.runner.plans.plan_summary import PlanSummary
from sync_pipelines.runner.write.plan_writer import PlanWriter
from sync_pipelines.runner.write.record_history import move_left
from sync_pipelines.runner.write.staged_writer import StagedWriter
from sync_pipelines.snapshots.store import RunFiles
from sync_pipelines.targets.db_errors import refused_statement


class Differ(Protocol):
    """Makes the plan of a run, and writes it; only it knows where the plan is."""

    def move_leftover_history(self, run: RunRow) -> None:
        """Moves the history that dead runs of the sync have left into the ledger."""

    def diff(self, rules: RunRules) -> PlanSummary:
        """Compares the snapshot of the run with the local records and leaves a plan."""

    def recovered(self, noted: WrittenBatches) -> int:
        """Returns how many records an earlier attempt wrote, but did not note, of a plan that `diff` has replaced."""

    def is_ready(self, planned: PlanSummary) -> bool:
        """Returns whether the plan is where the diff left it.

        Raises:
            RunError: It was made for another table or declaration.
        """

    def apply(self, planned: PlanSummary, writer: PlanWriter, *, verify: bool) -> None:
        """Writes what is not written yet of a plan that is ready.

        Args:
            verify: True if an earlier attempt may have written something.
        """

    def clean_up(self, planned: PlanSummary) -> None:
        """Removes what is left of a plan that has been written."""


class PagedDiffer:
    """Compares page by page; the whole plan is in the run's files.

    Args:
        durable: True to keep what local records hold now, for a plan that is shown and applied later.
    """

    def __init__(self, files: RunFiles, report: RunReport, *, durable: bool) -> None:
        self.files = files
        self.report = report
        self.durable = durable

    def move_leftover_history(self, run: RunRow) -> None:
        """Does nothing: what is written page by page is in the ledger with its batch."""

    def diff(self, rules: RunRules) -> PlanSummary:
        """Compares every item by itself, as its page is read."""
        return diff_snapshot(rules, self.files, self.report, durable=self.durable)

    def recovered(self, noted: WrittenBatches) -> int:  # noqa: ARG002 - part of the protocol
        """Returns none: a batch is verified before it is written again."""
        return 0

    def is_ready(self, planned: PlanSummary) -> bool:
        """Returns whether all of the plan is in the file."""
        return planned.staged is None

    def apply(self, planned: PlanSummary, writer: PlanWriter, *, verify: bool) -> None:  # noqa: ARG002 - the writer knows
        """Writes the entries of the plan file."""
        writer.apply_plan(self.files, planned)

    def clean_up(self, planned: PlanSummary) -> None:
        """Does nothing: files of runs are removed by their age."""


class StagedDiffer:
    """Has the database compare and write, where it can and it is worth it; else goes page by page.

    Args:
        paged: Compares what is not worth it, and writes plans that are in a file.
        is_worth_it: True if the fetch is large enough, or only the database can tell what is missing.
    """

    def __init__(
        self, workspace: Workspace, driver: TargetDriver, staged: Staged, paged: PagedDiffer, *, is_worth_it: bool
    ) -> None:
        self._workspace = workspace
        self._driver = driver
        self._staged = staged
        self._paged = paged
        self._is_worth_it = is_worth_it
        self._recovered = 0

    def move_leftover_history(self, run: RunRow) -> None:
        """Moves the history that dead runs have written from staging tables."""
        if not self._paged.durable:  # a dry run changes nothing there
            move_left(self._workspace, run, self._driver, self._staged)

    def diff(self, rules: RunRules) -> PlanSummary:
        """Loads the snapshot into staging tables and compares it there."""
        self._recovered = 0
        if not self._is_worth_it:
            return self._paged.diff(rules)
        paged = self._paged
        staged_diff = StagedDiff(rules, paged.files, self._staged, paged.report, durable=paged.durable)
        try:
            found = self._driver.at_once(staged_diff.run)
        except (DBAPIError, TargetError) as error:
            refused = refused_statement(error)
            if refused is None:
                raise
            # nothing is written yet, and one by one the database may do what it does not do at once
            with suppress(DBAPIError, RunError):
                self._driver.at_once(self._staged.drop)
            reason = f"compared page by page, for the database refuses to compare all at once: {first_line(refused)}"
            planned = paged.diff(rules)
            return replace(planned, notes=[*planned.notes, reason])
        if not isinstance(found, str):
            self._recovered = self._staged.recovered
            return found
        paged.report.line(f"diff: page by page, not in bulk: {found}")
        return paged.diff(rules)

    def recovered(self, noted: WrittenBatches) -> int:
        """Returns how many written records only the staging tables know of."""
        unnoted = self._recovered - noted.written(STAGED)
        return unnoted + noted.written() if unnoted > 0 else 0

    def is_ready(self, planned: PlanSummary) -> bool:
        """Returns whether the plan is in the file, or still in the staging tables."""
        plan = planned.staged
        return plan is None or (not plan.temporary and self._driver.at_once(lambda: self._is_there(plan)))

    def _is_there(self, plan: StagedPlan) -> bool:
        if self._staged.fingerprint(plan.written) != plan.fingerprint:
            raise RunError(
                "the table or its declaration has changed since this run compared them, and its plan may say something "
                "else now; nothing more was written. Start a new run instead of re-executing this one."
            )
        return self._staged.resume(plan)

    def apply(self, planned: PlanSummary, writer: PlanWriter, *, verify: bool) -> None:
        """Writes the batches of the staging tables, then refused rows one by one."""
        if planned.staged is None:
            self._paged.apply(planned, writer, verify=verify)
        elif planned.writes:
            staged_writer = StagedWriter(self._paged.files, self._workspace, self._driver, self._staged, writer)
            staged_writer.run(planned, verify=verify)

    def clean_up(self, planned: PlanSummary) -> None:
        """Removes the staging tables."""
        if self.is_ready(planned):
            self._driver.at_once(self._staged.drop)
