"""The real daemon evaluates automation conditions: a change starts what waits for it once, then all is quiet."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from dagster import DagsterInstance

from demo.child import clean_environment
from demo.dagster_server import RunningDagster
from demo.erp import free_port

REPOSITORY = Path(__file__).parents[2]
QUIET_S = 20.0
"""Several evaluations of the daemon, which looks every few seconds."""
PATIENCE_S = 120.0
DEFINITIONS = """
import json
from pathlib import Path

from dagster import (
    AssetKey,
    AssetSelection,
    AutomationCondition,
    AutomationConditionSensorDefinition,
    DefaultSensorStatus,
    Definitions,
    asset,
)
from sync_pipelines import SqlTable, SyncJob
from sync_pipelines.orchestration.build import build_definitions

HERE = Path(__file__).parent


def fetched(name):  # each sync has another view of the source
    return [{"sku": item["sku"], name: item[name]} for item in json.loads((HERE / "erp.json").read_text())]


def job(name):
    return SyncJob(
        name=name,
        fetch_external=lambda: fetched(name),
        target=SqlTable(table=name, key="sku", columns=["sku", name], database=f"sqlite:///{HERE}/shop.sqlite"),
        asset_key=f"shop/{name}",
        source_asset="erp/articles",
    )


CHANGED = AutomationCondition.any_deps_match(AutomationCondition.data_version_changed())


@asset(deps=[AssetKey(["shop", "stock"])], automation_condition=CHANGED)
def report() -> None: ...


def eager_syncs():
    return build_definitions([job("stock"), job("price")]).map_resolved_asset_specs(
        selection=AssetSelection.keys("shop/stock", "shop/price"),
        func=lambda spec: spec.replace_attributes(automation_condition=AutomationCondition.eager()),
    )


sensor = AutomationConditionSensorDefinition(
    "automation",
    target=AssetSelection.all(),
    default_status=DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=2,
)
defs = Definitions.merge(eager_syncs(), Definitions(assets=[report], sensors=[sensor]))
"""


class Stage:
    """A folder with two eager syncs of one source, and a report on the table of one."""

    def __init__(self, folder: Path, dagster: RunningDagster, instance: DagsterInstance) -> None:
        self._folder, self._dagster, self._instance = folder, dagster, instance

    def set_source(self, *stock: int) -> None:
        items = [{"sku": f"A-{number}", "stock": pieces, "price": 5} for number, pieces in enumerate(stock)]
        (self._folder / "erp.json").write_text(json.dumps(items))

    def runs(self) -> Counter[str]:
        """How many there were of each asset."""
        return Counter("/".join(key.path) for run in self._instance.get_runs() for key in run.asset_selection or ())

    def launch(self, name: str) -> None:
        mutation = """mutation ($params: ExecutionParams!) {
          launchRun(executionParams: $params) { __typename ... on LaunchRunSuccess { run { runId } } } }"""
        selector = {
            "repositoryLocationName": "definitions.py",
            "repositoryName": "__repository__",
            "jobName": "__ASSET_JOB",
            "assetSelection": [{"path": ["shop", name]}],
        }
        answer = self._dagster.ask(mutation, {"params": {"selector": selector, "mode": "default"}})["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        assert self._dagster.wait_for_run(answer["run"]["runId"]) == "SUCCESS"

    def wait_for_rest(self) -> Counter[str]:
        """Waits until no run has been started for a while, and none is under way."""
        known, since_s = self.runs(), time.monotonic()
        until_s = since_s + PATIENCE_S
        while time.monotonic() - since_s < QUIET_S:
            assert time.monotonic() < until_s, f"they never come to rest: {self.runs()}\n{self._dagster.last_lines()}"
            time.sleep(0.5)
            if (now := self.runs()) != known or any(not run.is_finished for run in self._instance.get_runs()):
                known, since_s = now, time.monotonic()
        return known


@pytest.mark.soak
def test_the_daemon_starts_what_waits_for_a_change_once_and_then_nothing(tmp_path: Path) -> None:
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    (tmp_path / "workspace.yaml").write_text("load_from:\n  - python_file: {relative_path: definitions.py}\n")
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    own = {"DAGSTER_HOME": str(tmp_path), "SYNC_PIPELINES_DATA_DIR": str(tmp_path / "data")}
    environment = clean_environment(REPOSITORY, own)
    port = free_port()
    create_tables(tmp_path)
    with RunningDagster(tmp_path, port, environment, tmp_path / "dagster.log") as dagster:
        dagster.wait_until_it_answers()  # before that it makes its databases, and nobody else may
        with DagsterInstance.from_config(str(tmp_path)) as instance:
            require_one_start_for_a_change(Stage(tmp_path, dagster, instance))


def require_one_start_for_a_change(stage: Stage) -> None:
    """Runs a sync with and without a change of its source."""
    stage.set_source(1, 2)
    stage.wait_for_rest()

    stage.launch("stock")
    first = stage.wait_for_rest()
    assert first["shop/price"] == 1

    for _ in range(3):
        stage.launch("stock")
    unchanged = stage.wait_for_rest()
    assert unchanged - first == Counter({"shop/stock": 3})

    stage.set_source(1, 3)
    stage.launch("stock")
    changed = stage.wait_for_rest()
    assert changed - unchanged == Counter({"shop/stock": 1, "shop/price": 1, "report": 1})


def create_tables(folder: Path) -> None:
    """Makes the tables of the shop."""
    with closing(sqlite3.connect(folder / "shop.sqlite")) as database:
        for name in ("stock", "price"):
            database.execute(f"CREATE TABLE {name} (sku TEXT PRIMARY KEY, {name} INTEGER)")
        database.commit()
