"""What grace is to do, in plain Python: a record is deleted once enough fetches in a row have been without it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

DELETE_AFTER = 2
"""How many fetches in a row must be without a record."""


@dataclass(frozen=True)
class MissedFetches:
    """Which records the fetches have been without.

    Args:
        number: How many fetches were counted.
        counted: Id -> the fetch that was without it last, and how many in a row.
        singles: How many single items had come when a fetch was counted last.
    """

    number: int = 0
    counted: dict[str, tuple[int, int]] = field(default_factory=dict)
    singles: int = 0

    def fetched(self, missing: Collection[str], came: Collection[str], singles: int) -> MissedFetches:
        """After a fetch that counts.

        Args:
            missing: Which records it was without.
            came: Which items have come by themselves since the fetch that was counted last.
            singles: How many had come by then.
        """
        before = {sku: count for sku, (fetch, count) in self.counted.items() if fetch == self.number}
        known = {sku: count for sku, count in before.items() if sku not in came}
        number = self.number + 1
        return MissedFetches(number, {sku: (number, known.get(sku, 0) + 1) for sku in missing}, singles)

    def due(self, missing: Collection[str], *, came: Collection[str] = (), ahead: int = 0) -> set[str]:
        """Which of the missing records are to be deleted.

        Args:
            missing: Which records the fetch was without.
            came: Which items have come by themselves since the fetch that was counted last.
            ahead: How many misses to add, for a fetch that is not counted.
        """
        known = {sku: count for sku, (fetch, count) in self.counted.items() if fetch == self.number and sku not in came}
        return {sku for sku in missing if known.get(sku, 0) + ahead >= DELETE_AFTER}

    def found(self, number: int, counted: dict[str, tuple[int, int]], before: MissedFetches) -> MissedFetches:
        """What a fetch that was killed while it was counted has left. Records are kept longer by it, never shorter.

        Args:
            number: The last fetch that the ledger knows.
            counted: What the ledger has of records.
            before: Before that fetch; this is what should have been after it.
        """
        assert number in {before.number, self.number}
        for sku, each in counted.items():
            assert each in {before.counted.get(sku), self.counted.get(sku)}, f"{sku} was missed {each}"
        singles = self.singles if number == self.number else before.singles
        return replace(self, number=number, counted=counted, singles=singles)
