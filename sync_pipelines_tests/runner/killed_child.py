"""A sync of a source that changes with every round, in a process that is killed from outside whenever it pleases."""

from __future__ import annotations

import random
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.runner.runs.comparing_run import ComparingRun
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.targets.table.soft_delete import SoftDelete

NAME = "killed"
SKUS = 700
LEASE_S = 2.0
TABLE = (
    "CREATE TABLE things (sku varchar(20) PRIMARY KEY, stock integer CHECK (stock >= 0), name varchar(40), "
    "active boolean DEFAULT true)"
)
THERE = "INSERT INTO things VALUES ('there', 1, 'before', true)"
"""A table that is not empty keeps its creates in the history with their fields."""


@dataclass(frozen=True)
class World:
    """What is synced, where, and how.

    Args:
        folder: Of ledger and snapshots.
        url: Of the table's database.
        in_bulk: Whether the database compares, or the runner page by page.
        soft: Whether deletes mark.
        seed: Of the source's changes.
    """

    folder: Path
    url: str
    in_bulk: bool
    soft: bool
    seed: int

    def source(self, number: int) -> dict[str, dict[str, Any]]:
        """The items of a round by their id: each is there in most rounds, and another one every third round or so."""
        items: dict[str, dict[str, Any]] = {"there": {"sku": "there", "stock": 1, "name": "before"}}
        for place in range(SKUS):
            chance = random.Random(f"{self.seed} {place} {number // (1 + place % 4)}")
            if chance.random() < 0.85:
                stock = -1 if place % 200 == 7 else chance.randrange(1000)  # some break the CHECK in every round
                items[f"S{place}"] = {"sku": f"S{place}", "stock": stock, "name": f"thing {chance.randrange(50)}"}
        return items

    def job(self, number: int) -> SyncJob[Any, Any]:
        """The sync, with the source as it is in a round."""
        soft_delete = SoftDelete("active", deleted=False) if self.soft else None
        target = SqlTable(
            table="things", key="sku", columns=["stock", "name"], database=self.url, soft_delete=soft_delete
        )
        items = list(self.source(number).values())
        random.Random(number).shuffle(items)
        deletes: Any = "soft" if self.soft else "hard"
        return SyncJob(name=NAME, fetch_external=lambda: items, target=target, deletes=deletes, guards=None)

    @property
    def settings(self) -> Settings:
        """Of a short lease, and no snapshots of runs that have ended."""
        return Settings(
            data_dir=self.folder,
            database_url=None,
            ledger_url=None,
            lease_s=LEASE_S,
            keep_snapshots_days=1e-9,
        )

    def run(self, number: int) -> SyncResults:
        """Runs it whole, in small batches."""
        with ExitStack() as stack:
            stack.enter_context(patch("sync_pipelines.targets.staging.apply_sql.ROWS_IN_BATCH", 100))
            stack.enter_context(patch("sync_pipelines.snapshots.snapshot.SNAPSHOT_PAGE", 200))
            stack.enter_context(patch("sync_pipelines.snapshots.snapshot._FIRST_PAGE", 200))
            for place in ("runner.decide.page_diff", "runner.plans.plan_file", "runner.write.staged_writer"):
                stack.enter_context(patch(f"sync_pipelines.{place}.PAGE_SIZE", 100))
            stack.enter_context(patch.object(ComparingRun, "_is_worth_it", lambda *_: self.in_bulk))
            return run_sync(self.job(number), settings=self.settings, wait_s=20)


def run_whole(world: World, number: int) -> None:
    """Runs a round, unless it is killed."""
    world.run(number)
