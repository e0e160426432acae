"""Two spellings of an id are one record everywhere or nowhere: in whole runs, single items, and where ids are typed."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.external_ids import checked_external_id
from sync_pipelines.errors import ConfigurationError, ItemError
from sync_pipelines.runner.calls.id_spellings import spellings_of
from sync_pipelines.runner.calls.target_driver import open_target
from sync_pipelines.runner.changes.single_item import sync_single_item
from sync_pipelines.runner.fetch.wanted import WantedIds
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.runner.runs import comparing_run
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable

HEX = "0F8FAD5B-D9CB-469F-A165-70867728950E"
WRITTEN: list[Any] = [
    *("7", " 7", "7 ", "+7", "07", "7.0", "7.00", "7.000", "7e0", "\u0667", "\uff17", "\u00a07", "7.5", "7.50", "0"),
    *("-0", True, 7, 7.0, Decimal("7.00"), Decimal("7.50"), 7.5, -0.0, 10**20, 1e20, "1e20", 1000.0, Decimal("1E+3")),
    *(Decimal("1E-7"), 1e-7, "1e-7", Decimal("NaN"), "NaN", None, "", "  ", "x", "X", " x", "1_000", "1000"),
    *(HEX, HEX.lower(), f"{{{HEX}}}", f"urn:uuid:{HEX}", HEX.replace("-", ""), UUID(HEX), UUID(HEX).bytes, b"7"),
    *("2024-01-02", date(2024, 1, 2), datetime(2024, 1, 2, tzinfo=UTC), "2024-01-02T00:00:00Z"),
    "2024-01-02 00:00:00+00:00",
]  # fmt: skip
ITEMS = [{"id": value, "n": number} for number, value in enumerate(WRITTEN)]
KINDS = ["INTEGER", "TEXT", "VARCHAR(60)", "NUMERIC(30, 2)", "UUID", "TIMESTAMP"]


class Ids:
    """A table with a key of some type, and what its key makes of each id.

    Args:
        kind: The key's type.
    """

    def __init__(self, database: sa.Engine, settings: Settings, kind: str) -> None:
        self.settings = settings
        self._database, self._kind = database, kind
        self._made = 0

    def job(self, items: Any = ITEMS) -> SyncJob[Any, Any]:
        target = SqlTable(table=f"things_{self._made}", key="id", columns=["id", "n"], database=self._database)
        return SyncJob(
            name="things",
            fetch_external=lambda: items,
            get_external_id="id",
            target=target,
            guards=None,
            deletes="hard",
        )

    def begin(self) -> None:
        self._made += 1
        with self._database.begin() as connection:
            connection.execute(sa.text(f"CREATE TABLE things_{self._made} (id {self._kind} PRIMARY KEY, n INTEGER)"))

    def records(self) -> dict[str, list[int]]:
        """By canonical id the places of all that mean it."""
        found: dict[str, list[int]] = {}
        with open_target(self.job()) as driver:
            for place, value in enumerate(WRITTEN):
                with suppress(ItemError):
                    found.setdefault(driver.canonical_id(checked_external_id(value)), []).append(place)
        return found

    def listed(self) -> set[str]:
        with open_target(self.job()) as driver:
            return set(driver.list_ids())


@pytest.fixture(params=KINDS)
def ids(request: pytest.FixtureRequest, database: sa.Engine, tmp_path: Path) -> Ids:
    if request.param == "UUID" and database.dialect.name == "sqlite":
        pytest.skip("SQLite has no such type")
    made = Ids(database, Settings(data_dir=tmp_path / "data", database_url=None, ledger_url=None), request.param)
    made.begin()
    return made


@pytest.mark.each_database
@pytest.mark.parametrize("from_items", [0, 10**9], ids=["in bulk", "page by page"])
def test_a_whole_run_has_one_record_for_all_spellings_and_the_second_changes_nothing(
    ids: Ids, from_items: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing_run, "FROM_ITEMS", from_items)
    records = ids.records()
    meant = sum(map(len, records.values()))
    assert records, "some of them are ids"
    for outcome in ("created", "unchanged"):
        results = run_sync(ids.job(), settings=ids.settings)
        counts = results.counts()
        told = [error.message for error in results.errors]
        assert (counts[outcome], counts["duplicate"]) == (len(records), meant - len(records)), told
        assert counts["failed"] == len(ITEMS) - meant
        assert ids.listed() == records.keys()


def test_each_spelling_alone_makes_the_record_that_all_others_mean(ids: Ids) -> None:
    for canonical, places in ids.records().items():
        for place in places:
            ids.begin()
            alone = ids.job(ITEMS[place : place + 1])
            assert sync_single_item(alone, ITEMS[place], settings=ids.settings).action == "created"
            assert ids.listed() == {canonical}
            for other in {place, places[0], places[-1]}:
                result = sync_single_item(alone, {"id": WRITTEN[other], "n": place}, settings=ids.settings)
                assert result == type(result)("unchanged", canonical)


def test_whoever_types_an_id_means_the_same_records(ids: Ids) -> None:
    records = ids.records()
    job = ids.job()
    texts: list[str | None] = [None] * len(WRITTEN)
    for place, value in enumerate(WRITTEN):
        with suppress(ItemError):
            texts[place] = checked_external_id(value)
    with open_target(job) as driver:
        for canonical, places in records.items():
            for place in places:
                assert WantedIds([texts[place] or ""], driver).places(texts) == places
                assert canonical in spellings_of(job, WRITTEN[place], "things")


@pytest.mark.parametrize("value", [True, None, b"7", float("nan"), "", "\ud800"])
def test_what_is_no_id_is_none_for_whoever_types_it(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="is no id; give text or numbers"):
        spellings_of(None, value, "things")
