"""When what failed is tried again, and when it is given up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

MAX_ATTEMPTS = 100
LONGEST_WAIT = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Retry:
    """How often something that failed is tried, and how long it waits in between.

    Args:
        attempts: How often it is tried in all, the first time included; then it is given up.
        first_wait_s: Seconds after the first attempt; each further wait is four times as long, six hours at most.
    """

    attempts: int = 6
    first_wait_s: float = 60

    def next_at(self, attempts: int, now: datetime) -> datetime | None:
        """Returns when to try again after so many attempts; None: not any more."""
        if attempts >= self.attempts:
            return None
        wait = min(timedelta(seconds=min(self.first_wait_s, LONGEST_WAIT.total_seconds())), LONGEST_WAIT)
        for _ in range(attempts - 1):
            if wait >= LONGEST_WAIT:
                break
            wait *= 4
        return now + min(wait, LONGEST_WAIT)
