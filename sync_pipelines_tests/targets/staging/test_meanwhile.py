"""Somebody else writes to the table while a sync is under way: nobody waits, nothing is lost, the accounts balance."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.runner.write.staged_writer import StagedWriter
from sync_pipelines.targets.staging.staged_table import StagedTable
from sync_pipelines_tests.targets.staging.conftest import Item, Syncs, counts

ITEMS: list[Item] = [{"sku": f"S{number}", "n": number} for number in range(10)]
TABLE = "CREATE TABLE things (sku VARCHAR(9) PRIMARY KEY, n INTEGER, note TEXT)"


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch, sync: Syncs) -> Any:
    """Lets somebody else execute statements after the diff and before the apply."""
    run = StagedWriter.run

    def prepare(*statements: str) -> None:
        def after_others(self: StagedWriter, *args: Any, **options: Any) -> None:
            sync.execute(*statements)
            run(self, *args, **options)

        monkeypatch.setattr(StagedWriter, "run", after_others)

    return prepare


def things(sync: Syncs) -> dict[str, int]:
    return dict(sync.rows("SELECT sku, n FROM things"))  # type: ignore[arg-type]  # rows of two


@pytest.fixture
def synced(sync: Syncs) -> Syncs:
    """A table with all items, of which each has another number than the next fetch."""
    sync.execute(TABLE)
    sync([{**item, "n": -1} for item in ITEMS], columns=["n"])
    return sync


def test_a_row_that_somebody_changed_gets_the_items_value(synced: Syncs, between: Any) -> None:
    between("UPDATE things SET n = 77 WHERE sku = 'S3'")
    assert counts(synced(ITEMS, columns=["n"])) == {"updated": 10}
    assert things(synced) == {item["sku"]: item["n"] for item in ITEMS}


def test_a_row_that_somebody_brought_up_to_date_is_unchanged(synced: Syncs, between: Any) -> None:
    """On PostgreSQL, where a row's address tells that it is another one; on SQLite it is written once more."""
    between("UPDATE things SET n = 3 WHERE sku = 'S3'")
    is_sqlite = synced.database.dialect.name == "sqlite"
    wanted = {"updated": 10} if is_sqlite else {"updated": 9, "unchanged": 1}
    assert counts(synced(ITEMS, columns=["n"])) == wanted
    assert things(synced) == {item["sku"]: item["n"] for item in ITEMS}


def test_a_row_whose_other_columns_somebody_changed_keeps_them(synced: Syncs, between: Any) -> None:
    between("UPDATE things SET note = 'theirs' WHERE sku = 'S3'")
    assert counts(synced(ITEMS, columns=["n"])) == {"updated": 10}
    assert synced.rows("SELECT n, note FROM things WHERE sku = 'S3'") == [(3, "theirs")]


@pytest.mark.parametrize("days", [0, 30])
def test_a_row_that_somebody_made_newer_than_its_item_is_left_as_it_is(
    synced: Syncs,
    between: Any,
    days: int,
) -> None:
    between("UPDATE things SET n = 77 WHERE sku = 'S3'")
    results = synced(ITEMS, columns=["n"], get_version="n", keep_history_days=days)
    assert counts(results) == {"updated": 9, "skipped": 1}
    assert things(synced) == {**{item["sku"]: item["n"] for item in ITEMS}, "S3": 77}


def test_a_row_that_somebody_deleted_is_created_again(synced: Syncs, between: Any) -> None:
    between("DELETE FROM things WHERE sku = 'S3'")
    assert counts(synced(ITEMS, columns=["n"])) == {"updated": 9, "created": 1}
    assert things(synced) == {item["sku"]: item["n"] for item in ITEMS}


def test_a_row_whose_key_somebody_changed_is_created_again_and_theirs_is_left_alone(
    synced: Syncs, between: Any
) -> None:
    between("UPDATE things SET sku = 'THEIRS' WHERE sku = 'S3'")
    assert counts(synced(ITEMS, columns=["n"])) == {"updated": 9, "created": 1}
    assert things(synced) == {**{item["sku"]: item["n"] for item in ITEMS}, "THEIRS": -1}


@pytest.mark.parametrize("is_empty", [True, False], ids=["empty before", "with rows"])
def test_a_row_that_somebody_created_meanwhile_is_updated(sync: Syncs, between: Any, is_empty: bool) -> None:  # noqa: FBT001
    sync.execute(TABLE)
    if not is_empty:
        sync(ITEMS[:2], columns=["n"])
    between("INSERT INTO things (sku, n) VALUES ('S3', 77), ('S4', 4)")
    results = sync(ITEMS, columns=["n"])
    assert results.error_count == 0
    assert (results.created, results.updated) == (8 if is_empty else 6, 1)
    assert things(sync) == {item["sku"]: item["n"] for item in ITEMS}


def test_rows_to_be_deleted_may_change_or_go(synced: Syncs, between: Any) -> None:
    """What is gone already counts as nobody's; what has changed is deleted."""
    between("DELETE FROM things WHERE sku = 'S7'", "UPDATE things SET n = 8 WHERE sku = 'S8'")
    results = synced(ITEMS[:5], columns=["n"], deletes="hard")
    assert counts(results) == {"updated": 5, "deleted": 4}
    assert set(things(synced)) == {item["sku"] for item in ITEMS[:5]}


def test_everything_may_change_at_once(synced: Syncs, between: Any) -> None:
    between(
        "DELETE FROM things WHERE sku IN ('S0', 'S9')",
        "UPDATE things SET n = n - 1",
        "UPDATE things SET sku = 'S9' WHERE sku = 'S1'",
        "INSERT INTO things (sku, n) VALUES ('NEW', 1)",
    )
    results = synced([*ITEMS[:8], {"sku": "NEW", "n": 2}], columns=["n"], deletes="hard")
    assert results.error_count == 0
    assert things(synced) == {**{item["sku"]: item["n"] for item in ITEMS[:8]}, "NEW": 2}


def test_nobody_waits_for_a_diff(postgres_sync: Syncs, other: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others write to every row, and lock the table, while a comparison is not committed yet and while items load."""
    sync = postgres_sync
    sync.execute(TABLE)
    sync([{**item, "n": -1} for item in ITEMS], columns=["n"])
    calls: list[str] = []

    def write(when: str) -> None:
        calls.append(when)
        with other.begin() as connection:
            connection.exec_driver_sql("SET lock_timeout = '200ms'")
            connection.exec_driver_sql("UPDATE things SET note = 'theirs'")
            connection.exec_driver_sql("INSERT INTO things VALUES ('X', 1); DELETE FROM things WHERE sku = 'X'")
            connection.exec_driver_sql("LOCK TABLE things IN SHARE ROW EXCLUSIVE MODE")

    def skip(item: Item) -> bool:
        if item["sku"] == "S5":
            write("loading")
        return False

    make_quarantine = StagedTable.compare

    def compare(self: StagedTable, **options: Any) -> Any:
        with self.work.begin() as connection:
            connection.execute(sa.select(self._target.reflected.table)).all()  # reads as the comparison does
            write("comparing")
        return make_quarantine(self, **options)

    monkeypatch.setattr(StagedTable, "compare", compare)
    assert counts(sync(ITEMS, columns=["n"], should_skip=skip)) == {"updated": 10}
    assert calls == ["loading", "comparing"]


def test_a_writer_in_mid_transaction_does_not_stop_a_diff(postgres_sync: Syncs, other: sa.Engine) -> None:
    """What is not committed is not there yet; only the apply would wait for a row that somebody holds."""
    sync = postgres_sync
    sync.execute(TABLE)
    sync(ITEMS, columns=["n"])
    sync.execute(f"ALTER DATABASE {sync.database.url.database} SET lock_timeout = '200ms'")
    sync.database.dispose()
    with other.begin() as connection:
        connection.exec_driver_sql("UPDATE things SET n = 99")
        assert counts(sync(ITEMS, columns=["n"])) == {"unchanged": 10}


def test_what_did_not_change_is_not_written(postgres_sync: Syncs) -> None:
    """Not even with the same values: the very same versions of the rows are there, and no trigger fires."""
    sync = postgres_sync
    sync.execute(TABLE)
    items: list[Item] = [{"sku": f"S{number}", "n": number} for number in range(1_000)]
    sync(items, columns=["n"])
    versions = dict(sync.rows("SELECT sku, xmin || '/' || ctid FROM things"))  # type: ignore[arg-type]
    changed = [{**item, "n": -1} if place % 100 == 0 else item for place, item in enumerate(items)]
    assert counts(sync(changed, columns=["n"])) == {"updated": 10, "unchanged": 990}
    after = dict(sync.rows("SELECT sku, xmin || '/' || ctid FROM things"))  # type: ignore[arg-type]
    assert {sku for sku in after if after[sku] != versions[sku]} == {
        f"S{number}00" if number else "S0" for number in range(10)
    }


def test_what_did_not_change_is_not_written_on_sqlite(sqlite_sync: Syncs) -> None:
    sync = sqlite_sync
    sync.execute(
        TABLE,
        "CREATE TABLE written (sku TEXT)",
        "CREATE TRIGGER notes AFTER UPDATE ON things BEGIN INSERT INTO written VALUES (NEW.sku); END",
    )
    sync(ITEMS, columns=["n"])
    sync([{**ITEMS[0], "n": -1}, *ITEMS[1:]], columns=["n"])
    assert sync.rows("SELECT sku FROM written") == [("S0",)]
