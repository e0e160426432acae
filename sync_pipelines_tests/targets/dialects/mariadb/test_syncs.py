"""Whole syncs into MariaDB: the contract of targets, bad rows among good ones, deletes, a crash half-way."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines import SoftDelete, SqlTable, SyncJob, run_sync
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.settings.model import Settings
from sync_pipelines.testing import MemorySource, TargetContract
from sync_pipelines_tests.children import exit_code, fork
from sync_pipelines_tests.runner.crash_child import page_by_page
from sync_pipelines_tests.runner.fetch.test_memory import peak_of_run
from sync_pipelines_tests.targets.dialects.mariadb import crash_child
from sync_pipelines_tests.targets.dialects.mariadb.tables import make

REPOSITORY = Path(__file__).parents[4]


def rows(database: sa.Engine, query: str) -> list[tuple[Any, ...]]:
    with database.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def synced(database: sa.Engine, folder: Path, items: list[dict[str, Any]], **fields: Any) -> SyncResults:
    given: dict[str, Any] = {"table": "variants", "key": "sku", "database": database}
    options: dict[str, Any] = {"guards": None}  # they have tests of their own
    options |= {name: fields.pop(name) for name in ("deletes", "guards") if name in fields}
    target = SqlTable(**given | fields)
    job: SyncJob[Any, Any] = SyncJob(name="shop", fetch_external=MemorySource(items), target=target, **options)
    results = run_sync(job, settings=Settings(data_dir=folder))
    assert results.accounts_balance, results.summary()
    return results


class TestContractOnMariadb(TargetContract):
    @pytest.fixture(autouse=True)
    def _given(self, mariadb: sa.Engine) -> None:
        self.database = mariadb
        make(
            mariadb,
            "CREATE TABLE variants (sku VARCHAR(500) COLLATE utf8mb4_nopad_bin PRIMARY KEY CHECK (sku <> 'REFUSED'), "
            "name TEXT, quantity INT, price DECIMAL(14, 2), active BOOLEAN, changed_at TIMESTAMP(6) NULL, "
            "state VARCHAR(9) NOT NULL DEFAULT 'draft')",
        )

    def declared(self, **fields: Any) -> Mapping[str, Any]:
        columns = ["sku", "name", "quantity", "price", "active", "changed_at"]
        return {"target": SqlTable(table="variants", key="sku", columns=columns, database=self.database, **fields)}

    def marking(self) -> Mapping[str, Any]:
        return self.declared(soft_delete=SoftDelete("state", deleted="archived", live="active"))

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        with SqlTable(table="variants", key="sku", database=self.database).open(str) as target:
            return target.find_many(list(target.list_local()))


def test_each_bad_row_has_the_databases_own_message_and_all_good_ones_land(mariadb: sa.Engine, tmp_path: Path) -> None:
    make(
        mariadb,
        "CREATE TABLE groups_ (id INT PRIMARY KEY)",
        "INSERT INTO groups_ VALUES (1)",
        "CREATE TABLE variants (sku VARCHAR(9) PRIMARY KEY, stock TINYINT CHECK (stock >= 0), ean CHAR(4) UNIQUE, "
        "note VARCHAR(5) CHARACTER SET utf8mb3, group_id INT NOT NULL, "
        "CONSTRAINT known FOREIGN KEY (group_id) REFERENCES groups_ (id))",
        "CREATE TRIGGER no_sevens BEFORE INSERT ON variants FOR EACH ROW BEGIN "
        "IF NEW.stock = 77 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'sevens are sold out'; END IF; END",
    )
    good: dict[str, Any] = {"stock": 1, "note": None, "ean": None, "group_id": 1}
    items = [{"sku": f"s{number:04}", **good} for number in range(1200)]
    bad: dict[int, tuple[dict[str, Any], str]] = {
        7: ({"stock": -1}, "CONSTRAINT `variants.stock` failed"),
        100: ({"stock": 1000}, "Out of range value for column 'stock'"),
        101: ({"note": "too long"}, "Data too long for column 'note'"),
        500: ({"note": "\U0001f600"}, "Incorrect string value"),
        700: ({"group_id": 2}, "foreign key constraint fails"),
        701: ({"group_id": None}, "Column 'group_id' cannot be null"),
        900: ({"ean": "1234"}, ""),
        1100: ({"ean": "1234"}, "Duplicate entry '1234' for key 'ean'"),
        1101: ({"stock": 77}, "sevens are sold out"),
        1102: ({"stock": "many"}, "it is not a number"),
    }
    for place, (fields, _) in bad.items():
        items[place] |= fields

    results = synced(mariadb, tmp_path, items)

    told = {error.external_id: error.message for error in results.errors}
    wanted = {items[place]["sku"]: message for place, (_, message) in bad.items() if message}
    assert told.keys() == wanted.keys()
    assert [sku for sku, message in wanted.items() if message not in told[sku]] == []
    assert (results.created, results.error_count) == (1191, 9)
    again = synced(mariadb, tmp_path, items)
    assert (again.created, again.updated, again.unchanged, again.error_count) == (0, 0, 1191, 9)


def test_what_the_fetch_lacks_is_deleted_and_a_row_that_may_not_go_fails_alone(
    mariadb: sa.Engine, tmp_path: Path
) -> None:
    make(
        mariadb,
        "CREATE TABLE variants (sku VARCHAR(9) PRIMARY KEY, stock INT)",
        "CREATE TABLE orders (sku VARCHAR(9), CONSTRAINT sold FOREIGN KEY (sku) REFERENCES variants (sku))",
    )
    items = [{"sku": f"S{number:04}", "stock": 1} for number in range(2500)]
    synced(mariadb, tmp_path, items)
    make(mariadb, "INSERT INTO orders VALUES ('S0003')")

    results = synced(mariadb, tmp_path, items[5:], deletes="hard")

    assert (results.unchanged, results.deleted) == (2495, 4)
    assert ["foreign key constraint fails" in error.message for error in results.errors] == [True]
    assert rows(mariadb, "SELECT count(*), min(sku) FROM variants") == [(2496, "S0003")]


def test_a_table_of_another_database_of_the_server_is_written(mariadb: sa.Engine, tmp_path: Path) -> None:
    make(mariadb, "CREATE TABLE `Order` (sku VARCHAR(9) PRIMARY KEY, `from` INT, `per cent %%` INT)")
    name = mariadb.url.database
    server = sa.create_engine(mariadb.url.set(database="information_schema"))
    items = [{"sku": "a", "from": 1, "per cent %": 5}, {"sku": "b", "from": 2, "per cent %": 6}]
    for unchanged in (0, 2):
        results = synced(server, tmp_path, items, table=f"{name}.Order")
        assert (results.created, results.unchanged) == (2 - unchanged, unchanged)
    items[0]["per cent %"] = 7
    assert synced(server, tmp_path, items, table=f"{name}.Order").updated == 1
    server.dispose()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_that_is_killed_half_way_is_made_good_by_the_next(mariadb: sa.Engine, tmp_path: Path, when: str) -> None:
    url = mariadb.url.render_as_string(hide_password=False)
    make(
        mariadb,
        "CREATE TABLE variants (sku VARCHAR(9) PRIMARY KEY, stock INT)",
        "CREATE TABLE written (sku VARCHAR(9))",
        "INSERT INTO variants VALUES ('A000', 99), ('A001', 1), ('gone', 1)",
        "CREATE TRIGGER note_insert AFTER INSERT ON variants FOR EACH ROW INSERT INTO written VALUES (NEW.sku)",
        "CREATE TRIGGER note_update AFTER UPDATE ON variants FOR EACH ROW INSERT INTO written VALUES (NEW.sku)",
    )
    assert exit_code(fork(crash_child.main, url, tmp_path, 4, when)) == -signal.SIGKILL
    [(half,)] = rows(mariadb, "SELECT count(*) FROM written")
    assert 0 < half < 94

    with page_by_page():
        results = run_sync(crash_child.crashing_job(url), settings=Settings(data_dir=tmp_path))

    assert (results.outcome, results.unchanged, results.deleted) == ("clean", half + 1, 1)
    assert dict(rows(mariadb, "SELECT sku, stock FROM variants")) == {
        each["sku"]: each["stock"] for each in crash_child.ITEMS
    }
    assert rows(mariadb, "SELECT count(*), count(DISTINCT sku) FROM written") == [(94, 94)]


def test_any_number_of_items_goes_page_by_page_without_a_note(
    mariadb: sa.Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(mariadb, "CREATE TABLE variants (sku VARCHAR(9) PRIMARY KEY, stock INT)")
    items = [{"sku": f"S{number}", "stock": number} for number in range(3000)]
    with caplog.at_level(logging.INFO, logger="sync_pipelines"):
        assert synced(mariadb, tmp_path, items).created == 3000
    assert "tried" not in caplog.text


@pytest.mark.soak
def test_many_items_take_no_more_memory_than_few(
    mariadb: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run creates, updates and deletes, a whole chunk of each at least."""
    monkeypatch.setattr("sync_pipelines.snapshots.snapshot.SNAPSHOT_PAGE", 1_000)
    make(mariadb, "CREATE TABLE variants (sku VARCHAR(9) PRIMARY KEY, name TEXT, stock INT)")

    def peak(items: int, first: int) -> int:
        def pages() -> Iterator[list[dict[str, Any]]]:
            for start in range(first, first + items, 500):
                numbers = range(start, start + 500)
                yield [{"sku": f"A{number:07}", "name": "x" * 40, "stock": items} for number in numbers]

        target = SqlTable(table="variants", key="sku", database=mariadb)
        job: SyncJob[Any, Any] = SyncJob(name="large", fetch_external=pages, target=target, deletes="hard", guards=None)
        return peak_of_run(job, tmp_path, items)

    peak(2_000, 0)  # imports and caches
    small, large = peak(4_000, 1_000), peak(12_000, 3_000)
    # 8,000 items more would take 3 MB; the driver leaves cycles with each batch, which the collector, off here, takes
    assert large < small + 1_200_000, f"{small:,} bytes for few items, {large:,} for many"


def test_only_rows_of_exactly_that_scope_are_marked_and_restored(mariadb: sa.Engine, tmp_path: Path) -> None:
    """Though the column's collation takes texts of another case for the same."""
    make(
        mariadb,
        "CREATE TABLE variants (sku VARCHAR(9) COLLATE utf8mb4_nopad_bin PRIMARY KEY, stock INT, "
        "supplier VARCHAR(9), gone_at DATETIME NULL)",
        "INSERT INTO variants VALUES ('A', 1, 'acme', NULL), ('B', 2, 'acme', NULL), ('C', 3, 'ACME', NULL), "
        "('D', 4, NULL, NULL), ('E', 5, 'acme', '2020-01-01')",
    )
    fields: dict[str, Any] = {"columns": ["stock"], "scope": {"supplier": "acme"}, "deletes": "soft"}
    fields["soft_delete"] = SoftDelete("gone_at")
    results = synced(mariadb, tmp_path, [{"sku": "A", "stock": 1}, {"sku": "N", "stock": 1}], **fields)
    assert (results.created, results.unchanged, results.deleted) == (1, 1, 1)
    marked = "SELECT sku, supplier FROM variants WHERE gone_at IS NOT NULL ORDER BY sku"
    assert rows(mariadb, marked) == [("B", "acme"), ("E", "acme")]
    assert rows(mariadb, "SELECT supplier FROM variants WHERE sku = 'N'") == [("acme",)]
    items = [{"sku": sku, "stock": number} for number, sku in enumerate("ABCDE", 1)]
    results = synced(mariadb, tmp_path, items, **fields)
    assert (results.updated, results.unchanged, results.deleted) == (2, 3, 1)
    assert rows(mariadb, marked) == [("N", "acme")]
    assert synced(mariadb, tmp_path, items, **fields).unchanged == 5
