"""Stores deliveries that come together in one transaction. Each is answered only after its commit."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Sequence
from itertools import islice
from queue import Empty, SimpleQueue

from sync_pipelines.database.inbox_storing import NewDelivery, Stored
from sync_pipelines.engine.redaction import described
from sync_pipelines.errors import SyncPipelinesError
from sync_pipelines.webhooks.error_log import log_problem, logger

STORE_TIMEOUT_S = 5.0
MAX_BATCH = 500
MAX_WAITING = 5_000

Store = Callable[[Sequence[NewDelivery]], list[Stored]]
_Waiting = tuple[Sequence[NewDelivery], "Future[list[Stored]]", AbstractEventLoop]
"""What came in one request and is stored together or not at all, and who waits for it."""
_Result = tuple["Future[list[Stored]]", list[Stored] | Exception]


class NotStoredError(Exception):
    """A delivery is not known to be stored; the sender must try again."""


class DeliveryWriter:
    """One thread that stores what event loops hand it: while a transaction commits, the next one gathers.

    Args:
        timeout_s: Seconds after which nobody waits any longer.
    """

    def __init__(self, store: Store, *, timeout_s: float = STORE_TIMEOUT_S, max_waiting: int = MAX_WAITING) -> None:
        self._store = store
        self._timeout_s = timeout_s
        self._max_waiting = max_waiting
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._away: str | None = None

    async def store(self, delivery: NewDelivery) -> Stored:
        """Waits until the delivery is committed. See `store_together`."""
        return (await self.store_together([delivery]))[0]

    async def store_together(self, deliveries: Sequence[NewDelivery]) -> list[Stored]:
        """Waits until the deliveries are committed, all of them in one transaction.

        Raises:
            NotStoredError: They are not known to be, after some seconds at most.
        """
        if self._queue.qsize() >= self._max_waiting:
            raise NotStoredError("too many deliveries wait to be stored")
        if self._thread is None:
            self._start()
        loop = asyncio.get_running_loop()
        future: Future[list[Stored]] = loop.create_future()
        giving_up = loop.call_later(self._timeout_s, _give_up, future)
        self._queue.put((deliveries, future, loop))
        try:
            return await future
        finally:
            giving_up.cancel()

    def close(self) -> None:
        """Stores what still waits, and ends the thread."""
        with self._starting:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="sync_pipelines.webhooks", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        goes_on = True
        while goes_on:
            batch, goes_on = self._next_batch()
            if batch:
                self._answer(batch, self._store_batch([deliveries for deliveries, _, _ in batch]))

    def _next_batch(self) -> tuple[list[_Waiting], bool]:
        """Waits for a delivery and takes as many as there are, without those that nobody waits for any longer."""
        taken = [self._queue.get()]
        with contextlib.suppress(Empty):
            while len(taken) < MAX_BATCH and taken[-1] is not None:
                taken.append(self._queue.get_nowait())
        waiting = [entry for entry in taken if entry is not None]
        return [entry for entry in waiting if not entry[1].done()], len(waiting) == len(taken)

    def _store_batch(self, batch: Sequence[Sequence[NewDelivery]]) -> Sequence[list[Stored] | Exception]:
        try:
            stored = iter(self._store([each for deliveries in batch for each in deliveries]))
        except SyncPipelinesError as error:  # the ledger does not answer
            self._note_away(error)
            return [error] * len(batch)
        except Exception as error:  # noqa: BLE001 - one bad delivery never stops the others
            if len(batch) == 1:
                log_problem(f"{batch[0][0].job}: a delivery can't be stored", error)
                return [error]
            return [result for deliveries in batch for result in self._store_batch([deliveries])]
        if self._away is not None:
            logger.warning("the ledger answers again")
            self._away = None
        return [list(islice(stored, len(deliveries))) for deliveries in batch]

    def _note_away(self, error: Exception) -> None:
        if described(error) != self._away:
            log_problem("deliveries are refused with status 503", error)
            self._away = described(error)

    def _answer(self, batch: Sequence[_Waiting], results: Sequence[list[Stored] | Exception]) -> None:
        by_loop: dict[AbstractEventLoop, list[_Result]] = {}
        for (_, future, loop), result in zip(batch, results, strict=True):
            by_loop.setdefault(loop, []).append((future, result))
        for loop, settled in by_loop.items():
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waited
                loop.call_soon_threadsafe(_settle, settled)


def _settle(results: Sequence[_Result]) -> None:
    for future, result in results:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(NotStoredError(described(result)))
        else:
            future.set_result(result)


def _give_up(future: Future[list[Stored]]) -> None:
    if not future.done():
        future.set_exception(NotStoredError("the ledger did not answer in time"))
