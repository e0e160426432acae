"""How many deliveries a second are taken."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Rate:
    """Lets so many pass in a second, and up to that many at once.

    Args:
        max_per_s: How many; None for no limit.
        clock: Gives seconds that never go back.
    """

    def __init__(self, max_per_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_per_s = max_per_s
        self._most = max(1.0, max_per_s or 0.0)
        self._left = self._most
        self._clock = clock
        self._looked_at_s = clock()

    def wait_s(self) -> int:
        """Takes one: 0 if it may pass, else the whole seconds after which it may be tried again."""
        if self._max_per_s is None:
            return 0
        now_s = self._clock()
        self._left = min(self._most, self._left + (now_s - self._looked_at_s) * self._max_per_s)
        self._looked_at_s = now_s
        if self._left >= 1:
            self._left -= 1
            return 0
        return max(1, math.ceil((1 - self._left) / self._max_per_s))
