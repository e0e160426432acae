"""Inline mode: applies a change while its sender waits, then notes it in the inbox, then answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from sync_pipelines.database.inbox import Inbox
from sync_pipelines.database.inbox_storing import NewDelivery
from sync_pipelines.engine.changes import ChangeEvent
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.redaction import message_of
from sync_pipelines.engine.results import ItemResult
from sync_pipelines.errors import ItemError, SyncBusyError
from sync_pipelines.webhooks.answers import RETRY_AFTER_S, Answer, error, refused
from sync_pipelines.webhooks.problems import log_problem

AnyJob = SyncJob[Any, Any]
Apply = Callable[[AnyJob, ChangeEvent], ItemResult]
"""Applies one change at once. Raises `ItemError` if the item is at fault."""
Report = Callable[[AnyJob, ItemResult], object]
"""Tells somebody else, say Dagster, what became of an item."""

AT_A_TIME = 8
WAITING_AT_MOST = 64
TIMEOUT_S = 25.0


class InlineApplier:
    """Applies changes in a few threads.

    Args:
        inbox: Gives the inbox, which is opened if need be.
        apply: Applies one change.
        report: Is told of each that was applied; its failure is no failure of the delivery.
    """

    def __init__(self, inbox: Callable[[], Inbox], apply: Apply, report: Report | None = None) -> None:
        self._inbox = inbox
        self._apply = apply
        self._report = report
        self._pool = ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="sync_pipelines.inline")
        self._under_way = 0

    async def answer(self, job: AnyJob, change: ChangeEvent, delivery: NewDelivery) -> Answer:
        """Applies the change and gives what its sender is told.

        Raises:
            RefusedError: There is too much to do, or it takes too long.
        """
        if self._under_way >= WAITING_AT_MOST:
            raise refused(503, "too many deliveries are being applied", retry_after_s=1)
        self._under_way += 1
        work = asyncio.get_running_loop().run_in_executor(self._pool, self._carry_out, job, change, delivery)
        work.add_done_callback(self._has_ended)
        try:
            return await asyncio.wait_for(asyncio.shield(work), TIMEOUT_S)
        except TimeoutError:
            raise refused(503, "the item was not applied in time", retry_after_s=RETRY_AFTER_S) from None

    def _has_ended(self, _work: object) -> None:
        self._under_way -= 1

    def _carry_out(self, job: AnyJob, change: ChangeEvent, delivery: NewDelivery) -> Answer:
        try:
            return self._applied(job, change, delivery)
        except SyncBusyError:  # what the run has fetched may be older; the item is applied after it
            [stored] = self._inbox().store_many([delivery])
            return Answer(202, {"delivery": stored.id})
        except ItemError as failed:
            return Answer(422, {"error": message_of(failed), "external_id": failed.external_id or delivery.external_id})
        except Exception as failed:  # noqa: BLE001 - the target or the ledger is away: the sender tries again
            log_problem(f"{job.name}: a delivery was not applied", failed)
            return error(503, "the item can't be applied now", retry_after_s=RETRY_AFTER_S)

    def _applied(self, job: AnyJob, change: ChangeEvent, delivery: NewDelivery) -> Answer:
        inbox = self._inbox()
        before = inbox.known(job.name, delivery.delivery_id) if delivery.delivery_id is not None else None
        if before is not None:
            return _told(before.id, before.action, before.external_id)
        result = self._apply(job, change)
        [stored] = inbox.store_many([replace(delivery, external_id=result.external_id, action=result.action)])
        if self._report is not None:
            try:
                self._report(job, result)
            except Exception as failed:  # noqa: BLE001 - the item is applied, and the ledger knows it
                log_problem(f"{job.name}: the report failed", failed)
        return _told(stored.id, result.action, result.external_id)

    def close(self) -> None:
        """Waits for what is under way."""
        self._pool.shutdown()


def _told(delivery: int, action: str | None, external_id: str | None) -> Answer:
    return Answer(200, {"action": action, "external_id": external_id, "delivery": delivery})
