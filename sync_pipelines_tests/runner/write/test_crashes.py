"""A process that goes page by page and is killed at any instant loses nothing, and repeats nothing that matters."""

from __future__ import annotations

import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.runner.runs.comparing_run import PlanRef
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines.settings.model import Settings
from sync_pipelines.snapshots.snapshot import Snapshot
from sync_pipelines_tests.children import exit_code, fork
from sync_pipelines_tests.database.migrating import take_back
from sync_pipelines_tests.runner import crash_child as child
from sync_pipelines_tests.two_speeds import spread_rows

# 92 creates, 2 updates and 2 deletes make 10 chunks of 10; A001 is unchanged.
WRITES = 96


@pytest.fixture(autouse=True)
def page_by_page() -> Iterator[None]:
    with child.page_by_page():
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    child.make_table(tmp_path)
    return tmp_path


def kill_at(folder: Path, instant: str, number: int = 1) -> None:
    """Runs the sync in a process that is killed at that instant."""
    assert exit_code(fork(child.main, folder, instant, number)) == -signal.SIGKILL


def query(folder: Path, statement: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(folder / "local.sqlite")
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def assert_in_step(folder: Path) -> None:
    """The table equals the source, and no record was written more than once."""
    assert dict(query(folder, "SELECT sku, stock FROM variants")) == {
        each["sku"]: each["stock"] for each in child.ITEMS
    }
    written = Counter(row[0] for row in query(folder, "SELECT sku FROM written"))
    assert set(written.values()) == {1}
    assert len(written) == WRITES - 2  # deletes are not noted


def resume(folder: Path, job: Any) -> Any:
    """Goes on with the plan of the run that was killed."""
    with open_workspace(Settings(data_dir=folder)) as workspace:
        [killed] = workspace.ledger.latest_runs("crashing")
        return SyncRun(job, workspace).apply(PlanRef(killed.id, WRITES))


INSTANTS = [
    ("fetch", 1),
    ("diff", 1),
    ("diff", 60),
    ("diff errors", 1),
    ("before progress", 1),
    ("before progress", 10),
    ("after progress", 4),
    ("before finish", 1),
    ("on_complete", 1),
]


@pytest.mark.parametrize(("instant", "number"), spread_rows(INSTANTS, 2))
def test_a_new_run_after_a_kill_brings_everything_in_step(folder: Path, instant: str, number: int) -> None:
    kill_at(folder, instant, number)
    results = run_sync(child.table_job(folder), settings=Settings(data_dir=folder))
    assert results.accounts_balance
    assert (results.outcome, results.recovered) == ("clean", 0)
    assert_in_step(folder)
    again = run_sync(child.table_job(folder), settings=Settings(data_dir=folder))
    assert (again.unchanged, again.fetched) == (95, 95)


@pytest.mark.parametrize(
    ("instant", "number", "recovered"),
    [
        ("before progress", 1, 10),
        ("before progress", 5, 10),
        ("before progress", 10, 4),
        ("after progress", 1, 0),
        ("after progress", 10, 0),
        ("before finish", 1, 0),
        ("on_complete", 1, 0),
    ],
)
def test_going_on_with_the_same_plan_counts_each_item_once(
    folder: Path, instant: str, number: int, recovered: int
) -> None:
    """What a chunk in doubt had written already is looked up, left alone, and reported as recovered."""
    kill_at(folder, instant, number)
    results = resume(folder, child.table_job(folder))
    assert results.accounts_balance
    assert (results.outcome, results.recovered) == ("clean", recovered)
    assert (results.fetched, results.error_count) == (95, 0)
    # of a delete in doubt nobody can say whether it was ours: what is gone is gone
    lost = 2 if (instant, number) == ("before progress", 10) else 0
    assert results.created + results.updated + results.deleted + recovered == WRITES - lost
    assert_in_step(folder)


def test_going_on_after_an_upgrade_counts_each_item_once(folder: Path) -> None:
    """The version before 0010 noted no more of a batch than its number."""
    kill_at(folder, "after progress", 4)
    with open_workspace(Settings(data_dir=folder)) as workspace:
        take_back(workspace.ledger, "0009")
    results = resume(folder, child.table_job(folder))
    assert (results.outcome, results.recovered) == ("clean", 0)
    assert results.created + results.updated + results.deleted == WRITES
    assert_in_step(folder)


@pytest.mark.parametrize("number", [1, 33, 92])
@pytest.mark.parametrize("going_on", [True, False])
def test_per_record_functions_are_not_called_twice_for_what_was_written(
    folder: Path,
    number: int,
    going_on: bool,  # noqa: FBT001 - parametrised
) -> None:
    """Killed right after the n-th record was created, in the middle of a chunk."""
    kill_at(folder, "record", number)
    job = child.record_job(folder)
    results = resume(folder, job) if going_on else run_sync(job, settings=Settings(data_dir=folder))
    assert (results.accounts_balance, results.outcome) == (True, "clean")
    assert_in_step(folder)


def test_a_run_that_was_killed_is_not_shown_as_finished(folder: Path) -> None:
    kill_at(folder, "before progress", 3)
    with open_workspace(Settings(data_dir=folder)) as workspace:
        [run] = workspace.ledger.latest_runs("crashing")
        assert (run.outcome, run.completed_at) == (None, None)
        assert len(workspace.batches.of_run(run.id)) == 2


def test_a_kill_in_the_fetch_leaves_no_snapshot_that_looks_complete(folder: Path) -> None:
    kill_at(folder, "fetch")
    [run_folder] = (folder / "snapshots").iterdir()
    assert not Snapshot(UPath(run_folder)).is_complete()
    assert query(folder, "SELECT count(*) FROM written") == [(0,)]
