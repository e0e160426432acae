"""Whose fault an error is that a call, or a whole phase of a run, ended with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from sync_pipelines.database.faults import TargetStateError, first_line, sentence, state_of
from sync_pipelines.engine.outages import is_outage
from sync_pipelines.engine.places import place_of
from sync_pipelines.errors import RetryableError, RunError, TargetError


def is_no_items_fault(error: Exception) -> bool:
    """True if a call failed because of the state of the other side: it costs the item no attempt.

    A function of a job may raise `RetryableError`, or let out what its own database or file system said.
    """
    return is_outage(error) or state_of(error) is not None


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
