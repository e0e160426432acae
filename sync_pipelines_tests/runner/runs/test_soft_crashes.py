"""A run with soft deletes that is killed at any instant loses nothing; misses that were half counted delete nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sync_pipelines import SyncResults, run_sync
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.runs.comparing_run import PlanRef, SnapshotRef
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines_tests.runner import bulk_child, soft_child
from sync_pipelines_tests.runner.write.test_staged_crashes import Place as BulkPlace
from sync_pipelines_tests.two_speeds import spread_rows

pytestmark = pytest.mark.each_database


class Place(BulkPlace):
    """The same with a table whose deletes mark."""

    def make_table(self) -> None:
        soft_child.make_table(self.url)

    @property
    def is_postgres(self) -> bool:
        return self.url.startswith("postgresql")

    def kill(self, function: Callable[..., None], *given: Any, **options: Any) -> None:
        assert self.killed(function, *given, **options)

    def live(self) -> dict[str, int]:
        return {row[0]: row[1] for row in self.query("SELECT sku, stock FROM variants WHERE active")}

    def assert_in_step(self) -> None:
        """What is live equals the source, what is gone is marked, no record was written more than once."""
        assert self.live() == bulk_child.expected()
        marked = [row[0] for row in self.query("SELECT sku FROM variants WHERE NOT active")]
        assert sorted(marked) == sorted(f"gone-{number}" for number in range(bulk_child.GONE))
        written = Counter(row[0] for row in self.query("SELECT sku FROM written"))
        assert [sku for sku, times in written.items() if times > 1] == []
        assert len(written) == bulk_child.PLANNED + soft_child.RESTORED


@pytest.fixture
def place(tmp_path: Path, database_url: str) -> Place:
    return Place(tmp_path / "data", database_url)


INSTANTS = [("after plan", 1), ("after write", 1), ("after write", 6), ("before note done", 2), ("after note done", 3)]
INSTANTS += [("after batch", 4), ("after ledger", 3), ("before late", 1), ("before drop", 1)]


@pytest.mark.parametrize(("instant", "number"), spread_rows(INSTANTS, 2))
@pytest.mark.parametrize("anew", [True, False])
def test_marks_after_a_kill_are_those_of_a_run_that_lived(
    place: Place,
    instant: str,
    number: int,
    anew: bool,  # noqa: FBT001 - parametrised
) -> None:
    place.kill(soft_child.run_and_be_killed, instant, number)
    with bulk_child.in_batches():
        if anew:
            results = run_sync(soft_child.job(place.url), settings=place.settings)
        else:
            with open_workspace(place.settings) as workspace:
                run = workspace.ledger.latest_runs(bulk_child.NAME)[0]
                steps = SyncRun(soft_child.job(place.url), workspace)
                plan = PlanRef(run.id, bulk_child.PLANNED) if "diff" in run.phase_ms else steps.diff(steps.fetch())
                results = steps.apply(plan)
    assert results.accounts_balance
    assert results.error_count == bulk_child.FAILING
    place.assert_in_step()


def _items(*, gone: int) -> list[dict[str, Any]]:
    """All records of the table but the first that are gone."""
    items = [bulk_child.item(f"{kind}-{number}", 1) for kind, count in _KINDS.items() for number in range(count)]
    return [each for each in items if each["sku"] not in {f"gone-{number}" for number in range(gone)}]


_KINDS = {"same": bulk_child.UNCHANGED, "old": bulk_child.UPDATED, "gone": bulk_child.GONE}


def _synced(place: Place, items: list[dict[str, Any]], *, in_bulk: bool) -> SyncResults:
    with soft_child.small_pages(in_bulk=in_bulk):
        return run_sync(soft_child.graced_job(place.url, items), settings=place.settings)


MISSES = [("before begin", 1), ("after begin", 1), ("before count", 1), ("after count", 1), ("after count", 2)]
MISSES += [("before end", 1), ("after end", 1)]


@pytest.mark.parametrize("in_bulk", [True, False])
@pytest.mark.parametrize(("instant", "number"), spread_rows(MISSES, 2))
def test_misses_half_counted_by_a_kill_delete_nothing_too_early(
    place: Place,
    instant: str,
    number: int,
    in_bulk: bool,  # noqa: FBT001 - parametrised
) -> None:
    """The fetch that was killed may count or not; with a fetch between that has them all back, it does not."""
    short, whole = _items(gone=80), _items(gone=0)
    _synced(place, whole, in_bulk=in_bulk)
    number = 1 if in_bulk and place.is_postgres else number  # 80 records are one block of a staging table there
    place.kill(soft_child.count_and_be_killed, short, (instant, number), in_bulk=in_bulk)
    assert len(place.live()) == len(whole)
    _synced(place, whole, in_bulk=in_bulk)
    assert _synced(place, short, in_bulk=in_bulk).deleted == 0
    assert len(place.live()) == len(whole)
    assert _synced(place, short, in_bulk=in_bulk).deleted == 80
    assert _synced(place, short, in_bulk=in_bulk).deleted == 0


@pytest.mark.parametrize("in_bulk", [True, False])
@pytest.mark.parametrize(("instant", "number"), spread_rows(MISSES, 2))
def test_a_run_that_goes_on_after_a_kill_counts_once(
    place: Place,
    instant: str,
    number: int,
    in_bulk: bool,  # noqa: FBT001 - parametrised
) -> None:
    short = _items(gone=80)
    number = 1 if in_bulk and place.is_postgres else number  # 80 records are one block of a staging table there
    place.kill(soft_child.count_and_be_killed, short, (instant, number), in_bulk=in_bulk)
    with open_workspace(place.settings) as workspace, soft_child.small_pages(in_bulk=in_bulk):
        [run] = workspace.ledger.latest_runs("graced")
        steps = SyncRun(soft_child.graced_job(place.url, short), workspace)
        for _ in range(3):
            plan = steps.diff(SnapshotRef(run.id, len(short)))
        assert steps.apply(plan).deleted == 0
    assert _synced(place, short, in_bulk=in_bulk).deleted == 80
