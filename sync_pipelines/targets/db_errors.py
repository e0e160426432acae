"""Distinguishes failures of the connection, which pass, from failures of the data, which don't."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from sync_pipelines.errors import RetryableError

# Source: PostgreSQL's list of error codes (appendix A of its manual).
_PASSING_CLASSES = ("08", "40", "53", "57")  # connection, rollback of the transaction, resources, intervention
_CANCELLED = "57014"
_PASSING_STATES = frozenset({"55P03"})  # the lock can't be had now
# Source: SQLite's result codes; the lowest byte is the primary code.
_PASSING_SQLITE = frozenset({5, 6, 10, 14})  # busy, locked, input/output error, the file can't be opened
# Source: the lists of error codes in the manuals of MySQL and MariaDB. Their drivers call many refusals of data
# `OperationalError`, so only the code decides.
_PASSING_MYSQL = frozenset(
    {
        *(1205, 1213, 1614, 3058, 3572),  # locks and deadlocks
        *(1020,),  # somebody else has changed the row meanwhile (MariaDB)
        *(1317, 1907, 1927, 1969, 3024),  # a person or a time limit ended the statement or the connection
        *(1040, 1041, 1042, 1043, 1053, 1077, 1079, 1080, 1129, 1130, 1152, 1158, 1159, 1160, 1161, 1184, 1203, 1226),
        *(1044, 1045, 1049, 1698),  # it can't be entered: no record's fault, and at hand before the first is written
        *(1021, 1037, 1038, 1114, 1135, 1290, 1792, 1836, 3100, 3101),  # no room, read only, being taken over
        *(2002, 2003, 2004, 2005, 2006, 2012, 2013, 2014, 2026, 2027, 2045, 2055, 4031),  # the driver's own
    }
)
_MYSQL_DRIVERS = frozenset({"pymysql", "MySQLdb", "mysql", "mariadb", "asyncmy", "aiomysql", "cymysql"})
_STATE_LENGTH = 5


def is_passing(error: DBAPIError) -> bool:
    """True if the same may well succeed later: the connection failed, a lock was held, a deadlock was broken."""
    if error.connection_invalidated:
        return True
    sqlite_code = getattr(error.orig, "sqlite_errorcode", None)
    if sqlite_code is not None:
        return (sqlite_code & 0xFF) in _PASSING_SQLITE
    if type(error.orig).__module__.partition(".")[0] in _MYSQL_DRIVERS:
        code = _mysql_code(error.orig)
        # some drivers give no code where the connection was gone before they could ask
        return code in _PASSING_MYSQL if code else isinstance(error, OperationalError | InterfaceError)
    if state := _state(error.orig):
        return state.startswith(_PASSING_CLASSES) or state in _PASSING_STATES
    return isinstance(error, OperationalError)


def _mysql_code(orig: Any) -> int:
    """Returns the server's or driver's code, 0 if there is none."""
    # PyMySQL and mysqlclient say it as the first argument, others as errno.
    code = getattr(orig, "errno", None) or next(iter(orig.args), None)
    return code if isinstance(code, int) and code > 0 else 0


def _state(orig: Any) -> str | None:
    # psycopg 3 says sqlstate, psycopg2 pgcode, ODBC has it as the first argument.
    state = getattr(orig, "sqlstate", None) or getattr(orig, "pgcode", None) or next(iter(orig.args), None)
    return state if isinstance(state, str) and len(state) == _STATE_LENGTH and state.isalnum() else None


def first_line(error: Exception) -> str:
    """Returns the first line of what the database said, or else of the error."""
    return str(getattr(error, "orig", None) or error).partition("\n")[0]


def is_cancelled(error: RetryableError) -> bool:
    """True if PostgreSQL ended a statement, as its `statement_timeout` does."""
    return getattr(getattr(error.__cause__, "orig", None), "sqlstate", None) == _CANCELLED


@contextmanager
def passing_failures(database: Engine) -> Iterator[None]:
    """Raises failures of the connection as `RetryableError`; all others go through as they are."""
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
