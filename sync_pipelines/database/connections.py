"""Connections to databases: one URL in, the right driver and safe defaults out."""

from __future__ import annotations

import logging
import math
import socket
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from sync_pipelines.database.sessions import keep_known_state
from sync_pipelines.errors import ConfigurationError

SQLITE_BUSY_TIMEOUT_S = 30

# A peer that has vanished from the network is noticed within half a minute, while we wait for it or send to it.
_KEEPALIVES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 4}
_UNACKNOWLEDGED_S = 30
_FEWEST_CONNECT_S = 2  # less than two means two to libpq
_LIBPQ_DRIVERS = frozenset({"psycopg", "psycopg2"})
_LOCK, _IDLE = "lock_timeout", "idle_in_transaction_session_timeout"


@dataclass(frozen=True, slots=True)
class Limits:
    """Says how long a connection of ours waits for others, and keeps others waiting. A limit of 0 is none.

    What the URL, the role or the server says goes first. No statement is limited: comparing a million rows takes what
    it takes.

    Args:
        connect_s: For a connection to be made.
        lock_s: For one lock that somebody else has. Others may well hold one for some seconds, as a migration or a
            report does; for minutes only what hangs does, and the statement is tried four times.
        idle_s: In which a transaction of ours may be open without a word of ours, before the server ends it and its
            locks. Our own work between two statements takes seconds; but the column functions of a job run there too.
    """

    connect_s: float = 10
    lock_s: float = 60
    idle_s: float = 600

    def in_transactions(self, url: URL) -> str:
        """Returns the statement by which a transaction on PostgreSQL keeps the limits; empty if it has none to keep.

        They are set in each transaction and end with it: a connection of somebody else's pool is given back as it was,
        and a pooler such as PgBouncer, which refuses options and shares sessions, passes them on to nobody.

        Args:
            url: Of the database. What it sets itself is left out.
        """
        given = {_LOCK: self.lock_s, _IDLE: self.idle_s}
        options = str(url.query.get("options", ""))
        values = [f"('{name}', '{math.ceil(s * 1000)}')" for name, s in given.items() if s and name not in options]
        if not values:
            return ""
        return (
            f"SELECT set_config(name, value, true) FROM (VALUES {', '.join(values)}) AS ours (name, value) "  # noqa: S608 - our names
            "WHERE current_setting(name) = '0'"
        )


def database_url(url: str | URL) -> URL:
    """Gives the URL with the driver this project uses: `postgresql://` becomes psycopg 3, `mysql://` PyMySQL.

    Raises:
        ConfigurationError: The text is no database URL.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The cause is left out: of "postgresql://user:pass/word@host" it is "pass", which is no port number.
        raise ConfigurationError(
            "the database URL can't be read; write it as postgresql://user@host/name or sqlite:///file.sqlite (a "
            "password follows the user after a colon; in it write %40 for @, %2F for /, %3A for :). It is that of "
            "SYNC_PIPELINES_DATABASE_URL, SYNC_PIPELINES_LEDGER_URL, or of the target's `database`"
        ) from None
    if parsed.drivername in {"postgres", "postgresql"}:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername in {"mysql", "mariadb"}:
        return parsed.set(drivername=f"{parsed.drivername}+pymysql")
    return parsed


def file_of(url: URL) -> Path | None:
    """Returns the file of a SQLite database; None of any other, and of one in memory."""
    name = url.database
    is_file = url.get_backend_name() == "sqlite" and name and name != ":memory:" and not name.startswith("file:")
    return Path(name) if name and is_file else None


def shown_url(url: URL) -> str:
    """Returns the URL for people: without password and without the query, which may hold one as well."""
    return url.set(query={}).render_as_string(hide_password=True)


def leave_out_ignored_errors() -> None:
    """Keeps errors from stderr that psycopg ignores because of another one: they show the values of rows.

    Nothing is lost: a batch that is refused is narrowed down, and the error of each record reported by itself.
    """
    logging.getLogger("psycopg").addFilter(_is_no_ignored_error)


def _is_no_ignored_error(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("error ignored terminating ")


def create_database(url: str | URL, *, answers_within_s: float | None = None, limits: Limits | None = None) -> Engine:
    """Makes a SQLAlchemy engine that waits for others as long as its limits say, and enforces foreign keys on SQLite.

    On PostgreSQL its transactions are in the state that `database.sessions` says.

    Args:
        url: The database's URL; `postgresql://` means psycopg 3, `mysql://` and `mariadb://` PyMySQL.
        answers_within_s: How long to wait for a connection or an answer, in seconds; by default as long as it takes.
        limits: How long to wait for a connection, and for locks; by default as `Limits` says.

    Raises:
        ConfigurationError: The URL can't be read or names a driver that is not installed.
    """
    parsed, limits = database_url(url), limits or Limits()
    options: dict[str, Any] = {"hide_parameters": True}  # in error texts: they may be personal data
    if parsed.get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": answers_within_s or SQLITE_BUSY_TIMEOUT_S}
    else:
        options["connect_args"] = _connect_args(parsed, answers_within_s, limits)
        options["pool_pre_ping"] = answers_within_s is not None  # a server that was restarted is no error
    try:
        database = create_engine(parsed, **options)
    except (ArgumentError, ImportError) as error:
        raise ConfigurationError(f"no driver for the database {shown_url(parsed)}: {error}") from error
    keep_known_state(database, limits.in_transactions(parsed))
    if database.dialect.name == "sqlite":
        event.listen(database, "connect", _prepare_sqlite)
    elif database.dialect.name in {"mysql", "mariadb"}:
        event.listen(database, "connect", partial(_limit_mysql, limits, str(parsed.query.get("init_command", ""))))
    elif database.dialect.driver == "psycopg":
        event.listen(database, "do_connect", _connect_watched)
    if answers_within_s is not None and database.dialect.driver == "psycopg":
        event.listen(database, "connect", partial(_limit_statements, round(answers_within_s * 1000)))
    return database


def _connect_args(url: URL, answers_within_s: float | None, limits: Limits) -> dict[str, Any]:
    """Returns the options by which a connection gives up: when it is made, and when its peer has vanished."""
    given: dict[str, Any] = {}
    seconds = answers_within_s or limits.connect_s
    if seconds:
        given["connect_timeout"] = max(_FEWEST_CONNECT_S, round(seconds))
    driver = url.get_driver_name()
    if driver in _LIBPQ_DRIVERS:
        unacknowledged_s = answers_within_s or _UNACKNOWLEDGED_S
        given |= {**_KEEPALIVES, "tcp_user_timeout": round(unacknowledged_s * 1000)}
    elif driver != "pymysql":
        return {}  # each driver has its own names
    return {name: value for name, value in given.items() if name not in url.query}


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _connect_watched(_dialect: Any, _record: Any, given: list[Any], arguments: dict[str, Any]) -> Any:
    from sync_pipelines.database.silent_peers import WatchedConnection  # noqa: PLC0415 - the driver may not be needed

    return WatchedConnection.open(*given, **arguments)


def _limit_statements(limit_ms: int, connection: Any, _record: Any) -> None:
    """Limits statements, but not by an option of the connection, which poolers such as PgBouncer refuse."""
    connection.execute(f"SET statement_timeout = {limit_ms}")
    connection.commit()


def _limit_mysql(limits: Limits, init_command: str, connection: Any, _record: Any) -> None:
    """Makes the session wait for locks no longer than it should: for those of a table it would a day, or a year."""
    names = {"lock_wait_timeout": limits.lock_s, "innodb_lock_wait_timeout": limits.lock_s}
    wanted = {name: math.ceil(value) for name, value in names.items() if value and name not in init_command}
    with connection.cursor() as cursor:
        for name, value in wanted.items():
            cursor.execute(f"SET SESSION {name} = LEAST(@@SESSION.{name}, {value})")
        # MariaDB alone has it, and says so by a row
        cursor.execute("SHOW SESSION VARIABLES WHERE variable_name = 'idle_transaction_timeout' AND value = 0")
        if cursor.fetchone() is not None and limits.idle_s and "idle_transaction_timeout" not in init_command:
            cursor.execute(f"SET SESSION idle_transaction_timeout = {math.ceil(limits.idle_s)}")
    _keep_alive(getattr(connection, "_sock", None))


def _keep_alive(connected: socket.socket | None) -> None:
    """Lets the operating system notice a peer that has vanished, as libpq does by itself."""
    if connected is None or connected.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    options = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": _UNACKNOWLEDGED_S * 1000}
    for name, value in options.items():
        if hasattr(socket, name):  # not on every system
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
