"""`runs`: what the ledger remembers, the newest first."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from typer.testing import Result

from sync_pipelines.database.ledger import Ledger, RunRow

Invoke = Callable[..., Result]
Document = Callable[..., Any]
NOON = datetime(2026, 5, 6, 12, 0, tzinfo=UTC)


def note_run(ledger: Ledger, number: int, job: str = "stock", outcome: str | None = "clean", **fields: Any) -> str:
    """Writes a run into the ledger: number 3 began three hours after noon and took 61.25 s."""
    run_id = f"{number:08d}-aaaa-4bbb-8ccc-dddddddddddd"
    started_at = NOON + timedelta(hours=number)
    row = {"id": run_id, "job": job, "kind": "full", "dagster_run_id": None, "options": {}, "started_at": started_at}
    ledger.start_run(RunRow(**{**row, **fields}))
    if outcome is not None:
        counts = {"fetched": 1234, "created": 4, "updated": 0, "unchanged": 1230, "failed": 0}
        at = started_at + timedelta(seconds=61.25)
        ledger.finish_run(run_id, outcome=outcome, counts=counts, failure=None, applied_all=True, at=at)
    return run_id


def test_runs_of_all_jobs_come_newest_first(place: Any, document: Document) -> None:
    with place.ledger() as ledger:
        ids = [note_run(ledger, number, job) for number, job in enumerate(["stock", "prices", "stock"])]
    assert [run["id"] for run in document("runs")["runs"]] == ids[::-1]
    assert [run["id"] for run in document("runs", "stock")["runs"]] == [ids[2], ids[0]]
    assert [run["id"] for run in document("runs", "--limit", "2")["runs"]] == [ids[2], ids[1]]
    assert [run["id"] for run in document("runs", "stock", "--limit", "1")["runs"]] == [ids[2]]


def test_a_line_tells_when_how_and_how_long(place: Any, invoke: Invoke) -> None:
    with place.ledger() as ledger:
        run_id = note_run(ledger, 3, kind="drain", dagster_run_id="d-1", outcome="partial")
    header, line = invoke("runs").stdout.splitlines()
    assert header.split("  ")[0] == "run"
    began = (NOON + timedelta(hours=3)).astimezone()
    told = [run_id, "stock", f"{began:%Y-%m-%d %H:%M:%S}", "drain", "partial"]
    told += ["1,234 fetched: 4 created, 1,230 unchanged", "1 min 1 s", "d-1"]
    assert [cell.strip() for cell in line.split("  ") if cell.strip()] == told


def test_a_run_without_an_outcome_is_unfinished(place: Any, invoke: Invoke, document: Document) -> None:
    with place.ledger() as ledger:
        note_run(ledger, 1, outcome=None)
    assert " unfinished" in invoke("runs").stdout
    (run,) = document("runs")["runs"]
    assert (run["outcome"], run["completed_at"], run["duration_ms"], run["counts"]) == (None, None, None, {})


def test_the_document_has_numbers_as_numbers_and_times_with_zone(place: Any, document: Document) -> None:
    with place.ledger() as ledger:
        note_run(ledger, 0, options={"limit": 3, "only": []})
    (run,) = document("runs")["runs"]
    assert run["started_at"] == "2026-05-06T12:00:00+00:00"
    assert run["duration_ms"] == 61_250
    assert run["counts"]["fetched"] == 1234
    assert run["options"] == {"limit": 3, "only": []}


def test_no_runs_yet_is_no_error(place: Any, invoke: Invoke, document: Document) -> None:
    place.write_stock_job()
    result = invoke("runs", "stock")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no runs of stock yet\n")
    assert document("runs") == {"runs": []}


def test_a_name_that_nobody_knows_ends_with_2(place: Any, invoke: Invoke) -> None:
    place.write_stock_job()
    result = invoke("runs", "stok")
    assert result.exit_code == 2
    assert "there is no sync job 'stok'" in result.stderr


def test_runs_of_a_job_that_is_gone_are_still_there(place: Any, document: Document) -> None:
    with place.ledger() as ledger:
        note_run(ledger, 1, job="retired")
    assert len(document("runs", "retired")["runs"]) == 1


def test_the_real_command_prints_plain_lines(place: Any) -> None:
    with place.ledger() as ledger:
        run_id = note_run(ledger, 1)
    done = place.run("runs")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].startswith(f"{run_id}  stock  ")
