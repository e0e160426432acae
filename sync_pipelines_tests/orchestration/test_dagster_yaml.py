"""The `dagster.yaml` files that ship: Dagster takes them, and they let it forget all that it can forget."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from dagster import DagsterInstance
from dagster._core.definitions.run_request import InstigatorType

REPOSITORY = Path(__file__).parents[2]
OF_BEFORE = """
retention:
  schedule: {purge_after_days: {skipped: 7, failure: 90, success: 90}}
  sensor: {purge_after_days: {skipped: 7, failure: 90, success: 90}}
"""


def days_kept(folder: Path, kind: InstigatorType) -> dict[str, int]:
    with DagsterInstance.from_config(str(folder)) as instance:
        return {status.value: days for status, days in instance.get_tick_retention_settings(kind).items()}


@pytest.mark.parametrize("kind", [InstigatorType.SCHEDULE, InstigatorType.SENSOR, InstigatorType.AUTO_MATERIALIZE])
def test_every_kind_of_tick_is_forgotten_some_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: InstigatorType
) -> None:
    monkeypatch.chdir(tmp_path)  # to which the folders in it are relative
    (tmp_path / "dagster.yaml").write_text((REPOSITORY / "dagster.yaml").read_text())

    assert days_kept(tmp_path, kind) == {"STARTED": 90, "SKIPPED": 7, "SUCCESS": 90, "FAILURE": 90}


def test_a_file_of_before_goes_on(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text(OF_BEFORE)

    assert days_kept(tmp_path, InstigatorType.SENSOR) == {"STARTED": -1, "SKIPPED": 7, "SUCCESS": 90, "FAILURE": 90}


def test_the_file_for_postgresql_keeps_as_long_as_the_other() -> None:
    files = [yaml.safe_load((REPOSITORY / name).read_text()) for name in ("dagster.yaml", "deploy/dagster.yaml")]

    assert files[0]["retention"] == files[1]["retention"]
