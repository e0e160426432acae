"""What is kept in files is for nobody else on the machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from sync_pipelines.cli.app import app
from sync_pipelines.database.connections import create_database
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.testing import MemorySource


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    """Name -> mode of all that others can read."""
    paths = [folder, *folder.rglob("*")]
    return {str(path): f"{path.stat().st_mode & 0o777:o}" for path in paths if path.stat().st_mode & 0o077}


def run(folder: Path, **options: bool) -> None:
    url = f"sqlite:///{folder / 'local.sqlite'}"
    database = create_database(url)
    with database.begin() as connection:
        connection.execute(sa.text("CREATE TABLE IF NOT EXISTS things (sku TEXT PRIMARY KEY, n INT)"))
    database.dispose()
    items = MemorySource([{"sku": f"S{number}", "n": number} for number in range(1_200)])
    job = SyncJob(name="things", fetch_external=items, target=SqlTable(table="things", key="sku", database=url))
    assert run_sync(job, settings=Settings(data_dir=folder / "new" / "data"), **options).error_count == 0


def test_folders_and_files_that_are_made_are_for_this_user_alone(tmp_path: Path) -> None:
    """Ledger, snapshots, plans and working files, also where folders above the data folder are missing."""
    run(tmp_path, dry_run=True)
    run(tmp_path)
    data = tmp_path / "new" / "data"
    with open_workspace(Settings(data_dir=data)) as workspace, workspace.ledger.transaction():
        names = {path.name for path in data.rglob("*")}
        assert {"ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm", "snapshot.json", "plan.parquet"} <= names
        assert modes(tmp_path / "new") == {}
    assert f"{data.stat().st_mode & 0o777:o} {(data / 'ledger.sqlite').stat().st_mode & 0o777:o}" == "700 600"


def test_those_that_are_there_are_left_and_check_tells_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    with open_workspace(Settings(data_dir=data)):
        pass
    monkeypatch.setenv("SYNC_PIPELINES_DATA_DIR", str(data))
    assert "chmod" not in CliRunner().invoke(app, ["check"]).stdout
    data.chmod(0o755)
    (data / "ledger.sqlite").chmod(0o644)

    check = CliRunner().invoke(app, ["check", "--json"])

    assert data.stat().st_mode & 0o777 == 0o755
    told = json.loads(check.stdout)["findings"][0]["message"]
    assert told.endswith(f"unless you run: chmod 700 {data}; chmod 600 {data}/ledger.sqlite")


@pytest.mark.parametrize("unit", ["code", "daemon", "webhooks", "webserver"])
def test_what_the_units_write_is_for_their_user_alone(unit: str) -> None:
    file = Path(__file__).parents[2] / "deploy" / "systemd" / f"sync-pipelines-{unit}.service"
    assert {"UMask=0077", "StateDirectoryMode=0700"} <= set(file.read_text(encoding="utf-8").splitlines())
