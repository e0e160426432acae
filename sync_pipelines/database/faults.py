"""The table of whose fault it is: what databases and file systems can answer, and what is to be done about it.

Each answer is the item's own fault, or passes by itself, or needs a person. Only the first is kept with an item, and
costs it an attempt. What is not in the tables is the item's fault: then the others go on, and nothing is lost.

What goes wrong inside of a function of the database, such as a trigger, may be the matter with one row or with all. No
answer tells by itself: `suspected` says what it would be, and `runner.calls.whose_fault` decides by the other rows.
"""

from __future__ import annotations

import errno
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from sync_pipelines.errors import TargetError


class TargetStateError(TargetError):
    """The target's database is in a state that is no item's fault, whichever item it was met with."""


class Fault(Enum):
    """Says whose fault it is that something could not be done."""

    MOMENT = "the moment's"
    """It passes: the same is tried again, and costs nobody an attempt."""
    PERSON = "a person's"
    """It stays until somebody acts: the run ends and says what to do, at no item's cost."""


@dataclass(frozen=True, slots=True)
class State:
    """Describes what is the matter with a database or a file system.

    Args:
        what: What it is, after the name of the database.
        to_do: What a person can do about it, a sentence.
        of_statement: True if it may concern one statement only, such as one about another table.
    """

    what: str
    fault: Fault
    to_do: str
    of_statement: bool = False


LOST = State(
    "does not answer, or the connection was lost",
    Fault.MOMENT,
    "It may work later; look whether the server runs and can be reached from here.",
)
UNREADABLE = State(
    "could not read or write its file",
    Fault.MOMENT,
    "It may work later; look whether the disk is well, and whether this user may write the file and its folder.",
)
NO_FILE = State(
    "can't open its file",
    Fault.PERSON,
    "Look whether the folder is there, whether this user may write both, and how many files it may open.",
)
NO_HOST = State("is on a host that nobody knows", Fault.PERSON, "Correct the host's name in the URL.")
STARTING = State("is starting, stopping or recovering", Fault.MOMENT, "It may work later.")
LOCKED = State(
    "did not get a lock in time that somebody else has",
    Fault.MOMENT,
    "It may work later; look who holds the lock, or allow more time (SYNC_PIPELINES_LOCK_TIMEOUT_S).",
)
CONFLICT = State("ended a deadlock or a conflict of transactions", Fault.MOMENT, "It may work later.")
STOPPED = State(
    "ended the statement: a time limit of the server, or a person, stopped it",
    Fault.MOMENT,
    "If it happens again, let the role's statements and transactions take longer.",
)
CONNECTIONS = State(
    "has no free connection", Fault.MOMENT, "It may work later; else allow this role, or the server, more connections."
)
MEMORY = State("has no memory left", Fault.MOMENT, "It may work later; else give its machine more memory.")
DESCRIPTORS = State(
    "can't open any more files",
    Fault.MOMENT,
    "It may work later; else let the process open more files (ulimit -n, LimitNOFILE= of a systemd unit).",
)
READ_ONLY = State(
    "can't be written to, it is read-only",
    Fault.PERSON,
    "Make it writable, or let the URL name the server that takes writes.",
)
FULL = State("has no room left on the disk", Fault.PERSON, "Make room there.")
LIMIT = State("has reached a limit that is set for it", Fault.PERSON, "Raise that limit, or make room below it.")
BROKEN = State(
    "can't read or write its files: its disk fails, or a file is damaged",
    Fault.PERSON,
    "Look at the disk and at the database's own log; restore the database if need be.",
)
LOGIN = State(
    "refuses the login",
    Fault.PERSON,
    "Correct user and password in the URL, or let the server accept this user from here.",
)
NO_DATABASE = State("is not there", Fault.PERSON, "Correct its name in the URL, or create it.")
RIGHTS = State(
    "does not permit this", Fault.PERSON, "Grant the user the right that the message names.", of_statement=True
)
SCHEMA = State(
    "has another table than when the run began, or lacks a table or column",
    Fault.PERSON,
    "Run the migrations of your application, or correct the declaration; then start the run again.",
    of_statement=True,
)
FUNCTION = State(
    "has a problem of its own: a trigger or function of it fails for all records",
    Fault.PERSON,
    "Mend the function, or give it what it lacks: a right, a table, a column, another function.",
    of_statement=True,
)
SESSION = State(
    "has lost what the session had prepared",
    Fault.PERSON,
    "Let the pooler in between keep a session to itself, or turn prepared statements off (prepare_threshold).",
)

POSTGRESQL: Mapping[str, State] = {
    # Source: PostgreSQL's list of error codes (appendix A of its manual). Two letters are a class.
    "08": LOST,
    "25006": READ_ONLY,
    "25P02": STOPPED,  # the transaction was over before
    "25P03": LOST,  # idle_in_transaction_session_timeout
    "25P04": STOPPED,  # transaction_timeout
    "26000": SESSION,
    "28": LOGIN,
    "3D": NO_DATABASE,
    "3F": SCHEMA,
    "40": CONFLICT,
    "42501": RIGHTS,
    "42703": SCHEMA,  # column
    "428C9": SCHEMA,  # a column has become one that is generated always
    "42809": SCHEMA,  # what was a table is something else
    "42P01": SCHEMA,  # table
    "42P05": SESSION,
    "42P10": SCHEMA,  # a unique index is gone
    "42S02": SCHEMA,  # table, as ODBC says it
    "42S22": SCHEMA,  # column, as ODBC says it
    "53": MEMORY,
    "53000": DESCRIPTORS,
    "53100": FULL,
    "53300": CONNECTIONS,
    "53400": LIMIT,  # temp_file_limit
    "55000": SCHEMA,  # no replica identity, or a view that takes no writes
    "55006": LOCKED,
    "55P03": LOCKED,
    "57": STARTING,
    "57014": STOPPED,
    "57P04": NO_DATABASE,
    "57P05": LOST,  # idle_session_timeout
    "58": BROKEN,
    "72000": STOPPED,  # snapshot too old
    "F0": BROKEN,
    "HV00N": LOST,  # of a foreign server
    "XX001": BROKEN,
    "XX002": BROKEN,
}
_OF_THE_ITEM = frozenset({"40002"})  # a constraint that is checked at the end of the transaction

SQLITE: Mapping[int, State] = {
    # Source: SQLite's result codes. What has no row of its own is looked up by the lowest byte, the primary code.
    sqlite3.SQLITE_PERM: RIGHTS,
    sqlite3.SQLITE_ABORT: STOPPED,
    sqlite3.SQLITE_BUSY: LOCKED,
    sqlite3.SQLITE_LOCKED: LOCKED,
    sqlite3.SQLITE_NOMEM: MEMORY,
    sqlite3.SQLITE_READONLY: READ_ONLY,
    sqlite3.SQLITE_INTERRUPT: STOPPED,
    sqlite3.SQLITE_IOERR: UNREADABLE,
    sqlite3.SQLITE_IOERR_NOMEM: MEMORY,
    sqlite3.SQLITE_IOERR_CORRUPTFS: BROKEN,
    sqlite3.SQLITE_IOERR_DATA: BROKEN,
    sqlite3.SQLITE_CORRUPT: BROKEN,
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_CANTOPEN: NO_FILE,
    sqlite3.SQLITE_CANTOPEN_ISDIR: NO_DATABASE,
    sqlite3.SQLITE_PROTOCOL: LOCKED,
    sqlite3.SQLITE_SCHEMA: CONFLICT,
    sqlite3.SQLITE_NOLFS: LIMIT,
    sqlite3.SQLITE_AUTH: RIGHTS,
    sqlite3.SQLITE_NOTADB: BROKEN,
    sqlite3.SQLITE_ERROR_MISSING_COLLSEQ: SCHEMA,
    sqlite3.SQLITE_ERROR_RETRY: CONFLICT,
    sqlite3.SQLITE_ERROR_SNAPSHOT: CONFLICT,
}
# SQLite has one code for these and for faults of a value, and says them in no other language.
_SQLITE_SCHEMA = re.compile(
    r"no such (table|column|collation sequence|module|function)\b|unknown function: |has no column named "
)

MYSQL: Mapping[int, State] = {
    # Source: the lists of error codes in the manuals of MySQL and MariaDB. Their drivers call many refusals of data
    # `OperationalError`, so only the code decides.
    **dict.fromkeys((1205, 1614, 3058, 3572), LOCKED),
    **dict.fromkeys((1020, 1213), CONFLICT),  # 1020: somebody else has changed the row meanwhile (MariaDB)
    **dict.fromkeys((1317, 1907, 1927, 1969, 3024), STOPPED),
    **dict.fromkeys((1040, 1203, 1226), CONNECTIONS),
    **dict.fromkeys((1053, 1077, 1079), STARTING),
    **dict.fromkeys((1041, 1037, 1038, 1135), MEMORY),
    **dict.fromkeys((1016, 1017, 1023, 1024, 1026), BROKEN),
    **dict.fromkeys((1034, 1035, 1194, 1195, 1712), BROKEN),
    **dict.fromkeys((1021, 1114), FULL),
    **dict.fromkeys((1290, 1792, 1836, 3100, 3101), READ_ONLY),
    **dict.fromkeys((1044, 1045, 1129, 1130, 1698), LOGIN),
    1049: NO_DATABASE,
    1305: FUNCTION,  # a function that it calls is not there
    **dict.fromkeys((1142, 1143, 1227, 1370), RIGHTS),
    **dict.fromkeys((1054, 1146, 1932), SCHEMA),
    **dict.fromkeys((1042, 1043, 1080, 1152, 1158, 1159, 1160, 1161, 1184), LOST),
    **dict.fromkeys(
        (2002, 2003, 2004, 2005, 2006, 2012, 2013, 2014, 2026, 2027, 2045, 2055, 4031), LOST
    ),  # the driver's
}

FILE_SYSTEM: Mapping[int, State] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), FULL),
    errno.EFBIG: LIMIT,
    errno.EROFS: READ_ONLY,
    **dict.fromkeys((errno.EACCES, errno.EPERM), RIGHTS),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), DESCRIPTORS),
    **dict.fromkeys((errno.ENOMEM, errno.ENOBUFS), MEMORY),
    **dict.fromkeys((errno.EIO, errno.ENXIO, errno.ENODEV), BROKEN),
    **dict.fromkeys((errno.EBUSY, errno.EAGAIN, errno.EDEADLK, errno.ETXTBSY), LOCKED),
    **dict.fromkeys((errno.EINTR, errno.ESTALE, errno.EPIPE, errno.ETIMEDOUT), LOST),
    **dict.fromkeys((errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.ENOTCONN), LOST),
    **dict.fromkeys((errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN, errno.ENETRESET), LOST),
}

_MYSQL_DRIVERS = frozenset({"pymysql", "MySQLdb", "mysql", "mariadb", "asyncmy", "aiomysql", "cymysql"})
_NO_ANSWER = frozenset({"OperationalError", "InterfaceError"})
# A connection that is refused has no code: libpq has its text alone, which is English unless the server says otherwise.
_REFUSED = (
    (re.compile(r"password authentication failed|authentication failed|no password supplied|no pg_hba\.conf"), LOGIN),
    (re.compile(r"role .* (does not exist|is not permitted to log in)|permission denied for database"), LOGIN),
    (re.compile(r"database .* does not exist"), NO_DATABASE),
    (
        re.compile(r"too many (clients|connections)|connection slots|no more connections|out of connections"),
        CONNECTIONS,
    ),
    (re.compile(r"is (starting up|shutting down)|in recovery mode|not (yet )?accepting connections"), STARTING),
    (re.compile(r"Name or service not known|nodename nor servname|No address associated"), NO_HOST),
    (re.compile(r"[Tt]oo many open files"), DESCRIPTORS),
    (re.compile(r"out of memory"), MEMORY),
)
_STATE_LENGTH, _CLASS_LENGTH = 5, 2
_SAYS_SO_ITSELF = frozenset({"exec_stmt_raise", "ExecWithCheckOptions"})
"""The functions of PostgreSQL's server with which a trigger raises, and row security refuses: the code is any."""
_WRONG_STATEMENT = "42"  # the class of what is asked for in vain: a right, a table, a column, a function
_MYSQL_ANYWHERE = frozenset({1054, 1142, 1143, 1305, 1370})
"""What MySQL says alike of a statement of ours and of one inside of a trigger, which may be for one row only."""


@dataclass(frozen=True, slots=True)
class Suspected:
    """Describes what is the matter with a database if all rows meet with the same, and else with one row only.

    Args:
        is_said: True if a trigger raises it by itself, with a code of its choice, or row security refuses the row;
            False if a function of the database has met with it.
    """

    state: State
    is_said: bool


def suspected(error: BaseException) -> Suspected | None:
    """Says what may be the matter with the database as a whole, or may be the row's own fault; None if that is sure."""
    orig: Any = error.orig if isinstance(error, DBAPIError) else error
    if _is_mysql(orig):
        code = _mysql_code(orig)
        return Suspected(MYSQL[code], is_said=False) if code in _MYSQL_ANYWHERE else None
    sqlstate = _sqlstate(orig) if hasattr(orig, "diag") else None
    return _suspected(sqlstate, orig.diag) if sqlstate is not None else None


def _suspected(sqlstate: str, diag: Any) -> Suspected | None:
    state = _listed(sqlstate)
    if diag.source_function in _SAYS_SO_ITSELF:
        return Suspected(state, is_said=True) if state is not None else None
    is_of_statement = sqlstate.startswith(_WRONG_STATEMENT) if state is None else state.of_statement
    return Suspected(FUNCTION, is_said=False) if diag.context and is_of_statement else None


def _listed(sqlstate: str) -> State | None:
    if sqlstate in _OF_THE_ITEM:
        return None
    return POSTGRESQL.get(sqlstate) or POSTGRESQL.get(sqlstate[:_CLASS_LENGTH])


def state_of(error: BaseException) -> State | None:
    """Says what is the matter with the database or the file system; None if the item is at fault, or nobody knows.

    None as well of what is only `suspected`.

    Args:
        error: Of SQLAlchemy, of a driver, or of the operating system.
    """
    if isinstance(error, PoolTimeoutError):
        return CONNECTIONS
    if isinstance(error, MemoryError):  # all that Python's module tells of SQLite's NOMEM
        return MEMORY
    orig = error.orig if isinstance(error, DBAPIError) else error
    if orig is None or suspected(orig) is not None:
        return None
    found = _state_of_driver(orig)
    if found is None and isinstance(error, DBAPIError) and error.connection_invalidated:
        return LOST
    return found


def _is_mysql(orig: object) -> bool:
    return type(orig).__module__.partition(".")[0] in _MYSQL_DRIVERS


def _state_of_driver(orig: BaseException) -> State | None:
    sqlite_code = getattr(orig, "sqlite_errorcode", None)
    if sqlite_code is not None:
        return _of_sqlite(sqlite_code, str(orig))
    gave_no_answer = bool(_NO_ANSWER & {each.__name__ for each in type(orig).__mro__})
    if _is_mysql(orig):
        code = _mysql_code(orig)
        # some drivers give no code where the connection was gone before they could ask
        return MYSQL.get(code) if code else LOST if gave_no_answer else None
    if isinstance(orig, OSError):
        known = FILE_SYSTEM.get(orig.errno or 0)
        return known or (LOST if isinstance(orig, ConnectionError | TimeoutError) else None)
    if sqlstate := _sqlstate(orig):
        return _listed(sqlstate)
    if not gave_no_answer or isinstance(orig, sqlite3.Error):
        return None
    text = str(orig)
    return next((state for pattern, state in _REFUSED if pattern.search(text)), LOST)


def _of_sqlite(code: int, text: str) -> State | None:
    if code == sqlite3.SQLITE_ERROR:
        return SCHEMA if _SQLITE_SCHEMA.search(text) else None
    return SQLITE.get(code) or SQLITE.get(code & 0xFF)


def code_of(error: DBAPIError) -> str | int | None:
    """Returns what the driver says is wrong: an SQLSTATE, or SQLite's or MySQL's own code; None if it says none."""
    orig: Any = error.orig
    return getattr(orig, "sqlite_errorcode", None) or _sqlstate(orig) or _mysql_code(orig) or None


def _mysql_code(orig: BaseException) -> int:
    """Returns the server's or driver's code, 0 if there is none."""
    # PyMySQL and mysqlclient say it as the first argument, others as errno.
    code = getattr(orig, "errno", None) or next(iter(orig.args), None)
    return code if isinstance(code, int) and code > 0 else 0


def _sqlstate(orig: BaseException) -> str | None:
    # psycopg 3 says sqlstate, psycopg2 pgcode, ODBC has it as the first argument.
    state: Any = getattr(orig, "sqlstate", None) or getattr(orig, "pgcode", None) or next(iter(orig.args), None)
    return state if isinstance(state, str) and len(state) == _STATE_LENGTH and state.isalnum() else None


@contextmanager
def states_raised(database: Engine, raised: Callable[[State, Exception], Exception]) -> Iterator[None]:
    """Raises what `raised` makes of a state and of what was said; what a row is at fault for goes through as it is."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError, OSError, MemoryError, database.dialect.loaded_dbapi.Error) as error:
        state = state_of(error)
        if state is None:
            raise
        raise raised(state, error) from error


def first_line(error: BaseException) -> str:
    """Returns the first line of what the database said, or else of the error."""
    told = getattr(error, "orig", None) or error
    return str(told).strip().partition("\n")[0] or type(told).__name__


def sentence(name: str, state: State, error: BaseException) -> str:
    """Says in a person's words what is the matter, what was said, and what to do."""
    return f"{name} {state.what}: {first_line(error)}{_where(error)}. {state.to_do}"


def _where(error: BaseException) -> str:
    """Names the function of the database in which it happened; nothing where there was none."""
    context = getattr(getattr(getattr(error, "orig", None) or error, "diag", None), "context", None)
    return f" ({context.strip().rpartition(chr(10))[2]})" if context else ""
