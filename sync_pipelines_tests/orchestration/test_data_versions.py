"""What Dagster's events say of changes, and what automation makes of it: only a change starts anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from dagster import (
    AssetKey,
    AssetMaterialization,
    AssetSelection,
    AssetSpec,
    AutomationCondition,
    DagsterInstance,
    DataVersion,
    Definitions,
    asset,
    evaluate_automation_conditions,
    observable_source_asset,
)

from sync_pipelines import apply_item, retry_failures, trigger_item
from sync_pipelines.database.data_versions import DataVersions
from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.orchestration.asset_events import reporter_to
from sync_pipelines.orchestration.build import build_definitions, sync_definitions
from sync_pipelines.orchestration.keys import asset_key
from sync_pipelines_tests.orchestration.shop import Shop

STOCK, SOURCE = AssetKey(["shop", "stock"]), AssetKey(["erp", "stock"])
TAG = "dagster/data_version"


class Stage:
    """A sync with its Dagster definitions."""

    def __init__(self, shop: Shop, instance: DagsterInstance, **options: Any) -> None:
        self.instance = instance
        self.job = shop.job(**options)
        self.definitions = build_definitions([self.job])

    def run(self, name: str = "erp_stock", *, succeeds: bool = True, **config: Any) -> None:
        run_config = {"ops": {"shop__stock": {"config": config}}} if config else None
        result = self.definitions.resolve_job_def(name).execute_in_process(
            instance=self.instance, run_config=run_config, raise_on_error=False
        )
        assert result.success == succeeds

    def version(self) -> str:
        """That of the newest materialisation, which has one in any case."""
        version = versions(self.instance, STOCK)[-1]
        assert version is not None
        return version

    def changed(self, action: Callable[[], object]) -> bool:
        """True if the asset has another version afterwards; it has been materialised once more in any case."""
        before, events = self.version(), len(versions(self.instance, STOCK))
        action()
        assert len(versions(self.instance, STOCK)) > events
        return self.version() != before


def versions(instance: DagsterInstance, key: AssetKey) -> list[str | None]:
    """Those of all materialisations of an asset, oldest first."""
    records = instance.fetch_materializations(key, limit=100, ascending=True).records
    return [(event.tags or {}).get(TAG) for each in records if (event := each.asset_materialization) is not None]


def observed(instance: DagsterInstance, key: AssetKey = SOURCE) -> list[str | None]:
    """Those of all observations of an asset, oldest first."""
    records = instance.fetch_observations(key, limit=100, ascending=True).records
    entries = [each.event_log_entry.asset_observation for each in records]
    return [event.tags.get(TAG) for event in entries if event is not None]


@pytest.fixture
def stage(shop: Shop, instance: DagsterInstance) -> Stage:
    stage = Stage(shop, instance)
    stage.run()
    return stage


@pytest.fixture
def found(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """The same, where functions that ask for a sync by name find it."""
    for module in ("sync_pipelines.delivery.single_items",):
        monkeypatch.setattr(f"{module}.find_job", lambda _name: stage.job)
    return stage


def test_a_full_run_that_writes_nothing_keeps_the_version(stage: Stage, shop: Shop) -> None:
    assert not stage.changed(stage.run)
    shop.items[0] = {**shop.items[0], "stock": 7}
    assert stage.changed(stage.run)
    assert not stage.changed(stage.run)


@pytest.mark.soak
def test_a_run_of_some_items_is_like_any_other(stage: Stage, shop: Shop) -> None:
    shop.items[0] = {**shop.items[0], "stock": 7}
    assert not stage.changed(lambda: stage.run(limit=5, only=["A-1"]))
    assert stage.changed(lambda: stage.run(only=["A-0"]))


@pytest.mark.soak
def test_items_that_fail_in_each_run_are_no_change(stage: Stage, shop: Shop) -> None:
    shop.items.append({"sku": "B", "bad": True})
    assert not stage.changed(stage.run)
    assert not stage.changed(stage.run)


@pytest.mark.soak
def test_a_dry_run_reports_nothing_and_its_plan_is_a_change_when_it_is_applied(stage: Stage, shop: Shop) -> None:
    shop.items[0] = {**shop.items[0], "stock": 7}
    events = len(versions(stage.instance, STOCK))
    stage.run(dry_run=True)
    assert len(versions(stage.instance, STOCK)) == events
    plan = stage.instance.get_runs(limit=1)[0].tags["sync/plan"]
    assert stage.changed(lambda: stage.run(apply_plan=plan))


def test_a_drain_changes_it_only_if_it_writes(found: Stage, shop: Shop) -> None:
    trigger_item("erp-stock", shop.items[0])
    assert not found.changed(lambda: found.run("erp_stock_items"))
    trigger_item("erp-stock", {"sku": "new", "stock": 1})
    assert found.changed(lambda: found.run("erp_stock_items"))


@pytest.mark.soak
def test_a_retry_changes_it_only_if_it_writes(stage: Stage, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.items.append({"sku": "B", "bad": True})
    stage.run()
    retry = {"ops": {"retry": {"config": {"everything": True}}}}
    job = stage.definitions.resolve_job_def("erp_stock_retry")
    assert not stage.changed(lambda: job.execute_in_process(instance=stage.instance, run_config=retry))
    monkeypatch.setattr(shop, "create", lambda item: shop.records.__setitem__(item["sku"], item))
    fixed = Stage(shop, stage.instance)
    job = fixed.definitions.resolve_job_def("erp_stock_retry")
    assert fixed.changed(lambda: job.execute_in_process(instance=stage.instance, run_config=retry))


def test_a_single_item_is_reported_with_the_version_that_it_makes(found: Stage, shop: Shop) -> None:
    report = reporter_to(found.instance)
    assert found.changed(lambda: apply_item("erp-stock", {"sku": "new", "stock": 1}, report=report))
    events = len(versions(found.instance, STOCK))
    apply_item("erp-stock", {"sku": "new", "stock": 1}, report=report)
    assert len(versions(found.instance, STOCK)) == events


@pytest.mark.soak
def test_a_single_item_that_nobody_reported_is_in_the_next_version(found: Stage, shop: Shop) -> None:
    shop.items.append({"sku": "new", "stock": 1})
    apply_item("erp-stock", shop.items[-1])
    assert found.changed(found.run)


def test_a_single_item_whose_process_dies_after_the_write_is_in_the_next_version(
    found: Stage, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.items.append({"sku": "new", "stock": 1})

    def create(item: dict[str, Any]) -> None:
        shop.records[item["sku"]] = item
        raise KeyboardInterrupt

    monkeypatch.setattr(shop, "create", create)
    found.job = shop.job()
    with pytest.raises(KeyboardInterrupt):
        apply_item("erp-stock", shop.items[-1])
    assert shop.records["new"]
    assert found.changed(found.run)
    assert not found.changed(found.run)


@pytest.mark.soak
def test_what_a_run_wrote_before_it_failed_is_in_the_next_version(
    stage: Stage, shop: Shop, instance: DagsterInstance
) -> None:
    shop.items += [{"sku": "new", "stock": 1}, {"sku": "B", "bad": True}]
    before = stage.version()
    strict = Stage(shop, instance, fail_above=0)
    strict.run(succeeds=False)
    assert stage.version() == before
    assert stage.changed(stage.run)
    assert not stage.changed(stage.run)


class Opened:
    """A target with the records of a shop, which opens or not."""

    def __init__(self, shop: Shop) -> None:
        self.shop, self.opens = shop, True

    @contextmanager
    def open(self, _external_id_of: Any) -> Iterator[Any]:
        if not self.opens:
            raise ConfigurationError("the table has gone")
        shop = self.shop
        yield SimpleNamespace(find_local=shop.records.get, create=shop.create, update=shop.update)


def test_who_could_not_open_the_target_has_changed_nothing(
    shop: Shop, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Opened(shop)
    stage = Stage(shop, instance, target=target, find_local=None, create=None, update=None)
    monkeypatch.setattr("sync_pipelines.delivery.single_items.find_job", lambda _name: stage.job)
    stage.run()
    target.opens = False
    trigger_item("erp-stock", {"sku": "new", "stock": 1})
    stage.run("erp_stock_items", succeeds=False)
    stage.run(succeeds=False)
    target.opens = True
    shop.items = list(shop.records.values())
    assert not stage.changed(stage.run)


@pytest.mark.soak
def test_what_a_run_wrote_that_could_not_say_so_any_more_is_in_the_next_version(
    stage: Stage, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.items.append({"sku": "new", "stock": 1})
    with monkeypatch.context() as patched:
        patched.setattr(DataVersions, "settle", lambda *_, **__: None)
        stage.run()
    assert "new" in shop.records
    assert stage.changed(stage.run)
    assert not stage.changed(stage.run)


@pytest.mark.soak
def test_the_version_outlives_the_runs_that_the_ledger_forgets(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNC_PIPELINES_KEEP_RUNS_DAYS", "1")
    monkeypatch.setattr("sync_pipelines.database.ledger.Ledger.forget_runs", lambda self, _before: _forget_all(self))
    assert not stage.changed(stage.run)


def _forget_all(ledger: Any) -> int:
    with ledger.transaction() as connection:
        old = ledger.tables.runs.c.completed_at.is_not(None)
        return int(connection.execute(ledger.tables.runs.delete().where(old)).rowcount)


def test_a_fetch_is_an_observation_of_the_source_and_a_materialisation_only_if_it_has_changed(
    stage: Stage, shop: Shop, instance: DagsterInstance
) -> None:
    first = observed(instance)[0]
    assert versions(instance, SOURCE) == [first]
    shop.items.reverse()
    stage.run()
    assert observed(instance) == [first, first]
    assert versions(instance, SOURCE) == [first]
    shop.items.append({"sku": "new", "stock": 1})
    stage.run()
    assert first != (changed := observed(instance)[-1])
    assert versions(instance, SOURCE) == [first, changed]


@pytest.mark.soak
@pytest.mark.parametrize("options", [{"limit": 2}, {"only": ["A-1"]}])
def test_a_fetch_of_some_items_says_nothing_of_the_source(
    stage: Stage, shop: Shop, instance: DagsterInstance, options: Mapping[str, Any]
) -> None:
    shop.items.append({"sku": "new", "stock": 1})
    stage.run(**options)
    assert observed(instance)[-1] is None
    assert len(versions(instance, SOURCE)) == 1


def test_a_source_with_materialisations_of_an_earlier_version_goes_on(shop: Shop, instance: DagsterInstance) -> None:
    instance.report_runless_asset_event(AssetMaterialization(SOURCE, description="Fetched.", metadata={"items": 5}))
    stage = Stage(shop, instance)
    stage.run()
    stage.run()
    assert versions(instance, SOURCE) == [None, observed(instance)[0]]


def test_of_an_asset_that_another_sync_writes_a_fetch_says_nothing(shop: Shop, instance: DagsterInstance) -> None:
    reader = shop.job(name="copy", asset_key="shop/copy", source_asset="shop/stock")
    definitions = build_definitions([shop.job(), reader])
    for name in ("erp_stock", "copy"):
        assert definitions.resolve_job_def(name).execute_in_process(instance=instance).success
    assert observed(instance, STOCK) == []
    assert len(versions(instance, STOCK)) == 1


def fetch_in(instance: DagsterInstance, *definitions: Definitions) -> None:
    """Materialises the sync in these definitions, by the job that Materialize uses."""
    merged = Definitions.merge(*definitions).resolve_implicit_global_asset_job_def()
    assert merged.execute_in_process(instance=instance, asset_selection=[STOCK]).success


@asset(key=SOURCE)
def made_here() -> None: ...


@observable_source_asset(key=SOURCE)
def observed_here() -> DataVersion:
    return DataVersion("theirs")


@pytest.mark.parametrize("theirs", [made_here, observed_here], ids=["made", "observed"])
def test_of_an_asset_that_the_project_runs_nothing_is_reported(
    shop: Shop, instance: DagsterInstance, theirs: Any
) -> None:
    fetch_in(instance, sync_definitions(shop.job()), Definitions([theirs]))
    assert (observed(instance), versions(instance, SOURCE)) == ([], [])


def test_an_asset_that_somebody_reports_elsewhere_keeps_their_version(shop: Shop, instance: DagsterInstance) -> None:
    event = AssetMaterialization(SOURCE, description="loaded", tags={TAG: "theirs"}, metadata={"items": 5})
    instance.report_runless_asset_event(event)
    fetch_in(instance, sync_definitions(shop.job()))
    assert (observed(instance), versions(instance, SOURCE)) == ([], ["theirs"])


@pytest.mark.parametrize(
    "definitions",
    [
        sync_definitions,
        lambda job: build_definitions([job]),
        lambda job: Definitions.merge(sync_definitions(job), Definitions([AssetSpec(SOURCE)])),
    ],
    ids=["stub", "ours", "external"],
)
def test_of_a_source_that_nobody_else_reports_a_fetch_is_reported(
    shop: Shop, instance: DagsterInstance, definitions: Callable[[Any], Definitions]
) -> None:
    for _ in range(2):
        fetch_in(instance, definitions(shop.job()))
    assert len(observed(instance)) == 2
    assert versions(instance, SOURCE) == observed(instance)[:1]


class Automation:
    """Evaluates automation conditions tick by tick, as the daemon does."""

    def __init__(self, definitions: Definitions, instance: DagsterInstance) -> None:
        self._definitions, self._instance, self._cursor = definitions, instance, None

    def tick(self, *keys: AssetKey) -> list[AssetKey]:
        """Those of the assets that are requested now."""
        result = evaluate_automation_conditions(self._definitions, self._instance, cursor=self._cursor)
        self._cursor = result.cursor
        return [key for key in keys if result.get_num_requested(key)]


def test_who_waits_for_changes_is_requested_once_after_four_runs_of_which_three_changed_nothing(
    stage: Stage, shop: Shop, instance: DagsterInstance
) -> None:
    changed = AutomationCondition.any_deps_match(AutomationCondition.data_version_changed())

    @asset(deps=[STOCK], automation_condition=changed)
    def report() -> None: ...

    automation = Automation(
        Definitions([*(stage.definitions.assets or ()), report], resources=stage.definitions.resources), instance
    )
    automation.tick()
    requested = []
    for number in range(4):
        if number == 2:
            shop.items.append({"sku": "new", "stock": 1})
        stage.run()
        requested += automation.tick(report.key)
    assert requested == [report.key]


def with_eager(jobs: list[AnyJob]) -> Definitions:
    """Syncs that start by themselves when their source changes."""
    definitions = build_definitions(jobs)
    eager = AutomationCondition.eager()
    return definitions.map_resolved_asset_specs(
        selection=AssetSelection.assets(*map(asset_key, jobs)),
        func=lambda spec: spec.replace_attributes(automation_condition=eager),
    )


def test_eager_syncs_of_one_source_start_each_other_when_it_changes_and_come_to_rest(
    shop: Shop, instance: DagsterInstance
) -> None:
    other = Shop()
    other.items = [{"sku": "A", "price": 1}]
    jobs = [shop.job(), other.job(name="erp-prices", asset_key="shop/prices")]
    definitions, keys = with_eager(jobs), {STOCK: "erp_stock", AssetKey(["shop", "prices"]): "erp_prices"}
    automation = Automation(definitions, instance)

    def rounds() -> list[list[AssetKey]]:
        """Runs what is requested until nothing is."""
        found = []
        while requested := automation.tick(*keys):
            found.append(requested)
            assert len(found) < 5, "they start each other for ever"
            for key in requested:
                assert definitions.resolve_job_def(keys[key]).execute_in_process(instance=instance).success
        return found

    automation.tick()
    assert definitions.resolve_job_def("erp_stock").execute_in_process(instance=instance).success
    assert rounds()[0] == [AssetKey(["shop", "prices"])]
    for job in keys.values():  # nothing changed: nobody is started
        assert definitions.resolve_job_def(job).execute_in_process(instance=instance).success
        assert rounds() == []
    shop.items.append({"sku": "new", "stock": 1})
    assert definitions.resolve_job_def("erp_stock").execute_in_process(instance=instance).success
    assert rounds() == [[AssetKey(["shop", "prices"])]]


@pytest.mark.soak
def test_retry_failures_outside_of_dagster_is_in_the_next_version(stage: Stage, shop: Shop) -> None:
    shop.items.append({"sku": "B", "bad": True})
    stage.run()
    shop.items[-1]["bad"] = False
    job = shop.job(fetch_one=lambda _id: {"sku": "B", "stock": 1})
    retry_failures(job, everything=True)
    shop.items[-1] = {"sku": "B", "stock": 1}
    assert shop.records["B"] == shop.items[-1]
    assert stage.changed(stage.run)
