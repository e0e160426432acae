"""A run that applies single items and no whole fetch: how it is begun under the lease of its sync, and ended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import uuid4

from sync_pipelines.database.ledger import RunRow
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.redaction import exception_type, message_of
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.runner.calls.target_driver import TargetDriver, open_target
from sync_pipelines.runner.context.lease import HeldLease, renewing, take_lease
from sync_pipelines.runner.context.run_log import RunReport
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.failures.reconcile import note_run
from sync_pipelines.runner.runs.results import finish_run
from sync_pipelines.runner.write.record_history import forget_old_history


class ItemsRun:
    """What a drain and a retry have in common.

    Args:
        job: The sync job.
        workspace: Ledger with what is to be applied, clock.
        report: The run log.
        dagster_run_id: The Dagster run that carries it out, if any.
        wait_s: Seconds to wait at most for another run of the same sync.
    """

    kind: str
    """What the ledger calls such a run."""

    def __init__(
        self,
        job: SyncJob[Any, Any],
        workspace: Workspace,
        report: RunReport | None = None,
        dagster_run_id: str | None = None,
        wait_s: float = 0.0,
    ) -> None:
        self.job = job
        self.results: SyncResults | None = None
        """What the run did, once it has ended, well or not; None if it never began."""
        self._workspace = workspace
        self._report = report or RunReport()
        self._dagster_run_id = dagster_run_id
        self._wait_s = wait_s

    @contextmanager
    def _leased(self) -> Iterator[tuple[str, HeldLease]]:
        """Has the lease of the sync; gives the id of the run that is to begin.

        Raises:
            SyncBusyError: Another run of this sync is still under way.
        """
        run_id = str(uuid4())
        held = take_lease(self._workspace, self.job.name, run_id, self._dagster_run_id, self._wait_s)
        try:
            self._workspace.clean_up_ledger()
            forget_old_history(self.job, self._workspace)
            yield run_id, held
        finally:
            self._workspace.leases.release(held.lease)

    @contextmanager
    def _under_way(
        self, run_id: str, held: HeldLease, options: Mapping[str, Any], started_at: datetime
    ) -> Iterator[TargetDriver]:
        """Begins the run and opens the target; however the run ends, the ledger knows and `results` has what it did."""
        began_s = time.monotonic()
        self._workspace.ledger.start_run(
            RunRow(run_id, self.job.name, self.kind, self._dagster_run_id, options, started_at)
        )
        failure: str | None = "interrupted"
        try:
            with renewing(held), open_target(self.job, held) as driver:
                yield driver
            failure = None
        except Exception as error:
            failure = f"{exception_type(error)}: {message_of(error)}"
            raise
        finally:
            self._end(run_id, round((time.monotonic() - began_s) * 1000), failure)

    def _end(self, run_id: str, duration_ms: int, failure: str | None) -> None:
        self._workspace.ledger.save_phase(run_id, "apply", duration_ms, notes=self._notes())
        note_run(self._workspace, self.job, run_id, failure, applied_all=failure is None)
        self.results = finish_run(self._workspace, run_id, failure, applied_all=failure is None)
        self._report.finished(self.results)

    def _notes(self) -> list[str]:
        """What a person should know of the run."""
        return []
