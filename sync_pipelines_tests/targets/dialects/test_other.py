"""A database that nobody has tried: the page path, types by SQLAlchemy's own reflection, and a note in the run log.

SQLite under another name stands in for it: SQLAlchemy's dialect is told nothing that is ours.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from sync_pipelines import SqlTable, SyncJob, run_sync
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.settings.model import Settings
from sync_pipelines.testing import MemorySource

THINGS = sa.Table(
    "things",
    sa.MetaData(),
    sa.Column("sku", sa.String(20), primary_key=True),
    sa.Column("n", sa.Integer, sa.CheckConstraint("n >= 0")),
    sa.Column("price", sa.Float),
    sa.Column("active", sa.Boolean),
    sa.Column("day", sa.Date),
    sa.Column("moment", sa.DateTime),
    sa.Column("extra", sa.JSON),
    sa.Column("guid", sa.Uuid),
    sa.Column("raw", sa.LargeBinary),
)


class OtherDialect(SQLiteDialect_pysqlite):
    name = "other"
    supports_statement_cache = True


@pytest.fixture
def other(tmp_path: Path) -> Iterator[sa.Engine]:
    sa.dialects.registry.register("other", __name__, "OtherDialect")
    sa.dialects.registry.impls["other"] = lambda: OtherDialect
    engine = sa.create_engine(f"other:///{tmp_path / 'other.sqlite'}")
    yield engine
    engine.dispose()


def item(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "sku": f"S{number:05}",
        "n": str(number),
        "price": "1.25",
        "active": "true",
        "day": date(2024, 1, 1),
        "moment": datetime(2024, 1, 1, 12, tzinfo=UTC),
        "extra": {"a": [1, True, None]},
        "guid": str(uuid.UUID(int=number)),
        "raw": b"\0\xff",
        **fields,
    }


def synced(database: sa.Engine, folder: Path, items: list[dict[str, Any]], **fields: Any) -> SyncResults:
    given: dict[str, Any] = {"table": "things", "key": "sku", "database": database}
    deletes = fields.pop("deletes", "off")
    job: SyncJob[Any, Any] = SyncJob(
        name="other",
        fetch_external=MemorySource(items),
        target=SqlTable(**given | fields),
        deletes=deletes,
        guards=None,
    )
    results = run_sync(job, settings=Settings(data_dir=folder))
    assert results.accounts_balance, results.summary()
    return results


def test_a_second_run_changes_nothing_and_a_bad_row_stops_no_other(other: sa.Engine, tmp_path: Path) -> None:
    THINGS.create(other)
    items = [item(number) for number in range(2100)]
    items[1000]["n"] = -1
    first = synced(other, tmp_path, items)
    assert (first.created, [error.external_id for error in first.errors]) == (2099, ["S01000"])
    assert "CHECK" in first.errors[0].message
    again = synced(other, tmp_path, items)
    assert (again.created, again.updated, again.unchanged, again.error_count) == (0, 0, 2099, 1)
    items[5]["active"] = False
    changed = synced(other, tmp_path, items[:-10], deletes="hard")
    assert (changed.updated, changed.deleted) == (1, 10)


def test_the_run_log_says_that_the_database_has_not_been_tried(
    other: sa.Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    THINGS.create(other)
    with caplog.at_level(logging.WARNING, logger="sync_pipelines"):
        synced(other, tmp_path, [item(1)])
    assert "SqlTable has not been tried on other" in caplog.text


def test_a_key_of_several_columns_is_compared_column_by_column(other: sa.Engine, tmp_path: Path) -> None:
    with other.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE stock (sku VARCHAR(9), place INT, n INT, PRIMARY KEY (sku, place))")
    items = [{"sku": f"S{number % 3}", "place": number, "n": 1} for number in range(6000)]
    fields: dict[str, Any] = {"table": "stock", "key": ["sku", "place"]}
    assert synced(other, tmp_path, items, **fields).created == 6000
    results = synced(other, tmp_path, items[5:], **fields, deletes="hard")
    assert (results.unchanged, results.deleted) == (5995, 5)


def test_a_key_that_finds_different_texts_equal_is_refused(other: sa.Engine, tmp_path: Path) -> None:
    with other.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE things (sku VARCHAR(9) COLLATE NOCASE PRIMARY KEY, n INT)")
    with pytest.raises(ConfigurationError, match="key column 'sku' of 'things' finds the texts 'a' and 'A' equal"):
        synced(other, tmp_path, [{"sku": "A", "n": 1}])


def test_a_unique_index_is_a_key_unless_it_is_partial(other: sa.Engine, tmp_path: Path) -> None:
    with other.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE things (id INTEGER PRIMARY KEY, sku VARCHAR(9), ean INT, n INT)")
        connection.exec_driver_sql("CREATE UNIQUE INDEX whole ON things (sku)")
        connection.exec_driver_sql("CREATE UNIQUE INDEX part ON things (ean) WHERE n > 0")
    assert synced(other, tmp_path, [{"sku": "A", "ean": 1, "n": 1}]).created == 1
    with pytest.raises(ConfigurationError, match=r"key \(ean\).*is not unique"):
        synced(other, tmp_path, [{"sku": "A", "ean": 1, "n": 1}], key="ean")


def test_a_dialect_that_cannot_describe_a_table_is_refused_in_words(
    other: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    THINGS.create(other)

    def fails(*_args: Any, **_options: Any) -> Any:
        raise NotImplementedError("no such thing here")

    monkeypatch.setattr(OtherDialect, "get_columns", fails)
    with pytest.raises(ConfigurationError, match=r"'things' can't be read.*no such thing here.*find_local"):
        synced(other, tmp_path, [item(1)])
