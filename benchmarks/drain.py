"""`python -m benchmarks.drain`: a burst of webhooks and the drain runs that apply it; how long a single item takes."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import sqlalchemy as sa
from pydantic import SecretStr

from benchmarks import receiver
from benchmarks.databases.postgres import postgres_server
from sync_pipelines import Settings, SqlTable, SyncJob, sync_single_item
from sync_pipelines.database.connections import create_database
from sync_pipelines.engine.codec import encode
from sync_pipelines.runner.changes.drain import Drain, DrainLimits
from sync_pipelines.runner.context.workspace import open_workspace

_TABLE = "CREATE TABLE bench_stock (sku text PRIMARY KEY, quantity int NOT NULL, warehouse text NOT NULL)"
_SINGLE = 60
_NEWEST = (
    "SELECT DISTINCT ON (external_id) external_id, CAST(item AS json) ->> 'quantity' "
    "FROM sync_pipelines.inbox ORDER BY external_id, id DESC"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, and prints one JSON line. Gives 1 if a record is not in the newest state of all its deliveries."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drain", description=__doc__)
    parser.add_argument("--deliveries", type=int, default=100_000, help="for a fifth as many items [100000]")
    asked = parser.parse_args(arguments)
    measured = measure(asked.deliveries)
    print(json.dumps(measured), flush=True)
    return 0 if measured["all newest"] else 1


def measure(deliveries: int) -> dict[str, Any]:
    """One burst on a fresh PostgreSQL: received first, drained after the last 202, which is the worst case."""
    with tempfile.TemporaryDirectory(prefix="bench") as name, postgres_server() as url:
        folder = Path(name)
        environment = receiver.environment(folder, url)
        database = create_database(url)
        with database.begin() as connection:
            connection.exec_driver_sql(_TABLE)
        with receiver.running(folder, environment) as port:
            sent = receiver.send(environment, port, 16, deliveries, receiver.WARM_UP)
        settings = Settings(data_dir=folder / "data", database_url=SecretStr(url), ledger_url=SecretStr(url))
        job = _job(url)
        drained = _drain(job, settings)
        with database.connect() as connection:
            newest = {row[0]: int(row[1]) for row in connection.execute(sa.text(_NEWEST))}
            local = {row[0]: row[1] for row in connection.execute(sa.text("SELECT sku, quantity FROM bench_stock"))}
        database.dispose()
        single = {"inline_ms": _inline_ms(job, settings), "idle wait_ms": _idle_wait_ms(job, settings)}
        return {"sent": sent, **drained, "items": len(newest), "all newest": local == newest, **single}


def _job(url: str) -> SyncJob[Any, Any]:
    target = SqlTable(table="bench_stock", key="sku", columns=["quantity", "warehouse"], database=url)
    return SyncJob(name="bench-stock", fetch_external=list, get_external_id="sku", target=target)


def _drain(job: SyncJob[Any, Any], settings: Settings) -> dict[str, Any]:
    """Runs drains, as the sensor would, until nothing waits."""
    began_s, runs = time.perf_counter(), 0
    with open_workspace(settings) as workspace:
        while workspace.inbox.next_try(job.name).count:
            Drain(job, workspace).run(DrainLimits(idle_wait_s=0))
            runs += 1
    return {"drained_s": round(time.perf_counter() - began_s, 2), "runs": runs}


def _item(number: int) -> dict[str, Any]:
    return {"sku": f"SKU-{number:06d}", "quantity": -number - 1, "warehouse": "south"}


def _inline_ms(job: SyncJob[Any, Any], settings: Settings) -> float:
    """Median of applying one item at once, as inline mode does."""
    took: list[float] = []
    for number in range(_SINGLE):
        began_s = time.perf_counter()
        sync_single_item(job, _item(number), settings=settings)
        took.append(1000 * (time.perf_counter() - began_s))
    return round(median(took), 1)


def _idle_wait_ms(job: SyncJob[Any, Any], settings: Settings) -> float:
    """Median from storing one item until it is applied, by a drain that waits for late arrivals."""
    took: list[float] = []
    with open_workspace(settings) as workspace:
        drain = threading.Thread(target=lambda: Drain(job, workspace).run(DrainLimits(idle_wait_s=3)))
        drain.start()
        for number in range(_SINGLE // 3):
            began_s = time.perf_counter()
            stored = workspace.inbox.store(job.name, encode(_item(100 + number)), workspace.clock())
            while (found := workspace.inbox.show(stored)) is None or found.state == "waiting":
                time.sleep(0.002)
            took.append(1000 * (time.perf_counter() - began_s))
        drain.join()
    return round(median(took), 1)


if __name__ == "__main__":
    sys.exit(main())
