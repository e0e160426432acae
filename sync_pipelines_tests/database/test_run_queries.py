"""Looking back at runs, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from sync_pipelines.database.ledger import RunRow, open_ledger
from sync_pipelines.database.run_queries import RunQueries

NOON = datetime(2026, 5, 6, 12, 0, tzinfo=UTC)
IDS = ["aa-1", "ab_2", "abx2", "b-3"]


@pytest.fixture
def history(database_url: str) -> Iterator[RunQueries]:
    """Four runs of two jobs, an hour apart."""
    with open_ledger(database_url) as ledger:
        for number, run_id in enumerate(IDS):
            job = f"job-{number % 2}"
            ledger.start_run(RunRow(run_id, job, "full", None, {}, NOON + timedelta(hours=number)))
        yield RunQueries(ledger)


def test_the_latest_runs_of_all_jobs_come_newest_first(history: RunQueries) -> None:
    assert [run.id for run in history.latest(10)] == IDS[::-1]
    assert [run.id for run in history.latest(2)] == IDS[:1:-1]
    assert history.latest(1)[0].started_at == NOON + timedelta(hours=3)


def test_runs_are_found_by_the_beginning_of_their_id(history: RunQueries) -> None:
    assert [run.id for run in history.starting_with("a", 10)] == ["abx2", "ab_2", "aa-1"]
    assert [run.id for run in history.starting_with("a", 1)] == ["abx2"]
    assert [run.id for run in history.starting_with("b-3", 10)] == ["b-3"]


@pytest.mark.parametrize(("prefix", "found"), [("ab_", ["ab_2"]), ("%", []), ("_", [])])
def test_signs_that_a_database_takes_for_wildcards_mean_themselves(
    history: RunQueries, prefix: str, found: list[str]
) -> None:
    assert [run.id for run in history.starting_with(prefix, 10)] == found
