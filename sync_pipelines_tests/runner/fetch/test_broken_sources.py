"""Sources that are broken in every way that sources are: nothing is wiped, accounts balance, and notes say why."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import ConfigurationError, FetchError
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable

Item = dict[str, Any]
Page = list[Any]
PAGE = 100
FETCHED = 1_000


def items(first: int = 0, last: int = FETCHED) -> list[Item]:
    return [{"sku": f"A{number:04}", "stock": 1} for number in range(first, last)]


def pages(found: list[Any]) -> list[Page]:
    return [found[start : start + PAGE] for start in range(0, len(found), PAGE)]


class Shop:
    """A table that holds what a good fetch gave, and the sync into it."""

    def __init__(self, database: sa.Engine, settings: Settings) -> None:
        self.database = database
        self.settings = settings
        with database.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE variants (sku VARCHAR(20) PRIMARY KEY, stock INTEGER)")
        assert self.sync(items, "off").created == FETCHED

    def sync(self, fetch: Callable[[], Any], deletes: str) -> SyncResults:
        target = SqlTable(table="variants", key="sku", columns=["stock"], database=self.database)
        job = SyncJob[Any, Any](name="stock", fetch_external=fetch, target=target, deletes=deletes)  # type: ignore[arg-type]
        results = run_sync(job, settings=self.settings)
        assert results.accounts_balance
        return results

    def rows(self) -> dict[str, int]:
        with self.database.connect() as connection:
            return {row.sku: row.stock for row in connection.execute(sa.text("SELECT sku, stock FROM variants"))}


@pytest.fixture
def shop(database: sa.Engine, settings: Settings) -> Shop:
    return Shop(database, settings)


@pytest.fixture(params=["off", "hard"])
def deletes(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_an_error_on_page_seven_changes_nothing(shop: Shop, deletes: str) -> None:
    before = shop.rows()

    def fetch() -> Iterator[Page]:
        changed = [{**item, "stock": 2} for item in items()]
        yield from pages(changed)[:6]
        raise TimeoutError("page 7 did not come")

    with pytest.raises(
        FetchError, match="broke off after 600 items, nothing was applied: TimeoutError: page 7"
    ) as told:
        shop.sync(fetch, deletes)

    assert (told.value.items_fetched, told.value.results.outcome) == (600, "failed")
    assert shop.rows() == before


def test_no_items_at_all_delete_nothing(shop: Shop, deletes: str) -> None:
    before = shop.rows()

    for nothing in ([], [[], [], []]):
        results = shop.sync(lambda found=nothing: iter(found), deletes)  # type: ignore[misc]
        assert (results.fetched, results.deleted, results.outcome) == (0, 0, "guarded")
        assert shop.rows() == before
        assert results.guarded[0] == "the source gave no items at all; the last good fetches had 1,000"


def test_half_of_the_items_without_deletes_leaves_the_others_as_they_are(shop: Shop) -> None:
    results = shop.sync(lambda: items(0, FETCHED // 2), "off")

    assert (results.unchanged, results.deleted, results.outcome) == (FETCHED // 2, 0, "clean")
    assert len(shop.rows()) == FETCHED


def test_half_of_the_items_with_deletes_withholds_them_however_often_it_comes(shop: Shop) -> None:
    """What came is applied all the same, and a fetch that was suspicious does not become the usual one."""
    for stock in (2, 3):
        half = [{**item, "stock": stock} for item in items(0, FETCHED // 2 - 1)]
        results = shop.sync(lambda found=half: iter(pages(found)), "hard")  # type: ignore[misc]

        assert (results.updated, results.deleted, results.outcome) == (len(half), 0, "guarded")
        assert results.guarded[0].startswith("the source gave 499 items, the last good fetches had 1,000: 50.1% fewer")
        assert any("501 deletes withheld" in note for note in results.notes)
        assert sorted(shop.rows().values()) == [1] * 501 + [stock] * 499


def test_a_last_page_that_is_missing_deletes_what_was_on_it_if_that_is_little(shop: Shop) -> None:
    """Nobody can tell it from items that are gone; more than a fifth of the records would be withheld."""
    results = shop.sync(lambda: items(0, FETCHED - PAGE), "hard")
    assert (results.deleted, results.outcome) == (PAGE, "clean")

    results = shop.sync(lambda: items(0, FETCHED - 4 * PAGE), "hard")
    assert (results.deleted, results.outcome) == (0, "guarded")
    assert "300 of 900 local records would be deleted: 33.3%" in results.guarded[0]


def test_the_same_page_twice_is_told_as_duplicates(shop: Shop, deletes: str) -> None:
    """A source whose paging stands still for a moment: every page but one, which comes twice, in another state."""
    found = pages(items())
    again = [{**item, "stock": 5} for item in found[3]]

    results = shop.sync(lambda: iter([*found[:4], again, *found[4:]]), deletes)

    assert (results.fetched, results.duplicate_count) == (FETCHED + PAGE, PAGE)
    assert (results.updated, results.unchanged, results.deleted) == (PAGE, FETCHED - PAGE, 0)
    assert {shop.rows()[item["sku"]] for item in again} == {5}, "the last state counts"


def test_a_page_that_comes_for_ever_is_limited_by_whoever_pages_not_by_memory(shop: Shop) -> None:
    """The same page a hundred times is no more than its hundred items."""
    page = items(0, PAGE)

    results = shop.sync(lambda: (page for _ in range(100)), "off")

    assert (results.fetched, results.duplicate_count, results.unchanged) == (100 * PAGE, 99 * PAGE, PAGE)


@pytest.mark.parametrize(("gone_a_page", "outcome"), [(10, "clean"), (40, "guarded")])
def test_pages_that_shrink_while_they_are_read_wipe_no_more_than_guards_allow(
    shop: Shop, gone_a_page: int, outcome: str
) -> None:
    """Items that go while page after page is read move those behind them to pages that were read already."""
    left = items()

    def fetch() -> Iterator[Page]:
        start = 0
        while start < len(left):
            yield left[start : start + PAGE]
            del left[:gone_a_page]
            start += PAGE

    results = shop.sync(fetch, "hard")

    missing = FETCHED - results.fetched
    assert 0 < missing < FETCHED
    assert (results.unchanged, results.error_count, results.outcome) == (results.fetched, 0, outcome)
    assert results.deleted == (missing if outcome == "clean" else 0)
    assert len(shop.rows()) == FETCHED - results.deleted
    assert shop.sync(items, "hard").created == results.deleted, "the next good fetch brings them back"


def test_items_of_changing_shape_fail_one_by_one_and_count_as_seen(shop: Shop, deletes: str) -> None:
    found: list[Any] = items()
    found[10] = {"sku": found[10]["sku"]}
    found[20] = {**found[20], "stock": {"on hand": 5}}
    found[30] = {**found[30], "stock": "plenty"}
    found[40] = {**found[40], "stock": 2, "more": [1, {"deep": None}]}
    found[50] = {**found[50], "stock": None}

    results = shop.sync(lambda: iter(pages(found)), deletes)

    assert [error.position for error in results.errors] == [10, 20, 30]
    assert [error.external_id for error in results.errors] == ["A0010", "A0020", "A0030"]
    assert all(error.message for error in results.errors)
    assert (results.updated, results.deleted, results.outcome) == (2, 0, "partial")
    assert len(shop.rows()) == FETCHED


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        5,
        "text",
        b"\x00\xff",
        [],
        [1],
        {},
        {"SKU": "A"},
        {"sku": None},
        {"sku": math.nan},
        {"sku": ["A"]},
        object(),
    ],
    ids=lambda garbage: repr(garbage).partition(" at 0x")[0],
)
def test_garbage_among_the_items_fails_alone_and_withholds_deletes(shop: Shop, garbage: Any) -> None:
    """What has no id that can be read may be any of the records that seem to be missing."""
    found: list[Any] = [*items(0, 900), garbage]

    results = shop.sync(lambda: iter(pages(found)), "hard")

    [error] = results.errors
    assert (error.position, error.external_id) == (900, None)
    assert (results.unchanged, results.deleted) == (900, 0)
    assert results.notes == ("no deletes: 1 items had no readable external id and may be any of the missing records",)
    assert len(shop.rows()) == FETCHED


@pytest.mark.parametrize("garbage", [None, 7, {"items": []}, "<html>Bad gateway</html>"], ids=repr)
def test_an_answer_that_is_no_list_of_items_is_refused(shop: Shop, deletes: str, garbage: Any) -> None:
    before = shop.rows()

    with pytest.raises((ConfigurationError, FetchError), match="stock: "):
        shop.sync(lambda: garbage, deletes)

    assert shop.rows() == before


def test_nothing_but_garbage_changes_nothing(shop: Shop, deletes: str) -> None:
    """An error page in the shape of a list."""
    before = shop.rows()

    results = shop.sync(lambda: iter([[{"error": "maintenance"}] * 50]), deletes)

    assert (results.fetched, results.error_count, results.deleted) == (50, 50, 0)
    assert shop.rows() == before
