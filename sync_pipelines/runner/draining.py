"""The drain: what waits in the inbox through the same diff and apply as a full run, in batches until it is empty."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from sync_pipelines.database.inbox import Delivery, Settled
from sync_pipelines.database.ledger import RunRow
from sync_pipelines.engine.codec import decode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.plan import Outcome
from sync_pipelines.engine.redaction import exception_type, message_of
from sync_pipelines.engine.results import Counts, SyncError, SyncResults
from sync_pipelines.errors import AccountsError, ItemError, TargetError
from sync_pipelines.recording.snapshot import SnapshotRow
from sync_pipelines.runner.applying import ChunkResult, apply_chunk
from sync_pipelines.runner.diffing import PageDiff, canonical_or_error, diff_page
from sync_pipelines.runner.fetching import snapshot_row
from sync_pipelines.runner.leasing import HeldLease, renewing, take_lease
from sync_pipelines.runner.outcome import error_row, finish_run
from sync_pipelines.runner.reporting import RunReport
from sync_pipelines.runner.target_driver import TargetDriver, open_target
from sync_pipelines.runner.workspace import Workspace

BATCH_SIZE = 500
_POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class DrainLimits:
    """How long a drain goes on.

    Args:
        linger_s: Seconds to wait for late arrivals once the inbox is empty.
        longest_s: Seconds after which it ends although more waits, so that a full sync gets its turn.
    """

    linger_s: float = 2.0
    longest_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Applied:
    """What a drain did with one delivery, for the operator's table."""

    external_id: str | None
    action: str
    message: str | None = None


@dataclass(frozen=True, slots=True)
class _Batch:
    """Deliveries, and what became of them so far."""

    deliveries: Sequence[Delivery]
    rows: Sequence[SnapshotRow]
    page: PageDiff
    chunk: ChunkResult


class Drain:
    """Applies the deliveries of a sync job that wait.

    Args:
        job: The sync job.
        workspace: Ledger with the inbox, clock.
        report: The run log.
        dagster_run_id: The Dagster run that drains, if any.
        wait_s: Seconds to wait at most for another run of the same sync.
    """

    def __init__(
        self,
        job: SyncJob[Any, Any],
        workspace: Workspace,
        report: RunReport | None = None,
        dagster_run_id: str | None = None,
        wait_s: float = 0.0,
    ) -> None:
        self.job = job
        self.applied: list[Applied] = []
        self._workspace = workspace
        self._report = report or RunReport()
        self._dagster_run_id = dagster_run_id
        self._wait_s = wait_s

    def run(self, limits: DrainLimits | None = None, sleep: Callable[[float], object] = time.sleep) -> SyncResults:
        """Drains the inbox until it stays empty. Calls no run hooks.

        Raises:
            SyncBusyError: Another run of this sync is still under way.
            TargetError: The target does not answer; what is not applied stays waiting.
            ConfigurationError: The target does not fit its database.
        """
        run_id = str(uuid4())
        held = take_lease(self._workspace, self.job.name, run_id, self._dagster_run_id, self._wait_s)
        try:
            return self._run_leased(run_id, held, limits or DrainLimits(), sleep)
        finally:
            self._workspace.leases.release(held.lease)

    def _run_leased(
        self, run_id: str, held: HeldLease, limits: DrainLimits, sleep: Callable[[float], object]
    ) -> SyncResults:
        started_at, began_s = self._workspace.clock(), time.monotonic()
        self._workspace.ledger.start_run(
            RunRow(run_id, self.job.name, "drain", self._dagster_run_id, options={}, started_at=started_at)
        )
        failure: str | None = "interrupted"
        try:
            with renewing(held), open_target(self.job, held) as driver:
                self._drain(run_id, driver, limits, sleep)
            failure = None
        except Exception as error:
            failure = f"{exception_type(error)}: {message_of(error)}"
            raise
        finally:
            self._workspace.ledger.save_phase(run_id, "apply", round((time.monotonic() - began_s) * 1000))
            results = finish_run(self._workspace, run_id, failure)
            self._report.finished(results)
        return results

    def _drain(self, run_id: str, driver: TargetDriver, limits: DrainLimits, sleep: Callable[[float], object]) -> None:
        began_s = last_arrival_s = time.monotonic()
        number = 0
        while time.monotonic() - began_s < limits.longest_s:
            deliveries = self._workspace.inbox.oldest_waiting(self.job.name, BATCH_SIZE)
            if deliveries:
                self._apply(run_id, number, driver, deliveries)
                number, last_arrival_s = number + 1, time.monotonic()
            elif time.monotonic() - last_arrival_s >= limits.linger_s:
                return
            else:
                sleep(_POLL_S)

    def _apply(self, run_id: str, number: int, driver: TargetDriver, deliveries: Sequence[Delivery]) -> None:
        rows = [_row(self.job, position, delivery) for position, delivery in enumerate(deliveries)]
        page = diff_page(self.job, driver, _LastOf(driver, rows), rows)
        # a drain that was killed between writing and settling finds its deliveries again: look before creating
        chunk = ChunkResult()
        try:
            apply_chunk(driver, page.entries, verify=True, result=chunk)
        except TargetError:
            self._settle(run_id, number, _Batch(deliveries, rows, page, chunk))  # what has no outcome stays waiting
            raise
        counts = page.counts() + chunk.counts()
        if counts.items() != len(deliveries):
            raise AccountsError(
                f"{self.job.name}: {len(deliveries)} deliveries, outcomes of {counts.items()}: {counts}"
            )
        self._settle(run_id, number, _Batch(deliveries, rows, page, chunk))

    def _settle(self, run_id: str, number: int, batch: _Batch) -> None:
        errors = sorted([*batch.page.failed, *batch.chunk.errors], key=lambda error: error.position)
        counts = batch.page.counts() + batch.chunk.counts()
        settled = _settled(batch, errors)
        now = self._workspace.clock()
        self._workspace.inbox.settle(settled, now)
        self._workspace.ledger.save_chunk(run_id, number, _plain(counts), map(error_row, errors), now)
        for error in errors:
            self._report.item_failed(error)
        self.applied += [Applied(each.external_id, each.action or "failed", each.message) for each in settled]


def _plain(counts: Counts) -> dict[str, int]:
    """What was found up to date counts as unchanged; nothing is recovered where nothing is known to have broken off."""
    return {**counts.to_dict(), "recovered": 0}


def _item_text(delivery: Delivery) -> str:
    if delivery.item is None:
        raise ItemError(f"a delivery of the kind {delivery.kind!r} can't be applied by this version")
    return delivery.item


def _row(job: SyncJob[Any, Any], position: int, delivery: Delivery) -> SnapshotRow:
    try:
        item = decode(_item_text(delivery))
    except Exception as error:  # noqa: BLE001 - one bad delivery never stops the others
        return SnapshotRow(position, None, None, exception_type(error), message_of(error))
    return snapshot_row(job, position, item)


class _LastOf:
    """Of several deliveries for one id the newest counts."""

    def __init__(self, driver: TargetDriver, rows: Sequence[SnapshotRow]) -> None:
        self._last: dict[str, int] = {}
        for row in rows:
            canonical = canonical_or_error(driver, row.external_id) if row.external_id is not None else None
            if isinstance(canonical, str):
                self._last[canonical] = row.position

    def positions(self, ids: Sequence[str]) -> dict[str, int]:
        """The last position of each id."""
        return {each: self._last[each] for each in ids if each in self._last}


def _settled(batch: _Batch, errors: Sequence[SyncError]) -> list[Settled]:
    page, chunk = batch.page, batch.chunk
    actions = {each.position: Outcome.SKIPPED for each in page.skipped}
    actions |= {each.position: Outcome.UNCHANGED for each in page.unchanged}
    actions |= {each.position: Outcome.DUPLICATE for each in page.duplicates}
    actions |= {page.entries[index].position: outcome for index, outcome in chunk.outcomes.items()}
    messages = {error.position: f"{error.exception_type}: {error.message}" for error in errors}
    return [
        Settled(
            id=delivery.id,
            external_id=batch.rows[position].external_id,
            action=None if position in messages else actions[position].value,
            message=messages.get(position),
        )
        for position, delivery in enumerate(batch.deliveries)
        if position in messages or position in actions
    ]
