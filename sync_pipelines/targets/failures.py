"""Tells failures of the connection, which pass, from failures of the data, which don't."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from sync_pipelines.errors import RetryableError

# Source: PostgreSQL's list of error codes (appendix A of its manual).
_PASSING_CLASSES = ("08", "40", "53", "57")  # connection, rollback of the transaction, resources, intervention
_CANCELLED = "57014"
_PASSING_STATES = frozenset({"55P03"})  # the lock can't be had now
# Source: SQLite's result codes; the lowest byte is the primary code.
_PASSING_SQLITE = frozenset({5, 6, 10, 14})  # busy, locked, input/output error, the file can't be opened


def is_passing(error: DBAPIError) -> bool:
    """True if the same may well succeed later: the connection failed, a lock was held, a deadlock was broken."""
    if error.connection_invalidated:
        return True
    sqlite_code = getattr(error.orig, "sqlite_errorcode", None)
    if sqlite_code is not None:
        return (sqlite_code & 0xFF) in _PASSING_SQLITE
    # psycopg 3 says sqlstate, psycopg2 pgcode.
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    if state:
        return state.startswith(_PASSING_CLASSES) or state in _PASSING_STATES
    return isinstance(error, OperationalError)


def is_cancelled(error: RetryableError) -> bool:
    """True if PostgreSQL ended a statement, as its `statement_timeout` does."""
    return getattr(getattr(error.__cause__, "orig", None), "sqlstate", None) == _CANCELLED


@contextmanager
def passing_failures(database: Engine) -> Iterator[None]:
    """Raises failures of the connection as `RetryableError`; all others go through as they are.

    Raises:
        RetryableError: The database could not be reached, was locked, or broke a deadlock.
    """
    try:
        yield
    except (DBAPIError, PoolTimeoutError) as error:
        if isinstance(error, DBAPIError) and not is_passing(error):
            raise
        reason = error.orig if isinstance(error, DBAPIError) else error
        raise RetryableError(f"the database {database_name(database)} did not do its part: {reason}") from error


def database_name(database: Engine) -> str:
    """Names a database for people: its URL without password and options."""
    return database.url.set(query={}).render_as_string(hide_password=True)
