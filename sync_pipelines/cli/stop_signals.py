"""Ctrl-C and TERM: the first one stops cleanly, a later one at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_GRACE_S = 1.0
"""A terminal and a wrapper such as `make` may send the same Ctrl-C twice; that is one wish, not two."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ENDINGS = tuple(128 + number for number in _SIGNALS)


class Stopped(KeyboardInterrupt):
    """The operator wants the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number
        self.cause = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raises `Stopped` in the main thread at the first signal. A signal that the caller has us ignore stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with signals_handled_by(_Handler()):
        yield


@contextmanager
def signals_handled_by(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Has Ctrl-C and TERM call a handler meanwhile, except those that the caller has us ignore."""
    before: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}
    ours = [number for number, previous in before.items() if previous is not signal.SIG_IGN]
    for number in ours:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


class _Handler:
    def __init__(self) -> None:
        self._first_at_s: float | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Stops; a second signal, later, gets the system's own way, which waits for nothing."""
        if self._first_at_s is None:
            self._first_at_s = time.monotonic()
            # not through sys.stderr, in the middle of whose write we may be
            os.write(2, b"\nstopping; once more stops at once\n")
            raise Stopped(number)
        if time.monotonic() - self._first_at_s >= _GRACE_S:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def is_stop(exit_code: object) -> bool:
    """Returns True for the exit codes of a command that was stopped."""
    return exit_code in _ENDINGS
