"""Syncs that start after the assets they read."""

from __future__ import annotations

from typing import Any

import pytest
from dagster import (
    AssetKey,
    AssetMaterialization,
    AssetSelection,
    AutomationCondition,
    AutomationConditionSensorDefinition,
    DagsterInstance,
    DataVersion,
    DefaultSensorStatus,
    Definitions,
    asset,
    evaluate_automation_conditions,
)

from sync_pipelines import SyncJob
from sync_pipelines.orchestration.automation import build_automation_sensor
from sync_pipelines.orchestration.build import build_definitions
from sync_pipelines_tests.orchestration.shop import Shop

PARENT, OURS = AssetKey(["warehouse", "rates"]), AssetKey(["shop", "stock"])


@asset(key=PARENT, automation_condition=AutomationCondition.eager())
def rates() -> None:
    """Somebody else's asset, with a condition of its own."""


class Location:
    """A project with somebody else's asset, our sync after it, and the daemon's look at both."""

    def __init__(self, instance: DagsterInstance, job: SyncJob[Any, Any]) -> None:
        self.definitions = Definitions.merge(Definitions(assets=[rates]), build_definitions([job]))
        self._instance = instance
        self._cursor: Any = None

    def update(self, key: AssetKey, version: str) -> None:
        tags = {"dagster/data_version": DataVersion(version).value}
        self._instance.report_runless_asset_event(AssetMaterialization(key, tags=tags))

    def asks_for_ours(self) -> bool:
        """Evaluates one tick of our sensor."""
        selection = AssetSelection.assets(OURS)
        done = evaluate_automation_conditions(
            self.definitions, self._instance, asset_selection=selection, cursor=self._cursor
        )
        self._cursor = done.cursor
        return done.get_num_requested(OURS) > 0


@pytest.fixture
def instance() -> Any:
    with DagsterInstance.ephemeral() as instance:
        yield instance


def after_rates(shop: Shop, automation: Any) -> SyncJob[Any, Any]:
    return shop.job(upstream=["warehouse/rates"], automation=automation)


def test_eager_starts_at_each_update_of_an_upstream_also_before_the_first_fetch(
    shop: Shop, instance: DagsterInstance
) -> None:
    location = Location(instance, after_rates(shop, "eager"))
    assert not location.asks_for_ours()

    for version in ("1", "1"):
        location.update(PARENT, version)
        assert location.asks_for_ours()
        location.update(OURS, "x")
        assert not location.asks_for_ours()


def test_on_change_starts_only_when_the_data_has_changed(shop: Shop, instance: DagsterInstance) -> None:
    location = Location(instance, after_rates(shop, "on_change"))
    assert not location.asks_for_ours()
    asked = []

    for version in ("1", "1", "2"):
        location.update(PARENT, version)
        asked.append(location.asks_for_ours())
        location.update(OURS, "x")
        location.asks_for_ours()

    assert asked == [True, False, True]


@pytest.mark.parametrize("automation", ["eager", "on_change"])
def test_what_the_own_fetch_does_to_the_source_starts_nothing(
    shop: Shop, instance: DagsterInstance, automation: str
) -> None:
    location = Location(instance, after_rates(shop, automation))
    location.update(PARENT, "1")
    location.asks_for_ours()
    location.update(OURS, "x")
    location.asks_for_ours()

    location.update(AssetKey(["erp", "stock"]), "2")

    assert not location.asks_for_ours()


def test_without_upstream_it_is_the_source_asset_that_counts(shop: Shop, instance: DagsterInstance) -> None:
    location = Location(instance, shop.job(automation="eager"))
    location.asks_for_ours()

    location.update(AssetKey(["erp", "stock"]), "1")

    assert location.asks_for_ours()


def test_a_condition_of_dagster_is_taken_as_it_is(shop: Shop) -> None:
    condition = AutomationCondition.on_cron("0 3 * * *")
    graph = build_definitions([shop.job(automation=condition)]).resolve_asset_graph()

    assert graph.get(OURS).automation_condition == condition


def test_our_sensor_runs_from_the_start_over_our_assets_only(shop: Shop) -> None:
    definitions = Location(DagsterInstance.ephemeral(), after_rates(shop, "eager")).definitions
    graph = definitions.resolve_asset_graph()
    sensors = {each.name: each for each in definitions.get_repository_def().sensor_defs}

    ours, theirs = sensors["sync_automation_sensor"], sensors["default_automation_condition_sensor"]
    assert isinstance(ours, AutomationConditionSensorDefinition)
    assert ours.default_status is DefaultSensorStatus.RUNNING
    assert ours.asset_selection.resolve(graph) == {OURS}
    assert theirs.asset_selection is not None
    assert OURS not in theirs.asset_selection.resolve(graph)
    assert PARENT in theirs.asset_selection.resolve(graph)
    assert theirs.default_status is DefaultSensorStatus.STOPPED


def test_there_is_one_sensor_however_many_definitions_there_are(shop: Shop) -> None:
    jobs = [after_rates(shop, "eager"), after_rates(shop, AutomationCondition.eager())]

    assert build_automation_sensor(jobs[:1]) is build_automation_sensor(jobs[1:])
    assert build_automation_sensor([shop.job()]) is None
