"""The data version of a target is a new one after whatever may have changed it, and stays after what did not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from sync_pipelines.database.data_versions import DataVersions, Writing
from sync_pipelines.database.ledger import open_ledger
from sync_pipelines_tests.database.migrating import migrate_to

AT = datetime(2026, 11, 30, 11, 20, 46, tzinfo=UTC)
FIRST, SECOND = (Writing("stock", f"{number:08}-run") for number in (1, 2))


@pytest.fixture
def versions(database_url: str) -> Iterator[DataVersions]:
    with open_ledger(database_url) as ledger:
        yield DataVersions(ledger)


def write(versions: DataVersions, writing: Writing, written: int) -> str | None:
    versions.begin(writing, AT)
    versions.settle(writing, written, AT)
    return versions.current(writing.job)


def test_nothing_was_ever_about_to_be_written(versions: DataVersions) -> None:
    versions.settle(FIRST, 0, AT)
    assert versions.current("stock") is None


def test_it_says_which_change_when_and_by_whom(versions: DataVersions) -> None:
    assert write(versions, FIRST, 5) == "1: 2026-11-30 11:20:46 UTC, run 00000001"
    single = Writing("stock", "3", is_single=True)
    assert write(versions, single, 1) == "2: 2026-11-30 11:20:46 UTC, single item"


def test_it_stays_after_what_wrote_nothing_and_is_new_after_what_did(versions: DataVersions) -> None:
    first = write(versions, FIRST, 5)
    assert write(versions, SECOND, 0) == first
    assert write(versions, SECOND, 1) != first


def test_each_sync_has_its_own(versions: DataVersions) -> None:
    first = write(versions, FIRST, 5)
    write(versions, Writing("prices", "p"), 5)
    assert versions.current("stock") == first


def test_to_say_it_twice_is_one_change(versions: DataVersions) -> None:
    first = write(versions, FIRST, 5)
    versions.settle(FIRST, 5, AT)
    assert versions.current("stock") == first


def test_what_a_run_writes_that_goes_on_is_another_change(versions: DataVersions) -> None:
    first = write(versions, FIRST, 5)
    assert write(versions, FIRST, 7) != first


def test_who_dies_while_writing_counts_as_a_change(versions: DataVersions) -> None:
    first = write(versions, FIRST, 5)
    versions.begin(SECOND, AT)
    assert write(versions, Writing("stock", "third"), 0) != first


def test_a_death_counts_once(versions: DataVersions) -> None:
    versions.begin(FIRST, AT)
    after = write(versions, SECOND, 0)
    assert write(versions, SECOND, 0) == after


def test_who_broke_off_may_have_written_more_than_it_says(versions: DataVersions) -> None:
    first = write(versions, FIRST, 5)
    versions.begin(SECOND, AT)
    versions.settle(SECOND, 0, AT, is_certain=False)
    assert versions.current("stock") == first
    assert write(versions, FIRST, 0) != first


def test_an_item_that_is_applied_meanwhile_does_not_hide_another_one(versions: DataVersions) -> None:
    one, other = (Writing("stock", each, is_single=True) for each in ("one", "other"))
    versions.begin(one, AT)
    versions.begin(other, AT)
    versions.settle(one, 1, AT)
    before = versions.current("stock")
    assert write(versions, FIRST, 0) != before  # the other one never came back


def test_an_item_during_a_run_does_not_hide_that_the_run_dies(versions: DataVersions) -> None:
    item = Writing("stock", "item", is_single=True)
    versions.begin(FIRST, AT)
    after = write(versions, item, 1)
    assert write(versions, item, 0) == after  # the run is not counted while it may be alive
    assert write(versions, SECOND, 0) != after


def test_a_run_does_not_hide_that_an_item_goes_on_during_it_and_dies(versions: DataVersions) -> None:
    versions.begin(Writing("stock", "item", is_single=True), AT)
    during = write(versions, FIRST, 0)
    assert write(versions, SECOND, 0) == during  # each run would be a change otherwise
    versions.begin(SECOND, AT + timedelta(hours=2))
    assert versions.current("stock") != during
    versions.settle(SECOND, 0, AT)
    later = versions.current("stock")
    assert write(versions, FIRST, 0) == later


def test_of_two_items_at_once_each_is_counted(versions: DataVersions) -> None:
    one, other = (Writing("stock", each, is_single=True) for each in ("one", "other"))
    versions.begin(one, AT)
    versions.begin(other, AT)
    for each in (one, other):
        before = versions.current("stock")
        versions.settle(each, 1, AT)
        assert versions.current("stock") != before
    after = versions.current("stock")
    assert write(versions, FIRST, 0) == after


def test_an_item_that_died_is_counted_by_another_one_an_hour_later(versions: DataVersions) -> None:
    one, other = (Writing("stock", each, is_single=True) for each in ("one", "other"))
    versions.begin(one, AT)
    before = versions.current("stock")
    versions.begin(other, AT + timedelta(minutes=61))
    assert versions.current("stock") != before


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_older_ledger_goes_on(database_url: str) -> None:
    database = sa.create_engine(database_url)
    with database.begin() as connection:
        migrate_to(connection, "0013")
    database.dispose()
    with open_ledger(database_url) as ledger:
        assert write(DataVersions(ledger), FIRST, 1) == "1: 2026-11-30 11:20:46 UTC, run 00000001"
