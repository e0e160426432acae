"""Distinguishes a target that is down from records that fail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

ITEMS_IN_VAIN = 10
"""So many records in a row, none of which got an answer in all attempts, mean that the target is down."""


class CircuitBreaker:
    """Counts records in a row that got no answer, from one piece of work to the next.

    "In a row" means the order of the records, not that of the answers, so that any concurrency comes to the same end.
    """

    def __init__(self) -> None:
        self._before = 0

    @contextmanager
    def watching(self) -> Iterator[Watch]:
        """Watches one piece of work."""
        watch = Watch(self._before)
        yield watch
        self._before = watch.in_vain_at_end()


class Watch:
    """Keeps what became of the records of one piece of work, by their place in it.

    Args:
        before: How many in a row got no answer just before it.
    """

    def __init__(self, before: int) -> None:
        self._before = before
        self._lock = threading.Lock()
        self._in_vain: dict[int, bool] = {}
        self._is_down = False

    def is_down(self, place: int, *, in_vain: bool) -> bool:
        """Notes a record. True if enough in a row, this one included, got no answer to mean that the target is down."""
        with self._lock:
            self._in_vain[place] = in_vain
            if not in_vain:
                return False
            first, after = self._first_of(place), place + 1
            while self._in_vain.get(after):
                after += 1
            is_row = self._earlier(first) + after - first >= ITEMS_IN_VAIN
            self._is_down = self._is_down or is_row
            return is_row

    def no_failures(self) -> list[int]:
        """Returns the places of records that got no answer because the target is down, and deserve another try.

        Those outside the row are among them: the outage may have begun while others were still answered.
        """
        return [place for place, in_vain in self._in_vain.items() if in_vain] if self._is_down else []

    def in_vain_at_end(self) -> int:
        """Counts how many in a row got no answer up to the end of the work, those just before it included."""
        after = len(self._in_vain)
        first = self._first_of(after)
        return self._earlier(first) + after - first

    def _first_of(self, place: int) -> int:
        """Returns the first place of the unanswered row that ends just before this one."""
        while self._in_vain.get(place - 1):
            place -= 1
        return place

    def _earlier(self, first: int) -> int:
        return self._before if first == 0 else 0
