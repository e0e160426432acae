"""The power fails in the middle of a run: everything is killed at once, started again, and the sync goes on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from demo.child import clean_environment
from demo.dagster_server import RunningDagster
from demo.erp import free_port
from sync_pipelines import Settings, trigger_sync
from sync_pipelines.runner.context.workspace import open_workspace

REPOSITORY = Path(__file__).parents[2]
LEASE_S = 8

JOB = """
import os, sqlite3, time
from pathlib import Path
from sync_pipelines import SyncJob
HOME = Path(os.environ["SYNC_PIPELINES_DATA_DIR"]).parent
def shop():
    connection = sqlite3.connect(HOME / "shop.sqlite", isolation_level=None)
    connection.execute("CREATE TABLE IF NOT EXISTS stock (sku TEXT PRIMARY KEY)")
    return connection
def find(sku):
    return shop().execute("SELECT sku FROM stock WHERE sku = ?", [sku]).fetchone()
def create(item):
    shop().execute("INSERT INTO stock VALUES (?)", [item["sku"]])
    if (HOME / "slow").exists():
        time.sleep(0.2)
JOB = SyncJob(name="slow-stock", fetch_external=lambda: [{"sku": f"A-{n}"} for n in range(100)],
              get_external_id="sku", find_local=find, create=create, update=print,
              has_changed=lambda item, local: False)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("workspace.yaml", "dagster.yaml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    (tmp_path / "our_jobs").mkdir()
    (tmp_path / "our_jobs" / "slow_stock.py").write_text(JOB, encoding="utf-8")
    return tmp_path


def wait_until(condition: Callable[[], bool], timeout_s: float) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s
        time.sleep(0.1)
    return time.monotonic() - began


def kill_everything(dagster: RunningDagster) -> None:
    process = dagster._process
    assert process is not None
    for each in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        each.kill()
    process.wait(10)


@pytest.mark.soak
def test_after_a_power_cut_the_next_run_starts_soon_and_ends_the_work(home: Path) -> None:
    port = free_port()
    settings = Settings(
        data_dir=home / "data", dagster_url=f"http://127.0.0.1:{port}", jobs=("our_jobs",), lease_s=LEASE_S
    )
    own = {
        "SYNC_PIPELINES_DATA_DIR": str(settings.data_dir),
        "SYNC_PIPELINES_JOBS": "our_jobs",
        "SYNC_PIPELINES_LEASE_S": str(LEASE_S),
    }
    environment = clean_environment(REPOSITORY, own)
    environment["PYTHONPATH"] += f":{home}"
    (home / "slow").touch()
    with RunningDagster(home, port, environment, home / "first.log") as dagster:
        dagster.wait_until_it_answers()
        first = trigger_sync("slow-stock", settings=settings)
        wait_until((home / "shop.sqlite").exists, 60)
        time.sleep(1)
        kill_everything(dagster)
    (home / "slow").unlink()

    with RunningDagster(home, port, environment, home / "second.log") as dagster:
        dagster.wait_until_it_answers()
        second = trigger_sync("slow-stock", settings=settings)
        waited_s = wait_until(lambda: dagster.run_status(second) not in {"QUEUED", "NOT_STARTED"}, 120)
        assert dagster.wait_for_run(second) == "SUCCESS"
        assert dagster.run_status(first) == "FAILURE"

    assert waited_s < LEASE_S + 30
    with open_workspace(settings) as workspace:
        row = workspace.ledger.run_of_dagster(second)
    assert row is not None
    assert row.counts["fetched"] == 100
    assert 0 < row.counts["unchanged"] < 100
    assert row.counts["created"] == 100 - row.counts["unchanged"]
