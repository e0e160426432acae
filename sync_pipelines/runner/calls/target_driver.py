"""Drives a target by the widest methods it offers, and keeps every item's own error."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from tempfile import TemporaryFile
from types import NoneType, SimpleNamespace
from typing import IO, Any, TypeVar

from sync_pipelines.engine.calls import call
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.external_ids import checked_external_id, external_id_of
from sync_pipelines.engine.items import field_names, read_field
from sync_pipelines.engine.pages import stream_elements
from sync_pipelines.engine.places import is_users, note_place
from sync_pipelines.engine.plan import Action, FieldChange
from sync_pipelines.engine.redaction import message_of
from sync_pipelines.engine.staged_target import StagedTarget, StagingRequest
from sync_pipelines.engine.targets import TargetDescription
from sync_pipelines.errors import ConfigurationError, ItemError, RetryableError, RunError, TargetError
from sync_pipelines.runner.calls.backoff import call_again
from sync_pipelines.runner.calls.rate_limit import RateLimit
from sync_pipelines.runner.calls.record_calls import Answer, RecordCalls
from sync_pipelines.runner.calls.whose_fault import FIND, OtherRecords
from sync_pipelines.runner.context.lease import HeldLease
from sync_pipelines.snapshots.snapshot import SnapshotPage

T = TypeVar("T")

_NO_RECORDS = (str, bool, int, float, Decimal, NoneType)
Staged = StagedTarget[SnapshotPage]
"""A target that takes pages of a snapshot into staging tables."""
FUNCTIONS = ("find_local", "create", "update", "delete", "list_local")
"""What a job may have instead of a target."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Says whether a record needs the update, and which fields differ as far as the target names them."""

    changed: bool
    changes: Mapping[str, FieldChange]


@dataclass(frozen=True, slots=True)
class Work:
    """Describes one write: the item (None for a delete) and the local record (None for a create)."""

    external_id: str
    item: Any
    local: Any


@contextmanager
def open_target(job: SyncJob[Any, Any], held: HeldLease | None = None) -> Iterator[TargetDriver]:
    """Opens the job's target, or wraps its per-record functions.

    Raises:
        ConfigurationError: The target does not fit its database; nothing has been written.
        TargetError: The target can't be reached.
    """
    if job.target is None:
        given = {name: getattr(job, name) for name in FUNCTIONS if getattr(job, name) is not None}
        yield TargetDriver(job, SimpleNamespace(**given), held)
    elif hasattr(job.target, "open"):
        with _reached(job, job.target) as target:
            if held is not None and hasattr(target, "fence_with"):
                target.fence_with(held.fence)
            _require_methods(job, target)
            yield TargetDriver(job, target, held)
    else:
        yield TargetDriver(job, job.target, held)


@contextmanager
def _reached(job: SyncJob[Any, Any], declared: Any) -> Iterator[Any]:
    with ExitStack() as stack:
        try:
            target = call_again(lambda: stack.enter_context(declared.open(partial(external_id_of, job))))
        except RetryableError as error:
            raise TargetError(f"{job.name}: the target can't be reached: {message_of(error)}") from error
        except (ConfigurationError, TargetError) as error:
            kind = ConfigurationError if isinstance(error, ConfigurationError) else TargetError
            raise kind(f"{job.name}: {error}") from error
        yield target


def _require_methods(job: SyncJob[Any, Any], target: Any) -> None:
    needed = [("find_local", "find_many"), ("create", "create_many"), ("update", "update_many")]
    if job.deletes != "off":
        needed += [("delete", "delete_many"), ("list_local", "list_local")]
    for one, many in needed:
        if not any(callable(getattr(target, name, None)) for name in (one, many)):
            raise ConfigurationError(f"{job.name}: target: the opened {type(target).__name__} has no {one}")


def describe_target(job: SyncJob[Any, Any]) -> TargetDescription | None:
    """Returns the description of the job's target; None if it gives none, or can't just now."""
    try:
        with open_target(job) as driver:
            return driver.describe()
    except Exception:  # noqa: BLE001 - a description is no reason to fail a run that has done its work
        return None


class TargetDriver:
    """Finds, compares and writes local records.

    Args:
        target: An opened target, or anything with some of the methods that `sync_pipelines.engine.targets` lists.
        pace: Says when a call may begin; by default what the job says.
    """

    def __init__(
        self, job: SyncJob[Any, Any], target: Any, held: HeldLease | None = None, pace: RateLimit | None = None
    ) -> None:
        self._job = job
        self._held = held
        self.target = target
        self._calls = RecordCalls(job, pace)
        self.others = OtherRecords()
        self._has_changed = job.has_changed or self._offered("has_changed")
        self._is_users = job.target is None or is_users(type(target))

    def _offered(self, method: str) -> Callable[..., Any] | None:
        found = getattr(self.target, method, None)
        return found if callable(found) else None

    @property
    def decides_changes(self) -> bool:
        """True if a function decides whether a found record that differs is updated."""
        return self._has_changed is not None

    @property
    def records_history(self) -> bool:
        """True if what is written is kept in the history of its record."""
        return self._job.keep_history_days > 0

    @property
    def names_changes(self) -> bool:
        """True if the target names the fields that an update would change."""
        return self._offered("changes") is not None

    def fields_of(self, local: Any) -> dict[str, Any]:
        """Returns the fields of a local record as far as they can be read."""
        read = self._offered("local_fields")
        if read is not None:
            return dict(self._calls.one(read, local, what=self._named("local_fields")))
        if isinstance(local, str | int | float | Decimal):
            return {"": local}
        return {name: read_field(local, name) for name in field_names(local)}

    def is_marked(self, local: Any) -> bool:
        """True if the local record is there, but marked as deleted."""
        is_marked = self._offered("is_marked")
        return is_marked is not None and bool(self._calls.one(is_marked, local, what=self._named("is_marked")))

    def delete_changes(self, local: Any) -> dict[str, FieldChange]:
        """Returns what a delete changes: a mark, or all the fields that can be read, which go."""
        changes = self._offered("delete_changes")
        if changes is not None:
            return dict(self._calls.one(changes, local, what=self._named("delete_changes")))
        return {name: FieldChange(value, None) for name, value in self.fields_of(local).items()}

    def open_staged(self, request: StagingRequest) -> Staged | None:
        """Opens the target's staging tables for a whole fetch; None if it offers none."""
        open_staged = self._offered("open_staged")
        staged: Staged | None = open_staged(request) if open_staged else None
        return staged

    @contextmanager
    def together(self) -> Iterator[Any | None]:
        """Makes one transaction of all writes in the block, where the target offers that; yields it or None."""
        together = self._offered("together")
        with together() if together else nullcontext() as transaction:
            yield transaction

    def notes(self) -> list[str]:
        """Returns what an operator should know of the target."""
        notes = self._offered("notes")
        return list(self._calls.one(notes)) if notes else []

    @contextmanager
    def lease_locked(self) -> Iterator[None]:
        """Holds back renewals for the time of a transaction of `together` that has locked the row of the lease."""
        with self._held.locked() if self._held is not None else nullcontext():
            yield

    def at_once(self, action: Callable[[], T]) -> T:
        """Calls something for many records at once; retries transient errors."""
        done: T = self._calls.at_once(lambda _: action(), None)
        return done

    @property
    def knows_ids(self) -> bool:
        """True if the target says which spellings of an id mean the same record."""
        return self._offered("canonical_id") is not None

    def canonical_id(self, external_id: str) -> str:
        """Returns the external id as the target's key gives it back. Raises `ItemError` if it does not convert."""
        convert = self._offered("canonical_id")
        what = self._named("canonical_id")
        return str(self._calls.one(convert, external_id, what=what)) if convert else external_id

    def canonical_or_error(self, external_id: str | None) -> str | Exception | None:
        """Returns the canonical id, or why there is none; None of an item without an id."""
        if external_id is None:
            return None
        try:
            return self.canonical_id(external_id)
        except Exception as error:  # noqa: BLE001 - one bad item never stops the others
            return error

    def local_version(self, local: Any) -> Any:
        """Returns the field that `get_version` names of a local record; None if the target does not know it."""
        read = self._offered("local_version")
        named = isinstance(self._job.get_version, str)
        what = self._named("local_version")
        return self._calls.one(read, local, self._job.get_version, what=what) if named and read is not None else None

    def expect(self, external_ids: Sequence[str]) -> None:
        """Says which external ids are about to be converted, to a target that wants to know."""
        expect_ids = self._offered("expect_ids")
        if expect_ids is not None:
            self._calls.at_once(expect_ids, external_ids, what=self._named("expect_ids"))

    def stored_version(self, value: Any) -> Any:
        """Returns a version as a local record would hold it; None if the target does not know."""
        convert = self._offered("stored_version")
        named = isinstance(self._job.get_version, str)
        what = self._named("stored_version")
        return self._calls.one(convert, value, self._job.get_version, what=what) if named and convert else None

    def describe(self) -> TargetDescription | None:
        """Returns the target's description of itself, if it gives one."""
        describe = self._offered("describe")
        return self._calls.one(describe) if describe else None

    def list_ids(self) -> Iterator[str]:
        """Yields the canonical external ids of all local records.

        Raises:
            ConfigurationError: The target has no `list_local`, or it gives records instead of their ids.
        """
        list_local = self._offered("list_local")
        if list_local is None:
            raise ConfigurationError(f"{self._job.name}: target: has no list_local, which deletes need")
        with TemporaryFile("w+", encoding="utf-8") as listed:  # whole, before the first is given: it may break off
            try:
                self._calls.at_once(partial(self._list_into, listed), list_local)
            except Exception as error:
                if self._named("list_local"):
                    note_place(error, "list_local")
                raise
            listed.seek(0)
            for line in listed:
                yield json.loads(line)

    def _list_into(self, listed: IO[str], list_local: Callable[[], Any]) -> None:
        """Lists all local records anew, a line each."""
        listed.seek(0)
        listed.truncate()
        for given in stream_elements(call(list_local)):
            listed.writelines(f"{json.dumps(each)}\n" for each in self._canonical_local_id(given))

    def _canonical_local_id(self, given: Any) -> Iterator[str]:
        """Yields the canonical id of a local record; none for one that no item can mean, such as the empty text."""
        try:
            canonical = self.canonical_id(checked_external_id(given))
            canonical.encode("utf-8")
        except (ItemError, UnicodeEncodeError) as error:
            if isinstance(given, _NO_RECORDS) or type(given).__name__ in {"NAType", "NaTType"}:
                return
            # passed over, records would never be deleted, and every run would be green
            raise ConfigurationError(
                f"{self._job.name}: list_local: gives a {type(given).__name__}; let it give external ids, which are "
                "text or numbers, not the records themselves"
            ) from error
        yield canonical

    def find(self, external_ids: Sequence[str]) -> tuple[dict[str, Any], dict[str, Exception]]:
        """Looks records up by canonical id. Gives those that exist, and the error of each look-up that failed."""
        find_many = self._offered("find_many")
        if find_many is not None and external_ids:
            try:
                found = dict(self._calls.at_once(find_many, external_ids, what=self._named("find_many")))
            except TargetError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, it is narrowed down to one item below
                if self._offered("find_local") is None:
                    return {}, dict.fromkeys(external_ids, error)
            else:
                if found:
                    self.others.goes_through(FIND)
                return found, {}
        found, broken = self._find_each(external_ids)
        self.others.require_some_found(self._job.name, found, broken, is_all=len(broken) == len(external_ids))
        return found, broken

    def _find_each(self, external_ids: Sequence[str]) -> tuple[dict[str, Any], dict[str, Exception]]:
        answers: dict[str, Answer] = {}
        one_by_one = self._offered("find_many") is not None  # such a target may have but one connection
        arguments = {each: (each,) for each in external_ids}
        what = self._named("find_local")
        self._calls.each(self._function("find_local"), arguments, answers, what=what, one_by_one=one_by_one)
        found = {each: answers[each].value for each in arguments if answers[each].value is not None}
        return found, {each: error for each in arguments if (error := answers[each].error) is not None}

    def compare(self, item: Any, local: Any | None) -> Comparison:
        """Compares the item with the local record (None: there is none, everything differs)."""
        name_changes = self._offered("changes")
        what = self._named("changes")
        changes: Mapping[str, FieldChange] = (
            self._calls.one(name_changes, item, local, what=what) if name_changes is not None else {}
        )
        changed = local is None or name_changes is None or bool(changes)
        if changed and local is not None and self._has_changed is not None and not self.is_marked(local):
            changed = bool(self._calls.one(self._has_changed, item, local, what="has_changed"))
        return Comparison(changed, changes if changed else {})

    def write(
        self, action: Action, works: Sequence[Work], answers: dict[str, Answer] | None = None
    ) -> list[Exception | None]:
        """Carries out creates, updates or deletes; a batch that fails is narrowed down to the guilty records.

        Args:
            works: What to write, each of another external id.
            answers: Gets an entry for each external id as soon as it has one, so that what was written is known
                even if the writing breaks off.

        Returns:
            For each work its error, or None for one that was written.

        Raises:
            TargetError: The target as a whole does not answer.
        """
        answers = {} if answers is None else answers
        many = self._offered(f"{action.value}_many")
        if many is not None:
            self._write_halving(many, action, works, answers)
        else:
            arguments = {work.external_id: _arguments(action, work) for work in works}
            if action is not Action.UPDATE:
                arguments = {external_id: (each,) for external_id, each in arguments.items()}
            what = self._named(action.value)
            self._calls.each(self._function(action.value), arguments, answers, what=what, before=self.check_lease)
        if any(answers[work.external_id].error is None for work in works):
            self.others.goes_through(action.value)
        return [answers[work.external_id].error for work in works]

    def _write_halving(
        self,
        many: Callable[..., Any],
        action: Action,
        works: Sequence[Work],
        answers: dict[str, Answer],
        *,
        is_ordered: bool = False,
    ) -> None:
        if not works:
            return
        self.check_lease()
        try:
            what = self._named(f"{action.value}_many")
            self._calls.at_once(many, [_arguments(action, work) for work in works], what=what)
        except RunError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is narrowed down to one record
            if len(works) == 1:
                answers[works[0].external_id] = self._calls.again(many, [_arguments(action, works[0])], error)
                return
            works, middle = works if is_ordered else self._in_order(works), len(works) // 2
            self._write_halving(many, action, works[:middle], answers, is_ordered=True)
            self._write_halving(many, action, works[middle:], answers, is_ordered=True)
        else:
            answers.update((work.external_id, Answer()) for work in works)

    def _in_order(self, works: Sequence[Work]) -> Sequence[Work]:
        """Puts writes into the order in which the target needs them, if it knows one."""
        if self._offered("units") is None:
            return works
        return [works[place] for unit in self.units(works) for place in unit]

    def may_come_right(self, error: Exception) -> bool:
        """True if a record may be written after all once others have been, as far as the target knows."""
        may_come_right = self._offered("may_come_right")
        return may_come_right is not None and bool(self._calls.one(may_come_right, error))

    def units(self, works: Sequence[Work]) -> list[list[int]]:
        """Returns the places of writes in the order that the target needs; those in one list go together."""
        return list(self._calls.one(self._function("units"), [(work.item, work.local) for work in works]))

    def later_rivals(self, works: Sequence[Work]) -> Collection[int]:
        """Returns the places of writes that want a unique value which one before them wants, as far as it is known."""
        later_rivals = self._offered("later_rivals")
        if later_rivals is None or len(works) == 1:
            return ()
        return frozenset(self._calls.one(later_rivals, [(work.item, work.local) for work in works]))

    def _named(self, method: str) -> str | None:
        """Returns how errors call a method that is the user's own; None of one that this package's target has."""
        return method if self._is_users else None

    def check_lease(self) -> None:
        """Makes sure that this run may still write. Raises `LeaseLostError` if it may not."""
        if self._held is not None:
            self._held.check()

    def _function(self, method: str) -> Callable[..., Any]:
        """Returns the target's method; one that it lacks ends the run that needs it."""

        def missing(*_: Any) -> None:
            raise TargetError(f"{self._job.name}: the target has no {method}")

        return self._offered(method) or missing


def _arguments(action: Action, work: Work) -> Any:
    if action is Action.CREATE:
        return work.item
    return (work.item, work.local) if action is Action.UPDATE else work.local
