"""What a sync is to do, in plain Python: the state machine's runs are held against this."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, NamedTuple

from sync_pipelines_tests.runner.machine.missed_fetches import MissedFetches

Item = dict[str, Any]

REFUSED = -1
"""A quantity that breaks the table's CHECK."""
UNREADABLE = "many"
"""A quantity that is no number."""

FEW, SHARE = 1, 0.5
"""What guards allow: one delete, or one item less, is never a matter of shares."""


class Versioned(NamedTuple):
    """A live record that holds the version of its item."""

    quantity: Any
    version: int | None


@dataclass(frozen=True)
class Marked:
    """A record that is marked as deleted."""

    quantity: int


State = int | Versioned | Marked
"""A live record is its quantity, unless it holds its version as well."""


def quantity_of(state: Any) -> Any:
    """The quantity of a record, or of what an item wants it to be."""
    return state.quantity if isinstance(state, Versioned | Marked) else state


def is_live(state: State | None) -> bool:
    """True of a record that is there and not marked."""
    return state is not None and not isinstance(state, Marked)


@dataclass(frozen=True)
class Entry:
    """One write that a plan wants: None is no record, or one that is to be deleted."""

    sku: str
    position: int
    old: State | None
    new: Any
    version: int | None = None


class Fetched(NamedTuple):
    """A fetch that has been applied."""

    moment: int
    ids: frozenset[str]
    is_all: bool = False


@dataclass
class Arrivals:
    """Which items have come, in what order.

    What a plan would delete is not missing if its item came since, and what was delivered without a version is old if
    its item was fetched since.
    """

    fetches: list[tuple[bool, frozenset[str]]] = field(default_factory=list)
    singles: list[str] = field(default_factory=list)
    applied: list[Fetched] = field(default_factory=list)
    moment: int = 0

    def tick(self) -> int:
        """Goes on to the next moment."""
        self.moment += 1
        return self.moment

    def fetched(
        self, ids: Iterable[str | None], *, whole: bool, only: Iterable[str] = (), is_guarded: bool = False
    ) -> None:
        """A fetch of all items, or of some: of those that were asked for."""
        given = frozenset(each for each in ids if each is not None)
        self.fetches.append((whole, given | frozenset(only)))
        self.applied.append(Fetched(self.tick(), given, is_all=whole and not is_guarded))

    def is_old(self, sku: str, delivered: int) -> bool:
        """True if an applied fetch that began later had the item: of many, the newest whole one and what came after."""
        for fetched in reversed(self.applied):
            if fetched.moment > delivered and sku in fetched.ids:
                return True
            if fetched.is_all:
                break
        return False

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
    not_found: int = 0

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
        return "partial" if self.errors or self.not_found else "clean"


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


def ids_of(items: Iterable[Item]) -> frozenset[str]:
    """The external ids that can be read."""
    return frozenset(sku for sku in map(id_of, items) if sku is not None)


@dataclass
class Model:
    """The local records, and what becomes of them.

    Args:
        fails_late: True if a quantity that can't be read is noticed only when a new record is written.
        marks: True if a delete marks a record instead of removing it.
        versions: True if an older item is skipped.
        holds_version: True if a record holds its item's version.
        missed_fetches: What is known of missing records; None if they are deleted at once.
        rows: Id -> record.
        outside: The records that are not the sync's own.
        newest: Id -> the version that a record has come to.
        troubled: The items that fail for the moment.
        unsure: Of which records it depends on the way they went what is known of their versions.
        good: How many items the good whole fetches had, newest first.
        arrivals: Which items have come.
    """

    fails_late: bool = False
    marks: bool = False
    versions: bool = False
    holds_version: bool = False
    missed_fetches: MissedFetches | None = None
    rows: dict[str, State] = field(default_factory=dict)
    outside: set[str] = field(default_factory=set)
    newest: dict[str, int] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)
    troubled: set[str] = field(default_factory=set)
    good: list[int] = field(default_factory=list)
    arrivals: Arrivals = field(default_factory=Arrivals)

    def copy(self) -> Model:
        """What is known of the records now, to be held against later."""
        return replace(self, rows=dict(self.rows), newest=dict(self.newest), unsure=set(self.unsure))

    def own(self) -> set[str]:
        """The records that the sync answers for: those in its scope that are not marked."""
        return {sku for sku, state in self.rows.items() if is_live(state)} - self.outside

    def remove(self, sku: str) -> bool:
        """Deletes a record. False if there was none, or one that is marked already."""
        state = self.rows.pop(sku, None)
        if state is not None and self.marks:
            self.rows[sku] = state if isinstance(state, Marked) else Marked(quantity_of(state))
        return is_live(state)

    def write(self, sku: str, state: State | None, *, outside: bool = False) -> None:
        """What somebody else writes; None deletes. What the ledger knows of its version nobody can tell here."""
        self.rows.pop(sku, None)
        self.outside.discard(sku)
        self.unsure.add(sku)
        if state is not None:
            self.rows[sku] = state
            self.outside |= {sku} if outside else set()

    def diff(self, items: Sequence[Item], *, deletes: bool = False) -> Diff:
        """Compares a fetch with the records. Changes nothing but the versions of what is up to date."""
        settled, entries = Expected(), []
        winners = self.winners(items)
        for position, item in enumerate(items):
            sku = id_of(item)
            if sku is None:
                settled.fail(position, None)
            elif winners[sku] != position:
                settled.count("duplicate")
            elif entry := self._decide(position, sku, item, settled):
                entries.append(entry)
        if deletes:
            entries += [Entry(sku, -1, self.rows[sku], None) for sku in self.missing(items)]
        return Diff(settled, entries)

    def winners(self, items: Sequence[Item]) -> dict[str, int]:
        """Where the item is that counts of each id: the newest, of equally new ones the last."""
        places: dict[str, int] = {}
        for place, item in enumerate(items):
            sku = id_of(item)
            if sku is not None and not (sku in places and self.is_older(item, items[places[sku]]["version"])):
                places[sku] = place
        return places

    def is_older(self, item: Item, version: int | None) -> bool:
        """True if an item is older than that version, and that matters."""
        return self.versions and version is not None and item["version"] < version

    def missing(self, items: Sequence[Item]) -> list[str]:
        """The own records that a fetch is without; none if that can't be known of it."""
        seen = {id_of(item) for item in items}
        return [] if None in seen else sorted(self.own() - seen)

    def _decide(self, position: int, sku: str, item: Item, settled: Expected) -> Entry | None:
        old, new = self.rows.get(sku), item["quantity"]
        wanted = Versioned(new, item["version"]) if self.holds_version else new
        if sku in self.troubled:
            settled.fail(position, sku)
        elif item["skip"] or self.is_older(item, self.newest.get(sku)):
            settled.count("skipped")
        elif new == UNREADABLE and not (self.fails_late and old is None):
            settled.fail(position, sku)
        elif old == wanted:
            settled.count("unchanged")
            self.newest[sku] = item["version"]
        else:
            return Entry(sku, position, old, wanted, item["version"])
        return None

    def plan(self, items: Sequence[Item], *, deletes: bool) -> Diff:
        """What a dry run says: what the next run would do, if it were not guarded."""
        diff = self.diff(items, deletes=deletes)
        if not deletes or self.missed_fetches is None:
            return diff
        ahead = 0 if self.has_shrunk(len(items)) else 1
        return _only_due(diff, self.missed_fetches.due(self.missing(items), came=self._came(), ahead=ahead))

    def sync(self, items: Sequence[Item], *, deletes: bool) -> tuple[Expected, Diff | None]:
        """What a whole run does, and what guards withhold of it."""
        diff = self._with_grace(self.diff(items, deletes=deletes), items, deletes=deletes)
        gone = [entry for entry in diff.entries if entry.new is None]
        is_guarded = self.is_suspicious(len(items), len(gone))
        if is_guarded:
            diff = Diff(diff.settled, [entry for entry in diff.entries if entry.new is not None])
        expected = self.apply(diff)
        expected.is_guarded = is_guarded
        return expected, Diff(Expected(), gone) if is_guarded else None

    def _with_grace(self, diff: Diff, items: Sequence[Item], *, deletes: bool) -> Diff:
        if self.missed_fetches is None:
            return diff
        if not deletes:
            self.missed_fetches = MissedFetches()
            return diff
        if None in map(id_of, items):
            return diff
        missing, came = self.missing(items), self._came()
        if self.has_shrunk(len(items)):
            return _only_due(diff, self.missed_fetches.due(missing, came=came))
        self.missed_fetches = self.missed_fetches.fetched(missing, came, len(self.arrivals.singles))
        return _only_due(diff, self.missed_fetches.due(missing))

    def _came(self) -> set[str]:
        """Whose items have come by themselves since the fetch that was counted last."""
        return set(self.arrivals.singles[self.missed_fetches.singles :]) if self.missed_fetches is not None else set()

    def has_shrunk(self, fetched: int) -> bool:
        """True if a fetch is empty, or has shrunken by half."""
        usual = median(self.good[:5]) if self.good else 0
        return not fetched or usual - fetched > max(FEW, SHARE * usual)

    def is_suspicious(self, fetched: int, deletes: int) -> bool:
        """True if a fetch looks broken, or would have more than half of the records deleted."""
        if not fetched:
            return bool(deletes or (self.good and median(self.good[:5])))
        return self.has_shrunk(fetched) or deletes > max(FEW, SHARE * len(self.own()))

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
        now, new = self.rows.get(entry.sku), entry.new
        if new is None:
            self._apply_delete(entry, expected, came)
        elif self.is_older({"version": entry.version}, self.newest.get(entry.sku)):
            expected.fail(entry.position, entry.sku)
        elif now == new:
            expected.count("unchanged")
            self._keep(entry)
        elif now != entry.old or quantity_of(new) in {REFUSED, UNREADABLE}:
            expected.fail(entry.position, entry.sku)
        else:
            expected.count("created" if entry.old is None else "updated")
            self.rows[entry.sku] = new
            self._keep(entry)

    def _apply_delete(self, entry: Entry, expected: Expected, came: set[str]) -> None:
        now = self.rows.get(entry.sku)
        if not is_live(now):
            return  # of what is gone already nothing is counted
        if now != entry.old or entry.sku in came | self.outside:
            expected.fail(entry.position, entry.sku)
        else:
            expected.count("deleted")
            self.remove(entry.sku)
            self.unsure.add(entry.sku)

    def _keep(self, entry: Entry) -> None:
        if entry.version is not None:
            self.newest[entry.sku] = entry.version
            self.unsure.discard(entry.sku)

    def drain(self, deliveries: Iterable[tuple[str, Item | None, int]]) -> Expected:
        """Applies deliveries in the order in which they came: an item, or None for a delete, and when it came."""
        expected = Expected()
        groups: dict[str, list[tuple[Item | None, int]]] = {}
        for sku, item, moment in deliveries:
            groups.setdefault(sku, []).append((item, moment))
        for sku, group in groups.items():
            applied = self._drain_one(sku, group)
            expected.add(applied)
            if any(applied.counts[outcome] for outcome in ("created", "updated", "unchanged")):
                self.arrivals.singles.append(sku)
        return expected

    def _drain_one(self, sku: str, delivered: Sequence[tuple[Item | None, int]]) -> Expected:
        """The newest of several states; a delete counts unless what came after it is newer than all before it."""
        expected, made_up_for = Expected(), len(delivered) - 1
        group, is_old = [each[0] for each in delivered], [self.arrivals.is_old(sku, each[1]) for each in delivered]
        places = [place for place, item in enumerate(group) if item is not None]
        newest = places[0] if places else -1
        for place in places[1:]:
            newest = newest if self.is_older(group[place] or {}, (group[newest] or {})["version"]) else place
        last_delete = max((place for place, item in enumerate(group) if item is None), default=-1)
        item = group[newest] if newest > last_delete else None
        if is_old[max(newest, last_delete)] and (item is None or not self.versions):
            expected.count("skipped")
        elif item is None:
            versions = [each["version"] for each in group if each is not None]
            self._delete_one(sku, expected, max([*versions, self.newest.get(sku, 0)]))
        else:
            is_passed_over = not item["skip"] and self.is_older(item, self.newest.get(sku))
            expected.add(self.apply(self.diff([item])))
            if is_passed_over and last_delete >= 0:
                made_up_for -= 1
                if is_old[last_delete]:
                    expected.count("skipped")
                else:
                    self._delete_one(sku, expected, self.newest[sku])
        expected.counts["duplicate"] += made_up_for
        return expected

    def _delete_one(self, sku: str, expected: Expected, version: int) -> None:
        if sku in self.outside:
            expected.fail(-1, sku)
            return
        expected.count("deleted" if self.remove(sku) else "unchanged")
        if version:
            self.newest[sku] = version


def _only_due(diff: Diff, due: set[str]) -> Diff:
    return Diff(diff.settled, [entry for entry in diff.entries if entry.new is not None or entry.sku in due])
