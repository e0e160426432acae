"""Killed while failures are noted or tried again, nothing is lost, no attempt counts twice, and the end is the same."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import sqlalchemy as sa

from sync_pipelines.database.connections import create_database
from sync_pipelines.database.failure_rows import STATES, FailureRow
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.runs.comparing_run import PlanRef
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines_tests.children import exit_code, fork
from sync_pipelines_tests.runner import failing_child as child

BAD = set(range(0, child.SKUS, 2))


class Place:
    """A table and its ledger, in one database."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        child.make_table(url)

    def kill(self, what: str, instant: str, number: int, bad: set[int]) -> None:
        process = fork(child.be_killed, self.folder, self.url, what, instant, number, bad)
        assert exit_code(process) == -signal.SIGKILL

    def failures(self) -> dict[str | None, FailureRow]:
        with open_workspace(child.settings_of(self.folder, self.url)) as workspace:
            return {each.external_id: each for each in workspace.failures.newest("stock", STATES, 1_000)}

    def go_on(self, bad: set[int]) -> None:
        """As a re-execution from failure does."""
        with open_workspace(child.settings_of(self.folder, self.url)) as workspace:
            [run] = workspace.ledger.latest_runs("stock", 1)
            SyncRun(child.job(self.url, bad), workspace).apply(PlanRef(run.id, child.SKUS))

    def assert_in_step(self, bad: set[int]) -> None:
        """The table has what is not refused; all that is refused is kept, and nothing else is open."""
        database = create_database(self.url)
        with database.begin() as connection:
            rows = connection.execute(sa.text("SELECT sku, stock FROM variants")).all()
        database.dispose()
        assert {row[0]: row[1] for row in rows} == {f"A{n:02}": n for n in range(child.SKUS) if n not in bad}
        found = self.failures()
        assert {key for key, each in found.items() if each.state != "resolved"} == {f"A{n:02}" for n in bad}
        assert all(each.payload is not None for each in found.values() if each.state != "resolved")


@pytest.fixture
def place(tmp_path: Path, database_url: str) -> Place:
    return Place(tmp_path / "data", database_url)


@pytest.mark.parametrize(
    ("instant", "number"),
    [("before note", 1), ("after note", 2), ("before causes", 1), ("after causes", 1), ("before finish", 1)],
)
@pytest.mark.parametrize("going_on", [True, False])
def test_killed_while_failures_are_noted(
    place: Place,
    instant: str,
    number: int,
    going_on: bool,  # noqa: FBT001 - parametrised
) -> None:
    place.kill("sync", instant, number, BAD)
    if going_on:
        place.go_on(BAD)
    else:
        child.sync(place.folder, place.url, BAD)
    place.assert_in_step(BAD)
    attempts = {each.attempts for each in place.failures().values()}
    assert attempts <= ({1} if going_on else {1, 2})


@pytest.mark.parametrize("instant", ["before resolve", "after resolve"])
def test_killed_while_failures_are_resolved(place: Place, instant: str) -> None:
    child.sync(place.folder, place.url, BAD)
    place.kill("sync", instant, 1, {0})
    place.go_on({0})
    place.assert_in_step({0})
    assert place.failures()["A00"].attempts == 2


@pytest.mark.parametrize(
    "instant",
    ["before put off", "after put off", "before write", "after write", "before chunk", "after chunk", "before note",
     "after note", "before resolve", "after resolve", "before causes", "before finish"],
)  # fmt: skip
def test_killed_while_failures_are_tried_again(place: Place, instant: str) -> None:
    child.sync(place.folder, place.url, BAD)
    place.kill("retry", instant, 1 if instant.endswith(("note", "causes", "finish")) else 2, {0, 2})
    child.retry(place.folder, place.url, {0, 2})
    place.assert_in_step({0, 2})
    assert {place.failures()[sku].attempts for sku in ("A00", "A02")} <= {2, 3}


def test_an_item_that_kills_the_process_waits_before_it_is_tried_again(place: Place) -> None:
    child.sync(place.folder, place.url, {0})
    before = place.failures()["A00"]
    place.kill("retry", "before write", 1, {0})
    after = place.failures()["A00"]
    assert before.next_try_at is not None
    assert after.next_try_at is not None
    assert after.next_try_at > before.next_try_at
