"""Inline mode: applies a change while its sender waits, then notes it in the inbox, then answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from sync_pipelines.database.inbox_storing import NewDelivery
from sync_pipelines.engine.changes import ChangeEvent
from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.engine.one_item import OneItem
from sync_pipelines.engine.redaction import message_of
from sync_pipelines.engine.results import ItemResult
from sync_pipelines.errors import ItemError
from sync_pipelines.webhooks.error_log import log_problem
from sync_pipelines.webhooks.interpreter import Part
from sync_pipelines.webhooks.responses import RETRY_AFTER_S, Answer, error, refused

Report = Callable[[AnyJob, ItemResult], object]
"""Reports to somebody else, say Dagster, what became of an item."""

SERVICE_UNAVAILABLE = 503
AT_A_TIME = 8
WAITING_AT_MOST = 64
TIMEOUT_S = 25.0


@dataclass(frozen=True, slots=True)
class Noted:
    """What the inbox has of a change that came to be applied at once.

    Args:
        delivery: Its number in the inbox; of a repeated one that of the first.
        action: What was done, None if nothing is yet.
        external_id: The item's.
        result: What became of it; None unless it was applied now.
        is_stored: True if it was stored, to be applied after the run that is under way.
    """

    delivery: int
    action: str | None
    external_id: str | None
    result: ItemResult | None = None
    is_stored: bool = False


ApplyOrStore = Callable[[AnyJob, ChangeEvent | None, NewDelivery], Noted]
"""Applies one change at once and notes it, or stores it; None is stored, because it is yet to be found out what it is.
Raises `ItemError` if the item is at fault."""


class InlineApplier:
    """Applies changes in a few threads of each job.

    Args:
        report: Called with each that was applied; its failure is no failure of the delivery.
    """

    def __init__(self, apply_or_store: ApplyOrStore, report: Report | None = None) -> None:
        self._apply_or_store = apply_or_store
        self._report = report
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._under_way: Counter[str] = Counter()

    async def answer(self, job: AnyJob, parts: Sequence[Part]) -> Answer:
        """Applies the changes of a delivery, one after the other, and returns the answer to its sender.

        Raises:
            RefusedError: There is too much to do, or it takes too long.
        """
        if self._under_way[job.name] >= WAITING_AT_MOST:
            raise refused(503, "too many deliveries are being applied", retry_after_s=1)
        self._under_way[job.name] += 1
        work = asyncio.get_running_loop().run_in_executor(self._pool_of(job), self._carry_out_all, job, parts)
        work.add_done_callback(lambda _: self._has_ended(job.name))
        try:
            return await asyncio.wait_for(asyncio.shield(work), TIMEOUT_S)
        except TimeoutError:
            raise refused(503, "the item was not applied in time", retry_after_s=RETRY_AFTER_S) from None

    def _pool_of(self, job: AnyJob) -> ThreadPoolExecutor:
        """Returns the threads of a job; a target that hangs keeps no other job's deliveries waiting."""
        if job.name not in self._pools:
            self._pools[job.name] = ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="sync_pipelines.inline")
        return self._pools[job.name]

    def _has_ended(self, job: str) -> None:
        self._under_way[job] -= 1

    def _carry_out_all(self, job: AnyJob, parts: Sequence[Part]) -> Answer:
        """Carries out changes, each with its own outcome. The worst status is the answer's: then all are sent again.

        Those that were applied are known by then, if the sender names its deliveries.
        """
        answers: list[Answer] = []
        for part in parts:
            answers.append(self._carry_out(job, part))
            if answers[-1].status == SERVICE_UNAVAILABLE:
                return answers[-1]
        if len(answers) == 1:
            return answers[0]
        changes = [dict(each.document) for each in answers]
        status = max(each.status for each in answers)
        failed = sum("error" in each for each in changes)
        told = {"error": f"{failed} of {len(changes)} changes failed"} if failed else {}
        return Answer(status, {**told, "changes": changes})

    def _carry_out(self, job: AnyJob, part: Part) -> Answer:
        try:
            noted = self._apply_or_store(job, part.change, part.delivery)
        except ItemError as failed:
            external_id = failed.external_id or part.delivery.external_id
            return Answer(422, {"error": message_of(failed), "external_id": external_id})
        except Exception as failed:  # noqa: BLE001 - the target or the ledger is away: the sender tries again
            log_problem(f"{job.name}: a delivery was not applied", failed)
            return error(SERVICE_UNAVAILABLE, "the item can't be applied now", retry_after_s=RETRY_AFTER_S)

        if noted.is_stored:
            return Answer(202, {"delivery": noted.delivery})
        if noted.result is not None and self._report is not None:
            with OneItem(partial(log_problem, f"{job.name}: the report failed")):  # the ledger knows that it is applied
                self._report(job, noted.result)
        return Answer(200, {"action": noted.action, "external_id": noted.external_id, "delivery": noted.delivery})

    def close(self) -> None:
        """Waits for what is under way."""
        for pool in self._pools.values():
            pool.shutdown()
