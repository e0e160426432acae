"""What is no item's fault is charged to none: the run ends and says what to do, whatever way it writes."""

from __future__ import annotations

import os
import resource
import sqlite3
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from sync_pipelines.database.connections import create_database
from sync_pipelines.database.inbox import FAILED
from sync_pipelines.engine.codec import encode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.retry import Retry
from sync_pipelines.errors import ConfigurationError, RetryableError, RunError, UnavailableError
from sync_pipelines.runner.changes.drain import Drain, DrainLimits
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines_tests.children import exit_code, fork
from sync_pipelines_tests.small_disk import small_disk
from sync_pipelines_tests.targets.faults.shop import (
    BULK,
    PAGE,
    TABLE,
    Execute,
    at_the_first_insert,
    deliveries_stay,
    each_way,
    fails,
    job_of,
    made,
    rows_of,
)


@each_way
@pytest.mark.parametrize(
    ("statement", "match"),
    [
        ("ALTER ROLE {role} SET default_transaction_read_only = on", "is read-only: .*Make it writable"),
        ("ALTER ROLE {role} CONNECTION LIMIT 0", "has no free connection: .*may work later"),
        ("ALTER ROLE {role} NOLOGIN", "refuses the login: .*Correct user and password"),
        ("REVOKE INSERT ON things FROM {role}", "does not permit this: permission denied.*Grant the user"),
    ],
    ids=["read-only", "no connection", "no login", "no right"],
)
def test_a_state_of_postgresql_ends_the_run_and_costs_nobody_an_attempt(  # noqa: PLR0913, PLR0917 - fixtures
    execute: Execute, role: str, url: str, settings: Settings, count: int, statement: str, match: str
) -> None:
    execute(statement.format(role=role))
    fails(job_of(url, count), settings, match)
    if count == PAGE:
        deliveries_stay(job_of(url, 0), settings)


@each_way
def test_two_free_connections_are_enough_and_one_says_what_lacks(
    execute: Execute, role: str, url: str, settings: Settings, count: int
) -> None:
    execute(f"ALTER ROLE {role} CONNECTION LIMIT 2", server=True)
    assert run_sync(job_of(url, count), settings=settings).created == count
    execute(f"ALTER ROLE {role} CONNECTION LIMIT 1", "SELECT pg_sleep(0.1)", server=True)
    if count == BULK:
        fails(job_of(url, count), settings, "has no free connection")


def test_a_row_that_row_security_refuses_is_its_items_fault(
    execute: Execute, role: str, url: str, settings: Settings
) -> None:
    """PostgreSQL has one code for it and for a right that is missing."""
    execute("ALTER TABLE things ENABLE ROW LEVEL SECURITY")
    execute("CREATE POLICY own ON things USING (true) WITH CHECK (sku <> 'S00007')")
    results = run_sync(job_of(url, PAGE), settings=settings)
    assert (results.created, [each.external_id for each in results.errors]) == (PAGE - 1, ["S00007"])


def test_what_a_trigger_refuses_with_any_code_is_its_items_fault(
    execute: Execute, url: str, settings: Settings
) -> None:
    execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.sku = 'S00007' THEN "
        "RAISE EXCEPTION 'not this one' USING ERRCODE = 'insufficient_privilege'; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON things FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    results = run_sync(job_of(url, PAGE), settings=settings)
    assert (results.created, [each.external_id for each in results.errors]) == (PAGE - 1, ["S00007"])


@pytest.mark.parametrize(
    "statement", ["ALTER TABLE things RENAME TO others", "ALTER TABLE things DROP COLUMN title CASCADE"]
)
def test_a_table_that_changes_while_the_run_writes_is_no_items_fault(
    execute: Execute, url: str, settings: Settings, statement: str
) -> None:
    with at_the_first_insert(lambda: execute(statement)):
        fails(job_of(url, PAGE), settings, "lacks a table or column: .*Run the migrations")


@each_way
def test_a_session_that_is_ended_is_followed_by_another(
    execute: Execute, role: str, url: str, settings: Settings, count: int
) -> None:
    kill = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
    with at_the_first_insert(lambda: execute(kill, server=True)):
        assert run_sync(job_of(url, count), settings=settings).created == count


@each_way
def test_a_lock_that_somebody_keeps_is_not_waited_for_without_end(
    postgres: sa.Engine, url: str, settings: Settings, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNC_PIPELINES_LOCK_TIMEOUT_S", "0.1")
    with postgres.begin() as other, at_the_first_insert(lambda: other.exec_driver_sql("LOCK TABLE things")):
        other.exec_driver_sql("SELECT 1")
        fails(job_of(url, count), settings, "lock timeout.*SYNC_PIPELINES_LOCK_TIMEOUT_S")


def test_the_role_may_allow_a_statement_too_little_time(
    execute: Execute, role: str, url: str, settings: Settings
) -> None:
    execute(
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.3); RETURN NEW; END'",
        "CREATE TRIGGER dawdle BEFORE INSERT ON things FOR EACH ROW EXECUTE FUNCTION dawdle()",
    )
    execute(f"ALTER ROLE {role} SET statement_timeout = 100", server=True)
    fails(job_of(url, 1), settings, "ended the statement: .*statement timeout.*take longer")


@each_way
def test_a_full_disk_of_postgresql_is_no_items_fault(
    postgres: sa.Engine, postgres_admin: sa.Engine, settings: Settings, tmp_path: Path, count: int
) -> None:
    with postgres_admin.connect() as connection:
        user = psutil.Process(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()).uids().real
    place, name = Path(f"/tmp/full-{uuid.uuid4().hex[:8]}"), f"full_{uuid.uuid4().hex[:8]}"
    with small_disk(place, "100k"):
        try:
            os.chown(place, user, -1)
            place.chmod(0o700)
            with postgres_admin.connect() as connection:
                connection.exec_driver_sql(f"CREATE TABLESPACE {name} LOCATION '{place}'")
            with postgres.begin() as database:
                database.exec_driver_sql(f"{TABLE.replace('200', '90000')} TABLESPACE {name}")
                database.exec_driver_sql("ALTER TABLE things ALTER title SET STORAGE PLAIN")
            job = job_of(postgres, count, columns={"title": lambda item: item["title"] * 100})
            fails(job, settings, "has no room left on the disk: .*Make room there")
        finally:
            with postgres.begin() as database:
                database.exec_driver_sql("DROP TABLE IF EXISTS things")
            with postgres_admin.connect() as connection:
                connection.exec_driver_sql(f"DROP TABLESPACE IF EXISTS {name}")
    place.rmdir()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"database": "nobody_has_it"}, "is not there: .*Correct its name"),
        ({"username": "nobody"}, "refuses the login"),
        ({"host": "127.0.0.1", "port": 1, "query": {}}, "does not answer.*may work later"),
        ({"host": "nobody.invalid", "query": {}}, "nobody knows: .*Correct the host's name"),
    ],
    ids=["no database", "no user", "nobody listens", "no such host"],
)
def test_a_database_that_cannot_be_reached_says_why(
    postgres: sa.Engine, settings: Settings, change: dict[str, Any], match: str
) -> None:
    fails(job_of(postgres.url.set(**{"password": "hunter22", **change}), PAGE), settings, match)


# File descriptors


def with_few_descriptors(url: str, folder: Path, free: int) -> None:
    settings = Settings(data_dir=folder)
    run_sync(job_of(url, PAGE), settings=settings)  # what is loaded and opened once
    used = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + free, used + free))
    try:
        run_sync(job_of(url, BULK), settings=settings)
    except RunError as error:
        print(error)  # noqa: T201 - for whoever reads why
        os._exit(0 if "oo many open files" in str(error) or "can't open its file" in str(error) else 9)


@pytest.mark.parametrize("free", [0, pytest.param(5, marks=pytest.mark.soak)])
def test_too_few_file_descriptors_are_said_to_be_that(postgres: sa.Engine, tmp_path: Path, free: int) -> None:
    with postgres.begin() as connection:
        connection.exec_driver_sql(TABLE)
    url = postgres.url.render_as_string(hide_password=False)
    assert exit_code(fork(with_few_descriptors, url, tmp_path, free)) == 0


# SQLite


@pytest.mark.parametrize("count", [900, 30_000], ids=["page by page", "in bulk"])
def test_a_full_disk_of_sqlite_is_no_items_fault(tmp_path: Path, settings: Settings, count: int) -> None:
    """What was written is counted, and deliveries stay waiting at no cost."""
    with small_disk(tmp_path / "small", "64k" if count == 900 else "1m") as disk:
        url = made(disk / "local.sqlite")
        error = fails(job_of(url, count), settings, "has no room left on the disk: .*Make room there")
        assert error.results.created == rows_of(url) < count
        (disk / "filler").write_bytes(bytes(0))
        fill(disk)
        deliveries_stay(job_of(url, 0), settings)


def fill(disk: Path) -> None:
    with (disk / "filler").open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


@each_way
def test_a_sqlite_file_that_may_only_be_read_is_no_items_fault(tmp_path: Path, settings: Settings, count: int) -> None:
    made(tmp_path / "local.sqlite")
    url = f"sqlite:///file:{tmp_path / 'local.sqlite'}?mode=ro&uri=true"
    fails(job_of(url, count), settings, "is read-only: .*Make it writable")
    if count == PAGE:
        deliveries_stay(job_of(url, 0), settings)


@each_way
def test_a_sqlite_file_that_is_damaged_is_no_items_fault(tmp_path: Path, settings: Settings, count: int) -> None:
    file = tmp_path / "local.sqlite"
    url = made(file)
    run_sync(job_of(url, 3_000), settings=settings)
    with file.open("r+b") as opened:
        opened.seek(4096 * 3)
        opened.write(b"\xff" * 4096 * 20)
    fails(job_of(url, count, columns={"title": lambda _: "other"}), settings, "its disk fails, or a file is damaged")


@each_way
def test_a_sqlite_file_that_somebody_writes_to_is_no_items_fault(
    tmp_path: Path, settings: Settings, count: int
) -> None:
    url = made(tmp_path / "local.sqlite")
    database, other = sa.create_engine(url, connect_args={"timeout": 0.05}), create_database(url)
    with other.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        connection.exec_driver_sql("INSERT INTO things VALUES ('other', '')")
        fails(job_of(database, count), settings, "did not get a lock in time")
    database.dispose()
    other.dispose()


def test_a_table_that_is_gone_from_sqlite_is_no_items_fault(tmp_path: Path, settings: Settings) -> None:
    url = made(tmp_path / "local.sqlite")
    database = create_database(url)

    def drop() -> None:
        with database.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE things RENAME TO others")

    with at_the_first_insert(drop):
        fails(job_of(url, PAGE), settings, "no such table: things. Run the migrations")
    database.dispose()


# A job's own functions


@pytest.mark.parametrize("kind", [sqlite3.OperationalError, RetryableError, ConnectionRefusedError])
def test_what_a_function_lets_out_of_its_own_database_costs_no_attempt(
    settings: Settings, kind: type[Exception]
) -> None:
    """Three deliveries are too few to say that the target is down; they wait all the same, and so does a failure."""

    def create(item: Any) -> None:
        error: Any = kind("database or disk is full") if kind is not ConnectionRefusedError else kind(111, "refused")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    functions = {"find_local": lambda _: None, "create": create, "update": print}
    job: Any = SyncJob(name="things", fetch_external=list, get_external_id="sku", **functions)
    with open_workspace(settings) as opened:
        workspace = replace(opened, retries=Retry(attempts=1))
        for number in range(3):
            workspace.inbox.store("things", encode({"sku": f"D{number}"}), workspace.clock())
        Drain(job, workspace).run(DrainLimits(idle_wait_s=0))
        assert (workspace.inbox.count("things"), workspace.inbox.count("things", FAILED)) == (3, 0)
        assert {each.attempts for each in workspace.inbox.newest()} == {0}


def test_ten_items_in_a_row_that_no_item_is_at_fault_for_end_the_run(settings: Settings) -> None:
    def create(item: Any) -> None:
        raise PermissionError(13, "Permission denied", "/srv/shop")

    job: Any = SyncJob(
        name="things",
        fetch_external=lambda: [{"sku": f"S{number}"} for number in range(30)],
        get_external_id="sku",
        find_local=lambda _: None,
        create=create,
        update=print,
    )
    fails(job, settings, "10 records in a row: .*Permission denied")


# MariaDB


def test_a_mariadb_that_is_read_only_is_no_items_fault(mariadb: sa.Engine, settings: Settings) -> None:
    with mariadb.begin() as connection:
        connection.exec_driver_sql(TABLE)
    read_only = sa.create_engine(mariadb.url, connect_args={"init_command": "SET SESSION TRANSACTION READ ONLY"})
    fails(job_of(read_only, PAGE), settings, "is read-only: ")
    deliveries_stay(job_of(read_only, 0), settings)
    read_only.dispose()


def test_a_mariadb_without_the_right_is_no_items_fault(
    mariadb: sa.Engine, mariadb_admin: sa.Engine, settings: Settings
) -> None:
    with mariadb.begin() as connection:
        connection.exec_driver_sql(TABLE)
    name = f"u{uuid.uuid4().hex[:8]}"
    with mariadb_admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE USER {name} IDENTIFIED BY 'x'")
        connection.exec_driver_sql(f"GRANT SELECT ON {mariadb.url.database}.* TO {name}")
    url = mariadb.url.set(username=name, password="x")
    fails(job_of(url, PAGE), settings, "does not permit this: ")
    fails(job_of(url.set(password="hunter22"), PAGE), settings, "refuses the login: ")
    with mariadb_admin.connect() as connection:
        connection.exec_driver_sql(f"DROP USER {name}")


# The ledger, and the files of runs


def test_a_ledger_that_cannot_be_written_says_what_to_do(execute: Execute, role: str, url: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", database_url=url, ledger_url=url)
    assert run_sync(job_of(url, PAGE), settings=settings).created == PAGE
    execute(f"ALTER ROLE {role} SET default_transaction_read_only = on", server=True)
    with pytest.raises(RunError, match=r"the ledger .*is read-only: .*Make it writable"):
        run_sync(job_of(url, PAGE), settings=settings)
    execute(f"ALTER ROLE {role} NOLOGIN", server=True)
    with pytest.raises(ConfigurationError, match=r"the ledger .*refuses the login"):
        run_sync(job_of(url, PAGE), settings=settings)


def test_a_ledger_that_is_down_may_work_later(own_postgres: Any, tmp_path: Path) -> None:
    url = own_postgres.get_uri()
    own_postgres.stop()
    with pytest.raises(UnavailableError, match=r"the ledger .*may work later.*SYNC_PIPELINES_LEDGER_URL"):
        run_sync(job_of(url, PAGE), settings=Settings(data_dir=tmp_path, database_url=url, ledger_url=url))


@pytest.mark.parametrize("size", ["64k", "300k"], ids=["ledger", "files of the run"])
def test_a_full_disk_of_our_own_says_what_to_do(tmp_path: Path, size: str) -> None:
    url = made(tmp_path / "local.sqlite")
    with small_disk(tmp_path / "data", size) as disk:
        items = ({"sku": f"S{number}", "title": os.urandom(90).hex()} for number in range(20_000))
        job = replace(job_of(url, 0), fetch_external=lambda: items)
        with pytest.raises((RunError, ConfigurationError)) as caught:
            run_sync(job, settings=Settings(data_dir=disk))
        assert "disk" in str(caught.value) or "No space left" in str(caught.value)
        assert "INSERT" not in str(caught.value)
        assert rows_of(url) == 0
