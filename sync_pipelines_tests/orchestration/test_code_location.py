"""Syncs in a Dagster project of others: definitions that merge, sensors that all share, runs of others left alone."""

from __future__ import annotations

import cProfile
import pstats
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetKey,
    AssetSelection,
    AssetSpec,
    AutomationConditionSensorDefinition,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    Definitions,
    ScheduleDefinition,
    asset,
    build_schedule_context,
    build_sensor_context,
    multiprocess_executor,
)
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from sync_pipelines import ConfigurationError, SyncJob, sync_definitions, sync_intervals
from sync_pipelines.database.leases import Holder
from sync_pipelines.engine.codec import encode
from sync_pipelines.orchestration.build import build_definitions
from sync_pipelines.orchestration.location import CODE_LOCATION, HELD_WORKSPACE
from sync_pipelines.orchestration.sensors import STARTED_AT_ONCE, _next_of
from sync_pipelines.runner.context import workspace as workspace_room
from sync_pipelines.runner.context.workspace import open_workspace, utc_now
from sync_pipelines_tests.orchestration.shop import Shop

REPOSITORY = Path(__file__).parents[2]
SENSORS = {"sync_freshness_sensor", "sync_inbox_sensor", "sync_recovery_sensor", "sync_retry_sensor"}


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    """Whatever a test adds is gone after it."""
    before, name = dict(CODE_LOCATION._jobs), CODE_LOCATION._name
    yield
    CODE_LOCATION._jobs, CODE_LOCATION._name = before, name


def named(shop: Shop, name: str, **options: Any) -> SyncJob[Any, Any]:
    given = {"asset_key": f"shop/{name.replace('-', '_')}", "schedule": sync_intervals.hours(1)}
    return shop.job(**{"name": name, **given, **options})


def from_elsewhere(name: str, job_name: str) -> RemoteJobOrigin:
    """The origin of a run of a code location of that name."""
    origin = GrpcServerCodeLocationOrigin(host="localhost", port=4266, location_name=name)
    return RemoteJobOrigin(RemoteRepositoryOrigin(origin, "__repository__"), job_name)


def waiting(*names: str) -> None:
    with open_workspace() as workspace:
        for name in names:
            workspace.inbox.store(name, encode({"sku": "A-1", "stock": 1}), workspace.clock())


def evaluate(definitions: Definitions, sensor: str, instance: DagsterInstance, **context: Any) -> Any:
    repository = definitions.get_repository_def()
    given = build_sensor_context(instance=instance, repository_def=repository)
    for name, value in context.items():
        setattr(given, f"_{name}", value)
    return repository.get_sensor_def(sensor).evaluate_tick(given)


class TestMerging:
    def test_definitions_merge_beside_others_any_number_of_times_in_any_order(self, shop: Shop) -> None:
        @asset(key=AssetKey(["erp", "stock"]))
        def stock_of_dbt() -> None:
            """An asset of somebody else that a sync reads."""

        @asset(deps=[AssetKey(["shop", "orders"])])
        def report() -> None:
            """An asset of somebody else that reads a sync's."""

        theirs = Definitions(assets=[stock_of_dbt, report], executor=multiprocess_executor)
        stock, orders = sync_definitions(named(shop, "stock")), sync_definitions(named(shop, "orders"))

        for parts in [(theirs, stock, orders), (stock, theirs, orders), (orders, stock, theirs)]:
            merged = Definitions.merge(*parts)
            Definitions.validate_loadable(merged)
            repository = merged.get_repository_def()
            assert {sensor.name for sensor in repository.sensor_defs} == SENSORS
            assert repository.asset_graph.get(AssetKey(["shop", "orders"])).parent_keys == {AssetKey(["erp", "stock"])}
            assert repository.asset_graph.get(AssetKey(["erp", "stock"])).is_materializable

    def test_copies_that_components_make_are_still_one_sensor(self, shop: Shop) -> None:
        """Dagster writes into whatever a component defines where it was defined."""
        parts = [
            sync_definitions(named(shop, name)).with_definition_metadata_update(lambda each: {**each, "from": "a file"})
            for name in ("stock", "orders")
        ]
        assert {sensor.name for sensor in Definitions.merge(*parts).get_repository_def().sensor_defs} == SENSORS

    def test_jobs_run_in_one_process_whatever_executor_the_project_has(self, shop: Shop) -> None:
        theirs = Definitions(executor=multiprocess_executor)
        merged = Definitions.merge(theirs, sync_definitions(named(shop, "stock")))
        names = ("stock", "stock_items", "stock_retry")
        assert {merged.resolve_job_def(name).executor_def.name for name in names} == {"in_process"}
        assert merged.resolve_implicit_global_asset_job_def().executor_def.name == "multiprocess"

    def test_a_run_of_a_merged_project_writes(self, shop: Shop, instance: DagsterInstance) -> None:
        merged = Definitions.merge(Definitions(assets=[AssetSpec("theirs")]), sync_definitions(named(shop, "stock")))
        assert merged.resolve_job_def("stock").execute_in_process(instance=instance).success
        assert len(shop.records) == 5

    def test_two_definitions_of_one_process_need_know_nothing_of_each_other(self, shop: Shop) -> None:
        first, second = (sync_definitions(named(shop, name)) for name in ("stock", "orders"))
        Definitions.validate_loadable(first)
        Definitions.validate_loadable(second)
        assert not second.get_repository_def().has_job("stock_items")

    def test_a_project_may_look_at_all_conditions_itself(self, shop: Shop) -> None:
        theirs = Definitions(
            sensors=[AutomationConditionSensorDefinition("all_of_theirs", target=AssetSelection.all())]
        )
        eager = named(shop, "stock", schedule=None, automation="eager")
        Definitions.validate_loadable(Definitions.merge(theirs, sync_definitions(eager, automation_sensor=False)))

    def test_a_source_may_have_any_key_of_an_asset(self, shop: Shop) -> None:
        for key in ("stg_orders", "dbt/stg_stripe__payments", "prod-db/orders", "dbt/my.model"):
            Definitions.validate_loadable(build_definitions([named(shop, "stock", source_asset=key)]))

    def test_what_is_no_sync_job_is_told_by_its_place(self, shop: Shop) -> None:
        with pytest.raises(ConfigurationError, match=r"sync_definitions: argument 2 is a list, no SyncJob"):
            sync_definitions(named(shop, "stock"), [named(shop, "orders")])  # type: ignore[arg-type]  # as a user might

    def test_the_example_of_the_how_to_page_loads(self) -> None:
        page = (REPOSITORY / "docs" / "how-to" / "dagster-project.md").read_text(encoding="utf-8")
        [block] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        names: dict[str, Any] = {"__name__": "how_to"}
        exec(compile(block, "dagster-project.md", "exec"), names)
        Definitions.validate_loadable(names["defs"])
        report = names["defs"].resolve_asset_graph().get(AssetKey("stock_report"))
        assert report.parent_keys == {AssetKey(["shop", "stock"])}


class TestSensors:
    def test_there_are_four_whatever_the_number_of_syncs(self, shop: Shop) -> None:
        many = sync_definitions(*(named(shop, f"sync-{number}") for number in range(30)))
        assert {sensor.name for sensor in many.get_repository_def().sensor_defs} == SENSORS

    def test_each_sync_with_something_waiting_gets_a_run_of_its_own_job(
        self, shop: Shop, instance: DagsterInstance
    ) -> None:
        definitions = sync_definitions(*(named(shop, name) for name in ("stock", "orders", "prices")))
        waiting("stock", "prices", "somebody-elses")
        asked = evaluate(definitions, "sync_inbox_sensor", instance).run_requests
        assert [(each.job_name, each.tags["sync"], each.tags["sync/kind"]) for each in asked] == [
            ("prices_items", "prices", "drain"),
            ("stock_items", "stock", "drain"),
        ]

    def test_the_daemon_knows_every_job_that_may_be_asked_for(self, shop: Shop) -> None:
        from dagster._core.remote_representation.external_data import RepositorySnap

        definitions = sync_definitions(named(shop, "stock"), named(shop, "orders", retry=None))
        snap = RepositorySnap.from_def(definitions.get_repository_def(), defer_snapshots=True)
        targets = {sensor.name: set(sensor.target_dict) for sensor in snap.sensors}
        assert targets["sync_inbox_sensor"] >= {"stock_items", "orders_items"}
        assert "stock_retry" in targets["sync_retry_sensor"]
        assert "orders_retry" not in targets["sync_retry_sensor"]

    def test_syncs_that_always_fail_do_not_keep_the_others_from_their_turn(self, shop: Shop) -> None:
        jobs = [named(shop, f"sync-{number:03}") for number in range(3 * STARTED_AT_ONCE)]
        seen: set[str] = set()
        cursor: str | None = None
        for _ in range(3):  # as if all were free again at each tick
            chosen = _next_of(jobs, cursor)
            seen |= {job.name for job in chosen}
            cursor = chosen[-1].name
        assert len(seen) == len(jobs)

    def test_a_tick_starts_a_bounded_number_of_runs_and_the_next_one_the_others(
        self, shop: Shop, instance: DagsterInstance
    ) -> None:
        names = [f"sync-{number:03}" for number in range(STARTED_AT_ONCE + 3)]
        definitions = sync_definitions(*(named(shop, name) for name in names))
        waiting(*names)
        first = evaluate(definitions, "sync_inbox_sensor", instance).run_requests
        for each in first:
            instance.add_run(DagsterRun(each.job_name, status=DagsterRunStatus.NOT_STARTED, tags=dict(each.tags)))
        second = evaluate(definitions, "sync_inbox_sensor", instance).run_requests
        assert (len(first), len(second)) == (STARTED_AT_ONCE, 3)
        assert len({each.job_name for each in [*first, *second]}) == len(names)

    def test_the_workspace_stays_open_between_ticks_and_is_opened_anew_after_an_error(
        self, data_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with HELD_WORKSPACE.opened() as first:
            first.leases.held()
        with HELD_WORKSPACE.opened() as second:
            assert second is first
        with pytest.raises(RuntimeError), HELD_WORKSPACE.opened():
            raise RuntimeError
        with HELD_WORKSPACE.opened() as third:
            assert third is not first
        third.ledger.database.dispose()
        for file in data_dir.glob("ledger.sqlite*"):
            file.unlink()
        with HELD_WORKSPACE.opened() as fourth:
            assert fourth.leases.held() == []
        monkeypatch.setenv("SYNC_PIPELINES_DATA_DIR", str(data_dir / "other"))
        with HELD_WORKSPACE.opened() as fifth:
            assert "other" in str(fifth.ledger.database.url)


class TestRunsWithoutAJob:
    def test_a_run_from_an_assets_page_is_tagged_with_its_sync(self, shop: Shop, instance: DagsterInstance) -> None:
        definitions = sync_definitions(named(shop, "stock", tags={"tier": "1"}, run_tags={"team/queue": "slow one"}))
        job = definitions.resolve_implicit_global_asset_job_def()
        run = job.execute_in_process(instance=instance, asset_selection=[AssetKey(["shop", "stock"])])
        tags = instance.get_run_by_id(run.run_id).tags  # type: ignore[union-attr]
        wanted = {"sync": "stock", "sync/kind": "full", "sync/outcome": "clean", "tier": "1", "team/queue": "slow one"}
        assert wanted.items() <= tags.items()
        assert "sync/mixed" not in tags

    def test_one_of_several_syncs_names_them_all(self, shop: Shop, instance: DagsterInstance) -> None:
        orders = named(shop, "orders", run_tags={"dagster/max_retries": "3"})
        definitions = sync_definitions(named(shop, "stock"), orders)
        run = definitions.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance)
        tags = instance.get_run_by_id(run.run_id).tags  # type: ignore[union-attr]
        assert set(tags["sync"].split(", ")) == {"stock", "orders"}
        assert tags["sync/mixed"] == "true"
        assert "dagster/max_retries" not in tags, "what else is in the run is not ours to retry"


class TestRunsOfOthers:
    def test_a_drain_of_another_code_location_does_not_keep_ours_from_starting(
        self, shop: Shop, instance: DagsterInstance
    ) -> None:
        definitions = sync_definitions(named(shop, "stock"))
        waiting("stock")
        ours = GrpcServerCodeLocationOrigin(host="localhost", port=4266, location_name="ours")
        tags = {"sync": "stock", "sync/kind": "drain"}
        for name, starts in (("theirs", True), ("ours", False)):
            origin = from_elsewhere(name, "stock_items")
            instance.add_run(
                DagsterRun("stock_items", status=DagsterRunStatus.QUEUED, tags=tags, remote_job_origin=origin)
            )
            tick = evaluate(definitions, "sync_inbox_sensor", instance, code_location_origin=ours)
            assert bool(tick.run_requests) is starts

    def test_a_queued_run_of_another_code_location_does_not_skip_our_tick(
        self, shop: Shop, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        definitions = sync_definitions(named(shop, "stock"))
        monkeypatch.setattr(CODE_LOCATION, "_name", "ours")

        def tick() -> bool:
            schedule = definitions.resolve_schedule_def("stock_every_hour")
            at = datetime(2026, 11, 23, 10, tzinfo=UTC)
            return bool(schedule.evaluate_tick(build_schedule_context(instance, at)).run_requests)

        for name, starts in (("theirs", True), ("ours", False)):
            origin = from_elsewhere(name, "stock")
            instance.add_run(DagsterRun("stock", status=DagsterRunStatus.QUEUED, remote_job_origin=origin))
            assert tick() is starts

    @pytest.mark.parametrize(
        ("run", "is_ours"),
        [
            ({"job_name": "stock"}, True),
            ({"job_name": "stock_items", "tags": {"sync": "stock"}}, True),
            ({"job_name": "nightly", "tags": {"sync": "stock"}}, False),
            ({"job_name": "stock", "remote_job_origin": from_elsewhere("theirs", "stock")}, False),
            ({"job_name": "__ASSET_JOB", "asset_selection": frozenset({AssetKey(["shop", "stock"])})}, True),
            (
                {
                    "job_name": "__ASSET_JOB",
                    "asset_selection": frozenset({AssetKey(["shop", "stock"]), AssetKey("model_of_theirs")}),
                },
                False,
            ),
        ],
        ids=["job", "drain", "tag of others", "other location", "materialize", "materialize with others"],
    )
    def test_only_runs_of_syncs_are_marked_failed_when_nothing_is_heard_of_them(
        self,
        shop: Shop,
        instance: DagsterInstance,
        monkeypatch: pytest.MonkeyPatch,
        run: dict[str, Any],
        is_ours: bool,  # noqa: FBT001 - parametrised
    ) -> None:
        definitions = sync_definitions(named(shop, "stock"))
        monkeypatch.setattr(CODE_LOCATION, "_name", "ours")
        started = instance.add_run(DagsterRun(status=DagsterRunStatus.STARTED, **run))
        HELD_WORKSPACE.close()
        later = utc_now() + timedelta(hours=1)
        monkeypatch.setattr(workspace_room.open_workspace.__wrapped__, "__defaults__", (None, lambda: later))  # type: ignore[attr-defined]

        evaluate(definitions, "sync_recovery_sensor", instance)

        found = instance.get_run_by_id(started.run_id)
        assert found is not None
        assert (found.status is DagsterRunStatus.FAILURE) is is_ours

    def test_a_run_of_more_than_a_sync_is_not_over_when_the_process_of_one_died(
        self, shop: Shop, instance: DagsterInstance
    ) -> None:
        """Steps of others may be at work still, each in a process of its own."""
        definitions = sync_definitions(named(shop, "stock"))
        selections = [{AssetKey(["shop", "stock"])}, {AssetKey(["shop", "stock"]), AssetKey("model_of_theirs")}]
        ended = []
        for keys in selections:
            run = DagsterRun("__ASSET_JOB", status=DagsterRunStatus.STARTED, asset_selection=frozenset(keys))
            instance.add_run(run)
            with open_workspace() as workspace:
                assert workspace.leases.acquire("stock", Holder("run-1", run.run_id), timedelta(0))
            evaluate(definitions, "sync_recovery_sensor", instance)
            with open_workspace() as workspace:
                assert workspace.leases.held() == [], "its next run need not wait, whatever the run is"
            ended.append(instance.get_run_by_id(run.run_id).status)  # type: ignore[union-attr]
        assert ended == [DagsterRunStatus.FAILURE, DagsterRunStatus.STARTED]


class TestLoading:
    def test_a_job_knows_its_own_assets_alone(self, shop: Shop) -> None:
        """Dagster's own asset jobs look at all assets, each: with a thousand syncs a minute of work."""
        definitions = sync_definitions(*(named(shop, f"sync-{number}", source_asset=None) for number in range(5)))
        job = definitions.resolve_job_def("sync_3")
        assert job.asset_layer.asset_graph.get_all_asset_keys() == {
            AssetKey(["shop", "sync_3"]), AssetKey(["sources", "sync_3"]),
        }  # fmt: skip
        assert len(job.asset_layer.asset_graph.asset_check_keys) == 6

    @pytest.mark.parametrize("job_name", ["sync_1", "sync_1_items", "sync_1_retry"])
    def test_the_process_of_a_run_builds_the_sync_that_it_needs(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch, instance: DagsterInstance, job_name: str
    ) -> None:
        """Others of the project may name the jobs of other syncs: they are there, and built at need."""
        monkeypatch.setenv("DAGSTER_RUN_JOB_NAME", job_name)
        theirs = Definitions(schedules=[ScheduleDefinition("theirs", job_name="sync_2", cron_schedule="0 3 * * *")])
        merged = Definitions.merge(theirs, sync_definitions(*(named(shop, f"sync-{number}") for number in range(3))))
        repository = merged.get_repository_def()
        assert {key.path[-1] for key in repository.asset_graph.materializable_asset_keys} == {"sync_1"}
        assert {schedule.job_name for schedule in repository.schedule_defs} == {"sync_1", "sync_2"}
        assert merged.resolve_job_def("sync_2").execute_in_process(instance=instance).success
        assert len(shop.records) == 5
        assert merged.resolve_job_def("sync_0_items").name == "sync_0_items"

    @pytest.mark.parametrize("job_name", ["__ASSET_JOB", "nightly_of_theirs"])
    def test_the_process_of_any_other_run_builds_all(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch, job_name: str
    ) -> None:
        monkeypatch.setenv("DAGSTER_RUN_JOB_NAME", job_name)
        repository = sync_definitions(*(named(shop, f"sync-{number}") for number in range(3))).get_repository_def()
        assert {"sync_0", "sync_1", "sync_2"} <= set(repository.job_names)

    def test_one_more_sync_costs_as_much_among_many_as_among_few(self, shop: Shop) -> None:
        """In calls of functions, which no other work on the machine changes. Dagster's own way grew with the square."""

        def calls(count: int) -> int:
            jobs = [named(shop, f"sync-{number}", source_asset=None) for number in range(count)]
            CODE_LOCATION._jobs = {}
            profile = cProfile.Profile()
            profile.enable()
            sync_definitions(*jobs).get_repository_def().load_all_definitions()
            profile.disable()
            return pstats.Stats(profile).total_calls  # type: ignore[attr-defined, no-any-return]  # typeshed lacks it

        calls(2)  # what is done once
        few, some, many = calls(8), calls(16), calls(48)
        assert (many - some) / (48 - 16) < 1.1 * (some - few) / (16 - 8)
