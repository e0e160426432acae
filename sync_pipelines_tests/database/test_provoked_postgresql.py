"""What PostgreSQL really answers in each state of the table, not what we believe that it does."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from sync_pipelines.database.faults import POSTGRESQL, state_of
from sync_pipelines_tests.database.provoked import Provoked, waiting

Connect = Callable[..., psycopg.Connection[Any]]
PROVOKED: Provoked[str, Connect] = Provoked()
"""Code or class -> what makes the server say it."""
AT_CONNECT = frozenset({"28", "3D", "53300"})
"""A connection that is refused has no code, only its text."""
NOT_PROVOKED = {
    "08": "a connection that breaks has no code; test_silent_peers.py and the tests that kill processes break some",
    "42S02": "a code of ODBC's own",
    "42S22": "a code of ODBC's own",
    "53": "the server's memory would have to run out; `out of memory` with code 53200",
    "53000": "the server itself would have to be out of descriptors; it keeps some free and fails before it starts",
    "53100": "test_states_of_a_database.py fills a disk under a whole sync",
    "57P04": "only in a moment between DROP DATABASE and the end of a session",
    "72000": "old_snapshot_threshold is gone since PostgreSQL 17",
    "F0": "a configuration file that is broken keeps the server from starting",
    "HV00N": "a foreign server, whose extension the server of the tests lacks",
}


def says(code: str, *statements: str) -> None:
    """Notes statements of one session, of which the last makes the server say a code."""

    def carry_out(connect: Connect) -> None:
        connection = connect()
        for each in statements:
            with suppress(psycopg.errors.DivisionByZero):
                connection.execute(each)

    PROVOKED[code] = carry_out


says("25006", "CREATE TABLE t (n int)", "COMMIT", "BEGIN READ ONLY", "INSERT INTO t VALUES (1)")
says("25P02", "SELECT 1 / 0", "SELECT 1")
says("25P04", "SET transaction_timeout = 50", "COMMIT", "BEGIN", "SELECT pg_sleep(5)")
says("26000", "EXECUTE nothing")
says("3F", "CREATE TABLE nowhere.t (n int)")
says("42501", "CREATE TABLE t (n int)", "CREATE ROLE weak", "SET LOCAL ROLE weak", "INSERT INTO t VALUES (1)")
says("42703", "CREATE TABLE t (n int)", "INSERT INTO t (m) VALUES (1)")
says("428C9", "CREATE TABLE t (n int GENERATED ALWAYS AS IDENTITY)", "INSERT INTO t (n) VALUES (1)")
says("42809", "CREATE TABLE t (n int PRIMARY KEY)", "INSERT INTO t_pkey VALUES (1)")
says("42P01", "INSERT INTO nowhere VALUES (1)")
says("42P05", "PREPARE p AS SELECT 1", "PREPARE p AS SELECT 1")
says("42P10", "CREATE TABLE t (n int)", "INSERT INTO t VALUES (1) ON CONFLICT (n) DO NOTHING")
says("53400", "SET temp_file_limit = 64", "SET work_mem = 64", "SELECT n FROM generate_series(1, 100000) n ORDER BY -n")
says("55000", "CREATE VIEW v AS SELECT count(*) AS n FROM pg_class", "INSERT INTO v VALUES (1)")
says("57014", "SET LOCAL statement_timeout = 50", "SELECT pg_sleep(5)")
says("58", "CREATE TABLE t (n int)", "COPY t FROM '/nowhere'")


@PROVOKED.by("25P03")
def a_transaction_that_is_left_open(connect: Connect) -> None:
    connection = connect()
    connection.execute("SET idle_in_transaction_session_timeout = 50")
    time.sleep(0.3)
    connection.execute("SELECT 1")


@PROVOKED.by("57P05")
def a_session_that_does_nothing(connect: Connect) -> None:
    connection = connect(autocommit=True)
    connection.execute("SET idle_session_timeout = 50")
    time.sleep(0.3)
    connection.execute("SELECT 1")


@PROVOKED.by("28")
def a_role_that_nobody_knows(connect: Connect) -> None:
    connect(user="nobody")


@PROVOKED.by("3D")
def a_database_that_nobody_has_made(connect: Connect) -> None:
    connect(dbname="nowhere")


@PROVOKED.by("53300")
def a_role_without_a_free_connection(connect: Connect) -> None:
    with connect(autocommit=True) as admin:
        admin.execute("CREATE ROLE limited LOGIN CONNECTION LIMIT 0")
    try:
        connect(user="limited")
    finally:
        with connect(autocommit=True) as admin:
            admin.execute("DROP ROLE limited")


@PROVOKED.by("40")
def two_that_change_one_row(connect: Connect) -> None:
    connection, other = connect(), connect(autocommit=True)
    other.execute("CREATE TABLE t AS SELECT 1 AS n")
    connection.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
    connection.execute("SELECT * FROM t")
    other.execute("UPDATE t SET n = 2")
    connection.execute("UPDATE t SET n = 3")


@PROVOKED.by("40P01")
def two_that_wait_for_each_other(connect: Connect) -> None:
    connection, other = connect(), connect()
    connection.execute("CREATE TABLE t (n int)")
    connection.commit()
    connection.execute("SELECT pg_advisory_xact_lock(1)")
    connection.execute("SET LOCAL deadlock_timeout = 10")
    other.execute("SET LOCAL deadlock_timeout = 10000")
    other.execute("SELECT pg_advisory_xact_lock(2)")
    with waiting(connection, other.execute, "SELECT pg_advisory_xact_lock(1)", 0.2):
        connection.execute("SELECT pg_advisory_xact_lock(2)")


@PROVOKED.by("55006")
def a_database_that_is_in_use(connect: Connect) -> None:
    with connect(autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE copied_by_two TEMPLATE {admin.info.dbname}")
        with suppress(psycopg.errors.InvalidCatalogName), connect(dbname="copied_by_two"):
            try:
                admin.execute("DROP DATABASE copied_by_two")
            finally:
                admin.execute("DROP DATABASE copied_by_two WITH (FORCE)")


@PROVOKED.by("55P03")
def a_lock_that_somebody_keeps(connect: Connect) -> None:
    connection, other = connect(), connect()
    other.execute("SELECT pg_advisory_xact_lock(1)")
    connection.execute("SET LOCAL lock_timeout = 20")
    connection.execute("SELECT pg_advisory_xact_lock(1)")


@PROVOKED.by("57")
def a_session_that_is_ended(connect: Connect) -> None:
    connection, other = connect(), connect()
    other.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
    time.sleep(0.2)
    connection.execute("SELECT 1")


def damaged(connect: Connect, relation: str, page: int, query: str) -> None:
    """Reads what was overwritten on the disk: of a copy, for the server knows its own pages by heart."""
    with connect(autocommit=True) as admin:
        admin.execute("CREATE TABLE t AS SELECT n, repeat('x', 100) AS s FROM generate_series(1, 10000) n")
        admin.execute("CREATE INDEX t_n ON t (n)")
        [folder] = admin.execute("SHOW data_directory").fetchone() or [""]
        [name] = admin.execute("SELECT current_database()").fetchone() or [""]
        [path] = admin.execute("SELECT pg_relation_filepath(%s::regclass)", [relation]).fetchone() or [""]
    with connect(autocommit=True, dbname="postgres") as admin:
        admin.execute(f"CREATE DATABASE damaged TEMPLATE {name} STRATEGY file_copy")
        try:
            [oid] = admin.execute("SELECT oid FROM pg_database WHERE datname = 'damaged'").fetchone() or [0]
            with (Path(folder) / "base" / str(oid) / Path(path).name).open("r+b") as file:
                file.seek(8192 * page)
                file.write(b"\xff" * 8192 if relation == "t" else bytes(8192))
            with connect(autocommit=True, dbname="damaged") as connection:
                connection.execute("SET enable_seqscan = off")
                connection.execute(query)
        finally:
            admin.execute("DROP DATABASE damaged WITH (FORCE)")


@PROVOKED.by("XX001")
def a_table_that_is_damaged(connect: Connect) -> None:
    damaged(connect, "t", 3, "SELECT sum(length(s)) FROM t")


@PROVOKED.by("XX002")
def an_index_that_is_damaged(connect: Connect) -> None:
    damaged(connect, "t_n", 1, "SELECT n FROM t WHERE n = 5")


@pytest.fixture
def connect(postgres: sa.Engine, request: pytest.FixtureRequest) -> Connect:
    """Opens a session, which is closed after the test."""

    def opened(*, autocommit: bool = False, user: str = "", dbname: str = "") -> psycopg.Connection[Any]:
        url = postgres.url.set(drivername="postgresql", username=user or postgres.url.username)
        url = url.set(database=dbname or url.database)
        connection = psycopg.connect(url.render_as_string(hide_password=False), autocommit=autocommit)
        request.addfinalizer(connection.close)
        return connection

    return opened


def test_each_code_is_provoked_or_has_a_reason_why_not() -> None:
    assert {code if code in POSTGRESQL else code[:2] for code in PROVOKED} | NOT_PROVOKED.keys() == POSTGRESQL.keys()
    assert not PROVOKED.keys() & NOT_PROVOKED.keys()


SLOW = {"55006": pytest.mark.soak}  # the server waits for 5 s by itself


@pytest.mark.parametrize("code", [pytest.param(code, marks=SLOW.get(code, ())) for code in PROVOKED])
def test_postgresql_says_this_code_in_this_state(connect: Connect, code: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        PROVOKED[code](connect)
    assert state_of(caught.value) is POSTGRESQL.get(code, POSTGRESQL.get(code[:2]))
    assert (caught.value.sqlstate or "").startswith("" if code in AT_CONNECT else code)
