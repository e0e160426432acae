"""Components loaded out of YAML as `dg` loads them, in a project of their own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keeps ledger, snapshots and local records out of the repository."""
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("SYNC_PIPELINES_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"
