"""A sync into MariaDB in a process of its own that ends by SIGKILL at a chosen chunk. Forked by `test_syncs.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

from sync_pipelines.database.batches import Batches
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.testing import MemorySource
from sync_pipelines_tests.runner.crash_child import killed_at, page_by_page

ITEMS = [{"sku": f"A{number:03}", "stock": number % 7} for number in range(95)]


def crashing_job(url: str) -> SyncJob[Any, Any]:
    """The sync."""
    target = SqlTable(table="variants", key="sku", columns=["stock"], database=url)
    return SyncJob(name="crashing", fetch_external=MemorySource(ITEMS), target=target, deletes="hard", guards=None)


def main(url: str, folder: Path, number: int, when: str) -> None:
    """Runs the sync and is killed when it notes a chunk in the ledger, before or after."""
    counted = killed_at(Batches.save, number, after=when == "after")
    with page_by_page(), patch.object(Batches, "save", counted):
        run_sync(crashing_job(url), settings=Settings(data_dir=folder))
