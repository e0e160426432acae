"""Old runs are removed from Dagster's history, but for those that it still needs."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetKey, DagsterInstance, DagsterRun, DagsterRunStatus, Definitions

from sync_pipelines.orchestration.build import build_definitions
from sync_pipelines.orchestration.old_runs import delete_old_runs, main
from sync_pipelines.runner.context.workspace import utc_now
from sync_pipelines_tests.orchestration.shop import Shop

SYNC = {"sync": "erp-stock", "sync/kind": "full"}


def later() -> datetime:
    """A moment after all runs of a test, whose age can't be chosen."""
    return utc_now() + timedelta(seconds=1)


def add(instance: DagsterInstance, **options: Any) -> str:
    given = {"job_name": "erp_stock", "status": DagsterRunStatus.SUCCESS, "tags": SYNC, **options}
    return instance.add_run(DagsterRun(**given)).run_id


def left(instance: DagsterInstance) -> set[str]:
    return {record.dagster_run.run_id for record in instance.get_run_records()}


def run(definitions: Definitions, instance: DagsterInstance) -> str:
    return definitions.resolve_job_def("erp_stock").execute_in_process(instance=instance, tags=SYNC).run_id


def files_of(folder: Path, run_id: str) -> list[Path]:
    return [path for path in folder.rglob("*") if run_id in str(path) and path.is_file()]


def test_old_runs_go_with_their_events_and_files_and_the_last_one_of_each_asset_stays(
    shop: Shop, instance: DagsterInstance, tmp_path: Path
) -> None:
    """The source was materialised by the first run alone: the others fetched the same."""
    definitions = build_definitions([shop.job()])
    runs = [run(definitions, instance) for _ in range(4)]
    folder = tmp_path / "instance"
    assert all(files_of(folder, run_id) for run_id in runs)

    assert delete_old_runs(instance, later(), is_dry=True) == 2
    assert left(instance) == set(runs)
    assert delete_old_runs(instance, later()) == 2

    assert left(instance) == {runs[0], runs[-1]}
    assert [bool(files_of(folder, run_id)) for run_id in runs] == [True, False, False, True]
    with DagsterInstance.local_temp(str(folder)) as another:
        assert [len(another.all_logs(run_id)) > 0 for run_id in runs] == [True, False, False, True]
    latest = instance.get_latest_materialization_event(AssetKey(["shop", "stock"]))
    assert latest is not None
    assert latest.run_id == runs[-1]
    assert delete_old_runs(instance, later()) == 0


def test_the_run_of_the_last_materialisation_stays_though_there_are_newer_ones(
    shop: Shop, instance: DagsterInstance
) -> None:
    materialised = run(build_definitions([shop.job()]), instance)
    failed = [add(instance, status=DagsterRunStatus.FAILURE) for _ in range(3)]

    assert delete_old_runs(instance, later()) == 2

    assert left(instance) == {materialised, failed[-1]}


def test_what_is_young_or_under_way_or_of_others_stays(instance: DagsterInstance) -> None:
    kept = {
        add(instance, tags={}),
        add(instance, tags={"team": "sync"}),
        add(instance, tags={"sync": "a tag of others"}),
        add(instance, tags={**SYNC, "sync/mixed": "true"}),
        add(instance, status=DagsterRunStatus.STARTED),
        add(instance, status=DagsterRunStatus.NOT_STARTED),
    }
    old, newest = add(instance), add(instance)

    assert delete_old_runs(instance, utc_now() - timedelta(days=1)) == 0
    assert left(instance) == {*kept, old, newest}
    assert delete_old_runs(instance, later()) == 1
    assert left(instance) == {*kept, newest}


def test_the_newest_run_of_each_schedule_stays_for_the_next_one_counts_from_it(instance: DagsterInstance) -> None:
    scheduled = {**SYNC, "dagster/schedule_name": "erp_stock_every_5_hours"}
    add(instance, tags=scheduled)
    of_schedule, by_hand = add(instance, tags=scheduled), add(instance)

    assert delete_old_runs(instance, later()) == 1

    assert left(instance) == {of_schedule, by_hand}


def test_there_may_be_more_runs_than_are_read_at_once(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync_pipelines.orchestration.old_runs._PAGE", 2)
    runs = [add(instance) for _ in range(7)]

    assert delete_old_runs(instance, later()) == 6

    assert left(instance) == {runs[-1]}


def test_the_command_deletes_in_the_instance_of_dagster_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with DagsterInstance.get() as instance:
        runs = [add(instance) for _ in range(2)]
    command = ["old_runs", "--days", "0.0000001"]

    for words in ([*command, "--dry-run"], command, command):
        monkeypatch.setattr(sys, "argv", words)
        main()

    assert capsys.readouterr().out == "1 runs would be deleted\n1 runs deleted\n0 runs deleted\n"
    with DagsterInstance.get() as instance:
        assert left(instance) == {runs[-1]}


@pytest.mark.parametrize("days", ["0", "-1", "nan", "a week"])
def test_days_that_are_none_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], days: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["old_runs", f"--days={days}"])

    with pytest.raises(SystemExit):
        main()

    assert "--days" in capsys.readouterr().err
