"""Work in a thread beside the caller's: pages in order, a bounded number at a time, the first error raised here."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")

_LOOK_EVERY_S = 0.1


class Background(Generic[T]):
    """Hands values to a function that works in a thread of its own, one after the other.

    Args:
        waiting: How many values may wait; then `put` waits.
    """

    def __init__(self, work: Callable[[T], object], waiting: int = 1) -> None:
        self._work = work
        self._values: queue.Queue[tuple[T] | None] = queue.Queue(waiting)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"background of {work.__qualname__}", daemon=True)

    def __enter__(self) -> Self:
        """Starts the thread."""
        self._thread.start()
        return self

    def put(self, value: T) -> None:
        """Hands over a value.

        Raises:
            Exception: What the function raised for an earlier value.
        """
        self._raise()
        self._values.put((value,))

    def finish(self) -> None:
        """Waits until everything is done.

        Raises:
            Exception: What the function raised.
        """
        if self._thread.is_alive():
            self._values.put(None)
            self._thread.join()
        self._raise()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends the thread; what still waits is dropped if the block failed."""
        if kind is not None:
            self._error = self._error or error
        if self._thread.is_alive():
            self._values.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (value := self._values.get()) is not None:
            if self._error is None:
                try:
                    self._work(value[0])
                except BaseException as error:  # noqa: BLE001 - raised where the values come from
                    self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


def ahead(values: Iterable[T], waiting: int = 1) -> Generator[T]:
    """Yields the values; the next ones are made in a thread meanwhile. Closing this ends the thread.

    Args:
        waiting: How many values may be ready before they are asked for.
    """
    ready: queue.Queue[tuple[Any, BaseException | None] | None] = queue.Queue(waiting)
    stop = threading.Event()

    def hand_over(entry: tuple[Any, BaseException | None] | None) -> None:
        while not stop.is_set():
            try:
                ready.put(entry, timeout=_LOOK_EVERY_S)
            except queue.Full:
                continue
            return

    def make() -> None:
        try:
            for value in values:
                hand_over((value, None))
                if stop.is_set():
                    return
            hand_over(None)
        except BaseException as error:  # noqa: BLE001 - raised where the values are asked for
            hand_over((None, error))

    thread = threading.Thread(target=make, name="made ahead", daemon=True)
    thread.start()
    try:
        while (entry := ready.get()) is not None:
            if entry[1] is not None:
                raise entry[1]
            yield entry[0]
    finally:
        stop.set()
        thread.join()
