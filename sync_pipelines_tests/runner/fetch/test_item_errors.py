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
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
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
