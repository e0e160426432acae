"""A process that applies a plan and is killed at any instant: applied again, the plan goes on to the same end."""

from __future__ import annotations

import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sync_pipelines.errors import PlanError
from sync_pipelines.registry.plans import apply_plan
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.plans.plan_view import open_plan
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines_tests.children import exit_code, fork
from sync_pipelines_tests.runner import crash_child as child


@pytest.fixture(autouse=True)
def page_by_page() -> Iterator[None]:
    with child.page_by_page():
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    child.make_table(tmp_path)
    return tmp_path


def job_of(instant: str, folder: Path) -> Any:
    if instant == "record":
        return child.record_job(folder)
    return child.record_job(folder, has_changed=None) if instant == "blind record" else child.table_job(folder)


def query(folder: Path, statement: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(folder / "local.sqlite")
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("instant", "number"),
    [
        ("before progress", 1),
        ("before progress", 5),
        ("after progress", 3),
        ("before finish", 1),
        ("diff errors", 1),
        ("record", 7),
        ("record", 31),
        ("blind record", 17),
    ],
)
def test_a_plan_whose_applying_was_killed_goes_on_and_ends_in_the_same_state(
    folder: Path, instant: str, number: int
) -> None:
    settings, job = Settings(data_dir=folder), job_of(instant, folder)
    plan_id = run_sync(job, settings=settings, dry_run=True).plan_id or ""
    assert exit_code(fork(child.main, folder, instant, number, plan_id)) == -signal.SIGKILL

    assert open_plan(plan_id, settings=settings).state == "applying"
    results = apply_plan(plan_id, job=job, settings=settings)
    assert (results.outcome, results.accounts_balance, results.fetched) == ("clean", True, 95)
    with pytest.raises(PlanError, match="a plan is applied once"):
        apply_plan(plan_id, job=job, settings=settings)

    assert dict(query(folder, "SELECT sku, stock FROM variants")) == {
        each["sku"]: each["stock"] for each in child.ITEMS
    }
    written = Counter(row[0] for row in query(folder, "SELECT sku FROM written"))
    if instant != "blind record":  # whose functions can't say what is up to date, nor what the killed attempt wrote
        assert len(written) == 94
        assert set(written.values()) == {1}
    with open_workspace(settings) as workspace:
        outcomes = [run.outcome for run in workspace.ledger.latest_runs("crashing")]
    assert outcomes == ["clean", "planned"], "the second attempt goes on with the same run, and ends it"
