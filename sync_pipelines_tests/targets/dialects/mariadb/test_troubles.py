"""What passes is tried again, what a person must settle is refused by name, and the house stays as it was."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa

from sync_pipelines import SyncJob, run_sync
from sync_pipelines.errors import ConfigurationError, RetryableError, TargetError, WriteRefusedError
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.db_errors import is_passing
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.testing import MemorySource
from sync_pipelines_tests.targets.dialects.mariadb.tables import make, opened

TABLE = "CREATE TABLE things (sku VARCHAR(9) PRIMARY KEY, n INT)"


def kill_connections(admin: sa.Engine, database: sa.Engine) -> None:
    with admin.connect() as connection:
        query = "SELECT id FROM information_schema.PROCESSLIST WHERE db = %s"
        for (number,) in connection.exec_driver_sql(query, (database.url.database,)).all():
            connection.exec_driver_sql(f"KILL {number}")


@pytest.mark.parametrize("code", [1205, 1213, 1020, 1040, 1053, 1158, 1317, 1927, 2003, 2006, 2013])
def test_codes_that_pass(code: int) -> None:
    error = sa.exc.OperationalError("...", {}, pymysql.err.OperationalError(code, "..."))
    assert is_passing(error)


def test_a_connection_that_was_gone_before_the_driver_asked_passes() -> None:
    assert is_passing(sa.exc.InterfaceError("...", {}, pymysql.err.InterfaceError(0, "")))


@pytest.mark.parametrize("code", [1048, 1062, 1264, 1292, 1364, 1366, 1406, 1452, 1644, 3819, 4025])
def test_codes_that_are_a_rows_own_fault_though_the_driver_calls_them_operational(code: int) -> None:
    error = sa.exc.OperationalError("...", {}, pymysql.err.OperationalError(code, "..."))
    assert not is_passing(error)


def test_a_row_that_somebody_holds_is_worth_another_try(mariadb: sa.Engine) -> None:
    make(mariadb, TABLE, "INSERT INTO things VALUES ('a', 1), ('b', 1)")
    impatient = sa.create_engine(mariadb.url, connect_args={"init_command": "SET innodb_lock_wait_timeout = 1"})
    with opened(impatient, columns=["n"]) as target, mariadb.connect() as holder:
        found = target.find_many(["a"])
        holder.exec_driver_sql("SELECT * FROM things FOR UPDATE")
        with pytest.raises(RetryableError, match="Lock wait timeout"):
            target.update({"sku": "a", "n": 2}, found["a"])
        holder.rollback()
        target.update({"sku": "a", "n": 2}, found["a"])
    impatient.dispose()


def test_a_deadlock_is_tried_again_and_blamed_on_nobody(mariadb: sa.Engine, tmp_path: Path) -> None:
    """Somebody takes the rows in the other order; whoever is thrown out, in the end all is written."""
    make(mariadb, TABLE, *(f"INSERT INTO things VALUES ('{sku}', 0)" for sku in "abc"))
    make(mariadb, "CREATE TABLE weight (n INT)", "INSERT INTO weight VALUES (1)")
    holds, waits = threading.Event(), threading.Event()
    attempts: list[str] = []

    def crossing() -> None:
        with mariadb.begin() as connection:
            # a transaction that has written more is not the one that is thrown out
            for _ in range(50):
                connection.exec_driver_sql("INSERT INTO weight VALUES (1)")
            connection.exec_driver_sql("UPDATE things SET n = -1 WHERE sku = 'b'")
            holds.set()
            waits.wait(10)
            connection.exec_driver_sql("UPDATE things SET n = -1 WHERE sku = 'a'")

    def watch(_connection: Any, _cursor: Any, statement: str, _parameters: Any, _context: Any, _many: Any) -> None:
        if statement.startswith("UPDATE things SET n=") and threading.current_thread() is threading.main_thread():
            attempts.append(statement)
            threading.Timer(0.3, waits.set).start()

    sa.event.listen(mariadb, "before_cursor_execute", watch)
    other = threading.Thread(target=crossing)
    other.start()
    holds.wait(10)
    items = [{"sku": sku, "n": 7} for sku in "abc"]
    target = SqlTable(table="things", key="sku", columns=["n"], database=mariadb)
    job: SyncJob[Any, Any] = SyncJob(name="crossing", fetch_external=MemorySource(items), target=target)
    results = run_sync(job, settings=Settings(data_dir=tmp_path))
    other.join()

    assert len(attempts) > 1, "there was no deadlock"
    assert (results.outcome, results.updated) == ("clean", 3)
    with mariadb.connect() as connection:
        assert connection.exec_driver_sql("SELECT min(n), max(n) FROM things").one() == (7, 7)


def test_a_lost_connection_is_worth_another_try(mariadb: sa.Engine, mariadb_admin: sa.Engine) -> None:
    make(mariadb, TABLE)
    with opened(mariadb) as target:
        target.create({"sku": "a", "n": 1})
        kill_connections(mariadb_admin, mariadb)
        with pytest.raises(RetryableError):
            target.find_many(["a"])
        assert len(target.find_many(["a"])) == 1


def test_a_connection_that_is_lost_within_a_transaction_writes_nothing(
    mariadb: sa.Engine, mariadb_admin: sa.Engine
) -> None:
    make(mariadb, TABLE)
    with opened(mariadb) as target:
        target.fence_with(lambda _connection: kill_connections(mariadb_admin, mariadb))
        with pytest.raises(RetryableError):
            target.create({"sku": "a", "n": 1})
        target.fence_with(lambda _connection: None)
        assert list(target.list_local()) == []
        target.create({"sku": "a", "n": 1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": {}, "host": "127.0.0.1", "port": 1}, "Can't connect"),
        ({"username": "nobody"}, "Access denied"),
        ({"database": "nothing_here", "password": ""}, "Unknown database"),
    ],
)
def test_a_server_that_can_not_be_entered_ends_the_run_and_its_password_stays_secret(
    mariadb: sa.Engine, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    url = mariadb.url.set(**{"password": "s3cret", **change})
    target = SqlTable(table="things", key="sku", database=url)
    job: SyncJob[Any, Any] = SyncJob(name="entering", fetch_external=MemorySource([{"sku": "a"}]), target=target)
    with pytest.raises(TargetError, match=message) as caught:
        run_sync(job, settings=Settings(data_dir=tmp_path))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("engine", ["MyISAM", "Aria", "MEMORY"])
def test_a_table_without_transactions_is_refused_with_what_to_do(mariadb: sa.Engine, engine: str) -> None:
    make(mariadb, f"{TABLE} ENGINE = {engine}")
    with (
        pytest.raises(ConfigurationError, match=f"'things' is kept by {engine}.*no transactions") as caught,
        opened(mariadb),
    ):
        pass
    make(mariadb, str(caught.value).partition("Run: ")[2])
    with opened(mariadb) as target:
        target.create({"sku": "a", "n": 1})


def test_a_connection_that_can_not_carry_all_text_is_refused_with_what_to_do(mariadb: sa.Engine) -> None:
    make(mariadb, TABLE)
    narrow = sa.create_engine(mariadb.url.update_query_dict({"charset": "latin1"}))
    with pytest.raises(ConfigurationError, match=r"character set is latin1.*charset=utf8mb4"), opened(narrow):
        pass
    narrow.dispose()


def test_a_session_is_handed_back_as_it_was(mariadb: sa.Engine) -> None:
    """An application's own Engine has one pool for us and for it; nothing of ours may stay in its sessions."""
    make(mariadb, TABLE)
    before = ("ANSI_QUOTES,NO_ENGINE_SUBSTITUTION", "+05:30")
    command = f"SET SESSION sql_mode = '{before[0]}', SESSION time_zone = '{before[1]}'"
    theirs = sa.create_engine(mariadb.url, pool_size=1, max_overflow=0, connect_args={"init_command": command})
    query = "SELECT @@SESSION.sql_mode, @@SESSION.time_zone"
    with opened(theirs) as target:
        target.create({"sku": "a", "n": 1})
        target.update({"sku": "a", "n": 2}, target.find_many(["a"])["a"])
        with pytest.raises(sa.exc.DBAPIError):
            target.create_many([{"sku": "b", "n": 2**40}])
        assert list(target.list_local()) == ["a"]
        listing = target.list_local()
        next(listing)
        listing.close()  # type: ignore[attr-defined]
        with theirs.connect() as connection:
            assert tuple(connection.exec_driver_sql(query).one()) == before
    theirs.dispose()


def test_moments_are_the_same_in_every_time_zone_of_the_house(mariadb: sa.Engine) -> None:
    make(mariadb, "CREATE TABLE things (sku VARCHAR(9) PRIMARY KEY, at_ TIMESTAMP NULL, n INT)")
    item = {"sku": "a", "at_": "2024-03-31T02:30:00+02:00", "n": 1}
    for number, zone in enumerate(("+00:00", "-08:00", "+05:30")):
        command = f"SET SESSION time_zone = '{zone}'"
        engine = sa.create_engine(mariadb.url, connect_args={"init_command": command})
        with opened(engine) as target:
            if number == 0:
                target.create(item)
            local = target.find_many(["a"])["a"]
            assert target.changes(item | {"n": number + 1}, local) == {}
            target.update(item | {"n": number + 2}, local)
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT unix_timestamp(at_) FROM things").scalar() == 1711845000
        engine.dispose()


def test_more_text_than_a_statement_carries_goes_in_several(mariadb: sa.Engine) -> None:
    make(mariadb, "CREATE TABLE things (sku VARCHAR(9) PRIMARY KEY, n LONGTEXT)")
    items = [{"sku": f"s{number}", "n": "'" * 100_000} for number in range(100)]
    with opened(mariadb) as target:
        target.create_many(items)
        found = target.find_many([item["sku"] for item in items])
        assert [target.changes(item, found[item["sku"]]) for item in items] == [{}] * 100


def test_a_trigger_that_changes_the_key_fails_the_item(mariadb: sa.Engine) -> None:
    make(mariadb, TABLE, "CREATE TRIGGER own BEFORE INSERT ON things FOR EACH ROW SET NEW.sku = trim('x' FROM NEW.sku)")
    with opened(mariadb, columns=["n"]) as target:
        target.create_many([{"sku": "a", "n": 1}])
        with pytest.raises(WriteRefusedError, match="kept nothing under the key 'xb'"):
            target.create_many([{"sku": "xb", "n": 1}])
        assert set(target.list_local()) == {"a"}
