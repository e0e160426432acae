"""A real Dagster with two code locations: a project that merges syncs with assets of others, and one of syncs alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.child import clean_environment
from demo.dagster_server import RunningDagster
from demo.erp import free_port
from sync_pipelines_tests.children import run_child

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 120.0
JOB_FILE = """\
import sqlite3

from sync_pipelines import SqlTable, SyncJob

with sqlite3.connect("{place}.sqlite") as shop:
    shop.execute("CREATE TABLE IF NOT EXISTS stock (number TEXT PRIMARY KEY, pieces INTEGER)")

JOB = SyncJob(
    name="our-stock",
    fetch_external=lambda: [{{"number": "{place}", "pieces": 1}}],
    target=SqlTable(table="stock", key="number", columns=["number", "pieces"], database="sqlite:///{place}.sqlite"),
    source_asset="models/stock",
    asset_key="{place}/stock",
)
"""
PROJECT = """\
import os

os.environ["SYNC_PIPELINES_DATA_DIR"] = "north_data"
import north_stock
from dagster import Definitions, asset
from sync_pipelines import SyncJob, sync_definitions

OTHER = SyncJob(name="other", fetch_external=list, get_external_id="id", find_local=lambda _: None,
                create=print, update=print)


@asset(key=["models", "stock"])
def model() -> None:
    '''As of dbt: what the sync reads.'''


@asset(deps=[["north", "stock"]])
def report() -> None:
    '''It reads what the sync writes.'''


defs = Definitions.merge(
    sync_definitions(OTHER), Definitions(assets=[model, report]), sync_definitions(north_stock.JOB)
)
"""
SYNCS_ALONE = """\
import os

os.environ["SYNC_PIPELINES_DATA_DIR"] = "south_data"
os.environ["SYNC_PIPELINES_JOBS"] = "south_jobs"
from sync_pipelines.definitions import defs
"""
WORKSPACE = """\
load_from:
  - python_module: {module_name: north_project, location_name: north}
  - python_module: {module_name: south_project, location_name: south}
"""
STORE = "from sync_pipelines import trigger_item; trigger_item('our-stock', {item})"
RUNS = """{ runsOrError { ... on Runs { results { runId jobName status repositoryOrigin { repositoryLocationName }
    tags { key value } assetSelection { path } } } } }"""
SENSORS = """{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {
    ... on RepositoryLocation { repositories { sensors { name } } } } } } } }"""

pytestmark = pytest.mark.soak  # half a minute of CPU


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "north_stock.py").write_text(JOB_FILE.format(place="north"), encoding="utf-8")
    (folder / "south_jobs").mkdir()
    (folder / "south_jobs" / "stock.py").write_text(JOB_FILE.format(place="south"), encoding="utf-8")
    (folder / "north_project.py").write_text(PROJECT, encoding="utf-8")
    (folder / "south_project.py").write_text(SYNCS_ALONE, encoding="utf-8")
    (folder / "workspace.yaml").write_text(WORKSPACE, encoding="utf-8")
    (folder / "dagster.yaml").write_text((REPOSITORY / "dagster.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def environment(project: Path) -> dict[str, str]:
    return clean_environment(REPOSITORY, {"PYTHONPATH": f"{project}:{REPOSITORY}"})


@pytest.fixture(scope="module")
def dagster(project: Path, environment: dict[str, str]) -> Iterator[RunningDagster]:
    with RunningDagster(project, free_port(), environment, project.parent / "dagster.log") as dagster:
        dagster.wait_until_it_answers()
        yield dagster


def runs(dagster: RunningDagster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dagster.ask(RUNS)["runsOrError"]["results"]
    return found


def wait_for(dagster: RunningDagster, job: str, location: str) -> dict[str, Any]:
    """Waits until a run of that job of that code location has ended."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        for run in runs(dagster):
            if (run["jobName"], run["repositoryOrigin"]["repositoryLocationName"]) == (job, location):
                dagster.wait_for_run(run["runId"])
                return run
        time.sleep(0.5)
    raise AssertionError(f"no run of {job} in {location}: {runs(dagster)}; {dagster.last_lines()}")


def test_each_code_location_has_one_sensor_of_each_kind(dagster: RunningDagster) -> None:
    entries = dagster.ask(SENSORS)["workspaceOrError"]["locationEntries"]
    found = {
        entry["name"]: {each["name"] for each in entry["locationOrLoadError"]["repositories"][0]["sensors"]}
        for entry in entries
    }
    sensors = {"sync_inbox_sensor", "sync_recovery_sensor", "sync_retry_sensor"}
    assert found == {"north": sensors, "south": sensors}


def test_an_item_is_applied_by_its_own_code_location(
    dagster: RunningDagster, project: Path, environment: dict[str, str]
) -> None:
    """Both have a sync of that name, each with a ledger of its own."""
    given = {**environment, "SYNC_PIPELINES_DATA_DIR": "north_data", "SYNC_PIPELINES_JOBS": "north_stock"}
    code = STORE.format(item={"number": "by webhook", "pieces": 7})
    stored = run_child([sys.executable, "-c", code], cwd=project, env=given)
    assert stored.returncode == 0, stored.stderr

    run = wait_for(dagster, "our_stock_items", "north")

    tags = {each["key"]: each["value"] for each in run["tags"]}
    assert (tags["sync"], tags["sync/kind"]) == ("our-stock", "drain")
    assert not [each for each in runs(dagster) if each["repositoryOrigin"]["repositoryLocationName"] == "south"]
