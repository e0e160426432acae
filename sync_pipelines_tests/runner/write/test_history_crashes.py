"""A run that is killed at any instant: what it wrote is in the history, once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa

from sync_pipelines.engine.history import lines_of
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines_tests.runner import bulk_child as child
from sync_pipelines_tests.runner.write.test_staged_crashes import Place, lose_the_plan
from sync_pipelines_tests.two_speeds import spread_rows

pytestmark = pytest.mark.each_database

LETTERS = {"c": "created", "u": "updated", "d": "deleted"}


@pytest.fixture
def place(tmp_path: Path, database_url: str) -> Place:
    return Place(tmp_path / "data", database_url)


def told(place: Place) -> Counter[tuple[str, str]]:
    """How often the ledger says that a record was written, by what was done and its id."""
    found: Counter[tuple[str, str]] = Counter()
    with open_workspace(place.settings) as workspace, workspace.ledger.transaction() as connection:
        tables = workspace.ledger.tables
        for row in connection.execute(sa.select(tables.history)):
            found[row.action, row.external_id] += 1
        for row in connection.execute(sa.select(tables.history_blocks)):
            for line in lines_of(row.lines):
                external_id, letter, _ = line.split("\t")
                found[LETTERS[letter], external_id.strip('"')] += 1
    return found


def written() -> Counter[tuple[str, str]]:
    """What a whole run writes."""
    found = Counter(("updated", f"old-{number}") for number in range(child.UPDATED))
    found.update(("created", f"new-{number}") for number in range(child.CREATED))
    found.update(("deleted", f"gone-{number}") for number in range(child.GONE))
    return found


IN_BATCHES = [
    ("after write", 2),
    ("before note done", 2),
    ("after note done", 3),
    ("after batch", 4),
    ("after ledger", 3),
    ("before move", 2),
    ("after move", 2),
    ("before forget", 1),
    ("after forget", 3),
    ("before late", 1),
    ("after drop", 1),
]
LATER = [("before chunk", 1), ("after chunk", 1), ("before chunk", 2), ("after chunk", 2)]


def test_a_run_that_lives_tells_of_each_record_once(place: Place) -> None:
    place.run()
    assert told(place) == written()


@pytest.mark.parametrize(("instant", "number"), spread_rows(IN_BATCHES, 2))
def test_going_on_with_a_killed_run_keeps_all_of_it_once(place: Place, instant: str, number: int) -> None:
    place.kill_at(instant, number)
    place.go_on()
    place.assert_in_step()
    assert told(place) == written()


@pytest.mark.parametrize(("instant", "number"), spread_rows(IN_BATCHES[:-1], 4))
def test_a_new_run_after_a_kill_keeps_what_the_dead_one_wrote(place: Place, instant: str, number: int) -> None:
    """The ledger in a file of its own: what was not in the ledger yet waits beside the rows."""
    place.kill_at(instant, number)
    place.run()
    place.assert_in_step()
    assert told(place) == written()


@pytest.mark.parametrize(("instant", "number"), spread_rows(LATER, 2))
def test_a_chunk_that_was_written_and_not_noted_may_lack_but_nothing_is_told_twice(
    place: Place, instant: str, number: int
) -> None:
    """Refused rows with their neighbours have no plan that says their fields."""
    place.kill_at(instant, number)
    place.go_on()
    found = told(place)
    assert found <= written()
    assert sum((written() - found).values()) <= (child.MOST_IN_BATCH if instant == "before chunk" else 0)


def test_a_plan_that_is_made_again_repeats_nothing(tmp_path: Path, postgres_url: str) -> None:
    place = Place(tmp_path / "data", postgres_url)
    place.kill_at("before move", 3)
    lose_the_plan(place)
    place.go_on()
    assert told(place) <= written()
    assert max(told(place).values()) == 1
