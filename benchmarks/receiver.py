"""`python -m benchmarks.receiver`: durable, verified deliveries a second from one receiver process on PostgreSQL."""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from benchmarks.databases.postgres import postgres_server
from benchmarks.receiver_load import SECRET
from sync_pipelines.database.ledger import open_ledger

_ROOT = Path(__file__).resolve().parent.parent
_JOB = f"""
from sync_pipelines import StandardWebhooks, SyncJob, Webhook

JOB = SyncJob(
    name="bench-stock", fetch_external=list, get_external_id="sku", find_local=id, create=id, update=id,
    webhook=Webhook(signature=StandardWebhooks({SECRET!r})),
)
"""
_PATIENCE_S = 60
WARM_UP = 2_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, and prints one JSON line per repetition. Gives 1 if a delivery that was answered is not stored."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.receiver", description=__doc__)
    parser.add_argument("--deliveries", type=int, default=30_000, help="[30000]")
    parser.add_argument("--connections", type=int, default=16, help="[16]")
    parser.add_argument("--repetitions", type=int, default=3, help="[3]")
    parser.add_argument("--database", choices=["postgresql", "sqlite"], default="postgresql", help="[postgresql]")
    asked = parser.parse_args(arguments)
    problems = 0
    for _ in range(asked.repetitions):
        measured = measure(asked.database, asked.connections, asked.deliveries)
        problems += measured["stored"] != measured["statuses"].get("202", 0)
        print(json.dumps(measured), flush=True)
    return 1 if problems else 0


def measure(database: str, connections: int, deliveries: int) -> dict[str, Any]:
    """One repetition on a fresh database: warm up, send, count what is stored."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench")))
        sqlite = f"sqlite:///{folder / 'ledger.sqlite'}"
        url = stack.enter_context(postgres_server()) if database == "postgresql" else sqlite
        variables = environment(folder, url)
        port = stack.enter_context(running(folder, variables))
        before = _stored(url)
        measured = send(variables, port, connections, deliveries, WARM_UP)
        return {"database": database, "connections": connections, **measured, "stored": _stored(url) - before}


def environment(folder: Path, url: str) -> dict[str, str]:
    """The variables of a receiver whose job lies in the folder."""
    (folder / "bench_jobs").mkdir()
    (folder / "bench_jobs" / "__init__.py").write_text(_JOB, encoding="utf-8")
    path = os.pathsep.join(filter(None, (str(folder), str(_ROOT), os.environ.get("PYTHONPATH"))))
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("SYNC_PIPELINES_")},
        "PYTHONPATH": path,
        "SYNC_PIPELINES_JOBS": "bench_jobs",
        "SYNC_PIPELINES_LEDGER_URL": url,
        "SYNC_PIPELINES_DATA_DIR": str(folder / "data"),
        SECRET: "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode(),
    }


@contextmanager
def running(folder: Path, variables: dict[str, str]) -> Iterator[int]:
    """A receiver, as an operator starts it; gives its port."""
    command = [sys.executable, "-m", "sync_pipelines.cli", "webhooks", "serve", "--port", "0"]
    log = folder / "receiver.log"
    with (
        log.open("wb") as out,
        subprocess.Popen(command, cwd=folder, env=variables, stdout=out, stderr=subprocess.STDOUT) as process,
    ):
        try:
            port = _port(process, log)
            send(variables, port, 4, WARM_UP, 0)
            yield port
        finally:
            process.terminate()
            process.wait(_PATIENCE_S)


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """The port at which the receiver says that it listens."""
    give_up_at_s = time.monotonic() + _PATIENCE_S
    while not (found := re.search(r":(\d+)/webhooks/.*\n", log.read_text(encoding="utf-8"))):
        if process.poll() is not None or time.monotonic() > give_up_at_s:
            raise RuntimeError(f"the receiver does not listen; it says: {log.read_text(encoding='utf-8')}")
        time.sleep(0.02)
    return int(found[1])


def send(variables: dict[str, str], port: int, connections: int, deliveries: int, start: int) -> dict[str, Any]:
    """Sends signed deliveries from another process, and gives what it measured."""
    command = [sys.executable, "-m", "benchmarks.receiver_load", *map(str, (port, connections, deliveries, start))]
    done = subprocess.run(
        command, env=variables, stdout=subprocess.PIPE, text=True, timeout=10 * _PATIENCE_S, check=True
    )
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def _stored(url: str) -> int:
    with open_ledger(url) as ledger, ledger.transaction() as connection:
        return int(connection.scalar(select(func.count()).select_from(ledger.tables.inbox)) or 0)


if __name__ == "__main__":
    sys.exit(main())
