"""`history`: what happened to one record, for people and for machines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def stock(place: Any, invoke: Invoke) -> None:
    """A sync that has updated A-1 and created A-2."""
    place.write_stock_job()
    place.sql("INSERT INTO variants VALUES ('A-1', 2)")
    assert invoke("run", "stock").exit_code == 0


def test_it_shows_what_was_written_by_which_run(place: Any, invoke: Invoke) -> None:
    result = invoke("history", "stock", "A-1")
    assert result.exit_code == 0, result.output
    titles, line = result.stdout.splitlines()
    assert titles.split() == ["time", "what", "changes", "how", "run"]
    [run] = place.runs()
    assert line.split("  ", 1)[1].split() == ["updated", "stock", "2", "->", "5", "full", "sync", run.id[:8]]


def test_json_has_it_all(place: Any, document: Callable[..., Any]) -> None:
    told = document("history", "stock", "A-2")
    [event] = told["events"]
    assert (told["job"], told["external_id"]) == ("stock", "A-2")
    assert (event["kind"], event["via"], event["run_id"]) == ("created", "full", place.runs()[0].id)
    assert event["changes"] == {"sku": {"old": None, "new": "A-2"}, "stock": {"old": None, "new": 0}}


def test_the_newest_come_first_and_no_more_than_asked_for(place: Any, invoke: Invoke) -> None:
    place.sql("UPDATE variants SET stock = 9 WHERE sku = 'A-1'")
    assert invoke("run", "stock").exit_code == 0
    lines = invoke("history", "stock", "A-1").stdout.splitlines()
    assert ["stock 9 -> 5" in lines[1], "stock 2 -> 5" in lines[2]] == [True, True]
    limited = invoke("history", "stock", "A-1", "--limit", "1")
    assert len(limited.stdout.splitlines()) == 2
    assert "--limit" in limited.stderr


def test_of_a_record_that_nobody_has_seen_it_says_so(invoke: Invoke) -> None:
    result = invoke("history", "stock", "nope")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "knows nothing of 'nope' in stock" in result.stderr
    assert "keep_history_days" in result.stderr


def test_a_job_that_is_not_there_is_a_matter_of_usage(invoke: Invoke) -> None:
    result = invoke("history", "stok", "A-1")
    assert result.exit_code == 2
    assert "stok" in result.stderr
