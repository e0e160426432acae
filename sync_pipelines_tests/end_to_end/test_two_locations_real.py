"""A real Dagster with two code locations that have a sync of one name, and a job file of one of them is broken."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.child import clean_environment
from demo.dagster_server import RunningDagster
from demo.erp import free_port
from sync_pipelines import ConfigurationError, Settings, trigger_sync
from sync_pipelines_tests.end_to_end.test_dagster_real import LAUNCH

pytestmark = pytest.mark.soak

REPOSITORY = Path(__file__).parents[2]
LOCATIONS = ("shop", "warehouse")
JOB_FILE = """
from sync_pipelines import SyncJob, sync_intervals

records = {{}}


def create(item):
    with open({written!r}, "a") as file:
        file.write("written\\n")


JOB = SyncJob(
    name="stock", fetch_external=lambda: [{{"sku": "A-1"}}], get_external_id="sku", find_local=records.get,
    create=create, update=create, schedule=sync_intervals.minutes(1),
)
"""
LOCATION = """
from sync_pipelines.orchestration.job_files import load_job_files

defs = load_job_files(["{name}_jobs"])
"""
STATES = """{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {
  ... on RepositoryLocation { repositories { schedules { name scheduleState { status } }
    sensors { name sensorState { status } } } } } } } } }"""
START = """
mutation ($sensor: SensorSelector!) {
  startSensor(sensorSelector: $sensor) { __typename ... on PythonError { message } }
}"""
CHECKS = """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { description groupName
  assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization {
    status evaluation { success severity description } } } } } } } }"""


class Stage:
    """The two code locations, and their Dagster."""

    def __init__(self, dagster: RunningDagster, settings: Settings, home: Path) -> None:
        self.dagster = dagster
        self.settings = settings
        self.home = home

    def place_of_run(self, run_id: str) -> str:
        query = (
            "query ($id: ID!) { runOrError(runId: $id) { ... on Run { repositoryOrigin { repositoryLocationName } } } }"
        )
        found = self.dagster.ask(query, {"id": run_id})["runOrError"]["repositoryOrigin"]
        return str(found["repositoryLocationName"])

    def broken(self) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Returns the broken asset, and what its check has said last."""
        node = self.dagster.ask(CHECKS, {"key": {"path": ["sync", "prices"]}})["assetNodeOrError"]
        (check,) = node["assetChecksOrError"]["checks"]
        assert check["name"] == "job_file_loads"
        return node, check["executionForLatestMaterialization"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    home = tmp_path_factory.mktemp("two_locations")
    shutil.copy(REPOSITORY / "dagster.yaml", home)
    workspace = ["load_from:"]
    for name in LOCATIONS:
        (home / f"{name}_jobs").mkdir()
        (home / f"{name}_jobs" / "__init__.py").touch()
        (home / f"{name}_jobs" / "stock.py").write_text(JOB_FILE.format(written=str(home / f"{name}.txt")))
        (home / f"{name}_location.py").write_text(LOCATION.format(name=name))
        workspace.append(
            f"  - python_file: {{relative_path: {name}_location.py, location_name: {name}, working_directory: {home}}}"
        )
    (home / "shop_jobs" / "prices.py").write_text("x = 1\nraise RuntimeError('password=geheim')\n")
    (home / "workspace.yaml").write_text("\n".join(workspace))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = Settings(data_dir=home / "data", database_url=None, ledger_url=None, dagster_url=url)
    environment = clean_environment(
        REPOSITORY, {"SYNC_PIPELINES_DATA_DIR": str(home / "data"), "SYNC_PIPELINES_START": "stopped"}
    )
    with RunningDagster(home, port, environment, home / "dagster.log") as dagster:
        dagster.wait_until_it_answers()
        yield Stage(dagster, settings, home)


def test_without_saying_which_the_trigger_asks_for_it(stage: Stage) -> None:
    with pytest.raises(ConfigurationError, match=r"in 2 code locations, (shop, warehouse|warehouse, shop); say which"):
        trigger_sync("stock", settings=stage.settings)


def test_the_run_goes_to_the_location_that_is_given_or_set(stage: Stage) -> None:
    settings = stage.settings.model_copy(update={"dagster_location": "warehouse"})

    runs = [trigger_sync("stock", settings=settings), trigger_sync("stock", location="shop", settings=settings)]

    assert [stage.place_of_run(run_id) for run_id in runs] == ["warehouse", "shop"]
    assert [stage.dagster.wait_for_run(run_id) for run_id in runs] == ["SUCCESS", "SUCCESS"]
    assert [(stage.home / f"{name}.txt").read_text() for name in LOCATIONS] == ["written\n", "written\n"]


def test_nothing_runs_from_the_start_where_it_is_stopped_but_what_is_started_by_hand(stage: Stage) -> None:
    """And the sensor that is started reports the broken file, which shows before that as well."""
    entries = stage.dagster.ask(STATES)["workspaceOrError"]["locationEntries"]
    (shop,) = [entry["locationOrLoadError"]["repositories"][0] for entry in entries if entry["name"] == "shop"]
    states = {each["scheduleState"]["status"] for each in shop["schedules"]}
    states |= {each["sensorState"]["status"] for each in shop["sensors"]}
    node, said = stage.broken()
    told = f"prices can't be imported: RuntimeError: password=*** ({stage.home / 'shop_jobs' / 'prices.py'}:2)"
    assert (states, said, node["groupName"]) == ({"STOPPED"}, None, "broken_job_files")
    assert told in node["description"]

    sensor = {
        "repositoryLocationName": "shop",
        "repositoryName": "__repository__",
        "sensorName": "sync_recovery_sensor",
    }
    assert stage.dagster.ask(START, {"sensor": sensor})["startSensor"]["__typename"] == "Sensor"
    until = time.monotonic() + 120
    while (said := stage.broken()[1]) is None and time.monotonic() < until:
        time.sleep(0.5)

    assert said is not None, stage.dagster.last_lines()
    assert (said["evaluation"]["success"], said["evaluation"]["severity"]) == (False, "ERROR")
    assert told in said["evaluation"]["description"]


def test_the_check_of_a_broken_file_can_be_run_from_its_page(stage: Stage) -> None:
    selector = {
        "repositoryLocationName": "shop",
        "repositoryName": "__repository__",
        "jobName": "__ASSET_JOB",
        "assetSelection": [],
        "assetCheckSelection": [{"assetKey": {"path": ["sync", "prices"]}, "name": "job_file_loads"}],
    }
    answer = stage.dagster.ask(LAUNCH, {"params": {"selector": selector, "mode": "default"}})["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer

    assert stage.dagster.wait_for_run(answer["run"]["runId"]) == "SUCCESS"
    said = stage.broken()[1]
    assert said is not None
    assert said["status"] == "EXECUTION_FAILED" or said["evaluation"]["success"] is False
