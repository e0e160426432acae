"""`plan`, `plan show`, `plans` and `apply`: what would be written, and writing exactly that."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def stock(place: Any) -> None:
    """A sync that would create A-2 and update A-1."""
    place.write_stock_job()
    place.sql("INSERT INTO variants VALUES ('A-1', 2)")


@pytest.fixture
def plan_id(document: Callable[..., Any]) -> str:
    """The id of a plan."""
    return str(document("plan", "stock")["plan"]["id"])


def test_a_plan_shows_counts_entries_and_its_id_and_writes_nothing(place: Any, invoke: Invoke) -> None:
    result = invoke("plan", "stock")

    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("stock: planned: 2 fetched = 1 to create, 1 to update in ")
    assert lines[1:] == ["update A-1: stock 2 -> 5", "create A-2: sku A-2, stock 0"]
    [run] = place.runs()
    assert f"sync-pipelines apply {run.id[:8]}" in result.stderr
    assert f"sync-pipelines plan show {run.id[:8]}" in result.stderr
    assert place.sql("SELECT * FROM variants") == [("A-1", 2)]


def test_the_word_make_may_be_written_out(invoke: Invoke) -> None:
    assert invoke("plan", "make", "stock").exit_code == 0
    assert invoke("plan", "--limit", "1", "stock").stdout.splitlines()[1:] == ["update A-1: stock 2 -> 5"]
    assert invoke("plan", "stock", "--only", "A-2").stdout.splitlines()[1:] == ["create A-2: sku A-2, stock 0"]


def test_help_names_both_forms(invoke: Invoke) -> None:
    told = invoke("plan", "--help").stdout
    assert "plan NAME" in " ".join(told.split())
    assert "show" in told
    assert "--only" in invoke("plan", "stock", "--help").stdout


def test_a_plan_as_json(document: Callable[..., Any]) -> None:
    found = document("plan", "stock")

    assert (found["outcome"], found["counts"]["to_create"], found["counts"]["created"]) == ("planned", 1, 0)
    assert found["plan"]["counts"] == {"create": 1, "update": 1, "delete": 0}
    assert found["first_entries"][0]["changes"] == {"stock": {"old": 2, "new": 5}}


def test_items_that_fail_already_show_in_the_exit_code(place: Any, invoke: Invoke) -> None:
    job = (place.jobs / "stock.py").read_text()
    (place.jobs / "stock.py").write_text(job.replace('"quantity": 0}', '"quantity": "many"}'))

    result = invoke("plan", "stock")

    assert result.exit_code == 1
    assert "1 failed" in result.stdout


def test_show_gives_the_whole_plan(invoke: Invoke, plan_id: str) -> None:
    lines = invoke("plan", "show", plan_id[:8]).stdout.splitlines()

    assert f"plan       {plan_id}" in lines
    assert "state      open" in lines
    assert lines[-2:] == ["update A-1: stock 2 -> 5", "create A-2: sku A-2, stock 0"]


def test_show_filters(invoke: Invoke, plan_id: str) -> None:
    def entries(*options: str) -> list[str]:
        return invoke("plan", "show", plan_id, *options).stdout.split("\n\n")[1].splitlines()

    assert entries("--action", "create") == ["create A-2: sku A-2, stock 0"]
    assert entries("--field", "sku") == ["create A-2: sku A-2, stock 0"]
    assert entries("--limit", "1") == ["update A-1: stock 2 -> 5"]
    wrong = invoke("plan", "show", plan_id, "--action", "remove")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "give create, update or delete" in wrong.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--field", "title"), "the plan has no entry that changes 'title'"),
        (("--action", "update", "--field", "sku"), "the plan has no update that changes 'sku'"),
        (("--action", "delete"), "the plan has no delete"),
    ],
)
def test_show_says_so_if_no_entry_is_meant(invoke: Invoke, plan_id: str, options: tuple[str, ...], told: str) -> None:
    assert invoke("plan", "show", plan_id, *options).stderr == f"{told}\n"


@pytest.mark.parametrize("option", ["--csv", "--json"])
def test_a_plan_whose_files_are_gone_is_no_half_document(place: Any, invoke: Invoke, plan_id: str, option: str) -> None:
    for path in (place.data / "snapshots").rglob("*"):
        if path.is_file():
            path.unlink()
    result = invoke("plan", "show", plan_id, option)
    assert result.exit_code == 1
    assert "are not in the snapshot store" in result.stderr
    assert (
        result.stdout == "" if option == "--csv" else "not in the snapshot store" in json.loads(result.stdout)["error"]
    )


def test_show_as_json_and_csv(invoke: Invoke, plan_id: str) -> None:
    found = json.loads(invoke("plan", "show", plan_id, "--json", "--action", "update").stdout)
    assert [entry["external_id"] for entry in found["entries"]] == ["A-1"]

    rows = list(csv.DictReader(io.StringIO(invoke("plan", "show", plan_id, "--csv").stdout)))
    assert [(row["action"], row["field"], row["old"], row["new"]) for row in rows] == [
        ("update", "stock", "2", "5"),
        ("create", "sku", "", "A-2"),
        ("create", "stock", "", "0"),
    ]
    assert invoke("plan", "show", plan_id, "--csv", "--json").exit_code == 2


def test_apply_does_exactly_that_once(place: Any, invoke: Invoke, plan_id: str) -> None:
    result = invoke("apply", plan_id[:8])
    assert result.exit_code == 0, result.output
    assert "1 created, 1 updated" in result.stdout
    assert place.sql("SELECT * FROM variants ORDER BY sku") == [("A-1", 5), ("A-2", 0)]

    again = invoke("apply", plan_id)
    assert (again.exit_code, again.stdout) == (1, "")
    assert "a plan is applied once; nothing was done. Make a new one: sync-pipelines plan stock" in again.stderr


def test_apply_tells_what_was_refused(place: Any, document: Callable[..., Any], plan_id: str) -> None:
    place.sql("UPDATE variants SET stock = 7")

    found = document("apply", plan_id, exit_code=1)

    assert found["outcome"] == "partial"
    [error] = found["errors"]
    assert (error["external_id"], error["exception_type"]) == ("A-1", "StalePlanError")
    assert "stock was 2, is 7" in error["message"]


def test_plans_are_listed(invoke: Invoke, document: Callable[..., Any], plan_id: str) -> None:
    invoke("apply", plan_id)
    invoke("plan", "stock")

    found = document("plans", "stock")["plans"]
    assert [plan["state"] for plan in found] == ["open", "applied"]
    lines = invoke("plans").stdout.splitlines()
    assert lines[0].split()[:6] == ["plan", "sync", "kind", "made", "expires", "state"]
    assert lines[1].rstrip().endswith("nothing")
    assert plan_id in lines[2]
    assert "1 to create, 1 to update" in lines[2]


def test_there_may_be_no_plans(invoke: Invoke) -> None:
    assert "no plans yet; sync-pipelines plan NAME makes one" in invoke("plans").stderr
    assert "no plans of stock yet" in invoke("plans", "stock").stderr
    assert invoke("plans", "other").exit_code == 2
    assert invoke("plan", "other").exit_code == 2
    assert invoke("apply", "nothing").exit_code == 2


def test_a_dry_run_among_the_runs(invoke: Invoke, plan_id: str) -> None:
    assert "2 fetched: 1 to create, 1 to update" in invoke("runs").stdout
    lines = invoke("show", plan_id).stdout.splitlines()
    assert "kind        dry run" in lines
    assert "to create   1" in lines
