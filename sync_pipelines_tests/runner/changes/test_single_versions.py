"""Single items of a job with versions: also of several at once the newest state wins, and a deleted one stays away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.engine.changes import Delete
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.runner.changes.single_item import sync_single_item
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.open_table import OpenedSqlTable
from sync_pipelines.targets.sql_table import SqlTable

LONG_S = 30.0


def item(version: int) -> dict[str, Any]:
    return {"sku": "A", "stock": version, "version": version}


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings.model_validate({"data_dir": tmp_path / "data", "database_url": None, "ledger_url": database_url})


@pytest.fixture
def make(database: sa.Engine) -> Callable[..., SyncJob[Any, Any]]:
    with database.begin() as connection:
        connection.execute(sa.text("CREATE TABLE variants (sku TEXT PRIMARY KEY, stock INTEGER, version INTEGER)"))
        connection.execute(sa.text("INSERT INTO variants VALUES ('A', 1, 1)"))

    def job(*columns: str) -> SyncJob[Any, Any]:
        url = database.url.render_as_string(hide_password=False)
        target = SqlTable(table="variants", key="sku", columns=list(columns), database=url)
        return SyncJob(name="stock", fetch_external=list, get_external_id="sku", get_version="version", target=target)

    return job


@pytest.mark.parametrize("columns", [("stock",), ("stock", "version")], ids=["by the ledger", "by the table"])
def test_an_older_item_that_is_slower_does_not_overwrite_a_newer_one(
    make: Callable[..., SyncJob[Any, Any]],
    settings: Settings,
    database: sa.Engine,
    columns: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job, writing, go_on = make(*columns), threading.Event(), threading.Event()
    update_many = OpenedSqlTable.update_many

    def slow(self: OpenedSqlTable, pairs: Any) -> None:
        if pairs[0][0]["version"] == 2:
            writing.set()
            go_on.wait(1)  # the newer one comes meanwhile
        update_many(self, pairs)

    monkeypatch.setattr(OpenedSqlTable, "update_many", slow)

    def newer() -> None:
        sync_single_item(job, item(3), settings=settings)
        go_on.set()

    threads = [threading.Thread(target=lambda: sync_single_item(job, item(2), settings=settings))]
    threads[0].start()
    assert writing.wait(LONG_S)
    threads.append(threading.Thread(target=newer))
    threads[1].start()
    for each in threads:
        each.join(LONG_S)
    with database.begin() as connection:
        assert connection.scalar(sa.text("SELECT stock FROM variants")) == 3


def test_a_deleted_record_is_not_brought_back_by_an_older_item(
    make: Callable[..., SyncJob[Any, Any]], settings: Settings, database: sa.Engine
) -> None:
    """Only the table knew its version."""
    job = make("stock", "version")
    with database.begin() as connection:
        connection.execute(sa.text("UPDATE variants SET version = 5"))
    assert sync_single_item(job, Delete("A"), settings=settings).action == "deleted"
    assert sync_single_item(job, item(4), settings=settings).action == "skipped"
    assert sync_single_item(job, item(6), settings=settings).action == "created"
