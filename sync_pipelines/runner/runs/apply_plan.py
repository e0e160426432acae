"""Applies a plan of a dry run, or of what limits withhold: exactly that, once, and nothing that has changed since."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from uuid import uuid4

from sync_pipelines.database.ledger import RunRow
from sync_pipelines.database.plans import PlanRow
from sync_pipelines.engine.redaction import redact
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import ConfigurationError, PlanError, TooManyFailedError
from sync_pipelines.runner.calls.target_driver import open_target
from sync_pipelines.runner.context.lease import HeldLease
from sync_pipelines.runner.decide.came_since import came_since
from sync_pipelines.runner.decide.conflict_check import ConflictCheck
from sync_pipelines.runner.decide.rules import RunRules
from sync_pipelines.runner.plans.fingerprint import fingerprint_of
from sync_pipelines.runner.plans.plan_file import files_of_plan, read_failed
from sync_pipelines.runner.plans.plan_summary import PlanSummary
from sync_pipelines.runner.plans.plan_view import anew, find_plan, gone, not_open
from sync_pipelines.runner.runs.session import APPLYING, Run, RunSession
from sync_pipelines.runner.write.plan_writer import PlanWriter, error_row
from sync_pipelines.snapshots.parquet_pages import read_summary


@dataclass(frozen=True, slots=True)
class Release:
    """Says why a plan is applied, and who says so."""

    reason: str
    released_by: str


def _release(plan: PlanRow, reason: str | None, released_by: str | None) -> Release | None:
    """Makes sure that there is a reason where one is needed.

    Raises:
        PlanError: There is none.
    """
    said = redact(" ".join((reason or plan.reason or "").split()))
    if said:
        return Release(said, released_by or plan.released_by or _user())
    if plan.guarded:
        raise PlanError(
            f"{plan.job}: guards withhold the plan {plan.id}: {'; '.join(plan.guarded)}. Look at it with "
            f"`sync-pipelines plan show {plan.id[:8]}`; if it is right, apply it with a reason (--reason, reason=)"
        )
    return None


def _user() -> str:
    """Returns who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


class PlanRun(Run):
    """Applies a plan. Calls `on_start` before anything is written, and `on_complete` afterwards."""

    kind = APPLYING

    def apply_kept(self, given: str, reason: str | None = None, released_by: str | None = None) -> SyncResults:
        """Applies the plan; goes on where an earlier attempt broke off.

        Args:
            given: The plan's id, or the beginning of it.
            reason: Why it is right; needed for what limits withhold.

        Raises:
            ConfigurationError: There is no such plan, or it is of another sync.
            PlanError: It is applied already, has expired, its files are gone, or it was made for something else; or
                limits withhold it and there is no reason.
            TargetError: The target broke off; what was applied is accounted for. Apply the plan again to go on.
            HookError: `on_start` failed (nothing was written) or `on_complete` (everything was).
        """
        plan = find_plan(self._workspace, given)
        if plan.job != self.job.name:
            raise ConfigurationError(f"the plan {plan.id} is one of {plan.job!r}, not of {self.job.name!r}")
        release = _release(plan, reason, released_by)
        attempt = str(uuid4())  # of its own, so that two processes that go on with one plan exclude each other
        session = self._session()
        with session.leased(attempt) as held:
            session.run_id = self._claimed(plan, attempt)
            run = self._ledger.run(session.run_id)
            if run is None:
                session.start({"plan": plan.id, "kind": plan.kind}, clean_up=False)
            else:
                session.run = run
            notes_of_release = self._note_release(find_plan(self._workspace, plan.id), session.run, release)
            try:
                with session.phase("apply") as notes:
                    session.on_start()
                    notes.extend(notes_of_release)
                    notes.extend(self._apply_checked(plan, session, held))
                    session.require_good_accounts()
            except TooManyFailedError:
                self._workspace.plans.finish(plan.id, self._workspace.clock())  # for all of it is applied
                raise
            results = session.finish(None, applied_all=True)
            self._workspace.plans.finish(plan.id, self._workspace.clock())
            self._report.finished(results)
            session.on_complete(results)
        return results

    def _claimed(self, plan: PlanRow, attempt: str) -> str:
        """Returns the run that applies the plan: a new one, or the one of an attempt that broke off."""
        if not files_of_plan(self._workspace, plan.id, plan.kind).plan.exists():
            raise gone(plan)
        run_id = self._workspace.plans.claim(plan.id, attempt, self._workspace.clock())
        if run_id is None:
            raise not_open(find_plan(self._workspace, plan.id))
        return run_id

    def _apply_checked(self, plan: PlanRow, session: RunSession, held: HeldLease) -> list[str]:
        run_id = session.run_id
        self._require_made_for(plan, session)
        files = files_of_plan(self._workspace, plan.id, plan.kind)
        planned = PlanSummary.of_summary(read_summary(files.plan))
        self._ledger.save_diff_errors(run_id, map(error_row, read_failed(files)))
        with open_target(self.job, held) as driver:
            with self._ledger.together():
                verify = self._ledger.begin_apply(run_id, self._workspace.clock())
                session.begin_writing()
            if verify:
                self._report.line("apply: going on after an attempt that broke off")
            self._report.line(f"apply: writing {planned.writes:,} records of the plan {plan.id}")
            since = came_since(self.job, self._workspace, plan, driver)
            check = ConflictCheck(self.job, driver, uncertain=verify, came_since=since)
            rules = RunRules.for_changes(self.job, driver, self._workspace.versions, check)
            applier = PlanWriter(session.run, session.batches, self._workspace, rules, self._report, verify=verify)
            applier.apply_plan(files, planned)
        return check.notes()

    def _note_release(self, plan: PlanRow, run: RunRow, release: Release | None) -> list[str]:
        """Keeps who has released what limits had withheld, and why; returns what a person should know of it.

        What an attempt that broke off may have written stays theirs who released it then.
        """
        if release is None:
            return []
        notes = [f"released by {release.released_by}: {release.reason}"]
        if plan.reason and plan.released_by and run.apply_started_at is not None:
            first = f"released by {plan.released_by}: {plan.reason}"
            notes = [first, *(f"gone on with, {each}" for each in notes if each != first)]
        else:
            self._workspace.plans.note_reason(plan.id, release.reason, release.released_by)
        return [*notes, *(f"guarded: {each}" for each in plan.guarded)]

    def _require_made_for(self, plan: PlanRow, session: RunSession) -> None:
        if fingerprint_of(self.job) == plan.made_for:
            return
        if not session.batches:
            self._workspace.plans.give_back(plan.id)
        raise PlanError(
            f"{self.job.name}: the target or the declaration has changed since the plan {plan.id} was made, and it may "
            f"mean something else now; nothing was written. Make a new one: {anew(plan)}"
        )
