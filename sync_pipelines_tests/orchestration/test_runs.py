"""A sync as a Dagster job: its ops, metadata, check, tag, log and re-execution."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetCheckEvaluation,
    AssetKey,
    DagsterInstance,
    Definitions,
    ExecuteInProcessResult,
    Failure,
    ReexecutionOptions,
    TableMetadataValue,
    execute_job,
    reconstructable,
)
from sqlalchemy import Column, Engine, Integer, MetaData, Numeric, String, Table

from sync_pipelines import SqlTable
from sync_pipelines.orchestration.build import build_definitions
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines_tests.orchestration.crossing import create_variants, single_process_job, spread_out_job
from sync_pipelines_tests.orchestration.shop import Shop

STOCK = AssetKey(["shop", "stock"])


def run(definitions: Definitions, instance: DagsterInstance, **options: Any) -> ExecuteInProcessResult:
    return definitions.resolve_job_def("erp_stock").execute_in_process(instance=instance, **options)


def check_of(result: ExecuteInProcessResult, name: str) -> AssetCheckEvaluation:
    return next(each for each in result.get_asset_check_evaluations() if each.check_name == name)


def metadata_of(result: ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = [event for event in result.get_asset_materialization_events() if event.asset_key == STOCK]
    return {name: value.value for name, value in event.materialization.metadata.items()}


def test_a_run_materialises_the_asset_with_counts_and_times_as_numbers(shop: Shop, instance: DagsterInstance) -> None:
    result = run(build_definitions([shop.job()]), instance)

    metadata = metadata_of(result)
    assert result.success
    assert shop.records.keys() == {f"A-{number}" for number in range(5)}
    assert metadata["outcome"] == "clean"
    assert {name: metadata[name] for name in ("fetched", "created", "updated", "unchanged", "failed")} == {
        "fetched": 5,
        "created": 5,
        "updated": 0,
        "unchanged": 0,
        "failed": 0,
    }
    assert all(isinstance(metadata[f"{phase} (s)"], float) for phase in ("fetch", "diff", "apply"))
    assert instance.get_latest_materialization_event(AssetKey(["shop", "stock"])) is not None


def test_the_second_run_changes_nothing(shop: Shop, instance: DagsterInstance) -> None:
    definitions = build_definitions([shop.job()])
    run(definitions, instance)

    metadata = metadata_of(run(definitions, instance))

    assert (metadata["created"], metadata["updated"], metadata["unchanged"]) == (0, 0, 5)


def test_item_errors_do_not_fail_the_run_but_show_in_check_tag_and_metadata(
    shop: Shop, instance: DagsterInstance
) -> None:
    shop.items[2]["bad"] = True

    result = run(build_definitions([shop.job()]), instance)

    check = check_of(result, "items_failed")
    errors = metadata_of(result)["errors"]
    tags = instance.get_run_by_id(result.run_id).tags  # type: ignore[union-attr]
    assert result.success
    assert not check.passed
    assert check.severity.value == "WARN"
    assert check.description == "1 of 5 items failed."
    assert tags["sync/outcome"] == "partial"
    assert isinstance(errors, TableMetadataValue)
    assert errors.records[0].data["external id"] == "A-2"
    assert str(errors.records[0].data["message"]).startswith("create: ValueError: A-2 is not wanted (shop.py:")


def test_a_clean_run_passes_the_check_and_is_tagged_clean(shop: Shop, instance: DagsterInstance) -> None:
    result = run(build_definitions([shop.job()]), instance)

    assert all(each.passed for each in result.get_asset_check_evaluations())
    assert instance.get_run_by_id(result.run_id).tags["sync/outcome"] == "clean"  # type: ignore[union-attr]


def test_limit_and_only_come_from_the_launchpad(shop: Shop, instance: DagsterInstance) -> None:
    definitions = build_definitions([shop.job()])

    run(definitions, instance, run_config={"ops": {"shop__stock": {"config": {"limit": 2}}}})
    assert sorted(shop.records) == ["A-0", "A-1"]

    run(definitions, instance, run_config={"ops": {"shop__stock": {"config": {"only": ["A-4"]}}}})
    assert sorted(shop.records) == ["A-0", "A-1", "A-4"]

    result = run(definitions, instance, run_config={"ops": {"shop__stock": {"config": {"only": ["A-3", "A-9"]}}}})
    assert sorted(shop.records) == ["A-0", "A-1", "A-3", "A-4"]
    assert instance.get_run_by_id(result.run_id).tags["sync/outcome"] == "partial"  # type: ignore[union-attr]


@pytest.mark.parametrize("config", [{"limit": "many"}, {"only": "A-1"}, {"limits": 1}])
def test_dagster_refuses_a_wrong_selection_before_the_run(
    shop: Shop, instance: DagsterInstance, config: dict[str, Any]
) -> None:
    from dagster import DagsterInvalidConfigError

    with pytest.raises(DagsterInvalidConfigError):
        run(build_definitions([shop.job()]), instance, run_config={"ops": {"shop__stock": {"config": config}}})
    assert shop.fetches == 0


def test_a_limit_below_one_fails_the_run_clearly(shop: Shop, instance: DagsterInstance) -> None:
    with pytest.raises(Failure, match="limit: 0 must be a whole number from 1, or None for all items"):
        run(build_definitions([shop.job()]), instance, run_config={"ops": {"shop__stock": {"config": {"limit": 0}}}})
    [failed] = instance.get_runs()
    assert failed.tags["sync/outcome"] == "failed"


def test_the_launchpad_shows_limit_and_only_filled_in(shop: Shop) -> None:
    job = build_definitions([shop.job()]).resolve_job_def("erp_stock")

    everything = {"limit": None, "only": [], "dry_run": False, "apply_plan": None, "reason": None}
    assert job.run_config == {"ops": {"shop__stock": {"config": everything}}}


def test_a_source_that_breaks_off_fails_the_run_in_one_clear_sentence(shop: Shop, instance: DagsterInstance) -> None:
    shop.breaks_off = True

    result = run(build_definitions([shop.job()]), instance, raise_on_error=False)

    failure = next(event for event in result.all_events if event.is_step_failure)
    told = failure.step_failure_data.user_failure_data.description  # type: ignore[union-attr]
    assert not result.success
    assert shop.records == {}
    assert "broke off after 5 items, nothing was applied: ConnectionError: the ERP hung up" in told  # type: ignore[operator]
    assert "hunter2" not in str(failure.step_failure_data)
    assert instance.get_run_by_id(result.run_id).tags["sync/outcome"] == "failed"  # type: ignore[union-attr]
    assert [results.outcome for results in shop.completed] == ["failed"]


def test_the_failure_stands_in_the_ledger_with_the_dagster_run(shop: Shop, instance: DagsterInstance) -> None:
    shop.breaks_off = True
    result = run(build_definitions([shop.job()]), instance, raise_on_error=False)

    with open_workspace() as workspace:
        row = workspace.ledger.run_of_dagster(result.run_id)
    assert row is not None
    assert row.outcome == "failed"
    assert row.failure is not None
    assert row.failure.startswith("fetch: ")


def test_the_run_log_reads_as_a_report(shop: Shop, instance: DagsterInstance, caplog: pytest.LogCaptureFixture) -> None:
    shop.items += [{"sku": f"B-{number}", "bad": True} for number in range(30)]

    with caplog.at_level(logging.INFO):
        result = run(build_definitions([shop.job()]), instance)

    lines = [
        (record.level, record.user_message)
        for record in instance.all_logs(result.run_id)
        if not record.is_dagster_event
    ]
    told = [message for _, message in lines]
    warnings = [message for level, message in lines if level == logging.WARNING]
    assert told[0] == "fetch: asking the source of erp-stock"
    assert told[1] == "fetch: 35 items"
    assert told[2] == "diff: 35 to write, 0 unchanged, 0 skipped, 0 duplicates, 0 failed"
    assert sum("failed: create: ValueError: B-" in message for message in warnings) == 20
    told = [re.sub(r"shop\.py:\d+", "shop.py", warning) for warning in warnings]
    cause = "30 x create: ValueError: <id> is not wanted (shop.py, in create) (e.g. B-0, B-1, B-2, B-3, B-4)"
    assert f"errors by cause: {cause}" in told
    assert told[0] == "item 5 'B-0' failed: create: ValueError: B-0 is not wanted (shop.py, in create)"
    assert told[-1].startswith("erp-stock: partial: 35 fetched = 5 created, 30 failed in ")


def test_an_error_of_on_complete_fails_the_run_after_the_applying(shop: Shop, instance: DagsterInstance) -> None:
    def complain(_results: Any) -> None:
        raise RuntimeError("no mail server")

    with pytest.raises(Failure, match="on_complete failed after the applying was done: RuntimeError: no mail server"):
        run(build_definitions([shop.job(on_complete=complain)]), instance)
    assert len(shop.records) == 5


def test_materialising_the_asset_alone_does_the_same_as_the_job(shop: Shop, instance: DagsterInstance) -> None:
    """The UI's Materialize button goes through a job of Dagster's own."""
    definitions = build_definitions([shop.job()])
    implicit = definitions.resolve_implicit_global_asset_job_def()

    result = implicit.execute_in_process(instance=instance, asset_selection=[AssetKey(["shop", "stock"])])

    assert result.success
    assert len(shop.records) == 5
    assert metadata_of(result)["created"] == 5
    assert implicit.executor_def.name == "in_process"


def test_a_table_target_names_its_table_rows_and_columns(
    shop: Shop, instance: DagsterInstance, database: Engine
) -> None:
    metadata = MetaData()
    Table(
        "variants",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("sku", String(20), unique=True, nullable=False),
        Column("stock", Numeric(10, 2)),
    )
    metadata.create_all(database)
    job = shop.job(
        target=SqlTable(table="variants", key="sku", columns=["stock"], database=database),
        find_local=None,
        create=None,
        update=None,
        has_changed=None,
    )

    found = metadata_of(run(build_definitions([job]), instance))

    assert found["dagster/row_count"] == 5
    name = Path(database.url.database or "").stem
    assert found["dagster/table_name"] in {f"{name}.variants", f"{name}.public.variants"}
    assert set(found["dagster/column_lineage"].deps_by_column) == {"sku", "stock"}
    columns = {column.name: column.type.lower() for column in found["dagster/column_schema"].columns}
    assert list(columns) == ["id", "sku", "stock"]
    assert columns["id"] == "integer"
    assert columns["stock"].replace(" ", "") == "numeric(10,2)"


@pytest.mark.soak
def test_fetch_diff_and_apply_may_each_run_in_a_process_of_their_own(
    instance: DagsterInstance, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working tables of the diff are there for apply, which has another connection."""
    monkeypatch.setenv("SYNC_PIPELINES_DATABASE_URL", postgres_url)
    count = create_variants()

    with execute_job(reconstructable(spread_out_job), instance) as result:
        assert result.success
        pids = {record.dagster_event.pid for record in instance.all_logs(result.run_id) if _worker_started(record)}

    assert count() == 2500
    assert len(pids) >= 3


def _worker_started(record: Any) -> bool:
    return bool(record.dagster_event and record.dagster_event.event_type_value == "STEP_WORKER_STARTED")


def test_re_execution_from_failure_applies_without_fetching_again(
    instance: DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "calls"
    monkeypatch.setenv("CALLS_LOG", str(log))
    count = create_variants()
    job = reconstructable(single_process_job)
    with execute_job(job, instance) as first:
        assert not first.success  # on_complete fails once
    with execute_job(
        job, instance, reexecution_options=ReexecutionOptions.from_failure(first.run_id, instance)
    ) as again:
        assert again.success
        (event,) = [event for event in again.all_events if event.is_step_materialization]
        metadata = {name: value.value for name, value in event.materialization.metadata.items()}

    assert log.read_text(encoding="utf-8").split() == ["fetch", "complete", "complete"]
    assert count() == 2500
    assert metadata["created"] == 2500  # by the run, in whichever attempt
    with open_workspace() as workspace:
        row = workspace.ledger.run_of_dagster(again.run_id)
    assert row is not None
    assert row.outcome == "clean"


def test_of_several_syncs_in_one_run_the_worst_outcome_is_the_tag(shop: Shop, instance: DagsterInstance) -> None:
    other = Shop()
    other.items = [{"sku": "B-1", "bad": True}]
    definitions = build_definitions([shop.job(), other.job(name="erp-prices", asset_key="shop/a_prices")])
    implicit = definitions.resolve_implicit_global_asset_job_def()

    result = implicit.execute_in_process(instance=instance)

    assert result.success
    assert instance.get_run_by_id(result.run_id).tags["sync/outcome"] == "partial"  # type: ignore[union-attr]


def test_re_execution_of_diff_alone_finds_the_snapshot_and_the_rest_of_the_work(
    instance: DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each op's reference has a file of its own, and a new plan does not count the old one's chunks as its own."""
    monkeypatch.setenv("CALLS_LOG", str(tmp_path / "calls"))
    count = create_variants()
    job = reconstructable(single_process_job)
    with execute_job(job, instance) as first:
        assert not first.success
    options = ReexecutionOptions(first.run_id, ["shop__stock.diff", "shop__stock.apply"])

    with execute_job(job, instance, reexecution_options=options) as again:
        assert again.success
        (event,) = [event for event in again.all_events if event.is_step_materialization]
        metadata = {name: value.value for name, value in event.materialization.metadata.items()}

    assert count() == 2500
    assert (metadata["created"], metadata["unchanged"]) == (0, 2500)


def test_what_a_driver_says_about_parameters_stays_out_of_dagsters_log(shop: Shop, instance: DagsterInstance) -> None:
    def create(item: dict[str, Any]) -> None:
        raise RuntimeError(f"token=abcdefghijkl in {item['sku']}")

    def complete(_results: Any) -> None:
        raise RuntimeError("password=hunter2 was refused")

    result = run(build_definitions([shop.job(create=create, on_complete=complete)]), instance, raise_on_error=False)

    told = "\n".join(str(record) for record in instance.all_logs(result.run_id))
    assert "was refused" in told
    assert "hunter2" not in told
    assert "abcdefghijkl" not in told


def test_the_fetch_shows_on_the_source_asset(shop: Shop, instance: DagsterInstance) -> None:
    """A source that nobody ever reports on looks broken in the lineage."""
    run(build_definitions([shop.job()]), instance)

    event = instance.get_latest_materialization_event(AssetKey(["erp", "stock"]))

    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["items"].value == 5
