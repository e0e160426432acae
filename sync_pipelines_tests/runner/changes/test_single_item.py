"""One change at once: an upsert, a delete, or what the source says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sync_pipelines.engine.changes import Delete, Ignore, Refetch, Upsert
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.results import ItemResult
from sync_pipelines.errors import ItemError, TargetError
from sync_pipelines.runner.changes.single_item import sync_single_item
from sync_pipelines.testing import MemoryTarget

Make = Callable[..., SyncJob[Any, Any]]


def item(sku: Any, stock: int = 1) -> dict[str, Any]:
    return {"sku": sku, "stock": stock}


def test_an_upsert_goes_the_way_of_a_single_item(job: Make, target: MemoryTarget) -> None:
    assert sync_single_item(job(), Upsert(item("A"))) == ItemResult("created", "A")
    assert sync_single_item(job(), Upsert(item("A", 2))) == ItemResult("updated", "A")
    assert sync_single_item(job(), Upsert(item("A", 2))) == ItemResult("unchanged", "A")
    assert target.records == {"A": item("A", 2)}


def test_a_delete_removes_what_is_there(job: Make, target: MemoryTarget) -> None:
    target.records |= {"A": item("A"), "B": item("B")}
    assert sync_single_item(job(), Delete("A")) == ItemResult("deleted", "A")
    assert sync_single_item(job(), Delete("A")) == ItemResult("unchanged", "A")
    assert set(target.records) == {"B"}


def test_a_delete_of_nothing_in_particular_fails(job: Make) -> None:
    with pytest.raises(ItemError, match="empty"):
        sync_single_item(job(), Delete(" "))


def test_a_delete_that_fails_is_the_items_matter(job: Make) -> None:
    def refuse(_local: Any) -> None:
        raise ValueError("it has orders")

    functions = {"find_local": lambda sku: sku, "create": id, "update": max, "delete": refuse, "target": None}
    with pytest.raises(ItemError, match="ValueError: it has orders") as caught:
        sync_single_item(job(**functions), Delete("A"))
    assert caught.value.external_id == "A"
    with pytest.raises(TargetError, match="has no delete"):
        sync_single_item(job(**{**functions, "delete": None}), Delete("A"))


def test_an_ignored_event_changes_nothing(job: Make, target: MemoryTarget) -> None:
    assert sync_single_item(job(), Ignore()).action == "skipped"
    assert target.records == {}


def test_a_refetch_asks_the_source(job: Make, target: MemoryTarget) -> None:
    with pytest.raises(ItemError, match="only the source can say what the item is now; give stock a fetch_one"):
        sync_single_item(job(), Refetch("A"))
    there = {"A": item("A", 9)}
    able = job(fetch_one=there.get)
    assert sync_single_item(able, Refetch("A")) == ItemResult("created", "A")
    assert target.records == {"A": item("A", 9)}
    there.clear()
    assert sync_single_item(able, Refetch("A")) == ItemResult("deleted", "A")
    assert target.records == {}
