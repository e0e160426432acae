"""An `ItemError` that a source leaves in the place of an item."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.engine.changes import as_change_event
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.results import SyncError, SyncResults
from sync_pipelines.errors import ItemError
from sync_pipelines.runner.changes.single_item import sync_single_item
from sync_pipelines.runner.decide.staged_diff import FROM_ITEMS
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.sources.sql_query import sql_query
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.testing import MemoryTarget

Sync = Callable[..., SyncResults]
BROKEN = "page 3: the price is a picture"


def broken(external_id: Any = None) -> ItemError:
    return ItemError(BROKEN, external_id=external_id)


def test_an_item_error_in_an_items_place_fails_under_its_id_with_its_message(sync: Sync, target: MemoryTarget) -> None:
    results = sync([{"sku": "A"}, broken("B"), {"sku": "C"}])
    assert results.errors == (SyncError("B", BROKEN, "ItemError", 1),)
    assert sorted(target.records) == ["A", "C"]


@pytest.mark.parametrize("given", [[{"sku": "A"}, broken("B")], [[{"sku": "A"}, broken("B")]], ([broken("B")],)])
def test_it_may_stand_in_a_page(sync: Sync, given: Any) -> None:
    assert [error.message for error in sync(lambda: iter(given)).errors] == [BROKEN]


@pytest.mark.parametrize("external_id", [7, "007", 7.0])
def test_deletes_go_on_where_the_id_is_known(sqlite: sa.Engine, settings: Settings, external_id: Any) -> None:
    with sqlite.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE stock (id INTEGER PRIMARY KEY, pieces INTEGER)")
        connection.exec_driver_sql("INSERT INTO stock VALUES (7, 1), (8, 1), (9, 1)")
    items = [broken(external_id), {"id": 8, "pieces": 2}]
    target = SqlTable(table="stock", key="id", database=sqlite)
    job: SyncJob[Any, Any] = SyncJob(
        name="stock", fetch_external=lambda: items, target=target, deletes="hard", guards=None
    )
    results = run_sync(job, settings=settings)
    assert (results.updated, results.deleted, results.error_count) == (1, 1, 1)
    with sqlite.connect() as connection:
        assert connection.exec_driver_sql("SELECT id FROM stock ORDER BY id").scalars().all() == [7, 8]


@pytest.mark.parametrize("external_id", [None, "", True, ["B"], "\ud800"])
def test_without_an_id_that_can_be_read_nothing_is_deleted(sync: Sync, target: MemoryTarget, external_id: Any) -> None:
    sync([{"sku": "A"}, {"sku": "Z"}])
    results = sync([{"sku": "A"}, broken(external_id)], deletes="hard")
    assert (results.deleted, results.errors) == (0, (SyncError(None, BROKEN, "ItemError", 1),))
    assert sorted(target.records) == ["A", "Z"]


def test_it_is_resolved_when_its_item_comes(sync: Sync) -> None:
    assert sync([broken("A")]).error_count == 1
    assert sync([{"sku": "A"}]).outcome == "clean"


def test_an_error_in_the_place_of_the_id_keeps_its_message(sync: Sync, sqlite: sa.Engine, settings: Settings) -> None:
    assert [error.message for error in sync([{"sku": broken()}]).errors] == [BROKEN]
    with sqlite.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE stock (id INTEGER PRIMARY KEY)")
    job: SyncJob[Any, Any] = SyncJob(
        name="stock",
        fetch_external=lambda: [{"id": broken()}],
        target=SqlTable(table="stock", key="id", database=sqlite),
    )
    assert [error.message for error in run_sync(job, settings=settings).errors] == [BROKEN]


def test_a_single_item_that_is_an_error_is_raised_as_it_is(job: Callable[..., SyncJob[Any, Any]]) -> None:
    with pytest.raises(ItemError, match=BROKEN) as caught:
        sync_single_item(job(), broken("B"))
    assert caught.value.external_id == "B"
    with pytest.raises(ItemError, match=BROKEN):
        as_change_event(broken("B"))


@pytest.mark.parametrize("count", [3, FROM_ITEMS + 3])
def test_rows_that_python_does_not_hold_fail_alone(postgres: sa.Engine, settings: Settings, count: int) -> None:
    with postgres.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE here (id int PRIMARY KEY, at timestamptz, n numeric(9, 2))")
        connection.exec_driver_sql("INSERT INTO here VALUES (1, '2026-01-01', 1), (900000, '2026-01-01', 1)")
    at = "CASE n WHEN 1 THEN timestamptz 'infinity' WHEN 2 THEN '12026-01-01' ELSE '2026-01-02' END"
    number = "CASE n WHEN 3 THEN numeric 'NaN' WHEN 4 THEN 'Infinity' ELSE 1 END"
    query = f"SELECT n AS id, {at} AS at, {number} AS n FROM generate_series(1, {count + 2}) n"
    target = SqlTable(table="here", key="id", database=postgres)
    fetch = sql_query(query, database=postgres)
    results = run_sync(
        SyncJob(name="here", fetch_external=fetch, target=target, deletes="hard", guards=None), settings=settings
    )
    failed = {error.external_id: error.message for error in results.errors}
    assert failed.keys() == {"1", "2", "4"}
    assert failed["1"].startswith("sql_query: row 1: at is 'infinity' (timestamptz), which Python does not hold")
    assert (results.created, results.deleted) == (count - 1, 1)
    with postgres.connect() as connection:
        (kept,) = connection.exec_driver_sql("SELECT n FROM here WHERE id = 3").one()
    assert kept is None  # NaN is no value in items of any source
