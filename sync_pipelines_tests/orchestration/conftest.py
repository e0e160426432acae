"""A sync over a dict, as Dagster definitions, on an instance of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance

from sync_pipelines.orchestration.location import HELD_WORKSPACE
from sync_pipelines_tests.orchestration.shop import Shop


@pytest.fixture
def shop() -> Shop:
    shop = Shop()
    shop.items = [{"sku": f"A-{number}", "stock": number} for number in range(5)]
    return shop


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keeps ledger, snapshots and local records out of the repository."""
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("SYNC_PIPELINES_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SYNC_PIPELINES_IDLE_WAIT_S", "0")
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def no_workspace_is_held() -> Iterator[None]:
    yield
    HELD_WORKSPACE.close()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    (tmp_path / "instance").mkdir()
    with DagsterInstance.local_temp(str(tmp_path / "instance")) as instance:
        yield instance
