"""Memory does not grow with the number of items."""

from __future__ import annotations

import gc
import sqlite3
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines_tests.two_speeds import spread


def pages(items: int, *, same_id: bool) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, items, 500):
        yield [
            {"sku": "same" if same_id else f"A{number:07}", "name": "x" * 40, "stock": number}
            for number in range(start, start + 500)
        ]


def peak_bytes(folder: Path, items: int, kind: str) -> int:
    """The most memory that Python's objects took during a run of so many items."""

    def create(item: Any) -> None:
        if kind.startswith("failing"):
            raise ValueError(f"no room for {item['sku']}")

    job = SyncJob[Any, Any](
        name="large",
        fetch_external=lambda: pages(items, same_id=kind == "duplicates"),
        get_external_id="sku",
        find_local=lambda sku: None,
        create=create,
        update=lambda item, local: None,
        concurrency=8 if kind.endswith("together") else 1,
    )
    return peak_of_run(job, folder, items)


def peak_of_run(job: SyncJob[Any, Any], folder: Path, items: int) -> int:
    """Without the garbage collector, whose pace depends on what other tests have left behind."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        results = run_sync(job, settings=Settings(data_dir=folder))
        assert (results.fetched, results.accounts_balance) == (items, True)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few items fill as many pages as are ever held at once."""
    monkeypatch.setattr("sync_pipelines.snapshots.snapshot.SNAPSHOT_PAGE", 1_000)


KINDS = ["created together", "created", "duplicates", "failing", "failing together"]


@pytest.mark.parametrize("kind", spread(KINDS, 5))
def test_many_items_take_no_more_memory_than_few(tmp_path: Path, kind: str) -> None:
    peak_bytes(tmp_path, 1_000, kind)  # imports and caches
    small, large = peak_bytes(tmp_path, 4_000, kind), peak_bytes(tmp_path, 8_000, kind)
    room = 350_000  # a set of the ids takes 530 kB more
    if kind.startswith("failing"):
        room += 350_000  # queries for failures are garbage in cycles, which is not collected here
    assert large < small + room, f"{small:,} bytes for few items, {large:,} for many"


@pytest.mark.parametrize("kind", spread(["updated", "created", "duplicates"], 3))
def test_in_bulk_many_items_take_no_more_memory_than_few(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite, whose rows pass through Python. Arrow's own memory is not counted; it is that of a page or two."""
    monkeypatch.setattr("sync_pipelines.targets.staging.apply_sql.ROWS_IN_BATCH", 1_000)
    monkeypatch.setattr("sync_pipelines.targets.staging.diff_sql._ROWS_AT_ONCE", 1_000)

    def peak(items: int) -> int:
        path = tmp_path / f"{kind}-{items}.sqlite"
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE things (sku TEXT PRIMARY KEY, name TEXT, stock INTEGER)")
            if kind == "updated":
                rows = ((f"A{number:07}", "old") for number in range(items))
                connection.executemany("INSERT INTO things (sku, name) VALUES (?, ?)", rows)
        connection.close()
        job = SyncJob[Any, Any](
            name="large",
            fetch_external=lambda: pages(items, same_id=kind == "duplicates"),
            target=SqlTable(table="things", key="sku", columns=["name", "stock"], database=f"sqlite:///{path}"),
        )
        return peak_of_run(job, tmp_path, items)

    peak(1_500)  # imports and caches
    small, large = peak(4_000), peak(10_000)
    assert large < small + 500_000, f"{small:,} bytes for few items, {large:,} for many"
