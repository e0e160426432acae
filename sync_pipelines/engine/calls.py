"""Calls plain and `async` functions alike, also from inside a running event loop.

All `async` functions of a sync run on one event loop in a thread of its own, so that a client that belongs to a loop
(an `httpx.AsyncClient` in a job file, say) keeps working from fetch to apply and from one call to the next.
Plain functions run in the caller's thread. Several threads may call at one time: `CallsTogether`.
"""

from __future__ import annotations

import atexit
import inspect
import os
import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from typing import Any, TypeVar

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal
from anyio.streams.memory import MemoryObjectSendStream

from sync_pipelines.engine.places import note_place

T = TypeVar("T")

_BATCH = 500
_opening = threading.Lock()
_levels: dict[int, int] = {}
"""Thread of an event loop -> how many loops below it wait for it."""
_thread = threading.local()


class StoppedError(BaseException):
    """Raised where a call is waited for that has been called off. No item's fault, hence no `Exception`."""


class CallsTogether:
    """The calls that several threads make for the one that made this: on its event loop, and called off together.

    A thread that blocks an event loop while others work for it must not have them wait for that loop.
    """

    def __init__(self) -> None:
        self._level = _levels.get(threading.get_ident(), -1)
        self._lock = threading.Lock()
        self._under_way: set[Future[Any]] = set()
        self._is_off = False

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Makes the current thread, which must have no event loop, one of those that call together."""
        _levels[threading.get_ident()] = self._level
        _thread.together = self
        try:
            yield
        finally:
            del _levels[threading.get_ident()], _thread.together

    def call_off(self) -> None:
        """Cancels the `async` calls under way, and any that are still made."""
        with self._lock:
            self._is_off = True
            under_way = list(self._under_way)
        for future in under_way:
            future.cancel()

    @contextmanager
    def noted(self, future: Future[Any]) -> Iterator[None]:
        """Has the call among those that may be called off.

        Raises:
            StoppedError: It was.
        """
        with self._lock:
            self._under_way.add(future)
            is_off = self._is_off
        if is_off:
            future.cancel()
        try:
            yield
        except CancelledError as error:
            if self._is_off:
                raise StoppedError from error
            raise
        finally:
            with self._lock:
                self._under_way.discard(future)


def call(function: Callable[..., Any], *args: Any) -> Any:
    """Calls the function and, if it is `async`, waits for its result."""
    return resolve(function(*args))


def call_own(what: str, function: Callable[..., Any], *args: Any) -> Any:
    """Does so with a function of the user; an error that it raises knows its place.

    Args:
        what: What its declaration calls it, e.g. `has_changed`.
    """
    try:
        return call(function, *args)
    except Exception as error:
        note_place(error, what)
        raise


def resolve(value: Any) -> Any:
    """Waits for the value if it is awaitable, else gives it back."""
    if not inspect.isawaitable(value):
        return value
    future = _portal().start_task_soon(_wait_for, value)
    together: CallsTogether | None = getattr(_thread, "together", None)
    try:
        with together.noted(future) if together is not None else nullcontext():
            result, stopped = future.result()
    except BaseException:
        future.cancel()  # on Ctrl-C, say: what nobody waits for must not go on writing
        raise
    if stopped is not None:
        raise stopped
    return result


def iterate(values: AsyncIterable[T]) -> Iterator[T]:
    """Iterates over an async iterable from plain code, a bounded number of elements ahead.

    The whole iteration runs in one task, as generators that hold a cancel scope or a task group need. Closing the
    iterator half-way closes the generator, and waits until it is closed.
    """
    send, receive = anyio.create_memory_object_stream[list[T]](1)
    portal = _portal()
    ended = threading.Event()
    producer = portal.start_task_soon(_produce, values, send, ended)
    try:
        while True:
            try:
                batch = portal.call(receive.receive)
            except anyio.EndOfStream:
                producer.result()
                return
            yield from batch
    finally:
        portal.call(receive.aclose)
        producer.cancel()
        ended.wait()


async def _produce(values: AsyncIterable[T], send: MemoryObjectSendStream[list[T]], ended: threading.Event) -> None:
    batch: list[T] = []
    try:
        async with send:
            iterator = aiter(values)
            try:
                async for value in iterator:
                    batch.append(value)
                    if len(batch) >= _BATCH or _is_page(value):
                        await send.send(batch)
                        batch = []
            finally:
                await _deliver_rest(send, batch)
                await _close(iterator)
    finally:
        ended.set()


def _is_page(value: Any) -> bool:
    """Returns True for a list, a tuple or a DataFrame, of which no second one is to be kept."""
    return isinstance(value, (list, tuple)) or hasattr(value, "itertuples")


async def _deliver_rest(send: MemoryObjectSendStream[list[T]], batch: list[T]) -> None:
    if batch:
        try:
            await send.send(batch)
        except (anyio.BrokenResourceError, anyio.get_cancelled_exc_class()):
            return


async def _close(iterator: AsyncIterator[Any]) -> None:
    if inspect.isasyncgen(iterator):
        with anyio.CancelScope(shield=True):
            await iterator.aclose()


async def _wait_for(value: Awaitable[T]) -> tuple[T | None, BaseException | None]:
    try:
        return await value, None
    except (SystemExit, KeyboardInterrupt, GeneratorExit) as stopped:
        return None, stopped  # raised here, it would end the loop that all others need


def _portal() -> BlockingPortal:
    """Returns the portal to the event loop that this thread may wait for.

    An `async` function that comes back here, say a hook that runs another sync, blocks its own loop; what it calls runs
    on a loop one level deeper.
    """
    level = _levels.get(threading.get_ident(), -1) + 1
    with _opening:
        return _portal_of(os.getpid(), level)


@cache
def _portal_of(_process_id: int, level: int) -> BlockingPortal:
    """Opens a loop; a forked process opens one of its own."""
    stack = ExitStack()
    portal = stack.enter_context(start_blocking_portal())
    _levels[portal.call(threading.get_ident)] = level
    atexit.register(_close_if_ours, os.getpid(), stack)
    return portal


def _close_if_ours(process_id: int, stack: ExitStack) -> None:
    """Closes the loop, except in a forked process: it has not the loop's thread and would wait for ever."""
    if os.getpid() == process_id:
        stack.close()
