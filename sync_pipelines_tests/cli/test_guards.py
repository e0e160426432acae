"""What guards withhold, on the command line: exit code 3, which plan, and its release with a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

Invoke = Callable[..., Result]

_JOB = """
    from sync_pipelines import Guards, SqlTable, SyncJob

    JOB = SyncJob(
        name="stock",
        fetch_external=lambda: [{"sku": "A-1", "stock": 1}],
        target=SqlTable(table="variants", key="sku", columns=["stock"]),
        deletes="hard",
        guards=Guards(few=1),
    )
"""


@pytest.fixture(autouse=True)
def stock(place: Any) -> None:
    """A sync that would delete two of three records."""
    place.write_job("stock", _JOB)
    place.sql("CREATE TABLE variants (sku TEXT PRIMARY KEY, stock INTEGER)")
    place.sql("INSERT INTO variants VALUES ('A-1', 1), ('A-2', 2), ('A-3', 3)")


def test_a_guarded_run_ends_with_3_and_says_how_to_release_it(place: Any, invoke: Invoke) -> None:
    result = invoke("run", "stock")

    assert result.exit_code == 3, result.output
    [run] = place.runs()
    lines = result.stdout.splitlines()
    assert lines[0].startswith("stock: guarded: 1 fetched = 1 unchanged, 2 deletes withheld in ")
    assert lines[1] == "note: guarded: 2 of 3 local records would be deleted: 66.7%, and max_delete_share is 20%"
    assert f"sync-pipelines apply {run.id[:8]} --reason" in lines[2]
    assert len(place.sql("SELECT * FROM variants")) == 3


def test_the_plan_shows_what_is_withheld_and_why(place: Any, invoke: Invoke, document: Callable[..., Any]) -> None:
    found = document("run", "stock", exit_code=3)
    assert (found["outcome"], found["withheld"]["delete"]) == ("guarded", 2)

    shown = invoke("plan", "show", found["plan_id"]).stdout
    assert "delete A-2: sku A-2, stock 2" in shown
    assert "2 of 3 local records would be deleted" in shown
    [plan] = document("plans", "stock")["plans"]
    assert (plan["kind"], plan["state"], plan["id"]) == ("withheld", "open", found["plan_id"])


def test_a_plan_that_guards_would_stop_ends_with_3_too(place: Any, invoke: Invoke) -> None:
    assert invoke("plan", "stock").exit_code == 3
    place.sql("DELETE FROM variants WHERE sku = 'A-3'")
    assert invoke("plan", "stock").exit_code == 0, "one delete is a matter of course"


def test_a_newer_run_is_not_said_to_have_applied_an_older_plan(invoke: Invoke, document: Callable[..., Any]) -> None:
    older = document("run", "stock", exit_code=3)["plan_id"]
    newer = document("run", "stock", exit_code=3)["run_id"]

    lines = dict(line.split("  ", 1) for line in invoke("plan", "show", older).stdout.splitlines() if "  " in line)
    assert lines["superseded by run"].strip() == newer
    assert "applied by run" not in lines


def test_a_fetch_that_looks_broken_says_so_where_nothing_had_to_be_withheld(place: Any, invoke: Invoke) -> None:
    items = '[{"sku": f"A-{n}", "stock": n} for n in range(1, int(open("how-many").read()))]'
    job = _JOB.replace(
        '[{"sku": "A-1", "stock": 1}]', items.replace("open(", "Path(").replace(".read()", ".read_text()")
    )
    place.write_job(
        "stock", job.replace('"hard"', '"off"').replace("    from sync", "    from pathlib import Path\n    from sync")
    )
    (place.root / "how-many").write_text("9")
    assert invoke("run", "stock").exit_code == 0
    (place.root / "how-many").write_text("2")

    told = invoke("run", "stock")

    assert told.exit_code == 3
    assert "note: there was nothing to withhold; if the fetch is right, let later" in told.stdout


def test_it_is_released_with_a_reason_and_only_with_one(
    place: Any, invoke: Invoke, document: Callable[..., Any]
) -> None:
    plan_id = document("run", "stock", exit_code=3)["plan_id"]

    refused = invoke("apply", plan_id)
    assert refused.exit_code == 1
    assert "--reason" in refused.stderr
    assert len(place.sql("SELECT * FROM variants")) == 3

    released = invoke("apply", plan_id, "--reason", "the range is over", "--by", "ada")
    assert released.exit_code == 0, released.output
    assert "note: released by ada: the range is over" in released.stdout
    assert place.sql("SELECT sku FROM variants") == [("A-1",)]
    assert "the range is over" in invoke("plan", "show", plan_id).stdout


def test_a_dry_run_says_that_its_plan_needs_a_reason(invoke: Invoke) -> None:
    result = invoke("plan", "stock")

    assert "note: a run would be guarded: 2 of 3" in result.stdout
    assert "--reason" in result.stderr
