"""`show`: everything that the ledger has of one run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import Result

from sync_pipelines.database.ledger import ErrorRow, RunRow

Invoke = Callable[..., Result]
Document = Callable[..., Any]

NOON = datetime(2026, 5, 6, 12, 0, tzinfo=UTC)
FIRST = "5ee90d24-46de-47c4-8504-b6c184f773b9"
SECOND = "5ee91111-46de-47c4-8504-b6c184f773b9"


@pytest.fixture
def place(place: Any) -> Any:
    """A place whose ledger has two runs, the first of them with three failed items and a failed delete."""
    with place.ledger() as ledger:
        for number, run_id in enumerate([FIRST, SECOND]):
            options = {"limit": None, "only": ["A-1", "A-2"]}
            ledger.start_run(RunRow(run_id, "stock", "full", f"dagster-{number}", options, NOON))
        errors = [ErrorRow(number, f"A-{number}", "ValueError", f"wrong\n{number}") for number in (4, 2, 3)]
        ledger.save_diff_errors(FIRST, [*errors, ErrorRow(-1, None, "KeyError", "gone")])
        ledger.save_phase(FIRST, "fetch", 1_500, notes=["no deletes: the run was limited"])
        counts = {"fetched": 9, "created": 5, "failed": 4}
        at = NOON + timedelta(hours=2, minutes=3, seconds=4)
        failure = "apply: TargetError: away"
        ledger.finish_run(FIRST, outcome="failed", counts=counts, failure=failure, applied_all=False, at=at)
    return place


def facts(shown: str) -> dict[str, str]:
    """Name -> value of the lines before the table of failed items."""
    lines = shown.split("\n\n", maxsplit=1)[0].splitlines()
    return {name: value.strip() for name, _, value in (line.partition("  ") for line in lines)}


def test_everything_is_shown(place: Any) -> None:
    done = place.run("show", FIRST)
    assert done.returncode == 0
    at = (NOON + timedelta(hours=2, minutes=3, seconds=4)).astimezone()
    assert facts(done.stdout) == {
        "run": FIRST,
        "sync": "stock",
        "kind": "full",
        "outcome": "failed",
        "failure": "apply: TargetError: away",
        "started": f"{NOON.astimezone():%Y-%m-%d %H:%M:%S}",
        "completed": f"{at:%Y-%m-%d %H:%M:%S}",
        "duration": "2 h 3 min",
        "Dagster run": "dagster-0",
        "option only": '["A-1", "A-2"]',
        "fetched": "9",
        "created": "5",
        "failed": "4",
        "fetch took": "1.5 s",
        "note 1": "no deletes: the run was limited",
    }
    rows = done.stdout.split("\n\n")[1].splitlines()
    assert [row.split() for row in rows[1:]] == [
        ["2", "A-2", "ValueError", "wrong", "2"],
        ["3", "A-3", "ValueError", "wrong", "3"],
        ["4", "A-4", "ValueError", "wrong", "4"],
        ["KeyError", "gone"],
    ]


def test_the_document_has_it_all(document: Document) -> None:
    found = document("show", FIRST)
    assert found["failure"] == "apply: TargetError: away"
    assert found["phase_ms"] == {"fetch": 1500}
    assert found["error_count"] == 4
    assert found["errors"][0] == {
        "position": 2,
        "external_id": "A-2",
        "exception_type": "ValueError",
        "message": "wrong\n2",
    }


@pytest.mark.parametrize("given", ["5ee90", FIRST[:8], FIRST, "dagster-0"])
def test_a_unique_beginning_or_the_dagster_run_is_enough(document: Document, given: str) -> None:
    assert document("show", given)["id"] == FIRST


@pytest.mark.parametrize("given", ["5ee9", "5"])
def test_a_beginning_of_several_ends_with_2_and_lists_them(invoke: Invoke, given: str) -> None:
    result = invoke("show", given)
    assert (result.exit_code, result.stdout) == (2, "")
    assert FIRST in result.stderr
    assert SECOND in result.stderr


@pytest.mark.parametrize("given", ["6", "%", "", "5ee90d24-46de-47c4-8504-b6c184f773b9-"])
def test_an_id_that_no_run_has_ends_with_2(invoke: Invoke, given: str) -> None:
    result = invoke("show", given)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "`sync-pipelines runs` lists those it has" in result.stderr


def test_the_number_of_failed_items_is_a_choice(invoke: Invoke, document: Document) -> None:
    assert [error["position"] for error in document("show", FIRST, "--errors", "1")["errors"]] == [2]
    result = invoke("show", FIRST, "--errors", "1")
    assert "A-3" not in result.stdout
    assert result.stderr == "1 of 4 failed items are shown; --errors 4 shows all\n"
    none = invoke("show", FIRST, "--errors", "0")
    assert "A-2 " not in none.stdout
    assert none.stderr == "0 of 4 failed items are shown; --errors 4 shows all\n"


def test_a_run_that_has_not_ended_is_unfinished(invoke: Invoke) -> None:
    shown = facts(invoke("show", SECOND).stdout)
    assert shown["outcome"] == "unfinished"
    assert "completed" not in shown


def test_what_the_source_said_of_its_end_is_shown(place: Any) -> None:
    said = {"complete": True, "took_all": True, "ended_by": ["stock.csv: the file's end"], "doubts": []}
    doubted = {**said, "complete": False, "doubts": ["8 of 10 items came"]}
    for completeness, shown in ((said, "yes"), (doubted, "no: 8 of 10 items came")):
        with place.ledger() as ledger:
            ledger.start_run(RunRow(run_id := str(uuid4()), "stock", "full", None, {"limit": None, "only": []}, NOON))
            ledger.save_phase(run_id, "fetch", 1, completeness=completeness)
        found = facts(place.run("show", run_id).stdout)
        assert (found["all items"], found["end 1"]) == (shown, "stock.csv: the file's end")
