"""Older items never overwrite newer rows, in bulk as item by item."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync_pipelines.engine.changes import Delete
from sync_pipelines.runner.changes.single_item import sync_single_item
from sync_pipelines.runner.runs import comparing_run as sync_run
from sync_pipelines_tests.targets.staging.conftest import Item, Paths, Syncs, counts

NUMBERED = "CREATE TABLE things (sku VARCHAR(9) PRIMARY KEY, n INTEGER, version BIGINT)"
TIMED = "CREATE TABLE things (sku VARCHAR(9) PRIMARY KEY, n INTEGER, version TIMESTAMPTZ)"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
VERSIONED = {"columns": ["n", "version"], "get_version": "version"}


def item(sku: str, n: int, version: Any) -> Item:
    return {"sku": sku, "n": n, "version": version}


def things(sync: Syncs) -> dict[str, int]:
    return dict(sync.rows("SELECT sku, n FROM things"))  # type: ignore[arg-type]  # rows of two


def test_an_older_item_is_skipped_and_told(sync: Syncs) -> None:
    sync.execute(NUMBERED)
    sync([item("A", 1, 5), item("B", 1, 5), item("C", 1, 5)], **VERSIONED)
    results = sync([item("A", 2, 4), item("B", 2, 5), item("C", 2, 6), item("D", 2, 1)], **VERSIONED)
    assert counts(results) == {"skipped": 1, "updated": 2, "created": 1}
    assert results.notes == ("1 items were older than their local records, and were skipped",)
    assert things(sync) == {"A": 1, "B": 2, "C": 2, "D": 2}


def test_a_record_that_a_delivery_deleted_is_not_brought_back_by_an_older_item(sync: Syncs) -> None:
    """Nor is one overwritten whose version somebody has taken back: the ledger knows better than the table."""
    sync.execute(NUMBERED)
    sync([item("A", 1, 4), item("B", 1, 4), item("C", 1, 4)], **VERSIONED)
    job = sync.job([], **VERSIONED)
    for change in (item("A", 2, 5), Delete("A"), item("B", 2, 5)):
        sync_single_item(job, change, settings=sync.settings)
    sync.execute("UPDATE things SET version = 1")
    results = sync([item("A", 1, 4), item("B", 1, 4), item("C", 2, 4), item("A", 1, 3)], **VERSIONED)
    assert counts(results) == {"skipped": 2, "updated": 1, "duplicate": 1}
    assert things(sync) == {"B": 2, "C": 2}
    assert counts(sync([item("A", 3, 6)], **VERSIONED)) == {"created": 1}


def test_of_items_with_one_id_the_newest_counts_wherever_it_is(sync: Syncs) -> None:
    sync.execute(NUMBERED)
    results = sync([item("A", 1, 5), item("A", 2, 7), item("A", 3, 6), item("B", 1, 1), item("B", 2, 1)], **VERSIONED)
    assert counts(results) == {"created": 2, "duplicate": 3}
    assert sorted((each.position, each.kept_position) for each in results.duplicates) == [(0, 1), (2, 1), (3, 4)]
    assert things(sync) == {"A": 2, "B": 2}


def test_of_items_with_one_id_whose_versions_cant_be_staged_the_newest_counts_too(sync: Syncs) -> None:
    sync.execute(NUMBERED)
    items = [item("A", 1, 2.0), item("A", 2, 1.0), item("B", 1, 1), item("B", 2, True)]
    results = sync(items, pages="only a look at each can tell the version", **VERSIONED)
    assert counts(results) == {"created": 2, "duplicate": 2}
    assert things(sync) == {"A": 1, "B": 1}


@pytest.mark.parametrize(
    "older",
    [
        NOON - timedelta(seconds=1),
        (NOON - timedelta(seconds=1)).astimezone(timezone(timedelta(hours=9))),
        "2026-01-01T11:59:59Z",
        "2026-01-01T12:59:59.5+01:00",
    ],
)
def test_moments_count_whatever_their_zone_and_form(postgres_sync: Syncs, older: Any) -> None:
    postgres_sync.execute(TIMED)
    postgres_sync([item("A", 1, NOON), item("B", 1, NOON)], **VERSIONED)
    results = postgres_sync([item("A", 2, older), item("B", 2, "2026-01-01T13:00:00.1+01:00")], **VERSIONED)
    assert counts(results) == {"skipped": 1, "updated": 1}
    assert things(postgres_sync) == {"A": 1, "B": 2}


@pytest.mark.parametrize("wrong", [None, "soon", "2026-01-01T12:00:00", datetime(2026, 1, 1)])  # noqa: DTZ001
def test_an_item_without_a_version_fails_alone(postgres_sync: Syncs, wrong: Any) -> None:
    postgres_sync.execute(TIMED)
    results = postgres_sync([item("A", 1, NOON), item("B", 1, wrong)], **VERSIONED)
    assert counts(results) == {"created": 1, "failed": 1}
    assert "version" in results.errors[0].message


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"columns": ["n"], "get_version": "version"}, "is in no column that every update writes"),
        ({**VERSIONED, "create_only": ["version"]}, "is in no column that every update writes"),
        ({**VERSIONED, "compare": ["n"]}, "is not compared, and so may be behind"),
        ({**VERSIONED, "get_version": "sku"}, "is in no column that every update writes"),
        ({"columns": ["n", "version", "note"], "get_version": "note"}, "holds neither numbers nor moments"),
        ({**VERSIONED, "get_version": lambda each: each["version"]}, "is a function"),
    ],
)
def test_what_the_database_cant_compare_goes_item_by_item(sync: Syncs, fields: dict[str, Any], reason: str) -> None:
    sync.execute("CREATE TABLE things (sku VARCHAR(9) PRIMARY KEY, n INTEGER, version BIGINT, note TEXT)")
    items = [{**item(f"{number}", 1, number), "note": "7"} for number in range(3)]
    assert counts(sync(items, pages=reason, **fields)) == {"created": 3}


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(
            st.tuples(
                st.sampled_from("ABC"),
                st.integers(0, 2),
                st.sampled_from([1, 2, 3, None, "2", "x", Decimal(2), True, 2.5]),
            ),
            max_size=5,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_in_bulk_and_item_by_item_come_to_the_same(
    postgres_sync: Syncs, paths: Paths, fetches: list[list[tuple[str, int, Any]]]
) -> None:
    ends = []
    for from_items in (0, 10**9):
        postgres_sync.execute("DROP TABLE IF EXISTS things", NUMBERED.replace("BIGINT", "NUMERIC(9, 2)"))
        postgres_sync.execute("DROP SCHEMA IF EXISTS sync_pipelines CASCADE")
        told = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sync_run, "FROM_ITEMS", from_items)
            for number, fetch in enumerate(fetches):
                items = [item(*each) for each in fetch]
                results = postgres_sync.run(items, name=f"bulk-{from_items % 7}-{id(fetches)}-{number}", **VERSIONED)
                told.append((counts(results), [(each.position, each.message) for each in results.errors]))
        ends.append((told, sorted(postgres_sync.rows("SELECT sku, n, version FROM things"), key=str)))
    paths.answers.clear()
    assert ends[0] == ends[1]
