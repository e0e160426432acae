"""Promise 1 in bulk: the second run changes nothing, whatever the types."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync_pipelines.targets.open_table import OpenedSqlTable
from sync_pipelines_tests.targets.staging.conftest import Syncs, counts
from sync_pipelines_tests.targets.staging.test_same_as_pages import entries_of
from sync_pipelines_tests.targets.types import test_second_run as types

GROUPS = [
    ["small", "whole", "big", "price", "exact", "digits", "ratio", "single", "flag"],
    ["note", "code", "padded", "guid", "hex", "name", "flexible", "untyped"],
    ["day", "naive", "clock", "rounded", "millis", "aware", "clock2", "zoned", "length", "length1"],
    ["extra"],
    ["jsonb", "objects"],
    ["id", "raw", "tens", "tags", "codes", "prices", "moments"],
    ["host", "span", "money", "mood", "moods", "cost"],
]


def test_every_type_is_in_a_group() -> None:
    assert sorted(name for group in GROUPS for name in group) == sorted(types.VALUES)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group[0])
def test_the_second_run_in_bulk_changes_nothing(sync: Syncs, group: list[str]) -> None:
    """Created, unchanged, updated to other values, unchanged; and page by page everything is unchanged as well."""
    known = types.columns_of(sync.database)
    columns = [name for name in group if name in known]
    if not columns:
        return  # types of the other database
    types.make_table(sync.database, {name: known[name] for name in columns})
    row = st.fixed_dictionaries({name: types.VALUES[name] | types.MISSING for name in columns})

    @given(pairs=st.lists(st.tuples(row, row), min_size=20, max_size=30))
    @settings(max_examples=4, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def run_four_times(pairs: list[tuple[Any, Any]]) -> None:
        sync.execute("DELETE FROM things")
        first = [{"sku": f"S{number}", **pair[0]} for number, pair in enumerate(pairs)]
        second = [{"sku": f"S{number}", **pair[1]} for number, pair in enumerate(pairs)]
        assert counts(sync(first, columns=columns)) == {"created": len(pairs)}
        assert_up_to_date(sync, first, columns)
        updated = sync(second, columns=columns)
        assert updated.updated + updated.unchanged == len(pairs)
        assert_up_to_date(sync, second, columns)

    run_four_times()


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group[0])
def test_the_plan_says_the_same_on_both_paths(sync: Syncs, group: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Creates, updates and deletes, old and new values of every type, as the engine keeps them."""
    known = types.columns_of(sync.database)
    columns = [name for name in group if name in known]
    if not columns:
        return  # types of the other database
    types.make_table(sync.database, {name: known[name] for name in columns})
    row = st.fixed_dictionaries({name: types.VALUES[name] | types.MISSING for name in columns})
    open_staged = OpenedSqlTable.open_staged

    def planned(items: list[dict[str, Any]], method: Any) -> list[Any]:
        monkeypatch.setattr(OpenedSqlTable, "open_staged", method)
        results, rows = sync.dry_run(items, columns=columns, deletes="hard")
        return [results.counts(), results.planned, entries_of(rows)]

    @given(pairs=st.lists(st.tuples(row, row), min_size=8, max_size=12))
    @settings(max_examples=2, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def compare(pairs: list[tuple[Any, Any]]) -> None:
        sync.execute("DELETE FROM things")
        first = [{"sku": f"S{number}", **pair[0]} for number, pair in enumerate(pairs)]
        second = [{"sku": f"S{number}", **pair[1]} for number, pair in enumerate(pairs[2:])]
        for items in (first, second):
            assert planned(items, open_staged) == planned(items, lambda *_: None)
            monkeypatch.setattr(OpenedSqlTable, "open_staged", open_staged)
            sync.run(items, columns=columns)

    compare()
    assert None in sync.paths.answers


def assert_up_to_date(sync: Syncs, items: list[dict[str, Any]], columns: list[str]) -> None:
    with types.opened(sync.database, columns=columns) as target:
        types.assert_up_to_date(target, items)
    assert counts(sync(items, columns=columns)) == {"unchanged": len(items)}


def test_the_types_of_a_declared_table_are_used_in_bulk(sync: Syncs) -> None:
    """Enum classes, UUIDs as the application keeps them, and labels; a wrong one fails alone."""
    declared = sa.Table(
        "things",
        sa.MetaData(),
        sa.Column("sku", sa.Uuid, primary_key=True),
        sa.Column("colour", sa.Enum(types.Colour)),
        sa.Column("moment", sa.DateTime(timezone=True)),
        sa.Column("length", sa.Interval),
        sa.Column("extra", sa.JSON),
        sa.Column("label", sa.Enum("x", "y", name="label")),
    )
    declared.create(sync.database)
    colours = ["red", "RED", types.Colour.BLUE, "blue", "green"]
    items: list[dict[str, Any]] = [
        {
            "sku": str(uuid.UUID(int=number)),
            "colour": colours[number % 5],
            "moment": "2024-01-01T10:00:00+02:00",
            "length": timedelta(hours=number),
            "extra": {"a": number},
            "label": "xy"[number % 2],
        }
        for number in range(20)
    ]
    results = sync(items, table=declared)
    assert counts(results) == {"created": 16, "failed": 4}
    assert {error.message.partition(": a")[2] for error in results.errors} == {"llowed are: red, blue"}
    good = [item for item in items if item["colour"] != "green"]
    assert counts(sync(good, table=declared, deletes="hard")) == {"unchanged": 16}
    changed = [{**item, "label": "y", "colour": "red"} for item in good[:4]]
    assert counts(sync(changed, table=declared, deletes="hard")) == {"updated": 3, "unchanged": 1, "deleted": 12}


def test_a_key_alone_can_be_all_that_is_written(sync: Syncs) -> None:
    sync.execute("CREATE TABLE things (sku TEXT PRIMARY KEY, n INTEGER)")
    items = [{"sku": f"S{number}"} for number in range(4)]
    assert counts(sync(items, columns=["sku"])) == {"created": 4}
    assert counts(sync(items, columns=["sku"])) == {"unchanged": 4}
    assert counts(sync(items[:2], columns=lambda _item: {}, deletes="hard")) == {"unchanged": 2, "deleted": 2}


def test_pages_of_a_snapshot_may_have_columns_of_different_kinds(sync: Syncs) -> None:
    """Numbers in one page and their texts in the next mean the same; items of another shape are looked at alone."""
    sync.execute("CREATE TABLE things (sku TEXT PRIMARY KEY, n INTEGER, t TEXT)")
    items: list[dict[str, Any]] = [{"sku": f"S{n}", "n": n, "t": "x" * (n % 50)} for n in range(12_500)]
    assert counts(sync(items)) == {"created": 12_500}
    texts = [{**item, "n": str(item["n"])} if item["n"] > 7_000 else item for item in items]
    assert counts(sync(texts)) == {"unchanged": 12_500}
    fewer = [{"sku": item["sku"], "t": "y"} if item["n"] % 10 == 0 else item for item in items]
    assert counts(sync(fewer)) == {"updated": 1_250, "unchanged": 11_250}
    assert counts(sync(fewer)) == {"unchanged": 12_500}
