"""A run notices that the fields of the source's items are not those of the last good run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
from upath import UPath

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.item_shapes import ELEMENT, INNER, FieldShape, shapes_from_json
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.snapshots.snapshot import FetchedPage, Snapshot, SnapshotWriter
from sync_pipelines.targets.sql_table import SqlTable

Sync = Callable[..., SyncResults]
COUNT = 20
TOLD = "`title` was in 100 % of items, is in none; new: `name`"


@pytest.fixture
def sync(sqlite: sa.Engine, settings: Settings) -> Sync:
    with sqlite.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE things (sku TEXT PRIMARY KEY, title TEXT, price TEXT)")

    def run(items: Any, columns: Any = None, options: dict[str, Any] | None = None, **fields: Any) -> SyncResults:
        target = SqlTable(table="things", key="sku", columns=columns, database=sqlite)
        given = {"name": "things", "fetch_external": lambda: items, "target": target, "guards": None, **fields}
        return run_sync(SyncJob(**given), settings=settings, **options or {})

    return run


def things(count: int = COUNT, **fields: Any) -> list[dict[str, Any]]:
    usual = {"title": "a title", "price": "1"}
    return [{"sku": f"S{number}", **(fields or usual)} for number in range(count)]


RENAMED = {"name": "a title", "price": "1"}


@pytest.mark.parametrize("columns", [None, {"title": lambda item: item.get("title")}], ids=["all columns", "get"])
def test_a_renamed_field_is_told_however_columns_are_declared(sync: Sync, columns: Any) -> None:
    assert sync(things(), columns).drift == ()

    results = sync(things(**RENAMED), columns)

    assert results.drift == (TOLD,)
    assert f"source drift: {TOLD}" in results.notes
    assert sync(things(**RENAMED), columns).drift == ()


def test_it_is_compared_with_the_last_good_run_and_none_that_failed(sync: Sync) -> None:
    def breaks() -> Any:
        yield from things(**RENAMED)
        raise ConnectionError("gone")

    sync(things())
    with pytest.raises(Exception, match="broke off"):
        sync(None, fetch_external=breaks)

    assert sync(things(**RENAMED)).drift == (TOLD,)


@pytest.mark.parametrize("options", [{"limit": 15}, {"only": ["S1", "S2", "S3"]}])
def test_a_run_of_some_items_is_neither_compared_nor_compared_with(sync: Sync, options: dict[str, Any]) -> None:
    sync(things())

    assert sync(things(**RENAMED), options=options).drift == ()
    assert sync(things()).drift == ()
    assert sync(things(**RENAMED)).drift == (TOLD,)


def test_an_empty_fetch_is_no_drift(sync: Sync) -> None:
    sync(things())

    assert sync([]).drift == ()


def test_a_dry_run_tells_of_drift_and_nothing_is_compared_with_it(sync: Sync) -> None:
    sync(things())

    assert sync(things(**RENAMED), options={"dry_run": True}).drift == (TOLD,)
    assert sync(things(**RENAMED)).drift == (TOLD,)


def test_null_and_another_type_are_told(sync: Sync) -> None:
    sync(things(title="x", price=1))

    assert sync(things(title=None, price="1,00")).drift == (
        "`title` was filled in 100 % of items, is in none; `price` held numbers in 100 % of items, now text in 100 %",
    )


def test_whole_and_other_numbers_are_of_one_type(sync: Sync) -> None:
    sync(things(title="x", price=1))

    assert sync(things(title="x", price=1.5)).drift == ()
    assert sync(things(title="x", price=Decimal("1.50"))).drift == ()


def test_a_field_that_is_renamed_inside_of_an_object_is_told(sync: Sync) -> None:
    sync(things(fields={"Title": "x", "no": 1}))

    assert sync(things(fields={"Name": "x", "no": 1})).drift == (
        "`fields.Title` was in 100 % of items, is in none; new: `fields.Name`",
    )


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({"lines": [{"SKU": 1}]}, {"lines": [{"sku": 1}]}, "`fields.lines[].SKU` was in 100 % of items, is in none"),
        (
            {"tags": ["a", "b"]},
            {"tags": [{"id": 1}]},
            "`fields.tags[]` held text in 100 % of items, now objects",
        ),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"d": 1}}}, "`fields.a.b.c` was in 100 % of items, is in none"),
        ({"a": [{"b": [{"c": 1}]}]}, {"a": [{"b": [{"c": "x"}]}]}, "`fields.a[].b[].c` held numbers in 100 % of items"),
    ],
)
def test_what_is_in_lists_and_further_down_is_told(sync: Sync, before: Any, now: Any, told: str) -> None:
    sync(things(fields=before))

    assert told in sync(things(fields=now)).drift[0]


@pytest.mark.parametrize("odd", [0, 3])
def test_items_with_more_fields_than_a_snapshot_has_columns_are_looked_into(sync: Sync, odd: int) -> None:
    wide = {f"f{number}": number for number in range(300)}
    narrow = things(odd, title="x")
    sync([*narrow, *things(**wide, title="x", o={"a": 1})[odd:]])

    now = [*narrow, *things(**wide, name="x", o={"b": 1})[odd:]]
    (drift,) = sync(now).drift
    assert f"`title` was in 100 % of items, is in {'15 %' if odd else 'none'}" in drift
    assert "`o.a` was in 100 % of items, is in none" in drift


def test_objects_by_date_are_no_drift(sync: Sync) -> None:
    for first in range(1, 4):
        by_day = {f"2026-11-{day:02}": {"price": 1} for day in range(first, first + 12)}
        assert sync(things(fields=by_day, **{f"w{first}-{n}": 1 for n in range(6)})).drift == ()


def test_names_that_change_with_each_run_are_told_once(sync: Sync) -> None:
    def codes(letter: str, value: Any = 1) -> Any:
        return things(fields={"all": 1, **{f"{letter}{other}": value for other in "abcdef"}})

    assert sync(codes("x")).drift == ()
    assert "`fields.xa` was in 100 % of items, is in none" in sync(codes("y")).drift[0]
    assert sync(codes("z")).drift == ()
    assert sync(codes("u")).drift == ()
    assert sync(codes("v", "text")).drift == ("`fields.*` held numbers in 100 % of items, now text in 85.7 %",)
    assert sync(codes("v", "text")).drift == ()
    assert "`fields.va` was" in sync(codes("w", "text")).drift[0]  # they were the same twice


def test_columns_count_by_the_share_of_the_items_that_are_looked_into(tmp_path: Any) -> None:
    wide = {f"f{number}": number for number in range(300)}
    items = [{"sku": f"S{n}", "a": 1, **({} if n % 4 else wide)} for n in range(4_000)]
    with SnapshotWriter(UPath(tmp_path)) as writer:
        writer.write(FetchedPage(range(4_000), [item["sku"] for item in items], items))
        writer.finish({"items": 4_000, "complete": True})

    shapes = shapes_from_json(Snapshot(UPath(tmp_path)).summary()["shapes"])
    assert shapes["a"].present == shapes["a"].of < 1_000
    assert shapes["f7"].present / shapes["f7"].of == pytest.approx(0.25, abs=0.01)


@dataclass
class Thing:
    """An item with attributes."""

    sku: str
    title: str | None


def test_items_with_attributes_and_rows_of_frames_are_compared_alike(sync: Sync) -> None:
    sync([Thing(f"S{number}", "x") for number in range(COUNT)])
    emptied = ("`title` was filled in 100 % of items, is in none",)

    assert sync([Thing(f"S{number}", None) for number in range(COUNT)]).drift == emptied
    sync([Thing(f"S{number}", "x") for number in range(COUNT)])
    assert (
        sync(pd.DataFrame({"sku": [f"S{number}" for number in range(COUNT)], "title": [None] * COUNT})).drift == emptied
    )


def test_the_shapes_are_counted_in_the_columns_of_the_snapshot(tmp_path: Any) -> None:
    items = [
        {"sku": "1", "n": 1, "t": "", "o": {"a": "x", "b": None}, "at": datetime(2026, 1, 1, tzinfo=UTC), "m": 1.5},
        {"sku": "2", "n": 2.5, "t": "x", "o": {"a": ""}, "at": None, "m": "text"},
        {"sku": "3", "n": Decimal(1), "o": {}, "on": date(2026, 1, 1), "l": [1], "b": b"", "is": False, "m": [1]},
        {"sku": "4"},
    ]
    with SnapshotWriter(UPath(tmp_path)) as writer:
        for number, item in enumerate(items):
            errors = {0: ValueError("bad")} if item["sku"] == "4" else {}
            writer.write(FetchedPage([number], [item["sku"]], [item], errors))
        writer.finish({"items": 4, "complete": True})

    assert shapes_from_json(Snapshot(UPath(tmp_path)).summary()["shapes"]) == {
        "sku": FieldShape(3, 3, 3, {"text": 3}),
        "n": FieldShape(3, 3, 3, {"numbers": 3}),
        "t": FieldShape(3, 2, 1, {"text": 1}),
        "o": FieldShape(3, 3, 2, {"objects": 2}),
        f"l{INNER}{ELEMENT}": FieldShape(1, 1, 1, {"numbers": 1}),
        f"m{INNER}{ELEMENT}": FieldShape(1, 1, 1, {"numbers": 1}),
        f"o{INNER}a": FieldShape(2, 2, 1, {"text": 1}),
        f"o{INNER}b": FieldShape(2, 1, 0, {}),
        "at": FieldShape(3, 2, 1, {"times": 1}),
        "on": FieldShape(3, 1, 1, {"dates": 1}),
        "l": FieldShape(3, 1, 1, {"lists": 1}),
        "b": FieldShape(3, 1, 0, {}),
        "is": FieldShape(3, 1, 1, {"truth values": 1}),
        "m": FieldShape(3, 3, 3, {"numbers": 1, "text": 1, "lists": 1}),
    }
