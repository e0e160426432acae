"""What Dagster sees of the syncs: names, schedules, sensors, lineage."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetKey,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    DefaultScheduleStatus,
    DefaultSensorStatus,
    Definitions,
    RunRequest,
    SkipReason,
    build_schedule_context,
    build_sensor_context,
)

from sync_pipelines import ConfigurationError, sync_intervals
from sync_pipelines.database.leases import Holder
from sync_pipelines.engine.codec import encode
from sync_pipelines.orchestration.build import build_definitions
from sync_pipelines.runner.context import workspace as workspace_room
from sync_pipelines.runner.context.workspace import open_workspace, utc_now
from sync_pipelines_tests.children import run_child
from sync_pipelines_tests.orchestration.shop import Shop

REPOSITORY = Path(__file__).parents[2]

SHIPPED = {
    "assets": {
        "erp/products": [],
        "erp/stock": [],
        "shop/products": ["erp/products"],
        "shop/stock_levels": ["erp/stock"],
    },
    "checks": [
        f"shop/{table}:{check}"
        for table in ("products", "stock_levels")
        for check in (
            "accounts_balance",
            "changes_withheld",
            "columns_kept",
            "is_fresh",
            "items_failed",
            "source_drift",
        )
    ],
    "jobs": [
        *("erp_inventory", "erp_inventory_items", "erp_inventory_retry"),
        *("erp_products", "erp_products_items", "erp_products_retry"),
    ],
    "schedules": {
        "erp_inventory_every_hour": ["0 * * * *", "UTC", "erp_inventory", "RUNNING"],
        "erp_products_daily_at_0530": ["30 5 * * *", "Europe/Berlin", "erp_products", "RUNNING"],
    },
    "sensors": {
        "erp_inventory_items_sensor": ["erp_inventory_items", 5, "RUNNING"],
        "erp_inventory_retry_sensor": ["erp_inventory_retry", 30, "RUNNING"],
        "erp_products_items_sensor": ["erp_products_items", 5, "RUNNING"],
        "erp_products_retry_sensor": ["erp_products_retry", 30, "RUNNING"],
        "sync_freshness_sensor": [None, 60, "RUNNING"],
        "sync_job_files_sensor": [None, 30, "RUNNING"],
        "sync_recovery_sensor": [None, 10, "RUNNING"],
    },
}

SURVEY = """
import json
from sync_pipelines.definitions import defs
from dagster import AssetKey
graph = defs.resolve_asset_graph()
repository = defs.get_repository_def()
print(json.dumps({
    "assets": {k.to_user_string(): sorted(p.to_user_string() for p in graph.get(k).parent_keys)
               for k in sorted(graph.get_all_asset_keys())},
    "checks": sorted(f"{k.asset_key.to_user_string()}:{k.name}" for k in graph.asset_check_keys),
    "jobs": sorted(n for n in repository.job_names if not n.startswith("__")),
    "schedules": {s.name: [s.cron_schedule, s.execution_timezone, s.job_name, s.default_status.value]
                  for s in repository.schedule_defs},
    "sensors": {s.name: [s.targets[0].job_name if s.targets else None, s.minimum_interval_seconds,
                         s.default_status.value]
                for s in repository.sensor_defs},
}))
"""


def survey(folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """What a fresh process finds in the definitions."""
    line = [sys.executable, "-W", "ignore", "-c", SURVEY]
    found = run_child(line, cwd=folder, env=environment)
    assert found.returncode == 0, found.stderr
    seen: dict[str, Any] = json.loads(found.stdout)
    return seen


def test_the_shipped_definitions_load_with_an_empty_environment_and_are_these(tmp_path: Path) -> None:
    """Names of jobs, schedules and assets are what operators, dashboards and history hang on."""
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": os.defpath}

    found = survey(tmp_path, environment)

    assert found == SHIPPED
    assert list(tmp_path.iterdir()) == []  # loading writes nothing


def test_one_file_in_the_jobs_package_is_all_a_new_sync_takes(tmp_path: Path) -> None:
    package = tmp_path / "our_jobs"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "crm_customers.py").write_text(
        "from sync_pipelines import SyncJob, sync_intervals\n"
        "records = {}\n"
        "JOB = SyncJob(name='crm-customers', fetch_external=lambda: [], get_external_id='id',\n"
        "              find_local=records.get, create=print, update=print, schedule=sync_intervals.minutes(90))\n",
        encoding="utf-8",
    )
    environment = {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(tmp_path)]),
        "PATH": os.defpath,
        "SYNC_PIPELINES_JOBS": "our_jobs",
    }

    found = survey(tmp_path, environment)

    assert found["jobs"] == ["crm_customers", "crm_customers_items", "crm_customers_retry"]
    assert found["assets"] == {"sources/crm_customers": [], "sync/crm_customers": ["sources/crm_customers"]}
    assert list(found["schedules"]) == ["crm_customers_every_90_minutes"]
    assert isinstance(found["schedules"]["crm_customers_every_90_minutes"][0], list)


def test_two_syncs_may_read_the_same_source_asset(shop: Shop) -> None:
    definitions = build_definitions([shop.job(), shop.job(name="erp-prices", asset_key="shop/prices")])

    graph = definitions.resolve_asset_graph()

    assert graph.get(AssetKey(["erp", "stock"])).child_keys == {
        AssetKey(["shop", "stock"]),
        AssetKey(["shop", "prices"]),
    }


def schedule(definitions: Definitions, name: str) -> Any:
    return definitions.resolve_schedule_def(name)


def test_a_schedule_runs_from_the_start_and_says_how_often(shop: Shop) -> None:
    definitions = build_definitions([shop.job(schedule=sync_intervals.hours(5))])

    found = schedule(definitions, "erp_stock_every_5_hours")

    assert found.default_status is DefaultScheduleStatus.RUNNING
    assert found.description == "Runs erp-stock every 5 hours, counted from 1970-01-01 UTC."


def evaluate(definitions: Definitions, name: str, at: datetime, instance: DagsterInstance) -> Any:
    context = build_schedule_context(
        instance=instance, scheduled_execution_time=at, repository_def=definitions.get_repository_def()
    )
    data = schedule(definitions, name).evaluate_tick(context)
    return data.run_requests[0] if data.run_requests else SkipReason(data.skip_message)


def test_a_tick_that_is_no_occasion_is_skipped_naming_the_next_run(shop: Shop, instance: DagsterInstance) -> None:
    definitions = build_definitions([shop.job(schedule=sync_intervals.hours(5))])
    # 1970-01-01 + 5 h * n: 2026-11-23 10:00 UTC is one of them
    due = evaluate(definitions, "erp_stock_every_5_hours", datetime(2026, 11, 23, 10, tzinfo=UTC), instance)
    skipped = evaluate(definitions, "erp_stock_every_5_hours", datetime(2026, 11, 23, 11, tzinfo=UTC), instance)

    assert isinstance(due, RunRequest)
    assert due.tags["sync"] == "erp-stock"
    assert isinstance(skipped, SkipReason)
    assert skipped.skip_message == "every 5 hours: next run at 2026-11-23 15:00 UTC"


def test_after_an_outage_a_counted_schedule_makes_up_for_what_it_missed_once(
    shop: Shop, instance: DagsterInstance
) -> None:
    name = "erp_stock_every_5_hours"
    definitions = build_definitions([shop.job(schedule=sync_intervals.hours(5))])
    first = evaluate(definitions, name, datetime(2026, 11, 20, 12, tzinfo=UTC), instance)
    _remember_run(instance, name, first)

    late = evaluate(definitions, name, datetime(2026, 11, 23, 11, tzinfo=UTC), instance)
    assert isinstance(late, RunRequest)
    assert late.tags["sync/due_at"] == "2026-11-23T10:00:00+00:00"
    _remember_run(instance, name, late)

    assert isinstance(evaluate(definitions, name, datetime(2026, 11, 23, 12, tzinfo=UTC), instance), SkipReason)


def _remember_run(instance: DagsterInstance, schedule_name: str, request: RunRequest) -> None:
    instance.add_run(
        DagsterRun(
            job_name="erp_stock",
            status=DagsterRunStatus.SUCCESS,
            tags={**request.tags, "dagster/schedule_name": schedule_name},
        )
    )


def look(definitions: Definitions, instance: DagsterInstance) -> Any:
    sensor = definitions.resolve_sensor_def("erp_stock_items_sensor")
    assert sensor.default_status is DefaultSensorStatus.RUNNING
    context = build_sensor_context(instance=instance, repository_def=definitions.get_repository_def())
    data = sensor.evaluate_tick(context)
    return data.run_requests[0] if data.run_requests else SkipReason(data.skip_message)


def store(*items: dict[str, Any]) -> None:
    with open_workspace() as workspace:
        for item in items:
            workspace.inbox.store("erp-stock", encode(item), workspace.clock())


def test_the_sensor_wakes_one_drain_and_no_second_beside_it(shop: Shop, instance: DagsterInstance) -> None:
    definitions = build_definitions([shop.job()])
    assert "no single items are waiting" in look(definitions, instance).skip_message

    store({"sku": "A-1", "stock": 5})
    request = look(definitions, instance)
    assert isinstance(request, RunRequest)
    assert request.run_key is None  # Dagster would remember a key for ever

    instance.add_run(DagsterRun(job_name="erp_stock_items", status=DagsterRunStatus.STARTED))
    assert "under way" in look(definitions, instance).skip_message


def test_a_drain_applies_what_waits_and_reports_on_the_asset(shop: Shop, instance: DagsterInstance) -> None:
    store({"sku": "A-1", "stock": 5}, {"sku": "A-1", "stock": 6}, {"sku": "A-2", "bad": True})
    definitions = build_definitions([shop.job()])

    result = definitions.resolve_job_def("erp_stock_items").execute_in_process(instance=instance)

    event = instance.get_latest_materialization_event(AssetKey(["shop", "stock"]))
    assert result.success
    assert shop.records == {"A-1": {"sku": "A-1", "stock": 6}}
    assert event is not None
    found = {name: value.value for name, value in event.asset_materialization.metadata.items()}  # type: ignore[union-attr]
    assert [found[f"single items {name}"] for name in ("fetched", "created", "failed", "duplicate")] == [3, 1, 1, 1]
    assert [record.data["action"] for record in found["deliveries"].records] == ["duplicate", "created", "failed"]
    assert (found["inbox waiting"], found["inbox given up"]) == (1, 0)
    [record] = found["errors by cause"].records
    assert str(record.data["message"]).startswith("create: ValueError: <id> is not wanted (shop.py:")
    assert "1 items have failed and wait for their next try" in look(definitions, instance).skip_message


def test_a_drain_that_has_just_failed_is_not_started_again_at_once(shop: Shop, instance: DagsterInstance) -> None:
    definitions = build_definitions([shop.job()])
    store({"sku": "A-1", "stock": 5})
    instance.add_run(DagsterRun(job_name="erp_stock_items", status=DagsterRunStatus.FAILURE))
    assert "the next one starts 30 s after it" in look(definitions, instance).skip_message


@pytest.mark.parametrize("schedule", [None, "0 6 * * 1-5"])
def test_a_schedule_is_there_only_if_the_job_has_one(shop: Shop, schedule: str | None) -> None:
    repository = build_definitions([shop.job(schedule=schedule)]).get_repository_def()

    assert len(repository.schedule_defs) == (schedule is not None)


def test_a_job_without_an_asset_key_loads_and_runs(shop: Shop, instance: DagsterInstance) -> None:
    """The smallest declaration there is: the README's first example."""
    definitions = build_definitions([shop.job(name="erp", asset_key=None, source_asset=None)])

    Definitions.validate_loadable(definitions)
    result = definitions.resolve_job_def("erp").execute_in_process(instance=instance)

    assert result.success
    assert instance.get_latest_materialization_event(AssetKey(["sync", "erp"])) is not None


def test_one_sync_may_read_what_another_one_writes(shop: Shop) -> None:
    definitions = build_definitions(
        [shop.job(), shop.job(name="shop-search", asset_key="search/stock", source_asset="shop/stock")]
    )

    graph = definitions.resolve_asset_graph()

    assert graph.get(AssetKey(["search", "stock"])).parent_keys == {AssetKey(["shop", "stock"])}


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ({"name": "erp-stock-items", "asset_key": "shop/other"}, "name: 'erp-stock' has the Dagster job"),
        ({"name": "erp-other"}, "asset_key: 'erp-stock' has the asset shop/stock already"),
        ({"name": "erp_stock", "asset_key": "shop/other"}, "name: 'erp-stock' has the Dagster job erp_stock already"),
    ],
)
def test_two_jobs_that_would_collide_in_dagster_are_both_named(shop: Shop, second: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        build_definitions([shop.job(), shop.job(**second)])


@pytest.mark.parametrize(
    ("field", "value"), [("asset_key", "stock"), ("asset_key", "shop__x/y"), ("name", "import"), ("name", "config")]
)
def test_names_that_dagster_can_not_take_are_refused_where_they_are_declared(
    shop: Shop, field: str, value: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"{field}: "):
        shop.job(**{field: value})


def test_a_tick_is_skipped_while_a_run_waits_in_the_queue(shop: Shop, instance: DagsterInstance) -> None:
    definitions = build_definitions([shop.job(schedule=sync_intervals.hours(1))])
    name, at = "erp_stock_every_hour", datetime(2026, 11, 23, 10, tzinfo=UTC)
    limited = {"ops": {"shop__stock": {"config": {"limit": 5, "only": []}}}}
    instance.add_run(DagsterRun(job_name="erp_stock", status=DagsterRunStatus.NOT_STARTED, run_config=limited))
    assert isinstance(evaluate(definitions, name, at, instance), RunRequest)

    instance.add_run(DagsterRun(job_name="erp_stock", status=DagsterRunStatus.NOT_STARTED))
    assert "waits in the queue already" in evaluate(definitions, name, at, instance).skip_message


def recover(definitions: Definitions, instance: DagsterInstance) -> str:
    sensor = definitions.resolve_sensor_def("sync_recovery_sensor")
    context = build_sensor_context(instance=instance, repository_def=definitions.get_repository_def())
    return str(sensor.evaluate_tick(context).skip_message)


def test_a_run_whose_process_died_is_marked_failed_and_gives_its_lease_back(
    shop: Shop, instance: DagsterInstance
) -> None:
    definitions = build_definitions([shop.job()])
    dead = instance.add_run(
        DagsterRun(job_name="erp_stock", status=DagsterRunStatus.STARTED, tags={"sync": "erp-stock"})
    )
    with open_workspace() as workspace:
        workspace.leases.acquire("erp-stock", Holder("run-1", dead.run_id), timedelta(0))

    assert dead.run_id in recover(definitions, instance)

    found = instance.get_run_by_id(dead.run_id)
    assert found is not None
    assert found.status is DagsterRunStatus.FAILURE
    assert found.tags["sync/outcome"] == "failed"
    with open_workspace() as workspace:
        assert workspace.leases.held() == []


def test_a_run_that_is_alive_is_left_alone(shop: Shop, instance: DagsterInstance) -> None:
    definitions = build_definitions([shop.job()])
    alive = instance.add_run(
        DagsterRun(job_name="erp_stock", status=DagsterRunStatus.STARTED, tags={"sync": "erp-stock"})
    )
    with open_workspace() as workspace:
        workspace.leases.acquire("erp-stock", Holder("run-1", alive.run_id), timedelta(minutes=1))

    assert recover(definitions, instance) == "every run that Dagster shows as started is alive"
    assert instance.get_run_by_id(alive.run_id).status is DagsterRunStatus.STARTED  # type: ignore[union-attr]


def test_a_run_that_never_took_a_lease_is_given_up_only_after_the_longest_wait(
    shop: Shop, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be waiting for its turn; one that died in its start-up does so for ever."""
    definitions = build_definitions([shop.job()])
    started = DagsterRun(job_name="erp_stock", status=DagsterRunStatus.STARTED, tags={"sync": "erp-stock"})
    waiting = instance.add_run(started)
    assert recover(definitions, instance) == "every run that Dagster shows as started is alive"

    later = utc_now() + timedelta(hours=1)
    monkeypatch.setattr(workspace_room.open_workspace.__wrapped__, "__defaults__", (None, lambda: later))

    assert waiting.run_id in recover(definitions, instance)
