"""`python -m benchmarks.drain`: a burst of webhooks for few items, then the drain runs that it takes to apply them."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import SecretStr

from benchmarks import receiver
from benchmarks.databases.postgres import postgres_server
from sync_pipelines import Settings, SqlTable, SyncJob
from sync_pipelines.database.connections import create_database
from sync_pipelines.runner.draining import Drain, DrainLimits
from sync_pipelines.runner.workspace import open_workspace

_TABLE = "CREATE TABLE bench_stock (sku text PRIMARY KEY, quantity int NOT NULL, warehouse text NOT NULL)"
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
        drained = _drain(_job(url), settings)
        with database.connect() as connection:
            newest = {row[0]: int(row[1]) for row in connection.execute(sa.text(_NEWEST))}
            local = {row[0]: row[1] for row in connection.execute(sa.text("SELECT sku, quantity FROM bench_stock"))}
        database.dispose()
        return {"sent": sent, **drained, "items": len(newest), "all newest": local == newest}


def _job(url: str) -> SyncJob[Any, Any]:
    target = SqlTable(table="bench_stock", key="sku", columns=["quantity", "warehouse"], database=url)
    return SyncJob(name="bench-stock", fetch_external=list, get_external_id="sku", target=target)


def _drain(job: SyncJob[Any, Any], settings: Settings) -> dict[str, Any]:
    """Runs drains, as the sensor would, until nothing waits."""
    began_s, runs = time.perf_counter(), 0
    with open_workspace(settings) as workspace:
        while workspace.inbox.next_try(job.name).count:
            Drain(job, workspace).run(DrainLimits(linger_s=0))
            runs += 1
    return {"drained_s": round(time.perf_counter() - began_s, 2), "runs": runs}


if __name__ == "__main__":
    sys.exit(main())
