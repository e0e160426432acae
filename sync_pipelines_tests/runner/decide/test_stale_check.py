"""`get_version`: an older item never overwrites a newer record, whichever way it comes and wherever the record is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.database.connections import create_database
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.runner.context.workspace import Workspace, open_workspace
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.testing import MemorySource, MemoryTarget
from sync_pipelines_tests.runner.desk import Desk

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
PLACES = ["memory", "sqlite", "postgresql", "postgresql, ledger elsewhere"]


@dataclass
class Shop:
    """A target with its ledger, and a job that writes to it."""

    settings: Settings
    workspace: Workspace
    database: sa.Engine | None
    target: Any
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def desk(self) -> Desk:
        return Desk(self.workspace)

    def job(self, items: Any = (), **fields: Any) -> SyncJob[Any, Any]:
        given = {"name": "stock", "fetch_external": MemorySource(items), "get_external_id": "sku"}
        return SyncJob(**{**given, "target": self.target, "get_version": "version", **self.fields, **fields})

    def drain(self, *items: Any, **fields: Any) -> list[str | None]:
        """Delivers items, one delivery each, and gives what became of them."""
        given = self.desk.upsert(*items)
        self.desk.drain(self.job(**fields))
        return self.desk.actions(*given)

    def delete(self, *skus: str, **fields: Any) -> list[str | None]:
        given = self.desk.delete(*skus)
        self.desk.drain(self.job(**fields))
        return self.desk.actions(*given)

    def sync(self, *items: Any, **fields: Any) -> SyncResults:
        results = run_sync(self.job(items, **fields), settings=self.settings)
        assert results.accounts_balance
        return results

    def stock(self) -> dict[str, Any]:
        """What is there: id -> stock."""
        if self.database is None:
            return {sku: each["stock"] for sku, each in self.target.records.items()}
        with self.database.begin() as connection:
            return {str(row[0]): row[1] for row in connection.execute(sa.text("SELECT sku, stock FROM variants"))}

    def execute(self, statement: str) -> None:
        assert self.database is not None
        with self.database.begin() as connection:
            connection.execute(sa.text(statement))


@pytest.fixture
def open_shop(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Shop]]:
    opened: list[Any] = []

    def open_one(place: str, kinds: str = "sku TEXT PRIMARY KEY, stock INTEGER", **columns: Any) -> Shop:
        database = url = None
        if place == "memory":
            target: Any = MemoryTarget(columns=["sku", "stock"])
        else:
            url = request.getfixturevalue("sqlite_url" if place == "sqlite" else "postgres_url")
            database = create_database(url)
            opened.append(database.dispose)
            target = SqlTable(table="variants", key="sku", columns=columns or ["stock"], database=url)
        ledger = url if place == "postgresql" else None
        settings = Settings(data_dir=tmp_path / "data", database_url=None, ledger_url=ledger)
        workspace = open_workspace(settings)
        shop = Shop(settings, workspace.__enter__(), database, target)
        opened.append(lambda: workspace.__exit__(None, None, None))
        if database is not None:
            shop.execute(f"CREATE TABLE variants ({kinds})")
        return shop

    yield open_one
    for close in reversed(opened):
        close()


Open = Callable[..., Shop]


@pytest.fixture(params=PLACES[:3])
def shop(request: pytest.FixtureRequest, open_shop: Open) -> Shop:
    return open_shop(request.param)


def item(sku: Any, stock: Any, version: Any) -> dict[str, Any]:
    return {"sku": sku, "stock": stock, "version": version}


def test_an_older_delivery_is_skipped(shop: Shop) -> None:
    assert shop.drain(item("A", 5, 5)) == ["created"]
    assert shop.drain(item("A", 4, 4), item("B", 1, 1)) == ["skipped", "created"]
    assert shop.stock() == {"A": 5, "B": 1}


def test_a_newer_delivery_is_applied_and_counts_from_then_on(shop: Shop) -> None:
    assert [shop.drain(item("A", version, version)) for version in (1, 3, 2)] == [["created"], ["updated"], ["skipped"]]
    assert shop.stock() == {"A": 3}


def test_a_newer_version_of_the_same_content_counts_too(shop: Shop) -> None:
    shop.drain(item("A", 5, 1))
    assert shop.drain(item("A", 5, 3)) == ["unchanged"]
    assert shop.drain(item("A", 4, 2)) == ["skipped"]
    assert shop.stock() == {"A": 5}


def test_in_one_batch_the_highest_version_wins_whatever_came_first(shop: Shop) -> None:
    assert shop.drain(item("A", 2, 2), item("A", 3, 3), item("A", 1, 1)) == ["duplicate", "created", "duplicate"]
    assert shop.stock() == {"A": 3}


def test_a_full_sync_with_older_items_skips_them_and_says_so(shop: Shop) -> None:
    shop.drain(item("A", 5, 5), item("B", 5, 5))
    results = shop.sync(item("A", 4, 4), item("B", 6, 6), item("C", 1, 1))
    assert (results.skipped, results.updated, results.created, results.outcome) == (1, 1, 1, "clean")
    assert shop.stock() == {"A": 5, "B": 6, "C": 1}
    assert results.notes == ("1 items were older than their local records, and were skipped",)


def test_a_delivery_older_than_what_a_full_sync_has_applied_is_skipped(shop: Shop) -> None:
    shop.sync(item("A", 5, 5), item("B", 5, 5))
    assert shop.drain(item("A", 4, 4), item("B", 6, 6)) == ["skipped", "updated"]
    assert shop.stock() == {"A": 5, "B": 6}


def test_an_older_full_sync_does_not_take_back_what_a_newer_one_wrote(shop: Shop) -> None:
    shop.sync(item("A", 5, 5))
    assert shop.sync(item("A", 4, 4)).skipped == 1
    assert shop.sync(item("A", 5, 5)).unchanged == 1
    assert shop.stock() == {"A": 5}


def test_of_duplicates_in_a_fetch_the_highest_version_wins(shop: Shop) -> None:
    results = shop.sync(item("A", 2, 2), item("A", 3, 3), item("A", 1, 1), item("B", 1, 1), item("B", 2, 1))
    assert (results.created, results.duplicate_count) == (2, 3)
    assert shop.stock() == {"A": 3, "B": 2}  # of equal versions the last


def test_duplicates_are_told_apart_pages_away_too(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync_pipelines.runner.decide.page_diff.PAGE_SIZE", 2)
    others = [item(f"other {number}", 1, 1) for number in range(5)]
    results = shop.sync(item("A", 1, 1), *others, item("A", 3, 3), *others, item("A", 2, 2))
    assert (shop.stock()["A"], results.duplicate_count) == (3, 7)


def test_a_deleted_record_is_not_brought_back_by_an_older_item(shop: Shop) -> None:
    shop.drain(item("A", 5, 5))
    assert shop.delete("A") == ["deleted"]
    assert shop.drain(item("A", 4, 4)) == ["skipped"]
    assert shop.stock() == {}
    assert shop.drain(item("A", 6, 6)) == ["created"]


def test_nor_by_one_that_came_with_the_delete(shop: Shop) -> None:
    shop.drain(item("A", 5, 5))
    given = [*shop.desk.delete("A"), *shop.desk.upsert(item("A", 4, 4))]
    shop.desk.drain(shop.job())
    assert (shop.desk.actions(*given), shop.stock()) == (["deleted", "skipped"], {})


def test_nor_by_one_older_than_what_the_delete_made_up_for(shop: Shop) -> None:
    shop.drain(item("A", 5, 5))
    shop.desk.upsert(item("A", 7, 7))
    assert shop.delete("A") == ["deleted"]
    assert shop.drain(item("A", 6, 6)) == ["skipped"]
    assert shop.stock() == {}


def test_a_record_that_somebody_deleted_comes_back_with_the_next_full_sync(shop: Shop) -> None:
    shop.sync(item("A", 5, 5), item("B", 5, 5))
    if shop.database is None:
        del shop.target.records["A"]
    else:
        shop.execute("DELETE FROM variants WHERE sku = 'A'")
    assert shop.sync(item("A", 5, 5), item("B", 5, 5)).created == 1
    assert shop.stock() == {"A": 5, "B": 5}


def test_an_item_whose_version_is_unreadable_fails_alone_in_drains_and_full_syncs(shop: Shop) -> None:
    bad = [None, float("nan"), True, "soon", NOON.replace(tzinfo=None), "2026-01-31T12:00:00", 10**100]
    items = [item(f"bad {number}", 1, version) for number, version in enumerate(bad)]
    assert shop.drain(*items, item("A", 1, 1)) == ["waiting"] * len(bad) + ["created"]
    results = shop.sync(*items, item("B", 1, 1))
    assert (results.error_count, results.created) == (len(bad), 1)
    assert all("version" in error.message for error in results.errors)
    assert shop.stock() == {"A": 1, "B": 1}


def test_of_duplicates_one_that_can_be_read_wins_over_one_that_cannot(shop: Shop) -> None:
    results = shop.sync(item("A", 2, 2), item("A", 9, "soon"), item("B", 9, "soon"), item("B", 1, 1))
    assert (shop.stock(), results.duplicate_count) == ({"A": 2, "B": 1}, 2)


def test_forms_of_versions_may_change_as_long_as_they_mean_the_same(shop: Shop) -> None:
    assert shop.drain(item("A", 1, NOON)) == ["created"]
    assert shop.drain(item("A", 2, (NOON - timedelta(seconds=1)).isoformat())) == ["skipped"]
    assert shop.drain(item("A", 3, "2026-01-31T13:00:01+01:00")) == ["updated"]
    assert shop.drain(item("B", 1, 10), item("C", 1, 10)) == ["created"] * 2
    assert shop.drain(item("B", 2, "9.5"), item("C", 2, 10.5)) == ["skipped", "updated"]


def test_a_job_that_takes_to_another_kind_of_version_starts_anew(shop: Shop) -> None:
    shop.drain(item("A", 1, 10**9))
    assert shop.drain(item("A", 2, NOON)) == ["updated"]
    assert shop.drain(item("A", 3, NOON - timedelta(days=1))) == ["skipped"]


def test_a_function_gives_the_version_too_also_an_async_one(shop: Shop) -> None:
    async def get_version(each: Any) -> Any:
        return each["at"]["rev"]

    def at(stock: int, rev: int) -> dict[str, Any]:
        return {"sku": "A", "stock": stock, "at": {"rev": rev}}

    assert shop.drain(at(5, 5), get_version=get_version) == ["created"]
    assert shop.drain(at(4, 4), get_version=get_version) == ["skipped"]
    assert shop.sync(at(3, 3), get_version=get_version).skipped == 1


@pytest.mark.parametrize("good_calls", [0, 1, 2, 3])
def test_a_get_version_that_fails_now_and_then_fails_its_item_alone(open_shop: Open, good_calls: int) -> None:
    shop = open_shop("memory")
    asked = 0

    def get_version(each: Any) -> Any:
        nonlocal asked
        asked += each["sku"] == "A"
        if each["sku"] == "A" and asked > good_calls:
            raise ConnectionError("no clock")
        return each["version"]

    [flaky, good] = shop.drain(item("A", 1, 1), item("B", 1, 1), get_version=get_version)
    assert flaky in {"created", "waiting"}
    assert good == "created"
    assert shop.desk.workspace.inbox.count("stock") == (flaky == "waiting")


def test_without_versions_the_later_delivery_wins(shop: Shop) -> None:
    shop.drain(item("A", 5, 5), get_version=None)
    assert shop.drain(item("A", 4, 4), get_version=None) == ["updated"]


@pytest.mark.parametrize("place", PLACES[1:])
class TestRecordsThatHoldTheirVersion:
    """The target has a column for it, which others may write as well."""

    KINDS = "sku TEXT PRIMARY KEY, stock INTEGER, version INTEGER"
    COLUMNS: dict[str, Any] = {"stock": "stock", "version": "version"}  # noqa: RUF012

    def test_an_older_item_does_not_overwrite_what_somebody_else_wrote(self, open_shop: Open, place: str) -> None:
        shop = open_shop(place, self.KINDS, **self.COLUMNS)
        shop.execute("INSERT INTO variants VALUES ('A', 5, 5)")
        assert shop.drain(item("A", 4, 4)) == ["skipped"]
        assert shop.sync(item("A", 4, 4)).skipped == 1
        assert shop.drain(item("A", 6, 6)) == ["updated"]

    def test_an_older_item_does_not_bring_back_a_record_that_only_the_table_knew(
        self, open_shop: Open, place: str
    ) -> None:
        shop = open_shop(place, self.KINDS, **self.COLUMNS)
        shop.execute("INSERT INTO variants VALUES ('A', 5, 5)")
        assert shop.delete("A") == ["deleted"]
        assert shop.drain(item("A", 4, 4)) == ["skipped"]

    def test_a_column_without_a_value_or_with_nonsense_says_nothing(self, open_shop: Open, place: str) -> None:
        shop = open_shop(place, "sku TEXT PRIMARY KEY, stock INTEGER, version TEXT", **self.COLUMNS)
        shop.execute("INSERT INTO variants VALUES ('A', 5, NULL), ('B', 5, 'soon'), ('C', 5, '0001-01-01T00:00+12:00')")
        given = [item(sku, 1, "1") for sku in "ABC"]
        assert shop.drain(*given) == ["updated"] * 3

    def test_a_column_that_keeps_whole_seconds_does_not_make_newer_items_old(self, open_shop: Open, place: str) -> None:
        """It rounds up what it is given; the item after it is newer all the same."""
        whole = "TIMESTAMP" if place == "sqlite" else "TIMESTAMPTZ(0)"
        shop = open_shop(place, f"sku TEXT PRIMARY KEY, stock INTEGER, version {whole}", **self.COLUMNS)
        first, second = NOON + timedelta(milliseconds=700), NOON + timedelta(milliseconds=900)
        assert shop.drain(item("A", 1, first)) == ["created"]
        assert shop.drain(item("A", 1, first)) == ["unchanged"]
        assert shop.drain(item("A", 2, second)) == ["updated"]
        assert shop.stock() == {"A": 2}


@pytest.mark.parametrize("place", PLACES[1:])
def test_ids_that_the_key_makes_equal_have_one_version(open_shop: Open, place: str) -> None:
    shop = open_shop(place, "sku INTEGER PRIMARY KEY, stock INTEGER")
    assert shop.drain(item("007", 5, 5)) == ["created"]
    assert shop.drain(item(7, 4, 4)) == ["skipped"]
    assert shop.sync(item("07", 6, 6), item(7, 3, 3), item("0007", 4, 4)).duplicate_count == 2
    assert shop.stock() == {"7": 6}


def test_a_get_version_that_is_none_of_the_allowed_things_is_refused(open_shop: Open) -> None:
    shop = open_shop("memory")
    for given in (7, "", True, ["version"]):
        with pytest.raises(ConfigurationError, match="get_version"):
            shop.job(get_version=given)


def test_a_field_that_items_lack_fails_each_item_by_name(open_shop: Open) -> None:
    shop = open_shop("memory")
    results = shop.sync(item("A", 1, 1), get_version="rev")
    assert results.error_count == 1
    assert "'rev'" in results.errors[0].message
