"""Rows that need each other: whatever their order, the bulk path and the page path leave the same database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync_pipelines.targets.open_table import OpenedSqlTable
from sync_pipelines_tests.targets.staging.conftest import Item, Syncs
from sync_pipelines_tests.two_speeds import few_and_many

IDS = range(1, 7)
REFERENCES = (
    "",
    "ON DELETE CASCADE",
    "ON DELETE SET NULL",
    "DEFERRABLE INITIALLY DEFERRED",
    "ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED",
)
TREE = (
    "CREATE TABLE things (id {key} PRIMARY KEY, code VARCHAR(9) {unique}, "
    "parent {key} {null} REFERENCES things (id) {reference})"
)
parents = st.one_of(st.none(), st.none(), st.sampled_from([*IDS, 9]))
codes = st.one_of(st.none(), st.sampled_from("abcd"))


def items_of(rows: list[tuple[int, str | None, int | None]]) -> list[Item]:
    return [{"id": number, "code": code, "parent": parent} for number, code, parent in rows]


def found(sync: Syncs, create: str, fetches: list[list[Item]], deletes: str, name: str) -> list[Any]:
    sync.execute("DROP TABLE IF EXISTS things", create)
    said: list[Any] = []
    for items in [*fetches, fetches[-1]]:
        done = sync.run(items, name=name, key="id", get_external_id="id", columns=["code", "parent"], deletes=deletes)
        failed = sorted(each.external_id or "" for each in done.errors)  # which of two rules it breaks is open
        said.append((done.counts(), failed, sync.rows("SELECT id, code, parent FROM things ORDER BY id")))
    return said


KNOWN: list[list[list[tuple[int, str | None, int | None]]]] = [
    [[(1, None, None), (4, "c", 6), (3, None, None), (6, None, None), (2, None, None), (5, "c", None)]],
    [[(5, "c", 6), (6, "c", None)]],
    [[(4, "c", 6), (5, "c", None), (6, None, 5)]],
    [[(1, "a", None), (2, "a", 3), (3, "a", None), (4, "b", 2)]],
    [[(3, "d", None), (5, None, None)], [(3, None, None), (5, "d", None), (6, "d", None)]],
    [[(5, None, None)], [(5, "d", None), (6, "d", None)]],
    [[(5, None, None)], [(6, "d", None), (5, "d", None)]],
    [[(5, "d", None), (6, None, None)], [(6, "d", None), (7, "d", None), (5, "a", 7)]],
]
"""Of two items that want one code the first gets it, whether it refers to a later one, or the other one is new."""


@pytest.mark.parametrize("fetches", KNOWN)
def test_the_first_of_two_gets_what_both_want(sync: Syncs, fetches: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    create = TREE.format(key="INTEGER", unique="UNIQUE", null="", reference="")
    given_items = [items_of(each) for each in fetches]
    in_bulk = found(sync, create, given_items, "off", "bulk")
    monkeypatch.setattr(OpenedSqlTable, "open_staged", lambda *_: None)
    assert in_bulk == found(sync, create, given_items, "off", "pages")


@few_and_many(3, 100)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_rows_that_need_each_other_are_the_same_in_bulk_and_by_pages(
    kind: str, examples: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trees and circles in any order, codes that are freed, taken and swapped, deletes that would take others."""
    sync: Syncs = request.getfixturevalue(f"{'sqlite' if kind == 'sqlite' else 'postgres'}_sync")
    open_staged = OpenedSqlTable.open_staged
    by_pages: Callable[..., None] = lambda *_: None  # noqa: E731 - stands for a method
    row = st.tuples(st.sampled_from(IDS), codes, parents)
    fetch = st.lists(row, min_size=1, max_size=6, unique_by=lambda each: each[0])
    numbers = iter(range(10**6))

    @given(
        fetches=st.lists(fetch, min_size=1, max_size=3),
        reference=st.sampled_from(REFERENCES),
        deletes=st.sampled_from(["off", "hard"]),
    )
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    def compare(fetches: list[list[tuple[int, str | None, int | None]]], reference: str, deletes: str) -> None:
        create = TREE.format(key="INTEGER", unique="UNIQUE", null="", reference=reference)
        given_items = [items_of(each) for each in fetches]
        monkeypatch.setattr(OpenedSqlTable, "open_staged", open_staged)
        in_bulk = found(sync, create, given_items, deletes, f"bulk-{next(numbers)}")
        monkeypatch.setattr(OpenedSqlTable, "open_staged", by_pages)
        assert in_bulk == found(sync, create, given_items, deletes, f"pages-{next(numbers)}")

    compare()
