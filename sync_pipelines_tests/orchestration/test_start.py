"""`SYNC_PIPELINES_START`: whether schedules and sensors run from the start."""

from __future__ import annotations

from typing import Any

import pytest
from dagster import DefaultScheduleStatus, DefaultSensorStatus

from sync_pipelines import ConfigurationError, Retry, sync_intervals
from sync_pipelines.orchestration.build import build_definitions
from sync_pipelines_tests.orchestration.shop import Shop


def states(shop: Shop) -> set[Any]:
    job = shop.job(schedule=sync_intervals.hours(1), retry=Retry())
    repository = build_definitions([job], broken=()).get_repository_def()
    found = [*repository.schedule_defs, *repository.sensor_defs]
    assert len(found) > 3
    return {each.default_status.value for each in found}


def test_everything_runs_from_the_start_unless_it_is_told_not_to(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    assert states(shop) == {DefaultScheduleStatus.RUNNING.value, DefaultSensorStatus.RUNNING.value}

    monkeypatch.setenv("SYNC_PIPELINES_START", "running")
    assert states(shop) == {DefaultScheduleStatus.RUNNING.value}


def test_nothing_runs_from_the_start_where_it_is_stopped(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNC_PIPELINES_START", "stopped")

    assert states(shop) == {DefaultScheduleStatus.STOPPED.value, DefaultSensorStatus.STOPPED.value}


@pytest.mark.parametrize("value", ["", "stop", "Stopped", "0"])
def test_any_other_value_stops_the_loading_and_names_the_variable(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("SYNC_PIPELINES_START", value)

    with pytest.raises(ConfigurationError, match=r"SYNC_PIPELINES_START is wrong: .*'running' or 'stopped'"):
        states(shop)
