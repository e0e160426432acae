"""Failed items are tried again by a Dagster job of their own, which a sensor starts when they are due."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from dagster import (
    AssetCheckEvaluation,
    AssetKey,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    DefaultSensorStatus,
    Definitions,
    ExecuteInProcessResult,
    RunRequest,
    SkipReason,
    TableMetadataValue,
    build_sensor_context,
)

from sync_pipelines import ConfigurationError, Retry
from sync_pipelines.database.leases import Holder
from sync_pipelines.orchestration.build import build_definitions
from sync_pipelines.orchestration.location import HELD_WORKSPACE
from sync_pipelines.runner.context import workspace as workspace_room
from sync_pipelines.runner.context.workspace import open_workspace, utc_now
from sync_pipelines_tests.orchestration.shop import Shop

STOCK = AssetKey(["shop", "stock"])
AT_ONCE = Retry(attempts=3, first_wait_s=0.001)


def items_failed(result: ExecuteInProcessResult) -> AssetCheckEvaluation:
    return next(each for each in result.get_asset_check_evaluations() if each.check_name == "items_failed")


def execute(definitions: Definitions, instance: DagsterInstance, name: str = "erp_stock_retry") -> Any:
    return definitions.resolve_job_def(name).execute_in_process(instance=instance, raise_on_error=False)


def materialised(result: Any) -> list[dict[str, Any]]:
    return [
        {
            name: [record.data for record in value.records] if isinstance(value, TableMetadataValue) else value.value
            for name, value in event.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
        if event.asset_key == STOCK
    ]


RETRY = {"sync": "erp-stock", "sync/kind": "retry"}


def look(definitions: Definitions, instance: DagsterInstance) -> RunRequest | SkipReason:
    sensor = definitions.resolve_sensor_def("sync_retry_sensor")
    assert sensor.default_status is DefaultSensorStatus.RUNNING
    context = build_sensor_context(instance=instance, repository_def=definitions.get_repository_def())
    data = sensor.evaluate_tick(context)
    return data.run_requests[0] if data.run_requests else SkipReason(data.skip_message)


def reason(definitions: Definitions, instance: DagsterInstance) -> str:
    found = look(definitions, instance)
    assert isinstance(found, SkipReason)
    return str(found.skip_message)


@pytest.fixture
def failing(shop: Shop, instance: DagsterInstance) -> Definitions:
    """Two items of five have failed, and are due."""
    for number in (2, 3):
        shop.items[number]["bad"] = True
    definitions = build_definitions([shop.job(retry=AT_ONCE)])
    execute(definitions, instance, "erp_stock")
    return definitions


def test_a_retry_brings_what_goes_through_into_the_history_of_the_asset(
    shop: Shop, failing: Definitions, instance: DagsterInstance
) -> None:
    shop.create = lambda item: shop.records.update({item["sku"]: item})  # type: ignore[method-assign]
    definitions = build_definitions([shop.job(retry=AT_ONCE)])
    result = execute(definitions, instance)
    assert result.success
    [metadata] = materialised(result)
    assert (metadata["retried items fetched"], metadata["retried items created"]) == (2, 2)
    assert instance.get_run_by_id(result.run_id).tags["sync/outcome"] == "clean"  # type: ignore[union-attr]
    assert set(shop.records) == {f"A-{number}" for number in range(5)}
    assert not materialised(execute(definitions, instance))  # nothing is left to try


def test_what_fails_again_shows_in_check_and_metadata_by_cause(failing: Definitions, instance: DagsterInstance) -> None:
    result = execute(failing, instance)
    [metadata] = materialised(result)
    check = items_failed(result)
    assert (result.success, check.passed, metadata["outcome"]) == (True, False, "partial")
    [cause] = metadata["errors by cause"]
    assert (cause["items"], cause["error"]) == (2, "ValueError")
    assert str(cause["message"]).startswith("create: ValueError: <id> is not wanted (shop.py:")
    assert cause["e.g."] == "A-2, A-3"


def test_the_launchpad_tries_again_what_is_given_up(shop: Shop, instance: DagsterInstance) -> None:
    for number in (2, 3):
        shop.items[number]["bad"] = True
    definitions = build_definitions([shop.job(retry=Retry(attempts=1))])
    execute(definitions, instance, "erp_stock")
    shop.create = lambda item: shop.records.update({item["sku"]: item})  # type: ignore[method-assign]
    dagster_job = build_definitions([shop.job(retry=Retry(attempts=1))]).resolve_job_def("erp_stock_retry")

    for config in ({"only": ["A-2"]}, {"everything": True}):
        run_config = {"ops": {"retry": {"config": config}}}
        [metadata] = materialised(dagster_job.execute_in_process(instance=instance, run_config=run_config))
        assert metadata["retried items created"] == 1
    assert {"A-2", "A-3"} <= set(shop.records)


def test_a_retry_of_one_item_does_not_hide_that_another_has_failed(
    shop: Shop, failing: Definitions, instance: DagsterInstance
) -> None:
    with open_workspace() as workspace:
        [_, other] = workspace.failures.newest("erp-stock", ["open"], 10)
        workspace.failures.reschedule("erp-stock", {other.key: None})  # with the next run
    shop.create = lambda item: shop.records.update({item["sku"]: item})  # type: ignore[method-assign]
    definitions = build_definitions([shop.job(retry=AT_ONCE)])
    check = items_failed(execute(definitions, instance))
    assert not check.passed
    assert "1 failed items are left in all: sync-pipelines failures erp-stock" in str(check.description)


def test_a_full_run_shows_its_errors_by_cause_and_what_is_gone(shop: Shop, instance: DagsterInstance) -> None:
    shop.items[2]["bad"] = True
    definitions = build_definitions([shop.job()])
    [first] = materialised(execute(definitions, instance, "erp_stock"))
    shop.items[2]["bad"] = False
    [second] = materialised(execute(definitions, instance, "erp_stock"))
    assert [each["since the last run"] for each in first["errors by cause"]] == [""]
    assert [each["since the last run"] for each in second["errors by cause"]] == ["gone"]


def test_the_sensor_starts_a_run_only_when_failed_items_are_due(
    shop: Shop, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.items[2]["bad"] = True
    definitions = build_definitions([shop.job()])
    assert reason(definitions, instance) == "no failed items wait for another try"
    execute(definitions, instance, "erp_stock")
    assert reason(definitions, instance).startswith("erp-stock: failed items wait for their next try, at ")
    now = utc_now() + timedelta(seconds=90)
    monkeypatch.setattr(workspace_room.open_workspace.__wrapped__, "__defaults__", (None, lambda: now))  # type: ignore[attr-defined]
    HELD_WORKSPACE.close()
    request = look(definitions, instance)
    assert isinstance(request, RunRequest)
    assert (request.tags["sync"], request.tags["sync/kind"]) == ("erp-stock", "retry")


def test_it_waits_while_a_run_of_the_sync_is_under_way(failing: Definitions, instance: DagsterInstance) -> None:
    with open_workspace() as workspace:
        lease = workspace.leases.acquire("erp-stock", Holder("x", None, "process 7", ""), timedelta(seconds=60))
        assert lease is not None
        assert (
            reason(failing, instance) == "erp-stock: failed items are due; a run of the sync is under way in process 7"
        )
        workspace.leases.release(lease)
    instance.add_run(DagsterRun(job_name="erp_stock_retry", status=DagsterRunStatus.STARTED, tags=RETRY))
    assert reason(failing, instance).endswith("a run that does it is under way")


def test_it_pauses_after_a_run_that_failed(failing: Definitions, instance: DagsterInstance) -> None:
    instance.add_run(DagsterRun(job_name="erp_stock_retry", status=DagsterRunStatus.FAILURE, tags=RETRY))
    assert reason(failing, instance).endswith("the next one starts 30 s after it")


def test_a_sync_without_retry_has_no_such_job(shop: Shop) -> None:
    repository = build_definitions([shop.job(retry=None)]).get_repository_def()
    assert {name for name in repository.job_names if not name.startswith("__")} == {"erp_stock", "erp_stock_items"}
    assert {sensor.name for sensor in repository.sensor_defs} == {"sync_inbox_sensor", "sync_recovery_sensor"}


def test_a_sync_may_not_have_the_name_of_anothers_retries(shop: Shop) -> None:
    with pytest.raises(ConfigurationError, match="'erp-stock' has the Dagster job erp_stock_retry already"):
        build_definitions([shop.job(), shop.job(name="erp-stock-retry", asset_key="shop/other")])
