"""What a sync is to do, in plain Python: the state machine's runs are held against this."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

Item = dict[str, Any]

REFUSED = -1
"""A quantity that breaks the table's CHECK."""
UNREADABLE = "many"
"""A quantity that is no number."""

FEW, SHARE = 1, 0.5
"""What guards allow: one delete, or one item less, is never a matter of shares."""


@dataclass(frozen=True)
class Marked:
    """A record that is marked as deleted."""

    quantity: int


State = int | Marked
"""A live record is its quantity."""


@dataclass(frozen=True)
class Entry:
    """One write that a plan wants: None is no record, or one that is to be deleted."""

    sku: str
    position: int
    old: State | None
    new: Any


@dataclass
class Arrivals:
    """Which items have come, in what order: what a plan would delete is not missing if its item came since."""

    fetches: list[tuple[bool, frozenset[str]]] = field(default_factory=list)
    singles: list[str] = field(default_factory=list)

    def fetched(self, ids: Iterable[str | None], *, whole: bool) -> None:
        """A fetch of all items, or of some."""
        self.fetches.append((whole, frozenset(each for each in ids if each is not None)))

    def now(self) -> tuple[int, int]:
        """This moment."""
        return len(self.fetches), len(self.singles)

    def since(self, moment: tuple[int, int]) -> set[str]:
        """Whose items have come: of fetches, the newest whole one tells, and what came after it."""
        found = set(self.singles[moment[1] :])
        for whole, ids in reversed(self.fetches[moment[0] :]):
            found |= ids
            if whole:
                break
        return found


@dataclass
class Expected:
    """What is to become of the items of a run."""

    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("created", "updated", "deleted", "unchanged", "skipped", "failed", "duplicate"), 0
        )
    )
    errors: list[tuple[int, str | None]] = field(default_factory=list)
    is_guarded: bool = False

    def count(self, outcome: str) -> None:
        self.counts[outcome] += 1

    def fail(self, position: int, sku: str | None) -> None:
        self.count("failed")
        self.errors.append((position, sku))

    def add(self, other: Expected) -> None:
        """Takes what is to become of further items."""
        for name, count in other.counts.items():
            self.counts[name] += count
        self.errors += other.errors

    def copy(self) -> Expected:
        return Expected(dict(self.counts), list(self.errors))

    @property
    def outcome(self) -> str:
        if self.is_guarded:
            return "guarded"
        return "partial" if self.errors else "clean"


@dataclass(frozen=True)
class Diff:
    """What a comparison settles, and what it wants written."""

    settled: Expected
    entries: Sequence[Entry]

    def planned(self) -> dict[str, int]:
        counts = {"to_create": 0, "to_update": 0, "to_delete": 0}
        for entry in self.entries:
            name = "to_create" if entry.old is None else "to_delete" if entry.new is None else "to_update"
            counts[name] += 1
        return counts


def id_of(item: Item) -> str | None:
    """The external id; None if the item has none that can be read."""
    sku = item["sku"]
    return None if sku is None or not str(sku).strip() else str(sku)


@dataclass
class Model:
    """The local records, and what becomes of them.

    Args:
        fails_late: True if a quantity that can't be read is noticed only when a new record is written.
        marks: True if a delete marks a record instead of removing it.
        rows: Id -> record.
        good: How many items the good whole fetches had, newest first.
        arrivals: Which items have come.
    """

    fails_late: bool = False
    marks: bool = False
    rows: dict[str, State] = field(default_factory=dict)
    good: list[int] = field(default_factory=list)
    arrivals: Arrivals = field(default_factory=Arrivals)

    def live(self) -> dict[str, int]:
        """The records that are not marked."""
        return {sku: state for sku, state in self.rows.items() if not isinstance(state, Marked)}

    def remove(self, sku: str) -> bool:
        """Deletes a record. False if there was none, or one that is marked already."""
        state = self.rows.pop(sku, None)
        if state is not None and self.marks:
            self.rows[sku] = state if isinstance(state, Marked) else Marked(state)
        return isinstance(state, int)

    def diff(self, items: Sequence[Item], *, deletes: bool = False) -> Diff:
        """Compares a fetch with the records. Changes nothing."""
        settled, entries = Expected(), []
        last = {id_of(item): position for position, item in enumerate(items)}
        for position, item in enumerate(items):
            sku = id_of(item)
            if sku is None:
                settled.fail(position, None)
            elif last[sku] != position:
                settled.count("duplicate")
            elif entry := self._decide(position, sku, item, settled):
                entries.append(entry)
        if deletes and None not in last:
            entries += [Entry(sku, -1, old, None) for sku, old in self.live().items() if sku not in last]
        return Diff(settled, entries)

    def _decide(self, position: int, sku: str, item: Item, settled: Expected) -> Entry | None:
        old, new = self.rows.get(sku), item["quantity"]
        if item["skip"]:
            settled.count("skipped")
        elif new == UNREADABLE and not (self.fails_late and old is None):
            settled.fail(position, sku)
        elif old == new:
            settled.count("unchanged")
        else:
            return Entry(sku, position, old, new)
        return None

    def sync(self, items: Sequence[Item], *, deletes: bool) -> tuple[Expected, Diff | None]:
        """What a whole run does, and what guards withhold of it."""
        diff = self.diff(items, deletes=deletes)
        gone = [entry for entry in diff.entries if entry.new is None]
        is_guarded = self.is_suspicious(len(items), len(gone))
        if is_guarded:
            diff = Diff(diff.settled, [entry for entry in diff.entries if entry.new is not None])
        expected = self.apply(diff)
        expected.is_guarded = is_guarded
        return expected, Diff(Expected(), gone) if is_guarded else None

    def is_suspicious(self, fetched: int, deletes: int) -> bool:
        """True if a fetch has shrunken by half, or would have more than half of the records deleted."""
        usual = median(self.good[:5]) if self.good else 0
        if not fetched and (usual or deletes):
            return True
        return usual - fetched > max(FEW, SHARE * usual) or deletes > max(FEW, SHARE * len(self.live()))

    def apply(self, diff: Diff, since: tuple[int, int] | None = None) -> Expected:
        """Writes what a comparison wants, as far as each record still is what it was then.

        Args:
            diff: The comparison.
            since: When it was made, if that is a while ago.
        """
        expected = diff.settled.copy()
        came = self.arrivals.since(since) if since is not None else set()
        for entry in diff.entries:
            self._apply(entry, expected, came)
        return expected

    def _apply(self, entry: Entry, expected: Expected, came: set[str]) -> None:
        now = self.rows.get(entry.sku)
        if entry.new is None and not isinstance(now, int):
            return  # of what is gone already nothing is counted
        if now == entry.new:
            expected.count("unchanged")
        elif now != entry.old or entry.new in {REFUSED, UNREADABLE} or (entry.new is None and entry.sku in came):
            expected.fail(entry.position, entry.sku)
        elif entry.new is None:
            expected.count("deleted")
            self.remove(entry.sku)
        else:
            expected.count("created" if entry.old is None else "updated")
            self.rows[entry.sku] = entry.new

    def drain(self, deliveries: Iterable[tuple[str, Item | None]]) -> Expected:
        """Applies deliveries in the order in which they came: an item, or None for a delete."""
        expected = Expected()
        last: dict[str, Item | None] = {}
        for sku, item in deliveries:
            if sku in last:
                expected.count("duplicate")
            last[sku] = item
        for sku, item in last.items():
            if item is not None:
                applied = self.apply(self.diff([item]))
            else:
                applied = Expected()
                applied.count("deleted" if self.remove(sku) else "unchanged")
            expected.add(applied)
            if any(applied.counts[outcome] for outcome in ("created", "updated", "unchanged")):
                self.arrivals.singles.append(sku)
        return expected
