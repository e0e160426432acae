"""`Outcomes`: the one book of what became of changes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import partial

from sync_pipelines.database.faults import TargetStateError
from sync_pipelines.database.history import Written
from sync_pipelines.engine.one_item import OneItem
from sync_pipelines.engine.outages import needs_person
from sync_pipelines.engine.plan import Action, Outcome, PlanEntry
from sync_pipelines.engine.results import Counts, SyncError
from sync_pipelines.errors import AccountsError, RunError
from sync_pipelines.runner.calls.whose_fault import for_a_person, is_no_items_fault


@dataclass
class Outcomes:
    """Keeps one outcome or one error for each change, by its handle. Counts say what was written, not what was planned.

    A delete without an item, which a fetch asks for because it lacks the record, is no item: it has no outcome if
    there was nothing to delete, and one that failed is a failed delete. Any other change is an item of somebody.

    Args:
        failed_deletes: Those of the errors that belong to no item.
        needless_deletes: Deletes without an item that found nothing to delete.
        in_vain: Handles of those of the errors that are no item's fault: they cost it no attempt.
        recovered: How many entries an attempt that broke off had already written.
        ended: Set if the target turned out to be at fault for some of the errors, or a person must act: the work ends
            once they are noted.
        job: Name of the sync job, for errors to say.
        raises: True to raise errors as they are instead of keeping them: for a single item.
    """

    by_handle: dict[int, Outcome] = field(default_factory=dict)
    errors: dict[int, SyncError] = field(default_factory=dict)
    failed_deletes: set[int] = field(default_factory=set)
    needless_deletes: set[int] = field(default_factory=set)
    in_vain: set[int] = field(default_factory=set)
    recovered: int = 0
    written: list[Written] = field(default_factory=list)
    ended: RunError | None = None
    job: str = ""
    raises: bool = False

    def copy(self) -> Outcomes:
        """Returns a book that begins with what is in this one."""
        return replace(
            self,
            by_handle=dict(self.by_handle),
            errors=dict(self.errors),
            failed_deletes=set(self.failed_deletes),
            needless_deletes=set(self.needless_deletes),
            in_vain=set(self.in_vain),
            written=list(self.written),
        )

    def keep(self, handle: int, outcome: Outcome) -> None:
        """Keeps the outcome of a change."""
        self.by_handle[handle] = outcome

    def fail(self, handle: int, external_id: str | None, error: Exception) -> None:
        """Keeps the error of a change."""
        self._fail(handle, external_id, handle, error)

    def fail_entry(self, handle: int, entry: PlanEntry, error: Exception) -> None:
        """Keeps the error of an entry."""
        self._fail(handle, entry.external_id, entry.position, error)
        if _has_no_item(entry):
            self.failed_deletes.add(handle)

    def fail_in_vain(self, handle: int, entry: PlanEntry, error: Exception, ended: RunError) -> None:
        """Keeps the error of an entry, for which the target is at fault: it costs the entry no attempt."""
        if self.raises:
            raise ended from error
        self.fail_entry(handle, entry, error)
        self.in_vain.add(handle)
        self.ended = self.ended or ended

    def require_no_end(self) -> None:
        """Makes sure that no error ends the work; if one does, those that are no item's fault are left to who goes on.

        Raises:
            RunError: The target is at fault, or a person must act.
        """
        if self.ended is None:
            return
        for handle in self.in_vain:
            del self.errors[handle]
        self.failed_deletes -= self.in_vain
        self.in_vain.clear()
        raise self.ended

    def _fail(self, handle: int, external_id: str | None, position: int, error: Exception) -> None:
        ended = for_a_person(self.job, error) if needs_person(error) and not isinstance(error, RunError) else None
        if self.raises:
            raise error if ended is None else ended
        self.ended = self.ended or ended
        self.errors[handle] = SyncError.of(error, external_id, position)
        if is_no_items_fault(error):
            self.in_vain.add(handle)

    def one_item(self, handle: int, external_id: str | None) -> OneItem:
        """Keeps as its own what goes wrong with a change in the block."""
        return OneItem(partial(self.fail, handle, external_id), lets_through=TargetStateError)

    def one_entry(self, handle: int, entry: PlanEntry) -> OneItem:
        """Keeps as its own what goes wrong with an entry in the block."""
        return OneItem(partial(self.fail_entry, handle, entry), lets_through=TargetStateError)

    def leave(self, handle: int, entry: PlanEntry) -> None:
        """Notes that the record of an entry needs nothing any more."""
        if _has_no_item(entry):
            self.needless_deletes.add(handle)
        else:
            self.by_handle[handle] = Outcome.UNCHANGED

    def all_errors(self) -> list[SyncError]:
        """Returns the errors in the order of the fetch."""
        return sorted(self.errors.values(), key=lambda error: error.position)

    def counts(self) -> Counts:
        """Counts the outcomes."""
        failed_deletes = len(self.failed_deletes)
        failed = len(self.errors) - failed_deletes
        return Counts.of(self.by_handle.values()) + Counts(
            failed=failed, failed_deletes=failed_deletes, recovered=self.recovered
        )

    def missing(self, handles: Collection[int]) -> list[int]:
        """Returns those of the handles of which it is not known what became of them."""
        known = self.by_handle.keys() | self.errors.keys() | self.needless_deletes
        return [each for each in handles if each not in known]

    def is_complete(self, handles: Collection[int]) -> bool:
        """True if these changes, and no others, have one outcome or one error each."""
        count = len(self.by_handle) + len(self.errors) + len(self.needless_deletes)
        return count == len(handles) and not self.missing(handles)

    def require_complete(self, job: str, handles: Collection[int]) -> None:
        """Makes sure that these changes, and no others, have one outcome or one error each.

        Raises:
            AccountsError: They have not.
        """
        if not self.is_complete(handles):
            raise AccountsError(
                f"{job}: {len(handles):,} changes have {len(self.by_handle):,} outcomes and {len(self.errors):,} errors"
                ". This is a defect of the engine or of a target that reports what it did not do; please report it."
            )


def _has_no_item(entry: PlanEntry) -> bool:
    return entry.action is Action.DELETE and entry.position < 0
