"""Whose fault an error is that a call, or a whole phase of a run, ended with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum

from sqlalchemy.exc import DBAPIError

from sync_pipelines.database.faults import Fault, Suspected, TargetStateError, first_line, sentence, state_of, suspected
from sync_pipelines.engine.outages import is_outage, needs_person
from sync_pipelines.engine.places import place_of
from sync_pipelines.engine.plan import Action
from sync_pipelines.engine.redaction import message_of
from sync_pipelines.engine.results import Counts
from sync_pipelines.errors import FetchError, RetryableError, RunError, TargetError
from sync_pipelines.runner.calls.circuit_breaker import ITEMS_IN_VAIN


def is_no_items_fault(error: Exception) -> bool:
    """True if a call failed because of the state of the other side: it costs the item no attempt.

    A function of a job may raise `RetryableError`, or let out what its own database or file system said.
    """
    return is_outage(error) or state_of(error) is not None or needs_person(error)


class SourceStateError(FetchError):
    """The source refuses whatever it is asked for, until a person acts."""


def for_a_person(job: str, error: Exception) -> RunError:
    """Returns the error that ends the work on single items for which a person must act first."""
    return RunError(f"{job}: {_told(error)} What was applied is accounted for, what waits goes on waiting.")


def source_refuses(job: str, error: Exception) -> SourceStateError:
    """Returns the error that ends what needs answers of the source."""
    return SourceStateError(f"{job}: fetch_one: {_told(error)} What waits goes on waiting.")


def _told(error: Exception) -> str:
    return f"{message_of(error).rstrip('.')}. Nothing succeeds until somebody corrects it: a setting, or credentials."


def asks_for_another_attempt(error: Exception) -> bool:
    """True if a trigger raises by itself what passes, such as a conflict: once more it may take the record."""
    found = suspected(error)
    return found is not None and found.state.fault is Fault.MOMENT


FIND = "find"
"""What `OtherRecords` calls the look-up of records, beside the actions of plans."""


class Verdict(Enum):
    """Says whose fault it is what a trigger or a function of the target's database has met with, or raises."""

    RECORD = "the record's"
    TARGET = "the target's"
    OPEN = "not known yet"


class OtherRecords:
    """Knows how the records of a run fare, which tells whether a trigger fails for one of them or for all.

    What a trigger meets with (it lacks a right, a table) is the target's fault, unless the same action has gone through
    for another record. What it raises by itself is the record's fault, unless ten records met with the same, and
    nothing at all has gone through. Both are decided as late as can be, so that one record stops no others.
    """

    def __init__(self) -> None:
        self._written: set[str] = set()
        self._failed: defaultdict[tuple[str, Suspected], set[str]] = defaultdict(set)

    def note_written(self, counts: Counts) -> None:
        """Notes that records have been written."""
        of_action = {Action.CREATE: counts.created, Action.UPDATE: counts.updated, Action.DELETE: counts.deleted}
        for action, count in of_action.items():
            if count:
                self.goes_through(action.value)

    def goes_through(self, action: str) -> None:
        """Notes that an action has gone through for a record."""
        self._written.add(action)

    def note_failed(self, action: str, external_id: str, found: Suspected) -> None:
        """Notes a record that has met with a suspected state."""
        known = self._failed[action, found]
        if action not in self._written and len(known) < ITEMS_IN_VAIN:
            known.add(external_id)

    def verdict(self, action: str, found: Suspected, *, is_last: bool) -> Verdict:
        """Decides whose fault is what `note_failed` has noted.

        Args:
            is_last: True if nothing comes after that could tell.
        """
        is_many = len(self._failed[action, found]) >= ITEMS_IN_VAIN
        if action in self._written:
            return Verdict.RECORD
        if is_many and not (found.is_said and self._written):
            return Verdict.TARGET
        if not is_last:
            return Verdict.OPEN
        return Verdict.RECORD if found.is_said else Verdict.TARGET

    def require_some_found(
        self, job: str, found: Collection[str], broken: Mapping[str, Exception], *, is_all: bool
    ) -> None:
        """Makes sure that no function of the database fails for whatever is looked up.

        Args:
            broken: External id -> why it could not be looked up.
            is_all: True if nothing else was looked up.

        Raises:
            TargetError: One does.
        """
        if found:
            self.goes_through(FIND)
        suspects = {external_id: each for external_id, error in broken.items() if (each := suspected(error))}
        for external_id, each in suspects.items():
            self.note_failed(FIND, external_id, each)
        for external_id, each in suspects.items():
            if self.verdict(FIND, each, is_last=is_all) is Verdict.TARGET:
                raise ended_by(job, each, broken[external_id]) from broken[external_id]


def ended_by(job: str, found: Suspected, error: Exception) -> TargetError:
    """Returns the error that ends a run because the target is at fault."""
    told = sentence("the database", found.state, error)
    return TargetError(f"{job}: {told} What was applied is accounted for; run the sync again then.")


def passes(error: BaseException) -> bool:
    """True if it all began with something that passes."""
    return isinstance(error, RetryableError) or (error.__cause__ is not None and passes(error.__cause__))


def in_words(job: str, error: Exception) -> Exception:
    """Returns the error that ends a run: one of a driver or the operating system gets a sentence that says what to do.

    Args:
        error: What ended it. One of ours comes back as it is.
    """
    state = state_of(error)
    if isinstance(error, RetryableError | TargetStateError):
        return TargetError(f"{job}: {error} What was applied is accounted for; run the sync again then.")
    if isinstance(error, OSError) and state is not None:
        return RunError(f"{job}: {sentence(_asked(error), state, error)} Then run the sync again.")
    if not isinstance(error, DBAPIError):
        return error
    found = suspected(error)
    state = found.state if state is None and found is not None else state
    if state is not None:
        return TargetError(f"{job}: {sentence('the database', state, error)} Then run the sync again.")
    return TargetError(
        f"{job}: the database refuses a statement that is for no single record: {first_line(error)}. What was applied "
        "is accounted for. Look at the table and the declaration; --debug shows the statement."
    )


@contextmanager
def speaking(job: str) -> Iterator[None]:
    """Raises what ends the block in words that say what to do, see `in_words`."""
    try:
        yield
    except Exception as error:
        spoken = in_words(job, error)
        if spoken is error:
            raise
        raise spoken from error


def _asked(error: OSError) -> str:
    """Returns what the operating system was asked for: by a function of the user, or for a file."""
    place = place_of(error)
    if place is not None and place.what:
        return f"what {place.what} asks{f' ({place.where})' if place.where else ''}"
    return f"the file system with {error.filename if error.filename is not None else 'the files of runs'}"
