"""Guards, limits and freshness as Dagster shows them: checks, tags, metadata, and the release from the launchpad."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from dagster import (
    AssetCheckKey,
    AssetKey,
    DagsterInstance,
    ExecuteInProcessResult,
    SensorResult,
    build_sensor_context,
)
from sqlalchemy import update

from sync_pipelines import SyncJob, sync_intervals
from sync_pipelines.orchestration import freshness
from sync_pipelines.orchestration.build import build_definitions
from sync_pipelines.orchestration.checks import freshness_of
from sync_pipelines.orchestration.location import HeldWorkspace
from sync_pipelines.runner.context.workspace import open_workspace, utc_now
from sync_pipelines.runner.runs.results import KnownRun
from sync_pipelines.settings.model import Settings
from sync_pipelines_tests.orchestration.shop import Shop

STOCK = AssetKey(["shop", "stock"])


@pytest.fixture
def job(shop: Shop) -> SyncJob[Any, Any]:
    shop.items = [{"sku": f"A-{number}", "stock": number} for number in range(30)]
    return shop.job(
        deletes="hard", delete=lambda local: shop.records.pop(local["sku"]), list_local=lambda: list(shop.records)
    )


def launch(job: SyncJob[Any, Any], instance: DagsterInstance, **config: Any) -> ExecuteInProcessResult:
    dagster_job = build_definitions([job]).resolve_job_def("erp_stock")
    run_config = {"ops": {"shop__stock": {"config": config}}}
    return dagster_job.execute_in_process(instance=instance, run_config=run_config, raise_on_error=False)


def tags_of(result: ExecuteInProcessResult, instance: DagsterInstance) -> dict[str, str]:
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    return dict(run.tags)


def failed_checks(result: ExecuteInProcessResult) -> dict[str, str]:
    return {each.check_name: each.severity.value for each in result.get_asset_check_evaluations() if not each.passed}


def test_a_guarded_run_warns_and_tells_how_to_release_it(
    job: SyncJob[Any, Any], shop: Shop, instance: DagsterInstance
) -> None:
    launch(job, instance)
    del shop.items[10:]

    result = launch(job, instance)

    assert result.success
    assert len(shop.records) == 30
    assert failed_checks(result) == {"changes_withheld": "WARN"}
    tags = tags_of(result, instance)
    assert tags["sync/outcome"] == "guarded"
    [event] = [each for each in result.get_asset_materialization_events() if each.asset_key == STOCK]
    metadata = {name: value.value for name, value in event.materialization.metadata.items()}
    assert (metadata["outcome"], metadata["withheld deletes"]) == ("guarded", 20)
    assert "20 of 30 local records would be deleted" in str(metadata["withheld because"])
    assert f"apply_plan: {tags['sync/plan']} and a reason" in str(metadata["to release it"])


def test_a_dry_run_that_guards_would_stop_says_why(
    job: SyncJob[Any, Any], shop: Shop, instance: DagsterInstance
) -> None:
    launch(job, instance)
    del shop.items[10:]

    result = launch(job, instance, dry_run=True)

    [diff] = [each for each in result.get_step_success_events() if each.step_key and each.step_key.endswith(".diff")]
    [event] = [each for each in result.all_events if each.is_successful_output and each.step_key == diff.step_key]
    metadata = event.step_output_data.metadata or {}
    assert "20 of 30 local records would be deleted" in str(metadata["guards would withhold"].value)
    assert "and a reason" in str(metadata["to apply it"].value)


def test_what_is_withheld_is_released_from_the_launchpad_with_a_reason(
    job: SyncJob[Any, Any], shop: Shop, instance: DagsterInstance
) -> None:
    launch(job, instance)
    del shop.items[10:]
    plan_id = tags_of(launch(job, instance), instance)["sync/plan"]

    refused = launch(job, instance, apply_plan=plan_id)
    assert not refused.success
    assert len(shop.records) == 30

    released = launch(job, instance, apply_plan=plan_id, reason="the season is over")
    assert released.success
    assert len(shop.records) == 10
    assert not failed_checks(released)
    with open_workspace() as workspace:
        plan = workspace.plans.plan(plan_id)
    assert plan is not None
    assert (plan.reason, plan.released_by) == ("the season is over", f"Dagster run {released.run_id}")


def test_single_items_leave_the_warning_that_something_is_withheld(
    job: SyncJob[Any, Any], shop: Shop, instance: DagsterInstance
) -> None:
    launch(job, instance)
    del shop.items[10:]
    launch(job, instance)
    with open_workspace() as workspace:
        workspace.inbox.store("erp-stock", '{"sku": "NEW", "stock": 1}', workspace.clock())

    drained = build_definitions([job]).resolve_job_def("erp_stock_items").execute_in_process(instance=instance)

    assert shop.records["NEW"]["stock"] == 1
    assert failed_checks(drained) == {"changes_withheld": "WARN"}
    assert {each.check_name for each in drained.get_asset_check_evaluations()} == {
        "accounts_balance",
        "changes_withheld",
        "columns_kept",
        "items_failed",
        "source_drift",
    }


def test_a_field_that_the_items_have_no_more_warns_for_a_day(
    job: SyncJob[Any, Any], shop: Shop, instance: DagsterInstance
) -> None:
    for item in shop.items:
        item["title"] = "x"
    launch(job, instance)
    for item in shop.items:
        item["name"] = item.pop("title")

    assert failed_checks(launch(job, instance)) == {"source_drift": "WARN"}

    result = launch(job, instance)
    assert failed_checks(result) == {"source_drift": "WARN"}
    [check] = [each for each in result.get_asset_check_evaluations() if each.check_name == "source_drift"]
    assert check.description == "`title` was in 100 % of items, is in none; new: `name`."
    with open_workspace() as workspace:
        runs, long_ago = workspace.ledger.tables.runs, workspace.clock() - timedelta(days=2)
        with workspace.ledger.transaction() as connection:
            connection.execute(update(runs).values(started_at=long_ago))
    assert not failed_checks(launch(job, instance))


def test_a_reason_without_a_plan_is_refused(job: SyncJob[Any, Any], shop: Shop, instance: DagsterInstance) -> None:
    result = launch(job, instance, reason="because")

    assert not result.success
    assert not shop.fetches


def test_more_failed_items_than_allowed_fail_the_run_and_its_checks(shop: Shop, instance: DagsterInstance) -> None:
    shop.items[2]["bad"] = True

    result = launch(shop.job(fail_above=0.1), instance)

    assert not result.success
    assert len(shop.records) == 4
    assert tags_of(result, instance)["sync/outcome"] == "failed"
    assert failed_checks(result) == {"items_failed": "WARN"}


def test_a_run_that_can_not_tell_what_is_missing_does_not_say_that_all_is_well(
    job: SyncJob[Any, Any], shop: Shop, instance: DagsterInstance
) -> None:
    launch(job, instance)
    shop.items[2]["sku"] = None
    result = launch(job, instance)
    assert result.success
    said = {each.check_name: each.description for each in result.get_asset_check_evaluations()}
    assert "No deletes were looked for" in str(said["changes_withheld"])


def test_a_run_that_fails_still_tells_what_guards_withhold(
    job: SyncJob[Any, Any], shop: Shop, instance: DagsterInstance
) -> None:
    launch(job, instance)
    del shop.items[10:]
    shop.items[2]["bad"] = True

    result = launch(replace(job, fail_above=0), instance)

    assert not result.success
    assert failed_checks(result) == {"items_failed": "WARN", "changes_withheld": "WARN"}


def test_a_run_of_some_items_does_not_hide_that_others_have_failed(shop: Shop, instance: DagsterInstance) -> None:
    shop.items[2]["bad"] = True
    assert failed_checks(launch(shop.job(), instance)) == {"items_failed": "WARN"}

    assert failed_checks(launch(shop.job(), instance, only=[shop.items[0]["sku"]])) == {"items_failed": "WARN"}

    shop.items[2]["bad"] = False
    assert not failed_checks(launch(shop.job(), instance))


def test_accounts_that_do_not_balance_fail_the_run_and_an_error_check(
    shop: Shop, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 2."""
    counts_of = KnownRun._counts
    monkeypatch.setattr(KnownRun, "_counts", lambda *given: (counts_of(*given)[0], 6))

    result = launch(shop.job(), instance)

    assert not result.success
    assert tags_of(result, instance)["sync/outcome"] == "failed"
    assert failed_checks(result)["accounts_balance"] == "ERROR"


def test_a_sync_whose_last_good_run_is_too_old_is_told_once_and_again_when_it_is_well(
    shop: Shop, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = shop.job(schedule=sync_intervals.hours(1))
    sensor = build_definitions([job]).resolve_sensor_def("sync_freshness_sensor")
    now = [utc_now()]

    def open_later(settings: Settings) -> Any:
        return open_workspace(settings, clock=lambda: now[0])

    monkeypatch.setattr(freshness, "HELD_WORKSPACE", HeldWorkspace(open_later))
    cursor: str | None = None

    def look() -> bool | None:
        nonlocal cursor
        with build_sensor_context(instance=instance, cursor=cursor) as context:
            found = sensor(context)
        assert isinstance(found, SensorResult)
        cursor = found.cursor
        key = AssetCheckKey(STOCK, "is_fresh")
        records = instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
        return None if not records else records[0].event.asset_check_evaluation.passed  # type: ignore[union-attr]

    assert look() is None  # it has not run yet
    launch(job, instance)
    assert look() is True  # by the run's own check
    now[0] += timedelta(hours=2, minutes=59)
    assert look() is True
    now[0] += timedelta(minutes=2)
    assert look() is False
    assert look() is False
    key = AssetCheckKey(STOCK, "is_fresh")
    assert len(instance.event_log_storage.get_asset_check_execution_history(key, limit=10)) == 2
    now[0] = utc_now()
    assert look() is True


@pytest.mark.parametrize("cursor", ["{", "[]", "null", '"x"'])
def test_the_freshness_sensor_reads_a_cursor_that_somebody_has_edited_as_none(
    shop: Shop, instance: DagsterInstance, cursor: str
) -> None:
    sensor = build_definitions([shop.job(schedule=sync_intervals.hours(1))]).resolve_sensor_def("sync_freshness_sensor")

    with build_sensor_context(instance=instance, cursor=cursor) as context:
        found = sensor(context)

    assert isinstance(found, SensorResult)
    assert found.cursor == "{}"


def test_a_sync_that_has_never_run_well_does_not_stay_fresh(shop: Shop, instance: DagsterInstance) -> None:
    job = shop.job(fresh_within=timedelta(hours=1), fail_above=0)
    shop.items[2]["bad"] = True
    with open_workspace() as workspace:
        assert freshness_of(job, workspace).is_fresh  # it has not run yet
    assert not launch(job, instance).success
    with open_workspace() as workspace:
        assert freshness_of(job, workspace).is_fresh
    with open_workspace(clock=lambda: utc_now() + timedelta(hours=2)) as workspace:
        assert not freshness_of(job, workspace).is_fresh


def test_syncs_without_interval_are_watched_only_if_asked(shop: Shop) -> None:
    unwatched = build_definitions([shop.job(), shop.job(name="other", asset_key="shop/other", schedule="0 5 * * *")])
    watched = build_definitions([shop.job(fresh_within=timedelta(hours=1))])
    assert not unwatched.get_repository_def().has_sensor_def("sync_freshness_sensor")
    assert watched.get_repository_def().has_sensor_def("sync_freshness_sensor")
