"""The drain: decides on what waits in the inbox, and writes it, in batches until it is empty."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, partial

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from sync_pipelines.database.applied_since import AppliedSince
from sync_pipelines.database.batches import BatchKey
from sync_pipelines.database.history import Writer
from sync_pipelines.database.inbox import Completed
from sync_pipelines.database.tables import DRAIN
from sync_pipelines.engine.plan import SUCCEEDED, Outcome
from sync_pipelines.engine.redaction import message_of, typed
from sync_pipelines.engine.results import SyncError, SyncResults
from sync_pipelines.errors import LeaseLostError, RetryableError, TargetError
from sync_pipelines.runner.calls.target_driver import TargetDriver
from sync_pipelines.runner.calls.whose_fault import passes
from sync_pipelines.runner.changes.coalesce import Incoming
from sync_pipelines.runner.changes.drain_batch import DrainBatch
from sync_pipelines.runner.changes.read_delivery import in_their_order, parts_in, read_delivery
from sync_pipelines.runner.decide.came_since import FetchedSince
from sync_pipelines.runner.decide.outcomes import Outcomes
from sync_pipelines.runner.decide.rules import RunRules
from sync_pipelines.runner.failures.failure_notes import Delivered, resolve_delivered
from sync_pipelines.runner.fetch.refetch import again_after_outage
from sync_pipelines.runner.runs.session import DRAINING, ItemsRun
from sync_pipelines.runner.write.plan_writer import error_row
from sync_pipelines.runner.write.record_history import Recorder

BATCH_SIZE = 2_000
_FIRST_BATCH_SIZE, _SMALLEST_BATCH_SIZE = 100, 10
_QUICK_S, _SLOW_S = 2.0, 20.0
"""After a quick batch the next one is larger, after a slow one smaller: a full sync waits for no batch long."""
_BATCH_BYTES = 32_000_000
"""What the deliveries of a batch may take, and once more what comes with them."""
_POLL_S = 0.25
_FORCE = "`sync-pipelines webhooks replay --force` applies it all the same"


@dataclass(frozen=True, slots=True)
class DrainLimits:
    """How long a drain goes on.

    Args:
        idle_wait_s: Seconds to wait for late arrivals once the inbox is empty.
        longest_s: Seconds after which it ends although more waits, so that a full sync gets its turn.
    """

    idle_wait_s: float = 2.0
    longest_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Applied:
    """Says what a drain did with one delivery, for the operator's table."""

    external_id: str | None
    action: str
    message: str | None = None


class Drain(ItemsRun):
    """Applies the deliveries of a sync job that wait."""

    kind = DRAINING
    _batch_size = _FIRST_BATCH_SIZE
    _unsure_until: datetime | None = None
    _superseded = 0

    @cached_property
    def applied(self) -> list[Applied]:
        """What was done with each delivery."""
        return []

    def run(self, limits: DrainLimits | None = None, sleep: Callable[[float], object] = time.sleep) -> SyncResults:
        """Drains the inbox until it stays empty. Calls no run hooks.

        Raises:
            TargetError: The target does not answer; what is not applied stays waiting.
            FetchError: The source does not answer; what needs no answer of it is applied.
        """
        with self.session.leased() as held:
            started_at = self._workspace.clock()
            self._unsure_until = AppliedSince(self._workspace.ledger, self.job.name).until(started_at)
            with (
                self.session.items_phase(held, {}, started_at, self._notes) as driver,
                FetchedSince(self.job, self._workspace, driver) as self._fetched_since,
            ):
                self._drain(self.session.run_id, driver, limits or DrainLimits(), sleep)
        assert self.results is not None  # noqa: S101 - tells mypy; the run has ended
        return self.results

    def _notes(self) -> list[str]:
        if not self._superseded:
            return []
        return [f"{self._superseded:,} deliveries are older than what was fetched since, and were skipped; {_FORCE}"]

    def _drain(self, run_id: str, driver: TargetDriver, limits: DrainLimits, sleep: Callable[[float], object]) -> None:
        began_s = last_arrival_s = time.monotonic()
        number = 0
        while time.monotonic() - began_s < limits.longest_s:
            looked_s = time.monotonic()
            deliveries = self._next(driver)
            if deliveries:
                self._apply(run_id, number, driver, deliveries)
                number, last_arrival_s = number + 1, time.monotonic()
                self._adapt(last_arrival_s - looked_s)
            elif time.monotonic() - last_arrival_s >= limits.idle_wait_s:
                return
            else:
                sleep(_POLL_S)

    def _adapt(self, took_s: float) -> None:
        if took_s < _QUICK_S:
            self._batch_size *= 4
        elif took_s > _SLOW_S:
            self._batch_size = max(_SMALLEST_BATCH_SIZE, self._batch_size // 2)
        self._batch_size = min(self._batch_size, BATCH_SIZE)

    def _next(self, driver: TargetDriver) -> Sequence[Incoming]:
        """Returns the deliveries that are due, and others that wait for the same items, so that none comes too late.

        Their ids are looked for as the target's key has them too: that is how those are stored that have been tried.
        """
        inbox, name = self._workspace.inbox, self.job.name
        size = min(self._batch_size, BATCH_SIZE)
        stored = inbox.oldest_waiting(name, size, due_at=self._workspace.clock(), max_bytes=_BATCH_BYTES)
        if not stored:
            return []
        due = {each.id: read_delivery(self.job, driver, each) for each in stored}
        ids = {id_ for each in due.values() for id_ in (each.external_id, each.delivery.external_id) if id_ is not None}
        others = [each for each in inbox.waiting_of(name, list(ids), stored[-1].id, _BATCH_BYTES) if each.id not in due]
        read = [*due.values(), *(read_delivery(self.job, driver, each) for each in others)]
        if any(each.several for each in read):
            self._split(read)
            return self._next(driver)
        return self._with_overtaken(in_their_order(read))

    def _split(self, read: Sequence[Incoming]) -> None:
        """Has each change of a delivery that carries several wait by itself."""
        for each in read:
            if each.several:
                parts = parts_in(self.job, each, self._workspace.clock())
                self._workspace.inbox.split(each.delivery.id, parts)

    def _with_overtaken(self, deliveries: Sequence[Incoming]) -> Sequence[Incoming]:
        """Marks those whose item has a later state by now, and which have no version that would tell.

        Nobody knew which item they are for when the later one was applied: they could not be parsed then, or say the id
        otherwise. An item with a version may be newer all the same, but not than a delete that came after it.
        """
        known = [each for each in deliveries if each.may_be_overtaken]
        if not known:
            return deliveries
        inbox, name, first = self._workspace.inbox, self.job.name, known[0].delivery.place
        ids = list({each.external_id or "" for each in known})
        has_versions = self.job.get_version is not None
        actions = sorted(SUCCEEDED) if has_versions and self.job.fetch_one is None else None
        newest = deleted = inbox.newest_applied(name, ids, first, actions)
        if has_versions:
            deleted = inbox.newest_applied(name, ids, first, [Outcome.DELETED.value])
        if not newest and not deleted:
            return deliveries
        marked = set()
        for each in known:
            by = newest if each.version is None else deleted
            if by.get(each.external_id or "", 0) > each.delivery.place:
                marked.add(each.position)
        return [replace(each, is_overtaken=True) if each.position in marked else each for each in deliveries]

    def _apply(self, run_id: str, number: int, driver: TargetDriver, deliveries: Sequence[Incoming]) -> None:
        """Applies a batch: in one transaction with what is noted of it where target and ledger are one database."""
        rules = RunRules.for_changes(self.job, driver, self._workspace.versions)
        batch = DrainBatch(rules, deliveries, self._unsure_until, self._fetched_since)
        batch.decide_deliveries()
        outcomes: Outcomes | None = None
        try:
            outcomes = driver.at_once(lambda: self._apply_together(run_id, number, driver, batch))
        except DBAPIError:
            outcomes = self._committed(run_id, number, batch)
            if outcomes is None:
                self._report.line("drain: this batch is written in several transactions, for the database refuses one")
        if outcomes is None:
            try:
                batch.write_deliveries(None)
            finally:
                outcomes = batch.outcomes
                self._complete(run_id, number, batch, outcomes)  # what has no outcome stays waiting
        self._report_items(batch, outcomes)
        if (ended := batch.ended(outcomes)) is not None:
            raise ended

    def _apply_together(self, run_id: str, number: int, driver: TargetDriver, batch: DrainBatch) -> Outcomes | None:
        """Writes and completes a batch in one transaction; None if target and ledger are two databases."""
        committed = self._committed(run_id, number, batch)
        if committed is not None:
            return committed
        try:
            with driver.together() as connection:
                if connection is None or not self._workspace.ledger.is_in(connection):
                    return None
                with driver.lease_locked():
                    outcomes = batch.write_deliveries(connection)
                    self._complete(run_id, number, batch, outcomes, connection)
                batch.written = outcomes
        except LeaseLostError:
            raise
        except TargetError as error:  # the connection failed, and all is undone
            if not passes(error):
                raise
            raise RetryableError(message_of(error)) from error
        return outcomes

    def _committed(self, run_id: str, number: int, batch: DrainBatch) -> Outcomes | None:
        """Returns what an attempt did whose uncertain commit has succeeded; None if there was none."""
        if batch.written is None or BatchKey(number=number) not in self._workspace.batches.of_run(run_id):
            return None
        return batch.written

    def _complete(
        self, run_id: str, number: int, batch: DrainBatch, outcomes: Outcomes, within: Connection | None = None
    ) -> None:
        """Completes the deliveries that have an outcome, and resolves failures of their items."""
        now = self._workspace.clock()
        resolve_delivered(self.job, self._workspace.failures, _succeeded(batch, outcomes), now, within)
        self._workspace.inbox.complete(self._completed(batch, outcomes, now), now, within)
        recorder = Recorder(self._workspace, Writer(self.job.name, run_id, DRAIN))
        counts, rows = outcomes.counts().to_dict(), map(error_row, outcomes.all_errors())
        key, also = BatchKey(number=number), partial(recorder.keep, outcomes.written)
        self._workspace.batches.save(run_id, key, counts, rows, now, within=within, also=also)

    def _completed(self, batch: DrainBatch, outcomes: Outcomes, now: datetime) -> Iterator[Completed]:
        for each in batch.incoming:
            error, outcome = outcomes.errors.get(each.position), outcomes.by_handle.get(each.position)
            if error is not None:
                in_vain = each.position in outcomes.in_vain
                again_at = self._workspace.retries.next_at(each.delivery.attempts + 1, now)
                if in_vain:
                    is_down = batch.ended(outcomes) is not None
                    again_at = again_after_outage(each.delivery.received_at, now, is_down=is_down)
                yield Completed(each.delivery.id, _other_id(each), None, _message(error), again_at, not in_vain)
            elif outcome is not None:
                why = batch.superseded.get(each.position)
                told = f"superseded: {why}; {_FORCE}" if why is not None else None
                yield Completed(each.delivery.id, _other_id(each), outcome.value, told)

    def _report_items(self, batch: DrainBatch, outcomes: Outcomes) -> None:
        self._superseded += len(batch.superseded)
        for failed in outcomes.all_errors():
            self._report.item_failed(failed)
        for each in batch.incoming:
            error, outcome = outcomes.errors.get(each.position), outcomes.by_handle.get(each.position)
            if error is not None:
                self.applied.append(Applied(each.external_id, "failed", _message(error)))
            elif outcome is not None:
                self.applied.append(Applied(each.external_id, outcome.value, batch.superseded.get(each.position)))


def _succeeded(batch: DrainBatch, outcomes: Outcomes) -> list[Delivered]:
    """Returns the items whose records are now what the deliveries say."""
    return [
        Delivered(each.external_id, each.delivery.received_at, each.version)
        for each in batch.incoming
        if each.external_id is not None and outcomes.by_handle.get(each.position) in SUCCEEDED
    ]


def _other_id(incoming: Incoming) -> str | None:
    """Returns the item's canonical id, if the inbox does not have it as it is."""
    return None if incoming.external_id == incoming.delivery.external_id else incoming.external_id


def _message(error: SyncError) -> str:
    return typed(error.exception_type, error.message)
