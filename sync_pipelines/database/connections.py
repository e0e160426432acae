"""Connections to databases: one URL in, the right driver and safe defaults out."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from sync_pipelines.database.sessions import keep_known_state
from sync_pipelines.errors import ConfigurationError

SQLITE_BUSY_TIMEOUT_S = 30


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


def create_database(url: str | URL, *, answers_within_s: float | None = None) -> Engine:
    """Makes a SQLAlchemy engine that waits for locks instead of failing, and enforces foreign keys on SQLite.

    On PostgreSQL its transactions are in the state that `database.sessions` says.

    Args:
        url: The database's URL; `postgresql://` means psycopg 3, `mysql://` and `mariadb://` PyMySQL.
        answers_within_s: How long to wait for a connection or an answer, in seconds; by default as long as it takes.

    Raises:
        ConfigurationError: The URL can't be read or names a driver that is not installed.
    """
    parsed = database_url(url)
    options: dict[str, Any] = {"hide_parameters": True}  # in error texts: they may be personal data
    if parsed.get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": answers_within_s or SQLITE_BUSY_TIMEOUT_S}
    elif answers_within_s is not None and parsed.drivername == "postgresql+psycopg":
        options["connect_args"] = _patience(answers_within_s)
        options["pool_pre_ping"] = True  # a server that was restarted is no error
    try:
        database = create_engine(parsed, **options)
    except (ArgumentError, ImportError) as error:
        raise ConfigurationError(f"no driver for the database {shown_url(parsed)}: {error}") from error
    keep_known_state(database)
    if database.dialect.name == "sqlite":
        event.listen(database, "connect", _prepare_sqlite)
    elif "pool_pre_ping" in options:
        event.listen(database, "connect", partial(_limit_statements, round((answers_within_s or 0) * 1000)))
    return database


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _patience(seconds: float) -> dict[str, Any]:
    """Returns the options by which a connection to PostgreSQL gives up: when it is made, and when nothing comes."""
    return {
        "connect_timeout": max(2, round(seconds)),  # less than two means two
        "tcp_user_timeout": round(seconds * 1000),
    }


def _limit_statements(limit_ms: int, connection: Any, _record: Any) -> None:
    """Limits statements, but not by an option of the connection, which poolers such as PgBouncer refuse."""
    connection.execute(f"SET statement_timeout = {limit_ms}")
    connection.commit()
