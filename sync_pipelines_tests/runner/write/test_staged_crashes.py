"""A run in bulk that is killed at any instant loses nothing, and repeats nothing that matters."""

from __future__ import annotations

import json
import random
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines import SyncResults, run_sync
from sync_pipelines.database.batches import STAGED, BatchKey
from sync_pipelines.database.connections import create_database
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.runs.comparing_run import PlanRef
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines.settings.model import Settings
from sync_pipelines_tests.children import exit_code, fork
from sync_pipelines_tests.database.migrating import take_back
from sync_pipelines_tests.runner import bulk_child as child
from sync_pipelines_tests.two_speeds import spread, spread_rows

pytestmark = pytest.mark.each_database


class Place:
    """A folder with a ledger, and a database with the table.

    Args:
        folder: Of the ledger and the snapshots.
        url: Of the table's database.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.settings = Settings(data_dir=folder, database_url=None, ledger_url=None)
        self.make_table()

    def make_table(self) -> None:
        child.make_table(self.url)

    @property
    def is_exact(self) -> bool:
        return self.url.startswith("postgresql")

    def killed(self, function: Callable[..., None], *given: Any, **options: Any) -> bool:
        """Does something in a process of its own. True if it was killed, False if it came to its end."""
        code = exit_code(fork(partial(function, **options), self.folder, self.url, *given))
        assert code in {0, -signal.SIGKILL}
        return code != 0

    def kill_at(self, instant: str, number: int = 1) -> None:
        assert self.killed(child.run_and_be_killed, instant, number)

    def run(self) -> SyncResults:
        with child.in_batches():
            return run_sync(child.job(self.url), settings=self.settings)

    def go_on(self) -> SyncResults:
        """What is left of the run that was killed, as Dagster's re-execution from failure does."""
        with child.in_batches(), open_workspace(self.settings) as workspace:
            [run] = workspace.ledger.latest_runs(child.NAME)
            return SyncRun(child.job(self.url), workspace).apply(PlanRef(run.id, child.PLANNED))

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        database = create_database(self.url)
        try:
            with database.begin() as connection:
                return [tuple(row) for row in connection.execute(sa.text(statement))]
        finally:
            database.dispose()

    def work_tables(self) -> list[str]:
        if not self.is_exact:
            return []
        query = "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
        rows = self.query(query + "WHERE nspname = 'sync_pipelines_work' AND relkind = 'r' AND relname <> 'progress'")
        return sorted(row[0] for row in rows)

    def assert_in_step(self) -> None:
        """The table equals the source, no record was written more than once, nothing is left beside it."""
        assert dict(self.query("SELECT sku, stock FROM variants")) == child.expected()
        written = Counter(row[0] for row in self.query("SELECT sku FROM written"))
        assert [sku for sku, times in written.items() if times > 1] == []
        assert len(written) == child.PLANNED
        assert self.work_tables() == []


def assert_whole(results: SyncResults) -> None:
    """The accounts balance, and each bad record is told with the database's own message."""
    assert results.accounts_balance
    assert (results.outcome, results.fetched, results.error_count) == ("partial", child.FETCHED, child.FAILING)
    told = sorted(error.message.split("\n")[0].lower() for error in results.errors)
    assert [sum(word in each for each in told) for word in ("check", "foreign", "we do not sell")] == [
        child.CHECKED,
        child.MISPLACED,
        child.REFUSED,
    ]


@pytest.fixture
def place(tmp_path: Path, database_url: str) -> Place:
    return Place(tmp_path / "data", database_url)


BEFORE_APPLY = [("fetch", 1), ("before load", 1), ("after load", 2), ("before plan", 1), ("after plan", 1)]
BEFORE_APPLY += [("after quarantine", 1), ("before diff errors", 1), ("after diff errors", 1)]
APPLY = [
    ("after begin apply", 1),
    ("after write", 1),
    ("after write", 3),
    ("before note done", 2),
    ("after note done", 2),
    ("after batch", 1),
    ("after batch", 4),
    ("before ledger", 3),
    ("after ledger", 3),
    ("before late", 1),
    ("before drop", 1),
    ("after drop", 1),
    ("before finish", 1),
    ("on_complete", 1),
]
CHUNKS = [("before chunk", 1), ("after chunk", 1), ("before chunk", 2), ("after chunk", 2)]
"""Of odd items that were looked at one by one, and of refused ones with their neighbours."""


@pytest.mark.parametrize(("instant", "number"), spread_rows(BEFORE_APPLY[1:] + APPLY[2::5], 2))
def test_a_new_run_after_a_kill_brings_everything_in_step(place: Place, instant: str, number: int) -> None:
    place.kill_at(instant, number)
    results = place.run()
    assert_whole(results)
    assert results.recovered == 0
    place.assert_in_step()


@pytest.mark.parametrize(("instant", "number"), spread_rows(APPLY + CHUNKS, 3))
def test_going_on_with_the_same_plan_counts_each_record_once(place: Place, instant: str, number: int) -> None:
    """Exactly, where progress commits with the rows; elsewhere the batch in doubt is looked at row by row."""
    place.kill_at(instant, number)
    results = place.go_on()
    assert_whole(results)
    if (place.is_exact and instant != "before chunk") or results.recovered == 0:
        assert (results.created, results.updated, results.recovered) == (child.CREATED, child.UPDATED, 0)
    else:
        assert results.created + results.updated + results.recovered == child.CREATED + child.UPDATED
        assert results.recovered <= child.MOST_IN_BATCH
    # of a delete in doubt nobody can say whether it was ours: what is gone is gone. With a trigger on deletes they are
    # looked at singly, in a chunk.
    lost = child.GONE - results.deleted
    assert 0 <= lost <= (0 if place.is_exact and instant != "before chunk" else child.MOST_IN_BATCH)
    place.assert_in_step()


def test_a_batch_in_doubt_is_reported_as_recovered_where_progress_is_noted_after_it(
    tmp_path: Path, sqlite_url: str
) -> None:
    place = Place(tmp_path / "data", sqlite_url)
    place.kill_at("before note done", 2)
    results = place.go_on()
    assert results.recovered > 0
    assert results.unchanged == child.UNCHANGED + results.recovered
    place.assert_in_step()


@pytest.mark.parametrize("instant", ["after ledger", "after chunk", "before drop"])
def test_going_on_after_an_upgrade_counts_each_item_once(place: Place, instant: str) -> None:
    """The version before 0010 noted no more of a batch than its number."""
    place.kill_at(instant)
    with open_workspace(place.settings) as workspace:
        take_back(workspace.ledger, "0009")
    results = place.go_on()
    assert_whole(results)
    assert results.recovered == 0
    place.assert_in_step()


def test_a_run_that_was_killed_is_not_shown_as_finished(place: Place) -> None:
    place.kill_at("after ledger", 2)
    with open_workspace(place.settings) as workspace:
        [run] = workspace.ledger.latest_runs(child.NAME)
        assert (run.outcome, run.completed_at) == (None, None)
        noted = workspace.batches.of_run(run.id)
    [(written,)] = place.query("SELECT count(*) FROM written")
    assert sum(noted[BatchKey(STAGED)].counts[name] for name in ("created", "updated", "deleted")) == written > 0


def test_a_kill_in_the_fetch_leaves_no_snapshot_that_looks_complete(tmp_path: Path, sqlite_url: str) -> None:
    place = Place(tmp_path / "data", sqlite_url)
    place.kill_at("fetch")
    files = [path.name for path in (place.folder / "snapshots").rglob("*") if path.is_file()]
    assert files == ["snapshot-00000.parquet.part"]
    assert place.query("SELECT count(*) FROM written") == [(0,)]
    assert_whole(place.run())
    place.assert_in_step()


def test_three_processes_hand_over_by_reference_only(place: Place) -> None:
    for phase in ("fetch", "diff", "apply"):
        assert not place.killed(child.one_phase, phase)
    told = json.loads((place.folder / "reference.json").read_text(encoding="utf-8"))
    assert (told["created"], told["updated"], told["deleted"]) == (child.CREATED, child.UPDATED, child.GONE)
    assert len(told["messages"]) == child.FAILING
    place.assert_in_step()


@pytest.mark.parametrize("going_on", [False, True])
def test_a_plan_that_is_gone_is_made_again(place: Place, going_on: bool) -> None:  # noqa: FBT001 - parametrised
    """Killed while it is made again, too: half a stage is not taken for a plan."""
    place.kill_at("after ledger", 3)
    lose_the_plan(place)
    if going_on:
        assert place.killed(child.go_on_killed_at, "after load", 2)
    results = place.go_on()
    assert_whole(results)
    written = results.created + results.updated + results.recovered
    assert written == child.CREATED + child.UPDATED
    assert results.recovered > 0
    assert results.unchanged == child.UNCHANGED + results.recovered
    place.assert_in_step()


def lose_the_plan(place: Place) -> None:
    """As a crash of the server, or a move to another machine, does."""
    for path in (place.folder / "work").rglob("*.sqlite"):
        path.unlink()
    for name in place.work_tables():
        place.query(f'DELETE FROM sync_pipelines_work."{name}" RETURNING 1')


@pytest.mark.parametrize("seed", spread(range(5), 5))
def test_kills_at_random_moments_never_harm(place: Place, seed: int) -> None:
    """Up to four kills in a row, each of a new run or of one that goes on; then one that is let live."""
    chance = random.Random(seed)
    kills = 0
    for _ in range(4):
        after_s = chance.uniform(0.02, 0.2)
        kills += place.killed(child.go_on_and_be_killed, after_s, anew=chance.random() < 0.3)
    settings = place.settings.model_copy(update={"lease_s": child.LEASE_S})
    with child.in_batches(), open_workspace(settings) as workspace:
        plan = child.plan_of_last_run(workspace) if seed % 2 else None
        run = SyncRun(child.job(place.url), workspace, wait_s=10)
        results = run.apply(plan or run.diff(run.fetch()))
    assert_whole(results)
    assert kills > 0
    place.assert_in_step()
