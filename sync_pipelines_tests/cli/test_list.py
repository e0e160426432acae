"""`list`: the sync jobs and how their last runs went."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from typer.testing import Result

Invoke = Callable[..., Result]
Document = Callable[..., Any]


def named(document: Any, name: str) -> Any:
    return next(job for job in document["jobs"] if job["name"] == name)


def test_each_job_is_a_line_with_schedule_source_and_target(place: Any, invoke: Invoke) -> None:
    place.write_stock_job()
    result = invoke("list")
    assert result.exit_code == 0
    line = next(line for line in result.stdout.splitlines() if line.startswith("stock "))
    assert line.split("  ") == ["stock", "every hour", "erp/stock", "table variants", "never"]


def test_the_last_run_is_shown_with_its_outcome_and_time(place: Any, invoke: Invoke, document: Document) -> None:
    place.write_stock_job()
    place.sql("INSERT INTO variants VALUES ('A-2', 7)")
    assert invoke("run", "stock").exit_code == 0
    run = place.runs()[0]
    line = next(line for line in invoke("list").stdout.splitlines() if line.startswith("stock "))
    assert line.endswith(f"clean     {run.started_at.astimezone():%Y-%m-%d %H:%M:%S}")
    last = named(document("list"), "stock")["last_run"]
    assert (last["id"], last["outcome"], last["counts"]["updated"]) == (run.id, "clean", 1)
    assert last["started_at"] == run.started_at.isoformat()


def test_the_document_tells_schedule_and_places(place: Any, document: Document) -> None:
    place.write_stock_job()
    assert named(document("list"), "stock") == {
        "name": "stock",
        "description": "",
        "schedule": {"description": "every hour", "cron_lines": ["0 * * * *"], "timezone": "UTC"},
        "automation": None,
        "source": "erp/stock",
        "target": "table variants",
        "last_run": None,
    }


def test_what_starts_a_job_without_schedule_is_shown_by_list_and_check(
    place: Any, invoke: Invoke, document: Document
) -> None:
    place.write_stock_job("upstream=['warehouse/rates', 'dbt'], automation='eager'")

    line = next(line for line in invoke("list").stdout.splitlines() if line.startswith("stock "))
    assert line.split("  ")[1] == "eager, after warehouse/rates, dbt"
    assert named(document("list"), "stock")["automation"] == "eager, after warehouse/rates, dbt"
    finding = next(each for each in document("check")["findings"] if each["subject"] == "stock")
    assert finding["message"].endswith("; started by eager, after warehouse/rates, dbt")


def test_a_job_of_functions_without_schedule_is_shown_as_such(place: Any, document: Document) -> None:
    place.write_job(
        "crm",
        """
        from sync_pipelines import SyncJob

        def customers():
            return []

        FIELDS = {"get_external_id": "id", "find_local": str, "create": str, "update": max}
        JOB = SyncJob(name="named", fetch_external=customers, **FIELDS)
        OTHER = SyncJob(name="unnamed", fetch_external=lambda: [], **FIELDS)
        """,
    )
    found = document("list")
    assert named(found, "named")["schedule"] is None
    assert named(found, "named")["source"] == "crm.customers"
    assert named(found, "unnamed")["source"] == "unnamed_source"
    assert named(found, "named")["target"] == "functions of the job"


def test_an_empty_place_says_how_to_begin(place: Any) -> None:
    done = place.run("list")
    assert (done.returncode, done.stdout) == (0, "")
    assert "sync-pipelines new NAME" in done.stderr


def test_a_job_file_that_fails_is_named_with_its_line_and_the_others_are_shown(place: Any, invoke: Invoke) -> None:
    place.write_stock_job()
    path = place.write_job("broken", "x = 1\n1 / 0")
    result = invoke("list")
    assert result.exit_code == 2
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["sync", "stock"]
    told = f"the jobs module {place.package}.broken can't be imported: ZeroDivisionError: division by zero ({path}:2)"
    assert result.stderr == f"error: {told}\n"


def test_where_every_job_file_fails_nothing_else_is_said(place: Any, invoke: Invoke) -> None:
    place.write_job("broken", "1 / 0")
    result = invoke("list")
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: the jobs module {place.package}.broken can't be imported")


def test_the_document_has_the_problems_beside_the_jobs(place: Any, document: Document) -> None:
    place.write_stock_job()
    assert document("list")["problems"] == []
    path = place.write_job("broken", "1 / 0")
    twins = """
        from sync_pipelines import SyncJob
        FIELDS = {"fetch_external": list, "get_external_id": "id", "find_local": str, "create": str, "update": max}
        JOBS = [SyncJob(name="twin", **FIELDS), SyncJob(name="twin", **FIELDS)]
    """
    place.write_job("twins", twins)
    found = document("list", exit_code=2)
    assert [job["name"] for job in found["jobs"]] == ["stock"]
    broken, twin = found["problems"]
    assert (broken["module"], broken["file"], broken["line"]) == (f"{place.package}.broken", str(path), 1)
    assert (broken["jobs"], twin["jobs"]) == ([], ["twin", "twin"])
    assert "ZeroDivisionError" in broken["message"]
