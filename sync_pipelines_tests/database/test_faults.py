"""The table of whose fault an answer is: complete, what operators read of it, and what is in no driver's code."""

from __future__ import annotations

import errno
import re
import sqlite3
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
import sqlalchemy as sa

from sync_pipelines.database import faults
from sync_pipelines.database.faults import (
    FILE_SYSTEM,
    MYSQL,
    POSTGRESQL,
    SQLITE,
    Fault,
    State,
    Suspected,
    state_of,
    suspected,
)

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
STATES = {state.what: state for state in vars(faults).values() if isinstance(state, State)}


def documented() -> dict[str, tuple[State, list[list[str]]]]:
    """What -> the state, and the codes of each column, as the page has them."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rows = [row for row in cells if row[0] in STATES]
    assert all(row[5] == STATES[row[0]].to_do for row in rows)
    return {row[0]: (STATES[row[0]], [re.findall(r"\w+", cell) for cell in row[1:5]]) for row in rows}


def test_operators_read_the_very_table_that_decides() -> None:
    rows = documented().values()
    assert {code: state for state, codes in rows for code in codes[0]} == POSTGRESQL
    assert {getattr(sqlite3, f"SQLITE_{code}"): state for state, codes in rows for code in codes[1]} == SQLITE
    assert {int(code): state for state, codes in rows for code in codes[2]} == MYSQL
    assert {getattr(errno, code): state for state, codes in rows for code in codes[3]} == FILE_SYSTEM


def test_what_passes_and_what_needs_a_person_stand_apart_on_the_page() -> None:
    passing, person = PAGE.read_text(encoding="utf-8").split("### It passes")[1].split("### It needs a person")
    for what, state in STATES.items():
        assert f"| {what} |" in (passing if state.fault is Fault.MOMENT else person)


def dbapi(error: Exception) -> sa.exc.DBAPIError:
    return sa.exc.DBAPIError("INSERT", {}, error)


@pytest.mark.parametrize(("code", "state"), POSTGRESQL.items())
def test_each_code_of_postgresql_is_known_by_itself_or_by_its_class(code: str, state: State) -> None:
    error = psycopg.Error("...")
    error.sqlstate = code if len(code) == 5 else f"{code}ZZZ"
    assert state_of(dbapi(error)) is state
    assert state_of(error) is state, "also where a function of the job uses the driver itself"


def sqlite_error(code: int, text: str = "...") -> sqlite3.Error:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(("code", "state"), SQLITE.items())
def test_each_code_of_sqlite_is_known(code: int, state: State) -> None:
    assert state_of(dbapi(sqlite_error(code))) is state


def test_an_extended_code_of_sqlite_counts_as_its_primary_code() -> None:
    assert state_of(sqlite_error(sqlite3.SQLITE_READONLY_DIRECTORY)) is faults.READ_ONLY
    assert state_of(sqlite_error(sqlite3.SQLITE_IOERR_WRITE)) is faults.UNREADABLE
    assert state_of(sqlite_error(sqlite3.SQLITE_CONSTRAINT_TRIGGER)) is None


@pytest.mark.parametrize(("code", "state"), MYSQL.items())
def test_each_code_of_mysql_is_known(code: int, state: State) -> None:
    error = dbapi(pymysql.err.OperationalError(code, "..."))
    found = suspected(error)
    assert (state_of(error) or (found and found.state)) is state


@pytest.mark.parametrize(("code", "state"), FILE_SYSTEM.items())
def test_each_error_of_a_file_system_is_known(code: int, state: State) -> None:
    assert state_of(OSError(code, "...")) is state


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ('FATAL:  password authentication failed for user "me"', faults.LOGIN),
        ("fe_sendauth: no password supplied", faults.LOGIN),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1"', faults.LOGIN),
        ('FATAL:  database "shop" does not exist', faults.NO_DATABASE),
        ("FATAL:  sorry, too many clients already", faults.CONNECTIONS),
        ("FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute", faults.CONNECTIONS),
        ("FATAL:  the database system is starting up", faults.STARTING),
        ("FATAL:  the database system is in recovery mode", faults.STARTING),
        ("FATAL:  the database system is not yet accepting connections", faults.STARTING),
        ("could not create socket: Too many open files", faults.DESCRIPTORS),
        ("Verbindungsaufbau abgelehnt", faults.LOST),
    ],
)
def test_a_connection_to_postgresql_that_is_refused_is_known_by_its_text(text: str, state: State) -> None:
    assert state_of(psycopg.OperationalError(f"connection failed: {text}")) is state


@pytest.mark.parametrize(
    "error",
    [
        sqlite_error(sqlite3.SQLITE_ERROR, "malformed JSON"),
        sqlite_error(sqlite3.SQLITE_TOOBIG),
        sqlite_error(sqlite3.SQLITE_MISMATCH),
        pymysql.err.OperationalError(1366, "Incorrect value"),
        pymysql.err.OperationalError(1644, "a trigger's own"),
        psycopg.errors.UniqueViolation("..."),
        psycopg.errors.NumericValueOutOfRange("..."),
        psycopg.errors.TransactionIntegrityConstraintViolation("..."),
        psycopg.errors.ProgramLimitExceeded("..."),
        psycopg.errors.RaiseException("..."),
        FileNotFoundError(errno.ENOENT, "..."),
        OSError(errno.ENAMETOOLONG, "..."),
        ValueError("no"),
    ],
)
def test_what_is_an_items_fault_has_no_state(error: Exception) -> None:
    assert state_of(error) is None


def test_a_table_that_a_trigger_asks_for_is_missing_for_some_rows_only(postgres: sa.Engine) -> None:
    with postgres.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE things (n int)")
        connection.exec_driver_sql(
            "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.n > 1 THEN "
            "PERFORM 1 FROM nowhere; END IF; RETURN NEW; END $$"
        )
        connection.exec_driver_sql("CREATE TRIGGER look BEFORE INSERT ON things FOR EACH ROW EXECUTE FUNCTION look()")

    def refused(statement: str) -> Any:
        with pytest.raises(sa.exc.DBAPIError) as caught, postgres.begin() as connection:
            connection.exec_driver_sql(statement)
        return state_of(caught.value), suspected(caught.value)

    assert refused("INSERT INTO things VALUES (2)") == (None, Suspected(faults.FUNCTION, is_said=False))
    assert refused("INSERT INTO nowhere VALUES (2)") == (faults.SCHEMA, None)
