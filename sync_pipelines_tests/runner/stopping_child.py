"""A sync in a process of its own that stops, or loses the network, in the midst of a transaction that writes."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import sqlalchemy as sa
import stamina

from sync_pipelines.database import leases, silent_peers
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.errors import RunError
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.testing import MemorySource

LEASE_S, BEYOND_S, SILENT_S = 1.0, 1.0, 2.0
ENDED_BY_ITSELF = 7
TABLE = "CREATE TABLE things (sku text PRIMARY KEY, stock integer)"


def stopping_job(url: str, count: int) -> SyncJob[Any, Any]:
    """The sync that one process stops in, and another takes over."""
    source = MemorySource([{"sku": f"S{number:05}", "stock": number} for number in range(count)])
    return SyncJob(name="stopping", fetch_external=source, target=SqlTable(table="things", key="sku", database=url))


def settings_of(url: str, folder: Path) -> Settings:
    """Settings with the ledger beside the table."""
    return Settings(data_dir=folder, database_url=url, ledger_url=url, lease_s=LEASE_S, connect_timeout_s=2)


def run_and(what: str, url: str, folder: Path, count: int) -> None:
    """Runs until the first row is to be written, in a transaction that has the lease's row.

    Args:
        what: `stop` to stop; or the path of a file that asks for the network to be lost, which one beside it confirms.
    """

    def at_the_first_row(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(("INSERT INTO things", "INSERT INTO public.things")):
            if what == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            else:
                Path(what).touch()
                while not Path(what + ".lost").exists():
                    time.sleep(0.01)

    os.environ["SYNC_PIPELINES_CONNECT_TIMEOUT_S"] = "2"  # of the target
    sa.event.listen(sa.Engine, "before_cursor_execute", at_the_first_row)
    beyond = patch.object(leases, "_BEYOND_LEASE", timedelta(seconds=BEYOND_S))
    silent = patch.multiple(silent_peers, SILENT_S=SILENT_S, _ANSWERS_WITHIN_S=1.0)
    with beyond, silent, stamina.set_testing(True, attempts=100, cap=True):
        try:
            run_sync(stopping_job(url, count), settings=settings_of(url, folder))
        except RunError:
            os._exit(ENDED_BY_ITSELF)
