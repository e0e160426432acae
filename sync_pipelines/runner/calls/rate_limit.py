"""Decides when the next call to a target may begin: a rate limit, and a pause that all workers keep."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class RateLimit:
    """Lets the calls to a target begin one after the other, whichever thread makes them.

    With a limit, two calls begin at least `1 / max_calls_per_s` apart. Time in which nobody called is not saved up, so
    that there is never a burst.

    Args:
        max_calls_per_s: How many calls may begin in a second; None for no limit.
        sleep: Waits so many seconds; raises if the waiting is to be broken off.
    """

    def __init__(
        self,
        max_calls_per_s: float | None = None,
        sleep: Callable[[float], object] = time.sleep,
        elapsed_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sleep = sleep
        self._elapsed_s = elapsed_s
        self._apart_s = 1 / max_calls_per_s if max_calls_per_s is not None else 0.0
        self._lock = threading.Lock()
        self._next_s = self._paused_until_s = elapsed_s()

    def wait_for_turn(self) -> None:
        """Waits until the caller may call the target."""
        while True:
            with self._lock:
                now_s = self._elapsed_s()
                turn_s = max(now_s, self._next_s)
                self._next_s = turn_s + self._apart_s
            if turn_s > now_s:
                self.sleep(turn_s - now_s)
            if self._paused_until_s <= turn_s:
                return  # else a pause began while this caller waited, and all queue anew behind it

    def pause(self, seconds: float) -> None:
        """Lets no call begin for so many seconds: a wait that the target asks of one caller holds for all."""
        with self._lock:
            self._paused_until_s = max(self._paused_until_s, self._elapsed_s() + seconds)
            self._next_s = max(self._next_s, self._paused_until_s)
