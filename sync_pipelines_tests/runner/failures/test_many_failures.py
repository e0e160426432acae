"""Failures by the ten thousand, in bulk and page by page: all are kept, and memory stays flat."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import sqlalchemy as sa

from sync_pipelines.database.connections import create_database
from sync_pipelines.database.failure_rows import UNRESOLVED
from sync_pipelines.database.ledger import ErrorRow
from sync_pipelines.engine.codec import decode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.runner.runs.comparing_run import ComparingRun
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines.runner.runs.results import results_of_run
from sync_pipelines.runner.runs.session import FULL_RUN, RunSession
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.testing import MemoryTarget

MANY = 20_000


def source(items: int) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, items, 1_000):
        yield [{"sku": f"A-{number}", "stock": number} for number in range(start, start + 1_000)]


def note(folder: Path, url: str, items: int) -> int:
    """Notes a run all of whose items failed; gives the most memory that Python's objects took for that."""
    job: SyncJob[Any, Any] = SyncJob(
        name="stock", fetch_external=lambda: source(items), get_external_id="sku", target=MemoryTarget()
    )
    with open_workspace(Settings(data_dir=folder, database_url=None, ledger_url=url)) as workspace:
        run = SyncRun(job, workspace)
        run_id = run.fetch().run_id
        errors = (ErrorRow(number, f"A-{number}", "ValueError", f"A-{number}: no") for number in range(items))
        workspace.ledger.save_diff_errors(run_id, errors)
        gc.collect()
        tracemalloc.start()
        try:
            RunSession(job, workspace, FULL_RUN, run_id=run_id).finish(None, applied_all=True)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert workspace.failures.count("stock", UNRESOLVED) == items
        [cause] = results_of_run(workspace, run_id).causes
        assert (cause.count, cause.template) == (items, "<id>: no")
        last = workspace.failures.of_item("stock", f"A-{items - 1}")
        assert last is not None
        assert decode(last.payload or "")["stock"] == items - 1
    return peak


@pytest.mark.soak
def test_twenty_thousand_failures_are_kept_in_the_memory_of_a_few(tmp_path: Path) -> None:
    few = note(tmp_path / "few", f"sqlite:///{tmp_path / 'few.sqlite'}", 5_000)
    many = note(tmp_path / "many", f"sqlite:///{tmp_path / 'many.sqlite'}", MANY)
    assert many < few + 1_000_000, f"{few:,} bytes for few failures, {many:,} for many"


@pytest.mark.soak
def test_on_postgresql_as_well(tmp_path: Path, postgres_url: str) -> None:
    note(tmp_path, postgres_url, 5_000)


@pytest.mark.parametrize("bulk", [True, False])
def test_what_a_table_refuses_is_kept_whichever_way_it_is_written(
    tmp_path: Path,
    database_url: str,
    bulk: bool,  # noqa: FBT001 - parametrised
) -> None:
    database = create_database(database_url)
    with database.begin() as connection:
        connection.execute(sa.text("CREATE TABLE variants (sku TEXT PRIMARY KEY, stock INTEGER CHECK (stock >= 0))"))
    database.dispose()
    items = [{"sku": f"A-{number}", "stock": -1 if number % 50 == 0 else number} for number in range(1_500)]
    target = SqlTable(table="variants", key="sku", columns=["stock"], database=database_url)
    job: SyncJob[Any, Any] = SyncJob(name="stock", fetch_external=lambda: iter(items), target=target)
    settings = Settings(data_dir=tmp_path / "data", database_url=database_url, ledger_url=None)
    with nullcontext() if bulk else patch.object(ComparingRun, "_is_worth_it", lambda _run, _files: False):
        results = run_sync(job, settings=settings)
    assert (results.error_count, len(results.causes)) == (30, 1)
    with open_workspace(settings) as workspace:
        found = workspace.failures.newest("stock", UNRESOLVED, 100)
        assert {each.external_id for each in found} == {f"A-{number}" for number in range(0, 1_500, 50)}
        assert all(decode(each.payload or "")["stock"] == -1 for each in found)
    items[:] = [{"sku": each["sku"], "stock": abs(each["stock"])} for each in items]
    with nullcontext() if bulk else patch.object(ComparingRun, "_is_worth_it", lambda _run, _files: False):
        run_sync(job, settings=settings)
    with open_workspace(settings) as workspace:
        assert workspace.failures.count("stock", UNRESOLVED) == 0
