"""A drain in a process of its own that ends by SIGKILL at a chosen or random instant."""

from __future__ import annotations

import random
import threading
import time
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import sqlalchemy as sa

from sync_pipelines.database.batches import Batches
from sync_pipelines.database.connections import create_database
from sync_pipelines.database.inbox import Inbox
from sync_pipelines.database.ledger import Ledger
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.runner.changes.drain import Drain
from sync_pipelines.runner.changes.drain_batch import DrainBatch
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.decide.stale_check import StaleCheck
from sync_pipelines.runner.write.batch_writer import BatchWriter
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.open_table import OpenedSqlTable
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines_tests.runner.crash_child import killed, killed_at
from sync_pipelines_tests.runner.desk import AT_ONCE

BATCH_SIZE = 16
BAD_STOCK = -1
"""A row with it is refused by the table."""


def make_table(url: str) -> None:
    """The table that is kept in step, and some records that are there before."""
    database = create_database(url)
    with database.begin() as connection:
        connection.execute(sa.text("CREATE TABLE variants (sku INTEGER PRIMARY KEY, stock INTEGER CHECK (stock >= 0))"))
        connection.execute(sa.text("INSERT INTO variants VALUES (0, 100000), (1, 100001)"))
    database.dispose()


def settings_of(folder: Path, ledger: str | None) -> Settings:
    """Settings with the ledger there, None for one of its own in the folder."""
    return Settings.model_validate({"data_dir": folder, "database_url": None, "ledger_url": ledger})


def job(url: str, **fields: Any) -> SyncJob[Any, Any]:
    """The sync; stock is the version as well, so that each item is told from all others by it."""
    target = SqlTable(table="variants", key="sku", columns=["stock"], database=url)
    return SyncJob(**{"name": "stock", "fetch_external": list, "target": target, "get_version": "version", **fields})


def small_batches() -> AbstractContextManager[Any]:
    """So that there are several."""
    return patch("sync_pipelines.runner.changes.drain.BATCH_SIZE", BATCH_SIZE)


def drain_and_be_killed(folder: Path, url: str, ledger: str | None, instant: str, number: int) -> None:
    """Drains until that instant comes for the n-th time."""
    together = OpenedSqlTable.together
    commits = 0

    @contextmanager
    def committed(target: OpenedSqlTable) -> Any:
        nonlocal commits
        with together(target) as connection:
            yield connection
        commits += 1
        if commits == number:
            killed()

    steps: dict[str, tuple[Any, str]] = {
        "decide": (DrainBatch, "decide_deliveries"),
        "write": (BatchWriter, "write"),
        "versions": (StaleCheck, "keep_written"),
        "settle": (Inbox, "complete"),
        "chunk": (Batches, "save"),
        "finish": (Ledger, "finish_run"),
    }
    word, _, step = instant.partition(" ")
    patching: AbstractContextManager[Any] = patch.object(OpenedSqlTable, "together", committed)
    if step != "commit":
        owner, name = steps[step]
        patching = patch.object(owner, name, killed_at(getattr(owner, name), number, after=word == "after"))
    _drain(folder, url, ledger, patching)


def drain_and_be_killed_some_time(folder: Path, url: str, ledger: str | None, seed: int, longest_s: float) -> None:
    """Drains until a random instant, at most so many seconds after it began to apply."""
    after_s = random.Random(seed).uniform(0, longest_s)

    def end_it() -> None:
        time.sleep(after_s)
        killed()

    threading.Thread(target=end_it, daemon=True).start()
    _drain(folder, url, ledger, nullcontext())


def _drain(folder: Path, url: str, ledger: str | None, patching: AbstractContextManager[Any]) -> None:
    with open_workspace(settings_of(folder, ledger)) as workspace, small_batches(), patching:
        Drain(job(url), workspace).run(AT_ONCE)
