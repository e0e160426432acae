"""Works on several records at one time; no thread outlives the work that it was started for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from typing import Any, TypeVar

from sync_pipelines.engine.calls import CallsTogether, StoppedError
from sync_pipelines.errors import TargetError

T = TypeVar("T")


class Workers:
    """Calls a function for each of many things, several at a time.

    Plain functions run in the workers' threads. Each worker waits for the `async` functions that it calls, which run as
    tasks of the one event loop.

    Args:
        concurrency: How many at a time at most; 1 works in the caller's thread.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._crew: _Crew | None = None

    def each(self, work: Callable[[T], object], things: Sequence[T], *, one_by_one: bool = False) -> None:
        """Calls `work` for each thing; begins in their order, takes the next thing only when a worker is free.

        Args:
            work: What to call. What it raises ends the work of all.
            one_by_one: True to work in the caller's thread whatever the concurrency.

        Raises:
            BaseException: The first that `work` raised, or that interrupted the caller. Calls under way are waited for;
                `async` ones are cancelled, unless all that happened is that the target does not answer.
        """
        size = min(self._concurrency, len(things))
        if one_by_one or size <= 1:
            for thing in things:
                work(thing)
            return
        self._crew = _Crew(work, iter(things))
        try:
            self._crew.run(size)
        finally:
            self._crew = None

    def sleep(self, seconds: float) -> None:
        """Waits, in a worker only as long as the others go on.

        Raises:
            StoppedError: The others have come to an end.
        """
        if self._crew is None:
            time.sleep(seconds)
        elif self._crew.stopped.wait(seconds):
            raise StoppedError


class _Crew:
    """Runs the threads of one piece of work."""

    def __init__(self, work: Callable[[Any], object], things: Iterator[Any]) -> None:
        self.stopped = threading.Event()
        self._work = work
        self._things = things
        self._calls = CallsTogether()
        self._lock = threading.Lock()
        self._raised: BaseException | None = None

    def run(self, size: int) -> None:
        """Works with so many threads until all is done or something is raised."""
        threads: list[threading.Thread] = []
        try:
            for number in range(size):
                # daemons, so that a second Ctrl-C gets away from a function that never comes back
                target = copy_context().run
                threads.append(threading.Thread(target=target, args=(self._go,), name=f"worker {number}", daemon=True))
                threads[-1].start()
            for thread in threads:
                thread.join()
        except BaseException as error:
            self._stop(error)
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            raise
        if self._raised is not None:
            raised, self._raised = self._raised, None  # an error that is kept keeps its frames, and so itself
            raise raised

    def _go(self) -> None:
        with self._calls.joined():
            try:
                while not self.stopped.is_set():
                    with self._lock:
                        thing = next(self._things, _NOTHING)
                    if thing is _NOTHING:
                        return
                    self._work(thing)
            except StoppedError:
                return
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                self._stop(error)

    def _stop(self, error: BaseException) -> None:
        with self._lock:
            if self._raised is None and not self.stopped.is_set():
                self._raised = error
            self.stopped.set()
        if not isinstance(error, TargetError):
            self._calls.call_off()


_NOTHING = object()
