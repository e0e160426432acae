"""How often a run asks its ledger: it must not take longer than the sync itself, nor keep others from theirs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.testing import MemorySource

ITEMS = 100
MOST = 20
"""Transactions of a whole run; it was 54 when nothing of the run remembered what it had asked."""
MOST_IN_THREE_PROCESSES = MOST + 2
"""The same in Dagster's three phases, each of which opens the ledger itself."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    with sqlite3.connect(tmp_path / "local.sqlite") as connection:
        connection.execute("CREATE TABLE variants (sku TEXT PRIMARY KEY, stock INTEGER)")
    return Settings(data_dir=tmp_path, database_url=None, ledger_url=None)


def job(settings: Settings, stock: int, **fields: Any) -> SyncJob[Any, Any]:
    items = [{"sku": f"A{number}", "stock": stock} for number in range(ITEMS)]
    target = SqlTable(table="variants", key="sku", columns=["stock"], database=settings.local_url())
    return SyncJob(name="stock", fetch_external=MemorySource(items), target=target, **fields)


@contextmanager
def counting(settings: Settings) -> Iterator[list[None]]:
    """Counts the transactions of the ledger."""
    begun: list[None] = []

    def begin(connection: sa.Connection) -> None:
        if str(connection.engine.url) == settings.ledger_database_url():
            begun.append(None)

    sa.event.listen(sa.Engine, "begin", begin)
    try:
        yield begun
    finally:
        sa.event.remove(sa.Engine, "begin", begin)


@pytest.mark.parametrize("deletes", ["off", "hard"], ids=["by pages", "staged"])
@pytest.mark.parametrize("stock", [1, 2], ids=["nothing changed", "everything changed"])
def test_a_run_of_a_hundred_items_asks_its_ledger_no_more_than_twenty_times(
    settings: Settings, stock: int, deletes: str
) -> None:
    run_sync(job(settings, 1, deletes=deletes), settings=settings)
    with counting(settings) as begun:
        results = run_sync(job(settings, stock, deletes=deletes), settings=settings)
    assert (results.outcome, results.unchanged + results.updated) == ("clean", ITEMS)
    assert 0 < len(begun) <= MOST


def test_the_very_first_run_does_neither(settings: Settings) -> None:
    with open_workspace(settings):
        pass
    with counting(settings) as begun:
        assert run_sync(job(settings, 1), settings=settings).created == ITEMS
    assert len(begun) <= MOST


def test_three_processes_open_it_three_times(settings: Settings) -> None:
    run_sync(job(settings, 1), settings=settings)
    with counting(settings) as begun:
        with open_workspace(settings) as workspace:
            snapshot = SyncRun(job(settings, 2), workspace, dagster_run_id="d-1").fetch()
        with open_workspace(settings) as workspace:
            plan = SyncRun(job(settings, 2), workspace, dagster_run_id="d-1").diff(snapshot)
        with open_workspace(settings) as workspace:
            results = SyncRun(job(settings, 2), workspace, dagster_run_id="d-1").apply(plan)
    assert results.updated == ITEMS
    assert len(begun) <= MOST_IN_THREE_PROCESSES


def test_transactions_do_not_grow_with_the_items(settings: Settings) -> None:
    """But for one per batch of a thousand."""
    counts = []
    for items in (1, ITEMS):
        given = job(settings, items)
        with counting(settings) as begun:
            run_sync(given, settings=settings, limit=items)
        counts.append(len(begun))
    assert counts[1] <= counts[0] + 1
