"""`StagedTarget`: what a target offers that compares and writes whole fetches itself, by way of staging tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sync_pipelines.engine.history import HistoryBlock
from sync_pipelines.engine.plan import Action, EntryRow, PlanCounts
from sync_pipelines.engine.results import Counts

Page_contra = TypeVar("Page_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class StagingRequest:
    """Tells a target what it needs to know of a run whose items it is to stage.

    Args:
        job: The sync job's name.
        owner: Which deployment this is; staging tables of another one are left alone.
        schema: Schema for staging tables, where the database has schemas.
        folder: A folder of this machine for working files.
        deletes: True if the job deletes.
        version: The item's field that says which of two states is the newer one; None if there is none.
        recorded_at: Gives the time, aware, if what is written is to be recorded, record by record; else None.
        is_dry: True for a run that only plans: it leaves nothing behind in the target's database.
    """

    job: str
    run_id: str
    owner: str
    schema: str
    folder: Path
    deletes: bool
    version: str | None = None
    recorded_at: Callable[[], datetime] | None = None
    is_dry: bool = False


@dataclass(frozen=True, slots=True)
class StagedPlan:
    """Says what the comparison in the database found, and where its plan is.

    Args:
        unchanged: Items whose local record is up to date.
        skipped: Items that the job leaves alone.
        stale: Items that are older than their local record.
        creates: Records to be created.
        updates: Records to be updated.
        deletes: Records to be deleted.
        one_by_one: Items to be looked at one by one.
        written: The columns that are written besides the key.
        temporary: True if the plan does not outlive this process.
        fingerprint: Table and declaration that the plan was made for, in short.
        first_load: True if the table had no rows.
    """

    unchanged: int = 0
    skipped: int = 0
    stale: int = 0
    creates: int = 0
    updates: int = 0
    deletes: int = 0
    one_by_one: int = 0
    written: tuple[str, ...] = ()
    temporary: bool = False
    fingerprint: str = ""
    first_load: bool = False

    def planned(self) -> PlanCounts:
        """Returns how much is to be written, by action."""
        return PlanCounts(self.creates, self.updates, self.deletes)

    def without(self, actions: Collection[Action]) -> StagedPlan:
        """Returns the same but for those actions."""
        none: dict[str, Any] = {f"{action.value}s": 0 for action in actions}
        return replace(self, **none)

    @property
    def writes(self) -> int:
        """How many records are to be written."""
        return self.creates + self.updates + self.deletes

    @staticmethod
    def of_summary(summary: Mapping[str, Any]) -> StagedPlan:
        """Reads what the summary of a plan file says, also one that the version before wrote."""
        known = {"fingerprint" if name == "made_for" else name: value for name, value in summary.items()}
        return StagedPlan(**known | {"written": tuple(known["written"])})


@dataclass(frozen=True, slots=True)
class Unstaged:
    """An item that is not in the staging table, because its external id is no key of the table.

    Args:
        place: Its place in the page.
        error: Why its id is no key; None for an item without an id.
    """

    place: int
    error: Exception | None


@dataclass(frozen=True, slots=True)
class Batch:
    """A part of a plan that commits together, in units of the staging table: from `first` to before `end`."""

    first: int
    end: int

    def halves(self) -> tuple[Batch, Batch]:
        """Returns the same in two parts."""
        middle = (self.first + self.end) // 2
        return Batch(self.first, middle), Batch(middle, self.end)

    def without(self, done: Sequence[Batch]) -> Iterator[Batch]:
        """Yields the parts that none of the others covers."""
        first = self.first
        for other in sorted(done, key=lambda batch: batch.first):
            if other.end <= first or other.first >= self.end:
                continue
            if other.first > first:
                yield Batch(first, other.first)
            first = max(first, other.end)
        if first < self.end:
            yield Batch(first, self.end)


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """A row of the plan that the database refused, or that somebody else has changed since the diff.

    Args:
        position: Place of its item in the fetch; None for a delete.
        action: What was to be done with it.
        external_id: Canonical external id.
    """

    position: int | None
    action: Action
    external_id: str


class StagedTarget(Protocol[Page_contra]):
    """Loads pages of a snapshot beside its records, compares them there, and writes what differs.

    Whatever asks the database may raise `RetryableError`: it can't be reached, is locked, or broke a deadlock.
    """

    @property
    def recovered(self) -> int:
        """How many records an earlier attempt of the run had written when its plan was given up."""

    @property
    def needs_items(self) -> bool:
        """True if loading needs the items themselves, because a function reads them."""

    def begin(self, page: Page_contra, items: Sequence[Any] | None) -> str | None:
        """Begins a diff with the first page; returns why this target can't stage it, or None if it can."""

    def resume(self, plan: StagedPlan) -> bool:
        """Finds the plan of an earlier process again; returns False if it has gone."""

    def fingerprint(self, written: Sequence[str]) -> str:
        """Returns in short what a plan that writes these columns is made for: the table and its declaration."""

    def load(
        self, page: Page_contra, items: Sequence[Any] | None, skipped: Sequence[bool | None] | None
    ) -> Sequence[Unstaged]:
        """Loads a page into the staging table; returns the items that can't be there.

        Args:
            items: Its items, where they are needed.
            skipped: For each item, true if the job leaves it alone, None if it can't say; None if it leaves none alone.
        """

    def finish_loading(self) -> None:
        """Waits until all is loaded."""

    def why_not_ranked(self) -> str | None:
        """Returns why the database can't tell which of several items of one id counts; None if it can, or need not."""

    def take_duplicates(self, keep: Callable[[Iterator[tuple[str, int, int]]], None]) -> int:
        """Takes the items out that another one of the same id replaces; returns how many there are.

        Args:
            keep: Gets external id, position and kept position of each.
        """

    def compare(self, *, deletes: bool, veto: bool) -> StagedPlan:
        """Compares, and notes what differs.

        Args:
            deletes: True to look for records that no item is for.
            veto: True if the job itself decides whether a found record that differs is updated.
        """

    def spare(self, due: Callable[[Sequence[str]], Collection[str]]) -> int:
        """Takes the deletes out that are not due; returns how many.

        Args:
            due: Called with external ids, some thousands at a time; gives those that are to be deleted.
        """

    def existing(self) -> int:
        """Counts the local records that items can mean and a sync may delete."""

    def count_lost(self) -> Mapping[str, int]:
        """Counts of how many records the updates found would set a field to null or empty, field by field."""

    def count_had(self, names: Collection[str]) -> Mapping[str, int]:
        """Counts in how many of the records that the database compared these fields are neither null nor empty."""

    def positions(self) -> Iterator[int]:
        """Yields the places in the fetch of the items to be looked at one by one, ascending."""

    def columns_written(
        self, limit: int, *, counted: bool
    ) -> tuple[Mapping[str, int], Mapping[str, Mapping[str, str]]]:
        """Counts on how many records the updates found by `compare` change each column.

        Args:
            limit: Of how many records to say, by external id, what is written to which column, as text.
            counted: False to leave out the numbers.
        """

    def make_plan(self, *, without: Collection[Action] = ()) -> None:
        """Leaves in staging tables what is to be written.

        Args:
            without: Actions that are not to be carried out, though `compare` found them.
        """

    def export(self, actions: Collection[Action]) -> Iterator[Sequence[EntryRow]]:
        """Yields what `compare` found as lines of a plan: creates and updates as they were fetched, then deletes.

        Args:
            actions: Those that are wanted.
        """

    def batches(self, *, verify: bool = False, first_load: bool = False) -> Sequence[Batch]:
        """Returns the batches of the plan, in order.

        Args:
            verify: True if an earlier attempt may have written something.
            first_load: True if the table had no rows when it was compared.
        """

    def apply(self, batch: Batch) -> None:
        """Writes what is not written yet of a batch, in transactions that note what they did."""

    def applied(self) -> Counts:
        """Returns what has been written of this run, by whatever process."""

    def quarantined(self, skip: int) -> Sequence[QuarantinedRow]:
        """Returns rows to be written by themselves, a limited number at a time; none when there are no more.

        Args:
            skip: How many have been given.
        """

    def has_recorded(self) -> bool:
        """Tells whether dead runs may have left history that is not in the ledger yet; asks little if not."""

    def recorded(self, limit: int) -> Sequence[HistoryBlock]:
        """Returns what has been written and is not known to be in the ledger yet, by this run and dead ones.

        Args:
            limit: How many blocks at most.
        """

    def forget_recorded(self, ids: Sequence[str]) -> None:
        """Forgets blocks of history that are in the ledger by now."""

    def end_recorded(self) -> None:
        """Removes what held the history, if all is in the ledger, or nobody wants it there any more."""

    def drop(self) -> None:
        """Removes the staging tables of this run."""

    def close(self) -> None:
        """Gives back what was held."""
