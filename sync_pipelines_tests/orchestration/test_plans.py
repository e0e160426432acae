"""Dry runs and plans from the launchpad: what an operator sees, and that the asset is left alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from dagster import AssetKey, DagsterInstance, ExecuteInProcessResult, Failure

from sync_pipelines import open_plan
from sync_pipelines.orchestration.build import build_definitions
from sync_pipelines.orchestration.checks import _results_of
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines_tests.orchestration.shop import Shop

STOCK = AssetKey(["shop", "stock"])


def launch(shop: Shop, instance: DagsterInstance, **config: Any) -> ExecuteInProcessResult:
    """Launches the sync as the launchpad does."""
    job = build_definitions([shop.job()]).resolve_job_def("erp_stock")
    return job.execute_in_process(instance=instance, run_config={"ops": {"shop__stock": {"config": config}}})


def tags_of(result: ExecuteInProcessResult, instance: DagsterInstance) -> dict[str, str]:
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    return dict(run.tags)


def diff_metadata(result: ExecuteInProcessResult) -> dict[str, Any]:
    [event] = [
        each for each in result.all_events if each.event_type_value == "STEP_OUTPUT" and "diff" in (each.step_key or "")
    ]
    return {name: value.value for name, value in event.step_output_data.metadata.items()}


def stock_materialisations(result: ExecuteInProcessResult) -> list[Any]:
    return [event for event in result.get_asset_materialization_events() if event.asset_key == STOCK]


def test_a_dry_run_writes_nothing_and_does_not_pretend_the_asset_was_updated(
    shop: Shop, instance: DagsterInstance
) -> None:
    result = launch(shop, instance, dry_run=True)

    assert result.success
    assert shop.records == {}
    assert shop.completed == []
    assert stock_materialisations(result) == []
    assert instance.get_latest_materialization_event(STOCK) is None
    assert result.get_asset_check_evaluations() == []
    assert tags_of(result, instance)["sync/outcome"] == "planned"
    assert tags_of(result, instance)["sync/kind"] == "dry run"


def test_the_output_of_a_dry_run_shows_counts_and_changes(shop: Shop, instance: DagsterInstance) -> None:
    shop.records = {"A-1": {"sku": "A-1", "stock": 9}}

    result = launch(shop, instance, dry_run=True)

    metadata, plan_id = diff_metadata(result), tags_of(result, instance)["sync/plan"]
    assert (metadata["to create"], metadata["to update"], metadata["to delete"]) == (4, 1, 0)
    rows = [record.data for record in metadata["changes"].records]
    assert len(rows) == 5
    assert rows[1]["external id"] == "A-1"
    assert json.loads(str(rows[1]["old"])) == {"sku": "A-1", "stock": 9}
    assert json.loads(str(rows[1]["new"])) == {"sku": "A-1", "stock": 1}
    assert metadata["the whole plan"] == f"sync-pipelines plan show {plan_id[:8]}"


def test_a_plan_is_applied_from_the_launchpad_without_a_fetch(shop: Shop, instance: DagsterInstance) -> None:
    planned = launch(shop, instance, dry_run=True)
    plan_id = tags_of(planned, instance)["sync/plan"]
    shop.items.append({"sku": "A-9", "stock": 9})

    result = launch(shop, instance, apply_plan=plan_id)

    assert shop.fetches == 1
    assert sorted(shop.records) == [f"A-{number}" for number in range(5)]
    [event] = stock_materialisations(result)
    assert event.materialization.metadata["created"].value == 5
    assert all(each.passed for each in result.get_asset_check_evaluations())
    told = {"sync/outcome": "clean", "sync/plan": plan_id, "sync/kind": "apply"}
    assert tags_of(result, instance) | told == tags_of(result, instance)
    assert open_plan(plan_id).state == "applied"
    assert len(shop.completed) == 1


def test_a_stale_entry_shows_in_check_and_tag(shop: Shop, instance: DagsterInstance) -> None:
    plan_id = tags_of(launch(shop, instance, dry_run=True), instance)["sync/plan"]
    shop.records["A-2"] = {"sku": "A-2", "stock": 77}

    result = launch(shop, instance, apply_plan=plan_id)

    failed = [each.check_name for each in result.get_asset_check_evaluations() if not each.passed]
    assert failed == ["items_failed"]
    assert tags_of(result, instance)["sync/outcome"] == "partial"
    assert shop.records["A-2"]["stock"] == 77


@pytest.mark.parametrize("beside", [{"limit": 1}, {"only": ["A-1"]}, {"dry_run": True}])
def test_a_plan_is_applied_as_it_is(shop: Shop, instance: DagsterInstance, beside: dict[str, Any]) -> None:
    with pytest.raises(Failure, match="leave out limit, only and dry_run"):
        launch(shop, instance, apply_plan="ab", **beside)


def test_a_plan_that_is_applied_already_fails_the_run_clearly(shop: Shop, instance: DagsterInstance) -> None:
    plan_id = tags_of(launch(shop, instance, dry_run=True), instance)["sync/plan"]
    launch(shop, instance, apply_plan=plan_id)

    with pytest.raises(Failure, match="a plan is applied once"):
        launch(shop, instance, apply_plan=plan_id)


def test_a_check_by_itself_looks_at_the_last_run_that_wrote(shop: Shop, instance: DagsterInstance) -> None:
    launch(shop, instance)
    shop.items.append({"sku": None})
    launch(shop, instance, dry_run=True)

    with open_workspace() as workspace:
        results = _results_of(workspace, shop.job(), "a Dagster run that only checks")

    assert results is not None
    assert (results.created, results.error_count, results.dry_run) == (5, 0, False)


def test_a_dry_run_after_a_full_run_leaves_its_materialisation_the_latest(
    shop: Shop, instance: DagsterInstance
) -> None:
    full = launch(shop, instance)
    launch(shop, instance, dry_run=True)

    latest = instance.get_latest_materialization_event(STOCK)
    assert latest is not None
    assert latest.run_id == full.run_id
    with open_workspace() as workspace:
        assert [run.kind for run in workspace.ledger.latest_runs("erp-stock")] == ["dry run", "full"]
