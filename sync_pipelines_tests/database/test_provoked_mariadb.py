"""What MariaDB really answers in the states of the table that it can be brought into."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa

from sync_pipelines.database.faults import MYSQL, state_of, suspected
from sync_pipelines_tests.database.provoked import Provoked, waiting

Connect = Callable[..., Any]
PROVOKED: Provoked[int, Connect] = Provoked()
"""Code -> what makes the server, or the driver, say it."""
NOT_PROVOKED: dict[int, str] = {
    **dict.fromkeys((1614, 3058, 3572, 3024, 3100, 3101, 1907, 4031), "MySQL's alone; the tests have MariaDB"),
    **dict.fromkeys(
        (1053, 1077, 1079), "said in the moments in which the server ends; then the driver says 2013 or 2003"
    ),
    **dict.fromkeys(
        (1040, 1203, 1041, 1037, 1038, 1135), "limits and memory of the whole server, which other tests share"
    ),
    **dict.fromkeys((1016, 1017, 1023, 1024, 1026, 1034, 1035, 1194, 1195, 1712, 1932), "damaged files of the server"),
    **dict.fromkeys((1021,), "the server waits for room; a full table is 1114"),
    **dict.fromkeys((1836, 1129, 1130, 1698), "modes and hosts of the whole server"),
    **dict.fromkeys(
        (1042, 1043, 1080, 1152, 1158, 1159, 1160, 1161, 1184, 1927), "a network that fails while it writes"
    ),
    **dict.fromkeys(
        (2002, 2004, 2005, 2012, 2014, 2026, 2027, 2045, 2055),
        "of other drivers than PyMySQL, which says 2003 and 2013",
    ),
}


def says(code: int, *statements: str, user: bool = False) -> None:
    """Notes statements of one session, of which the last makes the server say a code.

    Args:
        user: True for a user that may read tables, and no more.
    """

    def carry_out(connect: Connect) -> None:
        connection = connect()
        with connection.cursor() as cursor:
            for each in statements[:-1]:
                cursor.execute(each)
        with (connect(weak=True) if user else connection).cursor() as cursor:
            cursor.execute(statements[-1])

    PROVOKED[code] = carry_out


MANY = "SELECT 'x' FROM seq_1_to_10000"
MAKE = "CREATE TABLE t (n INT PRIMARY KEY)"
says(1054, MAKE, "INSERT INTO t (m) VALUES (1)")
says(1114, "SET max_heap_table_size = 16384", "CREATE TABLE m (s CHAR(255)) ENGINE = MEMORY", f"INSERT INTO m {MANY}")
says(1142, MAKE, "INSERT INTO t VALUES (1)", user=True)
says(1146, "INSERT INTO nowhere VALUES (1)")
says(1227, "SET GLOBAL max_connections = 100", user=True)
says(1305, "SELECT nothing(1)")
says(1370, "CREATE FUNCTION f() RETURNS INT RETURN 1", "SELECT f()", user=True)
says(1792, MAKE, "SET SESSION TRANSACTION READ ONLY", "INSERT INTO t VALUES (1)")
says(1969, "SET max_statement_time = 0.05", "SELECT count(*) FROM seq_1_to_1000000 a JOIN seq_1_to_1000000 b")


@PROVOKED.by(1044)
def a_database_that_this_user_may_not_see(connect: Connect) -> None:
    connect(weak=True, database="mysql")


@PROVOKED.by(1045)
def a_wrong_password(connect: Connect) -> None:
    connect(weak=True, password="wrong")


@PROVOKED.by(1049)
def a_database_that_nobody_has_made(connect: Connect) -> None:
    connect(database="nowhere")


@PROVOKED.by(1143)
def a_column_that_this_user_may_not_write(connect: Connect) -> None:
    weak = connect(weak=True)
    with connect().cursor() as cursor, weak.cursor() as other:
        cursor.execute("CREATE TABLE s (n INT, m INT)")
        cursor.execute(f"GRANT UPDATE (n) ON s TO {weak.user.decode()}")
        other.execute("UPDATE s SET m = 2")


@PROVOKED.by(1226)
def a_user_with_too_many_queries(connect: Connect) -> None:
    weak = connect(weak=True)
    with connect().cursor() as cursor:
        cursor.execute(f"GRANT USAGE ON *.* TO {weak.user.decode()} WITH MAX_QUERIES_PER_HOUR 1")
    with connect(weak=True).cursor() as cursor:
        for _ in range(3):
            cursor.execute("SELECT 1")


@PROVOKED.by(1205)
def a_row_that_somebody_keeps(connect: Connect) -> None:
    first, second = connect(), connect()
    with first.cursor() as cursor, second.cursor() as other:
        cursor.execute(MAKE)
        cursor.execute("INSERT INTO t VALUES (1)")
        other.execute("SET innodb_lock_wait_timeout = 1")
        other.execute("INSERT INTO t VALUES (1)")


@PROVOKED.by(1213)
def two_that_wait_for_each_other(connect: Connect) -> None:
    first, second = connect(), connect()
    with first.cursor() as cursor, second.cursor() as other:
        cursor.execute(MAKE)
        cursor.execute("INSERT INTO t VALUES (1), (2), (3)")
        first.commit()
        cursor.execute("DELETE FROM t WHERE n = 1")
        other.execute("DELETE FROM t WHERE n IN (2, 3)")  # more, so that this is the one that may go on
        with waiting(first, other.execute, "DELETE FROM t WHERE n = 1", 0.3):
            cursor.execute("DELETE FROM t WHERE n = 2")


@PROVOKED.by(1020)
def two_that_change_one_row(connect: Connect) -> None:
    first, second = connect(autocommit=True), connect()
    with first.cursor() as cursor, second.cursor() as other:
        cursor.execute(MAKE)
        cursor.execute("INSERT INTO t VALUES (1)")
        other.execute("SET innodb_snapshot_isolation = ON")
        other.execute("SELECT * FROM t")
        cursor.execute("UPDATE t SET n = 2")
        other.execute("UPDATE t SET n = 3")


@PROVOKED.by(1290)
def a_server_that_may_only_be_read(connect: Connect) -> None:
    with connect().cursor() as cursor, connect(weak=True).cursor() as weak:
        cursor.execute(MAKE)
        cursor.execute(f"GRANT INSERT ON t TO {weak.connection.user.decode()}")
        cursor.execute("SET GLOBAL read_only = 1")
        try:
            weak.execute("INSERT INTO t VALUES (1)")
        finally:
            cursor.execute("SET GLOBAL read_only = 0")


def killed(connect: Connect, what: str, statement: str) -> None:
    """Carries out a statement, which somebody kills half-way."""
    connection, other = connect(), connect()

    def kill() -> None:
        time.sleep(0.3)
        with other.cursor() as cursor:
            cursor.execute(f"KILL {what} {connection.thread_id()}")

    killing = threading.Thread(target=kill)
    killing.start()
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        killing.join()


@PROVOKED.by(1317)
def a_statement_that_somebody_stops(connect: Connect) -> None:
    killed(connect, "QUERY", "SELECT count(*) FROM seq_1_to_1000000 a JOIN seq_1_to_1000000 b")


@PROVOKED.by(2013)
def a_session_that_somebody_ends(connect: Connect) -> None:
    killed(connect, "CONNECTION", "SELECT count(*) FROM seq_1_to_1000000 a JOIN seq_1_to_1000000 b")


@PROVOKED.by(2006)
def a_session_that_was_ended_before(connect: Connect) -> None:
    connection, other = connect(), connect()
    with other.cursor() as cursor, suppress(pymysql.Error):
        cursor.execute(f"KILL CONNECTION {connection.thread_id()}")
    time.sleep(0.2)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


@PROVOKED.by(2003)
def a_server_that_does_not_run(connect: Connect) -> None:
    connect(unix_socket=None, host="127.0.0.1", port=1)


@pytest.fixture
def connect(mariadb: sa.Engine, mariadb_admin: sa.Engine) -> Iterator[Connect]:
    """Opens a session of the server's owner, or of a user that may read tables and no more."""
    name = f"u{uuid.uuid4().hex[:8]}"
    with mariadb_admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE USER {name} IDENTIFIED BY 'right'")
        connection.exec_driver_sql(f"GRANT SELECT ON {mariadb.url.database}.* TO {name}")

    all_opened: list[Any] = []

    def opened(*, weak: bool = False, **options: Any) -> Any:
        own = {"user": name, "password": "right"} if weak else {"user": mariadb.url.username}
        place = {"unix_socket": mariadb.url.query["unix_socket"], "database": mariadb.url.database}
        connection = pymysql.connect(**{**place, **own, **options})
        all_opened.append(connection)
        return connection

    yield opened
    for each in all_opened:
        each._force_close()  # also of one whose server has ended the session
    with mariadb_admin.connect() as connection:
        connection.exec_driver_sql(f"DROP USER {name}")


def test_each_code_is_provoked_or_has_a_reason_why_not() -> None:
    assert PROVOKED.keys() | NOT_PROVOKED.keys() == MYSQL.keys()
    assert not PROVOKED.keys() & NOT_PROVOKED.keys()


@pytest.mark.parametrize("code", PROVOKED)
def test_mariadb_says_this_code_in_this_state(connect: Connect, code: int) -> None:
    with pytest.raises(pymysql.Error) as caught:
        PROVOKED[code](connect)
    found = suspected(caught.value)
    assert caught.value.args[0] == code
    assert (state_of(caught.value) or (found and found.state)) is MYSQL[code]
