"""What goes wrong in a trigger is one item's fault if others go through, and the target's if none does."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.database.connections import create_database
from sync_pipelines.database.failure_rows import OPEN
from sync_pipelines.database.inbox import FAILED
from sync_pipelines.engine.codec import encode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.retry import Retry
from sync_pipelines.errors import ItemError, TargetError
from sync_pipelines.runner.changes.drain import Drain, DrainLimits
from sync_pipelines.runner.changes.retry_failures import retry_failures
from sync_pipelines.runner.changes.single_item import sync_single_item
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.testing import MemorySource
from sync_pipelines_tests.targets.faults.shop import (
    PAGE,
    TABLE,
    Execute,
    deliveries_stay,
    each_way,
    fails,
    job_of,
    made,
)

LACKS = {
    "right": "INSERT INTO audit VALUES (NEW.sku)",
    "table": "INSERT INTO nowhere VALUES (NEW.sku)",
    "column": "PERFORM nothing FROM audit2",
    "function": "PERFORM no_function(NEW.sku)",
}
SAYS = "RAISE EXCEPTION 'not this one' USING ERRCODE = '{code}'"
ONE = "S00007"


@pytest.fixture
def trigger(execute: Execute, url: str) -> Any:
    """Puts a trigger on the table that does something for some or all rows."""
    del url  # it makes the table
    execute("CREATE TABLE audit (sku text)", "CREATE TABLE audit2 (sku text)", "GRANT ALL ON audit2 TO PUBLIC")

    def put(body: str, condition: str = "true", events: str = "INSERT OR UPDATE OR DELETE") -> None:
        execute(
            "CREATE OR REPLACE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF {condition} THEN {body}; END IF; RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; END $$",
            "DROP TRIGGER IF EXISTS watch ON things",
            f"CREATE TRIGGER watch BEFORE {events} ON things FOR EACH ROW EXECUTE FUNCTION watch()",
        )

    return put


def drained(job: SyncJob[Any, Any], settings: Settings, *skus: str) -> list[tuple[str | None, str, int]]:
    """What has become of deliveries: id, state, attempts."""
    with open_workspace(settings) as opened:
        workspace = replace(opened, retries=Retry(attempts=1))
        for sku in skus:
            workspace.inbox.store("things", encode({"sku": sku, "title": "new"}), workspace.clock())
        Drain(job, workspace).run(DrainLimits(idle_wait_s=0))
        return [(each.external_id, each.state, each.attempts) for each in workspace.inbox.newest()]


@each_way
@pytest.mark.parametrize("lacks", LACKS)
def test_a_trigger_that_lacks_something_for_all_rows_ends_the_run(
    trigger: Any, url: str, settings: Settings, count: int, lacks: str
) -> None:
    trigger(LACKS[lacks])
    match = "a trigger or function of it fails for all.*PL/pgSQL function watch.* line 1.*Mend the function"
    fails(job_of(url, count), settings, match)
    if count == PAGE:
        deliveries_stay(job_of(url, 0), settings, match)
        with pytest.raises(TargetError, match=match):
            sync_single_item(job_of(url, 0), {"sku": ONE, "title": "new"}, settings=settings)


@each_way
@pytest.mark.parametrize("lacks", LACKS)
def test_a_trigger_that_lacks_something_for_one_row_fails_that_item(
    trigger: Any, url: str, settings: Settings, count: int, lacks: str
) -> None:
    trigger(LACKS[lacks], "NEW.sku IN ('S00000', 'S00007')")
    results = run_sync(job_of(url, count), settings=settings)
    assert (results.created, [each.external_id for each in results.errors]) == (count - 2, ["S00000", ONE])


def test_three_items_that_all_fail_are_enough(trigger: Any, url: str, settings: Settings) -> None:
    trigger(LACKS["table"])
    fails(job_of(url, 3), settings, "fails for all")


def test_what_is_created_does_not_say_that_updates_go_through_but_is_written_all_the_same(
    trigger: Any, url: str, settings: Settings
) -> None:
    run_sync(job_of(url, 3), settings=settings)
    trigger(LACKS["table"], events="UPDATE")
    job = job_of(url, PAGE)
    items = [{"sku": f"S{number:05}", "title": "y"} for number in range(PAGE)]
    error = fails(replace(job, fetch_external=MemorySource(items)), settings, "fails for all")
    assert (error.results.created, error.results.updated) == (PAGE - 3, 0)


@pytest.mark.parametrize("code", ["P0001", "42501", "42P01", "57014", "40001", "55P03", "23514"])
@each_way
def test_what_a_trigger_raises_for_one_row_fails_that_item_whatever_code_it_says(
    trigger: Any, url: str, settings: Settings, count: int, code: str
) -> None:
    trigger(SAYS.format(code=code), f"NEW.sku = '{ONE}'")
    results = run_sync(job_of(url, count), settings=settings)
    assert (results.created, [each.external_id for each in results.errors]) == (count - 1, [ONE])
    if count == PAGE:
        with pytest.raises(ItemError, match="not this one"):
            sync_single_item(job_of(url, 0), {"sku": ONE, "title": "new"}, settings=settings)
        found = drained(job_of(url, 0), settings, "D1", ONE)
        assert sorted(found) == [("D1", "applied", 1), (ONE, FAILED, 1)]


def test_a_delivery_alone_that_a_trigger_refuses_with_a_passing_code_has_failed(
    trigger: Any, url: str, settings: Settings
) -> None:
    trigger(SAYS.format(code="57014"), f"NEW.sku = '{ONE}'")
    assert drained(job_of(url, 0), settings, ONE) == [(ONE, FAILED, 1)]


@each_way
@pytest.mark.parametrize(("code", "match"), [("42501", "does not permit this"), ("55P03", "did not get a lock")])
def test_what_a_trigger_raises_for_all_rows_ends_the_run(  # noqa: PLR0913, PLR0917 - fixtures
    trigger: Any, url: str, settings: Settings, count: int, code: str, match: str
) -> None:
    trigger(SAYS.format(code=code))
    fails(job_of(url, count), settings, match)
    if count == PAGE:
        deliveries_stay(job_of(url, 0), settings, match, count=PAGE)


def test_few_that_a_trigger_refuses_itself_are_at_fault_though_nothing_else_is_written(
    trigger: Any, url: str, settings: Settings
) -> None:
    trigger(SAYS.format(code="42501"))
    assert run_sync(job_of(url, 3), settings=settings).error_count == 3


def test_a_trigger_that_asks_for_another_attempt_gets_it(
    execute: Execute, trigger: Any, url: str, settings: Settings
) -> None:
    execute("CREATE SEQUENCE tries", "GRANT ALL ON tries TO PUBLIC")
    trigger(SAYS.format(code="40001"), f"NEW.sku = '{ONE}' AND nextval('tries') < 4")
    sync_single_item(job_of(url, 0), {"sku": ONE, "title": "new"}, settings=settings)


def test_a_trigger_that_takes_long_for_one_row_is_the_moments(
    execute: Execute, role: str, trigger: Any, url: str, settings: Settings
) -> None:
    trigger("PERFORM pg_sleep(0.3)", f"NEW.sku = '{ONE}'")
    execute(f"ALTER ROLE {role} SET statement_timeout = 100", server=True)
    fails(job_of(url, PAGE), settings, "ended the statement: .*statement timeout.*take longer")


def test_failures_that_are_tried_again_wait_at_no_cost(trigger: Any, url: str, settings: Settings) -> None:
    trigger(SAYS.format(code="P0001"))
    job = replace(job_of(url, 3), retry=Retry(attempts=2))
    assert run_sync(job, settings=settings).error_count == 3
    trigger(LACKS["right"])
    with pytest.raises(TargetError, match="fails for all"):
        retry_failures(job, everything=True, settings=settings)
    with open_workspace(settings) as workspace:
        for number in range(3):
            failure = workspace.failures.of_item("things", f"S{number:05}")
            assert failure is not None
            assert (failure.state, failure.attempts) == (OPEN, 1)


@each_way
def test_a_policy_whose_function_lacks_something_ends_the_run_if_it_does_for_all(
    execute: Execute, url: str, settings: Settings, count: int
) -> None:
    execute(
        "CREATE TABLE hidden (sku text)",
        "CREATE FUNCTION may_see(text) RETURNS bool LANGUAGE plpgsql AS "
        "'BEGIN IF $1 = ''old'' THEN PERFORM 1 FROM hidden; END IF; RETURN true; END'",
        f"INSERT INTO things SELECT 'S' || to_char(n, 'FM00000'), 'old' FROM generate_series(0, {count - 1}) AS n",
        "ALTER TABLE things ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY own ON things USING (may_see(title))",
    )
    fails(job_of(url, count), settings, "fails for all")
    execute("UPDATE things SET title = 'new' WHERE sku <> 'S00000'")
    results = run_sync(job_of(url, count), settings=settings)
    assert (results.updated, [each.external_id for each in results.errors]) == (count - 1, ["S00000"])


MARIADB = {
    "table": ("INSERT INTO nowhere VALUES (NEW.sku)", "lacks a table or column"),
    "column": ("INSERT INTO audit (nothing) VALUES (NEW.sku)", "lacks a table or column"),
    "function": ("SET @found = no_function(NEW.sku)", "fails for all"),
    "right": ("INSERT INTO audit VALUES (NEW.sku)", "does not permit this"),
}


@pytest.fixture
def shop_of_mariadb(mariadb: sa.Engine, mariadb_admin: sa.Engine) -> Iterator[Callable[[str, str], None]]:
    """Puts a trigger on the table; the one that lacks a right runs as another user."""
    name = f"u{uuid.uuid4().hex[:8]}"
    with mariadb_admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE USER {name}")
        connection.exec_driver_sql(f"GRANT SELECT, TRIGGER ON {mariadb.url.database}.* TO {name}")

    def put(body: str, condition: str) -> None:
        definer = f"DEFINER = {name} " if body == MARIADB["right"][0] else ""
        with mariadb.begin() as connection:
            connection.exec_driver_sql(TABLE)
            connection.exec_driver_sql("CREATE TABLE audit (sku VARCHAR(9))")
            connection.exec_driver_sql(
                f"CREATE {definer}TRIGGER watch BEFORE INSERT ON things FOR EACH ROW "
                f"BEGIN IF {condition} THEN {body}; END IF; END"
            )

    yield put
    with mariadb_admin.connect() as connection:
        connection.exec_driver_sql(f"DROP USER {name}")


@pytest.mark.parametrize("lacks", MARIADB)
def test_a_trigger_of_mariadb_that_lacks_something_for_all_rows_ends_the_run(
    shop_of_mariadb: Any, mariadb: sa.Engine, settings: Settings, lacks: str
) -> None:
    body, match = MARIADB[lacks]
    shop_of_mariadb(body, "true")
    with pytest.raises(TargetError, match=match) as caught:
        run_sync(job_of(mariadb, PAGE), settings=settings)
    assert caught.value.results.error_count == 0
    deliveries_stay(job_of(mariadb, 0), settings, match)


@pytest.mark.parametrize("lacks", MARIADB)
def test_a_trigger_of_mariadb_that_lacks_something_for_one_row_fails_that_item(
    shop_of_mariadb: Any, mariadb: sa.Engine, settings: Settings, lacks: str
) -> None:
    shop_of_mariadb(MARIADB[lacks][0], "NEW.sku = 's00000'")
    if lacks == "table":  # MariaDB looks for the tables of a trigger before the first row
        fails(job_of(mariadb, PAGE), settings, "lacks a table or column")
        return
    results = run_sync(job_of(mariadb, PAGE), settings=settings)
    assert (results.created, [each.external_id for each in results.errors]) == (PAGE - 1, ["s00000"])


@pytest.mark.parametrize("condition", ["1", "NEW.sku = 'S00007'"], ids=["all", "one"])
def test_sqlite_looks_for_all_that_a_trigger_names_before_the_first_row(
    tmp_path: Path, settings: Settings, condition: str
) -> None:
    url = made(tmp_path / "local.sqlite")
    database = create_database(url)
    with database.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE TRIGGER watch BEFORE INSERT ON things WHEN {condition} "
            "BEGIN INSERT INTO nowhere VALUES (NEW.sku); END"
        )
    database.dispose()
    fails(job_of(url, PAGE), settings, "no such table: main.nowhere")
