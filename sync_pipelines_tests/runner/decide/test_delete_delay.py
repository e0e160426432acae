"""The grace before a delete: which fetches count, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sync_pipelines import Settings, SyncJob
from sync_pipelines.database.missed_fetches import CountedFetch
from sync_pipelines.runner.context.workspace import Workspace, open_workspace
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines.testing import MemorySource, MemoryTarget
from sync_pipelines_tests.runner.desk import Clock

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def workspace(tmp_path: Path, database_url: str, clock: Clock) -> Iterator[Workspace]:
    with open_workspace(Settings(data_dir=tmp_path, database_url=None, ledger_url=database_url), clock) as opened:
        yield opened


def job(target: MemoryTarget, *ids: str, delete_after: int = 2) -> SyncJob[Any, Any]:
    source = MemorySource([{"id": each} for each in ids])
    return SyncJob(
        name="graced",
        fetch_external=source,
        get_external_id="id",
        target=target,
        deletes="hard",
        delete_after=delete_after,
    )


@pytest.fixture
def target() -> MemoryTarget:
    return MemoryTarget({"A": {"id": "A"}, "B": {"id": "B"}})


def test_a_run_whose_diff_is_repeated_counts_once(target: MemoryTarget, workspace: Workspace) -> None:
    run = SyncRun(job(target, "A"), workspace)
    snapshot = run.fetch()
    for _ in range(4):
        plan = run.diff(snapshot)
    assert run.apply(plan).deleted == 0
    assert set(target.records) == {"A", "B"}


def test_an_older_run_that_is_diffed_late_does_not_count(
    target: MemoryTarget, workspace: Workspace, clock: Clock
) -> None:
    older = SyncRun(job(target, "A", delete_after=3), workspace)
    snapshot = older.fetch()
    older.diff(snapshot)
    give_back_the_lease(workspace)
    clock.advance(3600)
    newer = SyncRun(job(target, "A", delete_after=3), workspace)
    newer.diff(newer.fetch())
    give_back_the_lease(workspace)
    assert older.diff(snapshot).writes == 0
    assert older.diff(snapshot).writes == 0
    assert workspace.missed_fetches.known("graced", 2, ["B"]) == {"B": 2}


def give_back_the_lease(workspace: Workspace) -> None:
    """As when it has expired."""
    lease = workspace.leases.of_job("graced")
    assert lease is not None
    workspace.leases.release(lease)


def test_a_fetch_that_was_not_counted_breaks_the_row(workspace: Workspace) -> None:
    missed_fetches = workspace.missed_fetches
    fetches = [CountedFetch(number, f"run-{number}", NOON + timedelta(hours=number)) for number in (1, 2, 3)]
    assert missed_fetches.count("graced", fetches[0], ["A", "B"]) == {"A": 1, "B": 1}
    assert missed_fetches.count("graced", fetches[1], ["A"]) == {"A": 2}
    assert missed_fetches.count("graced", fetches[1], ["A"]) == {"A": 2}
    assert missed_fetches.count("graced", fetches[2], ["B", "A"]) == {"A": 3, "B": 1}
    assert missed_fetches.known("graced", 3, ["A", "B", "C"]) == {"A": 3, "B": 1}
    assert missed_fetches.known("other", 3, ["A"]) == {}


def test_ids_too_long_for_an_index_are_counted_too(workspace: Workspace) -> None:
    fetch = CountedFetch(1, "run", NOON)
    long = ["x" * 5_000 + str(number) for number in range(2)]
    assert workspace.missed_fetches.count("graced", fetch, long) == dict.fromkeys(long, 1)
    assert workspace.missed_fetches.known("graced", 1, long) == dict.fromkeys(long, 1)


def test_many_misses_at_once_are_all_told(workspace: Workspace) -> None:
    ids = [f"A-{number}" for number in range(12_000)]
    fetch = CountedFetch(1, "run", NOON)
    assert workspace.missed_fetches.count("graced", fetch, ids) == dict.fromkeys(ids, 1)
    workspace.missed_fetches.begin("graced", CountedFetch(2, "next", NOON))
    workspace.missed_fetches.end("graced", 2)
    assert workspace.missed_fetches.known("graced", 1, ids[:3]) == {}
    assert workspace.missed_fetches.latest("graced") == CountedFetch(2, "next", NOON)
