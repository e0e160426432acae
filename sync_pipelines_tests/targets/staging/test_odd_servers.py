"""Servers, roles and sessions that are set up in other ways than ours."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.database.connections import create_database
from sync_pipelines.errors import RunError
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines.settings.model import Settings
from sync_pipelines_tests.targets.staging.conftest import Item, Paths, Syncs, counts

TABLE = "CREATE TABLE things (sku TEXT PRIMARY KEY, n INTEGER CHECK (n < 100))"
ITEMS: list[Item] = [{"sku": f"S{number}", "n": number} for number in range(6)]


@pytest.fixture
def latin1_sync(postgres_admin: sa.Engine, settings: Settings, paths: Paths) -> Iterator[Syncs]:
    """Syncs in bulk into a database that is not in UTF-8."""
    name = f"latin_{uuid.uuid4().hex}"
    with postgres_admin.connect() as connection:
        connection.exec_driver_sql(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"
        )
    database = create_database(postgres_admin.url.set(database=name))
    yield Syncs(database, settings, paths)
    database.dispose()
    with postgres_admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_database_of_another_encoding_gets_the_right_characters(latin1_sync: Syncs) -> None:
    """And a character that it lacks fails its item alone."""
    latin1_sync.execute("CREATE TABLE things (sku TEXT PRIMARY KEY, note VARCHAR(6))")
    items = [{"sku": "ü", "note": "Müller"}, {"sku": "b", "note": "日本"}, {"sku": "c", "note": "x"}]
    results = latin1_sync(items, columns=["note"], deletes="hard")
    assert counts(results) == {"created": 2, "failed": 1}
    assert results.errors[0].external_id == "b"
    assert latin1_sync.rows("SELECT sku, note FROM things WHERE note <> 'x'") == [("ü", "Müller")]
    again = latin1_sync([items[0], items[2]], columns=["note"], deletes="hard")
    assert counts(again) == {"unchanged": 2}


def test_an_engine_without_transactions_is_given_some(postgres: sa.Engine, settings: Settings, paths: Paths) -> None:
    """Moments are right whatever the session's zone, and a second run changes nothing."""
    with postgres.begin() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {postgres.url.database} SET timezone = 'America/New_York'")
        connection.exec_driver_sql(
            "CREATE TABLE things (sku TEXT PRIMARY KEY, at TIMESTAMPTZ, n INTEGER CHECK (n < 9))"
        )
    postgres.dispose()
    engine = sa.create_engine(postgres.url, isolation_level="AUTOCOMMIT")
    sync = Syncs(engine, settings, paths)
    items = [{"sku": "a", "at": datetime(2020, 1, 1, tzinfo=UTC), "n": 1}, {"sku": "b", "at": None, "n": 9}]
    fields: dict[str, Any] = {"columns": ["at", "n"]}
    assert counts(sync([*items, items[0]], **fields)) == {"created": 1, "failed": 1, "duplicate": 1}
    assert sync.rows("SELECT at FROM things") == [(datetime(2020, 1, 1, tzinfo=UTC),)]
    assert counts(sync(items[:1], **fields)) == {"unchanged": 1}
    engine.dispose()


def test_durations_keep_their_sign_in_every_style(postgres_sync: Syncs) -> None:
    name = postgres_sync.database.url.database
    postgres_sync.execute(
        f"ALTER DATABASE {name} SET intervalstyle = 'sql_standard'",
        "CREATE TABLE things (sku TEXT PRIMARY KEY, length INTERVAL)",
    )
    postgres_sync.database.dispose()
    length = timedelta(days=-1, hours=5, microseconds=7)
    postgres_sync([{"sku": "a", "length": length}], columns=["length"])
    assert postgres_sync.rows("SELECT extract(epoch FROM length)::float FROM things") == [(length.total_seconds(),)]


def test_a_schema_that_belongs_to_another_role_is_no_obstacle(
    postgres_sync: Syncs, other: sa.Engine, settings: Settings, paths: Paths
) -> None:
    """Temporary tables serve where the role may not use what is there; tables of others are left alone."""
    postgres_sync.execute(TABLE)
    postgres_sync(ITEMS, columns=["n"])
    role = f"guest_{uuid.uuid4().hex[:8]}"
    postgres_sync.execute(
        "CREATE TABLE sync_pipelines_work.stage_000000000000_000000000000 (n INTEGER)",
        "COMMENT ON TABLE sync_pipelines_work.stage_000000000000_000000000000 IS "
        "'sync_pipelines 2001-01-01T00:00:00+00:00 of somebody'",
        f"CREATE ROLE {role} LOGIN",
        f"GRANT ALL ON things TO {role}",
    )
    try:
        guest = create_database(other.url.set(username=role))
        for grant in ("", "CREATE", "CREATE, USAGE"):
            if grant:
                postgres_sync.execute(f"GRANT {grant} ON SCHEMA sync_pipelines_work TO {role}")
            assert counts(Syncs(guest, settings, paths)(ITEMS, columns=["n"])) == {"unchanged": 6}
        postgres_sync.execute(f"GRANT ALL ON sync_pipelines_work.progress TO {role}")
        assert counts(Syncs(guest, settings, paths)(ITEMS, columns=["n"])) == {"unchanged": 6}
        guest.dispose()
    finally:
        postgres_sync.execute(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_a_time_limit_for_statements_makes_smaller_batches(postgres_sync: Syncs) -> None:
    name = postgres_sync.database.url.database
    slow = "BEGIN PERFORM pg_sleep(0.001); RETURN new; END"
    postgres_sync.execute(
        TABLE,
        f"CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ {slow} $$",
        "CREATE TRIGGER slow BEFORE INSERT ON things FOR EACH ROW EXECUTE FUNCTION slow()",
        f"ALTER DATABASE {name} SET statement_timeout = '400ms'",
    )
    postgres_sync.database.dispose()
    items = [{"sku": f"S{number}", "n": 1} for number in range(1_000)]
    assert counts(postgres_sync(items, columns=["n"])) == {"created": 1_000}


def test_a_slow_function_of_the_job_holds_no_transaction_open(postgres_sync: Syncs, other: sa.Engine) -> None:
    postgres_sync.execute(TABLE, "INSERT INTO things SELECT 'S' || g, 50 FROM generate_series(0, 5) g")
    waiting: list[int] = []

    def has_changed(_item: Any, _local: Any) -> bool:
        with other.connect() as connection:
            query = (
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE state = 'idle in transaction' AND datname = current_database()"
            )
            waiting.append(connection.exec_driver_sql(query).scalar_one())
        return True

    assert counts(postgres_sync(ITEMS, columns=["n"], has_changed=has_changed)) == {"updated": 6}
    assert set(waiting) == {0}


def test_a_row_that_a_trigger_leaves_out_has_failed(sync: Syncs) -> None:
    sync.execute(TABLE)
    if sync.database.dialect.name == "postgresql":
        body = "BEGIN IF new.sku = 'S3' THEN RETURN NULL; END IF; RETURN new; END"
        sync.execute(
            f"CREATE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$",
            "CREATE TRIGGER leave_out BEFORE INSERT ON things FOR EACH ROW EXECUTE FUNCTION leave_out()",
        )
    else:
        sync.execute(
            "CREATE TRIGGER leave_out BEFORE INSERT ON things WHEN new.sku = 'S3' BEGIN SELECT RAISE(IGNORE); END"
        )
    results = sync(ITEMS, columns=["n"])
    assert counts(results) == {"created": 5, "failed": 1}
    assert "trigger" in results.errors[0].message


@pytest.mark.parametrize("change", ["key", "columns"])
def test_a_plan_is_not_applied_for_another_declaration(sync: Syncs, settings: Settings, change: str) -> None:
    """As a re-execution after a deployment would: its values would land in the wrong columns."""
    sync.execute("CREATE TABLE things (k INTEGER PRIMARY KEY, id INTEGER UNIQUE, v INTEGER)")
    items = [{"k": 100 + number, "id": number, "v": number * 10} for number in range(6)]
    before = sync.job(items, key="k", get_external_id="k", columns=["id", "v"])
    later = {
        "key": sync.job(items, key="id", get_external_id="id", columns=["k", "v"]),
        "columns": sync.job(items, key="k", get_external_id="k", columns=["id", "v"], create_only=["id"]),
    }[change]
    with open_workspace(settings) as workspace:
        plan = SyncRun(before, workspace).diff(SyncRun(before, workspace).fetch())
        with pytest.raises(RunError, match="Start a new run"):
            SyncRun(later, workspace).apply(plan)
        assert sync.rows("SELECT * FROM things") == []
        assert counts(SyncRun(before, workspace).apply(plan)) == {"created": 6}


def test_an_old_sqlite_deletes_page_by_page(sqlite_sync: Syncs, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no FULL JOIN."""
    sqlite_sync.execute(TABLE)
    sqlite_sync(ITEMS, columns=["n"])
    monkeypatch.setattr(sqlite_sync.database.dialect.dbapi, "sqlite_version_info", (3, 37, 2))
    results = sqlite_sync(ITEMS[:2], columns=["n"], deletes="hard", pages="FULL JOIN")
    assert counts(results) == {"unchanged": 2, "deleted": 4}


def test_many_refused_rows_take_no_more_memory_than_few(sync: Syncs, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read a limited number at a time, each once."""
    monkeypatch.setattr("sync_pipelines.targets.staging.quarantine._ROWS_AT_ONCE", 7)
    monkeypatch.setattr("sync_pipelines.runner.write.staged_writer.PAGE_SIZE", 3)
    sync.execute(
        "CREATE TABLE parents (id INTEGER PRIMARY KEY)",
        "CREATE TABLE things (sku TEXT PRIMARY KEY, p INTEGER REFERENCES parents (id))",
    )
    items = [{"sku": f"S{number:03}", "p": None if number % 4 else 9} for number in range(80)]
    results = sync(items, columns=["p"])
    assert counts(results) == {"created": 60, "failed": 20}
    assert [error.position for error in results.errors] == list(range(0, 80, 4))
