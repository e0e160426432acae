"""The demo's syncs end to end: a real ERP, a real `dagster dev`, runs launched over GraphQL, rows compared."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from demo.child import clean_environment
from demo.dagster_server import RunningDagster
from demo.erp import RunningErp, change, free_port
from demo.shop import create_tables
from sync_pipelines import ConfigurationError, RetryableError, Settings, SyncResults, trigger_item, trigger_sync
from sync_pipelines.database.connections import create_database
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.runs.results import results_of_run
from sync_pipelines.sources.tryton import StockLevel

REPOSITORY = Path(__file__).parents[2]
LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) { __typename ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message } }
}"""


@dataclass
class Stage:
    """Everything that runs."""

    erp: RunningErp
    dagster: RunningDagster
    settings: Settings
    home: Path

    def run(self, name: str) -> SyncResults:
        """Runs a sync as a job, launched through the run queue."""
        return self.results(trigger_sync(name, settings=self.settings))

    def materialise(self, *key: str) -> SyncResults:
        """What the UI's Materialize button does."""
        selector = {
            "repositoryLocationName": "sync_pipelines",
            "repositoryName": "__repository__",
            "jobName": "__ASSET_JOB",
            "assetSelection": [{"path": list(key)}],
            "assetCheckSelection": [{"assetKey": {"path": list(key)}, "name": "items_failed"}],
        }
        answer = self.dagster.ask(LAUNCH, {"params": {"selector": selector, "mode": "default"}})["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return self.results(answer["run"]["runId"])

    def results(self, run_id: str) -> SyncResults:
        assert self.dagster.wait_for_run(run_id) == "SUCCESS"
        with open_workspace(self.settings) as workspace:
            row = workspace.ledger.run_of_dagster(run_id)
            assert row is not None
            return results_of_run(workspace, row.id)

    def rows(self, query: str) -> list[Any]:
        database = create_database(self.settings.local_url())
        with database.connect() as connection:
            found = [tuple(row) for row in connection.execute(text(query))]
        database.dispose()
        return found


@pytest.fixture(scope="module")
def stage(seeded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    home = tmp_path_factory.mktemp("stage")
    for name in ("workspace.yaml", "dagster.yaml"):
        shutil.copy(REPOSITORY / name, home)
    shutil.copytree(seeded, home / "erp")
    port = free_port()
    settings = Settings(data_dir=home / ".sync_pipelines", dagster_url=f"http://127.0.0.1:{port}")
    create_tables(settings.local_url())
    with RunningErp(home / "erp") as erp:
        own = {**erp.environment(), "SYNC_PIPELINES_DATA_DIR": str(settings.data_dir)}
        environment = clean_environment(REPOSITORY, own)
        with RunningDagster(home, port, environment, home / "dagster.log") as dagster:
            dagster.wait_until_it_answers()
            yield Stage(erp, dagster, settings, home)


def products_of(erp: RunningErp) -> set[tuple[Any, ...]]:
    return {
        (item.sku, item.name, None if item.price is None else round(item.price, 2), item.active)
        for page in erp.client().products()
        for item in page
    }


def products_in(stage: Stage) -> set[tuple[Any, ...]]:
    return {
        (sku, name, None if price is None else round(Decimal(str(price)), 2), bool(active))
        for sku, name, price, active in stage.rows("SELECT sku, name, price, active FROM products")
    }


def stock_of(erp: RunningErp) -> set[tuple[Any, ...]]:
    return {(item.sku, item.warehouse, item.quantity) for page in erp.client().inventory() for item in page}


def stock_in(stage: Stage) -> set[tuple[Any, ...]]:
    found = stage.rows("SELECT sku, warehouse, quantity FROM stock_levels")
    return {(sku, warehouse, Decimal(str(quantity)).normalize()) for sku, warehouse, quantity in found}


def normal(levels: set[tuple[Any, ...]]) -> set[tuple[Any, ...]]:
    return {(sku, warehouse, Decimal(quantity).normalize()) for sku, warehouse, quantity in levels}


def test_products_and_stock_equal_what_the_erp_answers_after_runs_and_changes(stage: Stage) -> None:
    """Launched as a job and as Materialize; the second run of each changes nothing."""
    stage.run("erp-products")
    stage.materialise("shop", "stock_levels")
    assert products_in(stage) == products_of(stage.erp)
    assert stock_in(stage) == normal(stock_of(stage.erp))
    assert len(products_in(stage)) >= 200
    assert len({warehouse for _, warehouse, _ in stock_in(stage)}) == 2

    for again in (stage.materialise("shop", "products"), stage.run("erp-inventory")):
        assert (again.created, again.updated, again.error_count) == (0, 0, 0)
        assert again.unchanged == again.fetched > 0

    changes = change(stage.erp)
    after = stage.run("erp-products")
    assert after.created == len(changes.created)
    assert after.updated >= len(changes.repriced)
    assert after.accounts_balance
    moved = stage.run("erp-inventory")
    assert moved.updated == len(changes.moved)
    assert products_in(stage) == products_of(stage.erp)
    assert stock_in(stage) == normal(stock_of(stage.erp))


@pytest.mark.soak
def test_a_single_item_is_applied_by_a_drain_that_the_sensor_starts(stage: Stage) -> None:
    item = StockLevel(sku="BY-HAND", warehouse="X", quantity=Decimal("7.5"), unit="u", product_id=1)
    trigger_item("erp-inventory", item, settings=stage.settings)

    until = time.monotonic() + 60
    query = "SELECT quantity FROM stock_levels WHERE sku = 'BY-HAND'"
    while not (found := stage.rows(query)) and time.monotonic() < until:
        time.sleep(0.5)

    assert [Decimal(str(quantity)) for (quantity,) in found] == [Decimal("7.5")]
    _delete(stage, "DELETE FROM stock_levels WHERE sku = 'BY-HAND'")


def _delete(stage: Stage, statement: str) -> None:
    database = create_database(stage.settings.local_url())
    with database.begin() as connection:
        connection.execute(text(statement))
    database.dispose()


def test_a_sync_that_the_code_location_lacks_is_named(stage: Stage) -> None:
    with pytest.raises(ConfigurationError, match="has no sync 'crm-customers'"):
        trigger_sync("crm-customers", settings=stage.settings)


def test_a_web_server_that_does_not_answer_is_worth_a_retry(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, dagster_url=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(RetryableError, match="does not answer; start it"):
        trigger_sync("erp-products", settings=settings)


@pytest.mark.soak
def test_an_erp_that_is_down_fails_the_run_clearly_and_changes_nothing(stage: Stage) -> None:
    before = stock_in(stage)
    stage.erp.stop()
    try:
        run_id = trigger_sync("erp-inventory", settings=stage.settings)
        assert stage.dagster.wait_for_run(run_id) == "FAILURE"
    finally:
        stage.erp.start()
    with open_workspace(stage.settings) as workspace:
        row = workspace.ledger.run_of_dagster(run_id)
    assert row is not None
    assert row.outcome == "failed"
    assert "nothing was applied" in str(row.failure)
    assert stage.erp.password not in str(row.failure)
    assert stock_in(stage) == before


@pytest.mark.soak
def test_schedules_and_sensors_run_from_the_start(stage: Stage) -> None:
    query = """{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError {
        ... on RepositoryLocation { repositories { schedules { name scheduleState { status } }
        sensors { name sensorState { status } } } } } } } } }"""
    (entry,) = stage.dagster.ask(query)["workspaceOrError"]["locationEntries"]
    (repository,) = entry["locationOrLoadError"]["repositories"]

    states = {each["name"]: each["scheduleState"]["status"] for each in repository["schedules"]}
    states |= {each["name"]: each["sensorState"]["status"] for each in repository["sensors"]}

    assert states == {
        "erp_inventory_every_hour": "RUNNING",
        "erp_products_daily_at_0530": "RUNNING",
        "erp_inventory_items_sensor": "RUNNING",
        "erp_inventory_retry_sensor": "RUNNING",
        "erp_products_items_sensor": "RUNNING",
        "erp_products_retry_sensor": "RUNNING",
        "sync_freshness_sensor": "RUNNING",
        "sync_job_files_sensor": "RUNNING",
        "sync_recovery_sensor": "RUNNING",
    }


def test_the_erps_password_is_in_no_log_and_no_metadata(stage: Stage) -> None:
    stage.run("erp-products")
    secret = stage.erp.password.encode()

    holding = [
        path.relative_to(stage.home)
        for path in (stage.home / ".sync_pipelines").rglob("*")
        if path.is_file() and secret in path.read_bytes()
    ]

    assert holding == []
    assert secret not in (stage.home / "dagster.log").read_bytes()
