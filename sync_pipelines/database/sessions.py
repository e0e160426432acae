"""The state that a database session of ours is in, whatever was set for its role, its database or by its pool's owner.

What is set for a role changes how values are written and read: with `DateStyle` German a date is no text that a driver
reads, with `extra_float_digits` -15 a number is not the one that was written. So every transaction of ours begins by
saying what it relies on, for itself alone: the next transaction of a pool, or of a pooler such as PgBouncer, notices
nothing.

Left as they are: `search_path` (it says where the tables are), `default_transaction_read_only` (it protects them), the
limits of statements, and `lc_monetary` (it says what the numbers in a column of money mean).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError

POSTGRESQL_STATE = {
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",  # a time without a zone means UTC, as in items; moments are staged without theirs
    "bytea_output": "hex",
    "extra_float_digits": "3",  # as many as it takes, on servers before 12 as well
    "standard_conforming_strings": "on",
    "client_encoding": "UTF8",
    "array_nulls": "on",
    "xmloption": "content",
    "row_security": "on",
    "quote_all_identifiers": "off",
    "transform_null_equals": "off",
}
"""The settings of every transaction of ours, by name."""
_ISOLATION = "READ COMMITTED"
_AT_ONCE = {"stream_results": False, "yield_per": None}
"""Overrides what a connection is told for its queries: none of this is a query to be streamed."""
_BEFORE = "sync_pipelines_state_before"
_TAKE_SCRIPTS = frozenset({"psycopg", "psycopg2"})
"""Drivers that send several statements at once."""
_FOLLOWS_ENCODING = "psycopg"
"""The driver that notices which encoding has been set; others go on with that of the connection."""


def with_known_state(database: Engine, limits: str = "") -> Engine:
    """Returns the engine with transactions in the known state. It has the same pool, whose owner notices nothing.

    Args:
        limits: A statement by which each transaction on PostgreSQL keeps limits of its own.
    """
    if database.dialect.name not in {"postgresql", "sqlite"}:
        return database
    ours = database.execution_options()
    keep_known_state(ours, limits)
    return ours


def keep_known_state(database: Engine, limits: str = "") -> None:
    """Lets every transaction of an engine of ours be in the known state.

    Args:
        limits: As in `with_known_state`.
    """
    if database.dialect.name == "postgresql":
        event.listen(database, "begin", partial(_begin, [limits] if limits else []))
        event.listen(database, "commit", _put_back)
        event.listen(database, "rollback", _put_back)
    elif database.dialect.name == "sqlite":
        event.listen(database, "begin", _read_any_text)
        event.listen(database, "commit", _read_text_as_before)
        event.listen(database, "rollback", _read_text_as_before)


def _begin(limits: list[str], connection: Connection) -> None:
    driver_connection: Any = connection.connection.dbapi_connection
    if connection.dialect.detect_autocommit_setting(driver_connection):
        _set_session(connection)
        return
    settings = [f"SET LOCAL {name} = {_value(value)}" for name, value in _state_for(connection).items()]
    _execute(connection, [f"SET TRANSACTION ISOLATION LEVEL {_ISOLATION}", *settings, *limits])


def _state_for(connection: Connection) -> dict[str, str]:
    left_out = None if connection.dialect.driver == _FOLLOWS_ENCODING else "client_encoding"
    return {name: value for name, value in POSTGRESQL_STATE.items() if name != left_out}


def _set_session(connection: Connection) -> None:
    """Sets the session itself, where each statement is a transaction of its own, and keeps what it was."""
    wanted = _state_for(connection) | {"default_transaction_isolation": _ISOLATION.lower()}
    query = f"SELECT {', '.join(f'current_setting({name!r})' for name in wanted)}"
    before = connection.exec_driver_sql(query, execution_options=_AT_ONCE).one()
    connection.info[_BEFORE] = dict(zip(wanted, before, strict=True))
    _execute(connection, [f"SET {name} = {_value(value)}" for name, value in wanted.items()])


def _put_back(connection: Connection) -> None:
    if connection.invalidated or connection.closed:
        return
    before = connection.info.pop(_BEFORE, None)
    if before is None:
        return
    try:
        _execute(connection, [f"SET {name} = {_value(value)}" for name, value in before.items()])
    except DBAPIError:  # its owner must not get it back like this
        connection.invalidate()


def _read_any_text(connection: Connection) -> None:
    """Keeps text that is not UTF-8, which SQLite takes from anybody, from failing all rows that are read with it."""
    driver_connection: Any = connection.connection.driver_connection
    before = getattr(driver_connection, "text_factory", None)
    if before is str:
        connection.info[_BEFORE] = before
        driver_connection.text_factory = _decoded


def _read_text_as_before(connection: Connection) -> None:
    if connection.invalidated or connection.closed:
        return
    before = connection.info.pop(_BEFORE, None)
    if before is not None:
        driver_connection: Any = connection.connection.driver_connection
        driver_connection.text_factory = before


def _decoded(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _value(value: str) -> str:
    """Returns the value of a setting as it stands in SET: what is a list there comes part by part."""
    return ", ".join(f"'{part.strip()}'" for part in value.replace("'", "''").split(","))


def _execute(connection: Connection, statements: list[str]) -> None:
    sent = ["; ".join(statements)] if connection.dialect.driver in _TAKE_SCRIPTS else statements
    for statement in sent:
        connection.exec_driver_sql(statement, execution_options=_AT_ONCE)
