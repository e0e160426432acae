"""`RunSession`: the life of a run of any kind, from its lease to its results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import uuid4

from sync_pipelines.database.batches import WrittenBatches
from sync_pipelines.database.data_versions import Writing
from sync_pipelines.database.ledger import RunRow
from sync_pipelines.database.ledger_faults import LedgerLockedError
from sync_pipelines.database.tables import APPLY, DRAIN, DRY_RUN, FULL, RETRY
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.redaction import described
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import HookError, RunError, TooManyFailedError
from sync_pipelines.runner.calls.backoff import call_again
from sync_pipelines.runner.calls.target_driver import TargetDriver, open_target
from sync_pipelines.runner.calls.whose_fault import speaking
from sync_pipelines.runner.context.lease import HeldLease, renewing, take_lease
from sync_pipelines.runner.context.run_log import RunReport
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.failures.reconcile import EndingRun, note_run
from sync_pipelines.runner.runs.results import KnownRun, require_good_accounts
from sync_pipelines.runner.write.record_history import forget_old_history


@dataclass(frozen=True, slots=True)
class RunKind:
    """Says what differs in the lives of runs.

    Args:
        undone: What has not happened when `on_start` fails.
        applies: False for a run that only plans: it keeps no lease for the applying, and calls no `on_complete`.
    """

    name: str
    undone: str = ""
    applies: bool = True


FULL_RUN = RunKind(FULL, "nothing was fetched")
PLANNING = RunKind(DRY_RUN, "nothing was fetched", applies=False)
APPLYING = RunKind(APPLY, "nothing was written")
DRAINING = RunKind(DRAIN)
RETRYING = RunKind(RETRY)


class RunSession:
    """Carries one run through its lease, its row in the ledger, its phases and hooks, and its end.

    A run whose phases happen in several processes is continued by its id.

    Args:
        wait_s: Seconds to wait at most for another run of the same sync.
        run_id: The run to continue; by default a new one.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what a run is made of
        self,
        job: SyncJob[Any, Any],
        workspace: Workspace,
        kind: RunKind,
        report: RunReport | None = None,
        dagster_run_id: str | None = None,
        wait_s: float = 0.0,
        run_id: str | None = None,
    ) -> None:
        self.job = job
        self.kind = kind
        self.run_id = run_id or str(uuid4())
        self.results: SyncResults | None = None
        """What the run did, once it has ended, well or not; None if it never began."""
        self.completeness: Mapping[str, Any] | None = None
        """What the source said of its end, if this session asked it."""
        self._workspace = workspace
        self._ledger = workspace.ledger
        self._report = report or RunReport()
        self._dagster_run_id = dagster_run_id
        self._wait_s = wait_s
        self._attempt: str | None = None
        self._is_handed_over = False
        self._known: KnownRun | None = None

    @cached_property
    def run(self) -> RunRow:
        """Returns the run as the ledger has it, asked once.

        Raises:
            RunError: The ledger does not know it.
        """
        run = self._ledger.run(self.run_id)
        if run is None:
            raise RunError(f"the ledger has no run {self.run_id}")
        return run

    @cached_property
    def batches(self) -> WrittenBatches:
        """Returns what earlier attempts of the run have written, asked once."""
        return self._workspace.batches.of_run(self.run_id)

    def look_up(self) -> None:
        """Asks what the ledger has of the run, of one that is continued."""
        with self._ledger.together():
            self.run, self.batches  # noqa: B018 - they keep what they have been asked

    def forget_batches(self) -> None:
        """Forgets the batches of a plan that another one replaces."""
        if self.batches:
            self._workspace.batches.forget(self.run_id)
            del self.batches

    def sort_batches(self, *, is_staged: bool) -> None:
        """Says of batches that an older version has written what they are.

        Args:
            is_staged: True if the plan of the run is in staging tables.
        """
        if self.batches.is_unsorted:
            self._workspace.batches.sort(self.run_id, is_staged=is_staged)
            del self.batches

    @contextmanager
    def leased(self, attempt: str | None = None) -> Iterator[HeldLease]:
        """Holds the lease of the sync for the time of a block, and renews it. Gives it back unless a phase keeps it.

        Args:
            attempt: Who has it, if not the run: attempts that go on with one run exclude each other then.
        """
        self._attempt = attempt
        holder = attempt or self.run_id
        held = take_lease(self._workspace, self.job.name, holder, self._dagster_run_id, self._wait_s)
        is_kept = False
        try:
            with speaking(self.job.name), renewing(held):
                yield held
            is_kept = self._is_handed_over
        finally:
            if not is_kept:
                with suppress(LedgerLockedError):  # it expires by itself
                    self._workspace.leases.release(held.lease)

    def start(
        self,
        options: Mapping[str, Any],
        started_at: datetime | None = None,
        *,
        clean_up: bool = True,
    ) -> set[str]:
        """Notes in the ledger that the run begins, and forgets there what is older than the settings keep it.

        Returns:
            The plans that can still be applied, whose files must stay.
        """
        started_at = started_at or self._workspace.clock()
        run = RunRow(self.run_id, self.job.name, self.kind.name, self._dagster_run_id, dict(options), started_at)
        with self._ledger.together():
            self._ledger.start_run(run)
            keep = self._workspace.expire_plans() if clean_up else set()
            is_more = clean_up and self._forget_old()
        self.run = run
        while is_more:  # a part at a time, for others need the ledger
            is_more = self._forget_old()
        return keep

    def begin_writing(self) -> None:
        """Notes that this run is about to write to the target: if it dies, the target's data version is a new one."""
        self._workspace.data_versions.begin(Writing(self.job.name, self.run_id), self._workspace.clock())

    def _forget_old(self) -> bool:
        """Forgets a part of what is older than settings and job keep it. True if there may be more."""
        with self._ledger.together():
            is_more = self._workspace.forget_old()
            return forget_old_history(self.job, self._workspace) or is_more

    @contextmanager
    def phase(
        self, name: str, keep: HeldLease | None = None, at_end: Callable[[], list[str]] | None = None
    ) -> Iterator[list[str]]:
        """Times a phase; if it fails, the ledger and `on_complete` hear of it before the error goes on.

        Args:
            keep: The lease, if it is to be kept for the next phase.
            at_end: Gives further notes, in the transaction that notes the end of the phase.

        Yields:
            The notes of the phase, to be added to.
        """
        notes: list[str] = []
        began_s = time.monotonic()
        try:
            with speaking(self.job.name):
                yield notes
        except Exception as error:
            results = self._fail(name, began_s, notes, error)
            if isinstance(error, RunError):
                error.results = results
            self._report.finished(results)
            self._report_failure(results, error)
            raise
        except BaseException:
            self.finish(f"{name}: interrupted", applied_all=False)
            raise
        with self._ledger.together():
            notes.extend(at_end() if at_end is not None else [])
            self._save_phase(name, began_s, notes)
            if keep is not None:
                self._hand_over(keep)
        for note in notes:
            self._report.warning(note)

    def _hand_over(self, held: HeldLease) -> None:
        to_another = self._dagster_run_id is not None  # without Dagster all phases are of one process
        self._workspace.leases.hand_over(held.lease, self._workspace.lease, to_another=to_another)
        self._is_handed_over = True

    @contextmanager
    def items_phase(
        self, held: HeldLease, options: Mapping[str, Any], started_at: datetime, notes: Callable[[], list[str]]
    ) -> Iterator[TargetDriver]:
        """Carries out a run that applies single items: it has one phase and no hooks.

        However it ends, the ledger knows and `results` has what it did.

        Args:
            notes: Gives what a person should know of it, at its end.
        """
        began_s = time.monotonic()
        self.start(options, started_at)
        failure: str | None = "interrupted"
        try:
            with speaking(self.job.name), open_target(self.job, held) as driver:
                self.begin_writing()
                yield driver
            failure = None
        except Exception as error:
            failure = described(error)
            raise
        finally:
            self._save_phase("apply", began_s, notes())
            self._report.finished(self.finish(failure, applied_all=failure is None))

    def _save_phase(self, name: str, began_s: float, notes: list[str]) -> None:
        duration_ms = round((time.monotonic() - began_s) * 1000)
        self.run = self._ledger.save_phase(
            self.run_id,
            name,
            duration_ms,
            notes=notes,
            dagster_run_id=self._dagster_run_id,
            completeness=self.completeness,
        )

    def _fail(self, name: str, began_s: float, notes: list[str], error: Exception) -> SyncResults:
        self._known = None
        if self._is_ended_by_another():
            return KnownRun.of(self._workspace, self.run_id).results()
        self._save_phase(name, began_s, notes)
        return self.finish(f"{name}: {described(error)}", applied_all=isinstance(error, TooManyFailedError))

    def _is_ended_by_another(self) -> bool:
        """True if another attempt has gone on with the very same run, and has reported its end."""
        if self._attempt is None:
            return False
        run = self._ledger.run(self.run_id)
        if run is None or run.completed_at is None:
            return False
        lease = self._workspace.leases.of_job(self.job.name)
        return lease is None or lease.holder.run_id != self._attempt

    def require_good_accounts(self) -> None:
        """Makes sure that the outcomes add up, and that no more failed than the job allows.

        Raises:
            TooManyFailedError: More items failed than `fail_above` allows; a run that only plans has none.
        """
        self._known = KnownRun.of(self._workspace, self.run_id)
        require_good_accounts(self.job, self._known.results(), fail_above=self.kind.applies)

    def finish(self, failure: str | None, *, applied_all: bool) -> SyncResults:
        """Notes the failures of the run and how it ended, and gives its results.

        Args:
            applied_all: True if everything that it was to write is written.
        """
        known = self._known or KnownRun.of(self._workspace, self.run_id)  # after the accounts nothing is written
        ending = EndingRun(known.run, known.withheld, bool(known.errors), failure, applied_all)
        causes = note_run(self._workspace, self.job, ending) or known.causes
        self._known = replace(known, run=self.run, causes=causes)
        self.results = self._known.finish(failure, applied_all=applied_all)
        return self.results

    def on_start(self) -> None:
        """Calls the job's `on_start`.

        Raises:
            HookError: It failed.
        """
        if self.job.on_start is None:
            return
        try:
            call_again(self.job.on_start, what="")
        except Exception as error:
            raise HookError(f"{self.job.name}: on_start failed, {self.kind.undone}: {described(error)}") from error

    def on_complete(self, results: SyncResults) -> None:
        """Calls the job's `on_complete`, of a run that applies something.

        Raises:
            HookError: It failed; so has the run.
        """
        if self.job.on_complete is None or not self.kind.applies:
            return
        try:
            call_again(self.job.on_complete, results, what="")
        except Exception as error:
            failure = f"on_complete failed after the applying was done: {described(error)}"
            failed = self.finish(failure, applied_all=True)
            raise HookError(f"{self.job.name}: {failure}", results=failed) from error

    def _report_failure(self, results: SyncResults, failure: Exception) -> None:
        if self.job.on_complete is None or not self.kind.applies:
            return
        try:
            call_again(self.job.on_complete, results, what="")
        except Exception as error:  # noqa: BLE001 - the run's own failure is the one to be raised
            failure.add_note(f"on_complete failed as well: {described(error)}")
            self._report.warning(f"on_complete failed as well: {described(error)}")


class Run:
    """Carries out runs of one kind."""

    kind: RunKind

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

    def _session(self, run_id: str | None = None) -> RunSession:
        """Returns a new run, or the one of that id."""
        return RunSession(
            self.job, self._workspace, self.kind, self._report, self._dagster_run_id, self._wait_s, run_id
        )


class ItemsRun(Run):
    """Carries out one run that applies single items, in one session."""

    @cached_property
    def session(self) -> RunSession:
        """Returns the session of the run."""
        return self._session()

    @property
    def results(self) -> SyncResults | None:
        """Returns what the run did, once it has ended, well or not; None if it never began."""
        return self.session.results
