"""Raises what a target's database answers as what it is: a failure that passes, a person's to mend, or a row's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from sync_pipelines.database.connections import shown_url
from sync_pipelines.database.faults import STOPPED, Fault, State, TargetStateError, sentence, state_of, states_raised
from sync_pipelines.errors import RetryableError


def is_passing(error: Exception) -> bool:
    """True if the same may well succeed later: the connection failed, a lock was held, a deadlock was broken."""
    state = state_of(error)
    return state is not None and state.fault is Fault.MOMENT


def is_of_statement(error: DBAPIError) -> bool:
    """True if it is this statement that the database does not take: another one about the same rows may do."""
    state = state_of(error)
    return state is None or state.of_statement


def refused_statement(error: BaseException | None) -> DBAPIError | None:
    """Returns the refusal of one statement that an error came of; None if another statement would fare no better."""
    while error is not None and not isinstance(error, DBAPIError):
        error = error.__cause__
    return error if error is not None and is_of_statement(error) else None


def is_stopped(error: RetryableError) -> bool:
    """True if the database ended a statement that took long, as PostgreSQL's `statement_timeout` does."""
    return error.__cause__ is not None and state_of(error.__cause__) is STOPPED


@contextmanager
def passing_failures(database: Engine) -> Iterator[None]:
    """Raises what is no row's fault as an error of its own; what is goes through as the database's.

    Raises:
        RetryableError: It passes.
        TargetStateError: It stays until a person acts; the message says what to do.
    """

    def raised(state: State, error: Exception) -> Exception:
        kind = RetryableError if state.fault is Fault.MOMENT else TargetStateError
        return kind(sentence(f"the database {database_name(database)}", state, error))

    with states_raised(database, raised):
        yield


@contextmanager
def asking_about_a_value(database: Engine) -> Iterator[None]:
    """Does as `passing_failures`, where nobody tries again: what passes must not be taken for the value's fault.

    Raises:
        TargetStateError: The database does not answer.
    """
    try:
        with passing_failures(database):
            yield
    except RetryableError as error:
        raise TargetStateError(str(error)) from error


def database_name(database: Engine) -> str:
    """Names a database for people: its URL without password and options."""
    return shown_url(database.url)
