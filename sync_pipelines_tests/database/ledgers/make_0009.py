"""Makes `0009.sqlite`: a ledger as the version before migration 0010 wrote it, with a run of every kind in it.

Run it with the code of that version (commit bd0f567), in a checkout of its own:

    git worktree add ../old bd0f567
    cd ../old && PYTHONPATH=. python ../new/sync_pipelines_tests/database/ledgers/make_0009.py ledger.sqlite
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sync_pipelines.runner.draining import Drain, DrainLimits
from sync_pipelines.runner.run import run_sync
from sync_pipelines.runner.sync_run import SnapshotRef, SyncRun
from sync_pipelines.runner.workspace import open_workspace

from sync_pipelines.database.ledger import Ledger
from sync_pipelines.engine.codec import encode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.guards import Guards
from sync_pipelines.errors import SyncPipelinesError, TargetError
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.testing import MemorySource, MemoryTarget
from sync_pipelines_tests.runner.crash_child import killed_at

PAGE_SIZE = 5


def items(count: int, stock: int = 1) -> list[dict[str, Any]]:
    return [{"sku": f"A{number:02}", "stock": stock} for number in range(count)]


class Shop:
    """A table, and what happens to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings(data_dir=folder, database_url=None, ledger_url=None)

    def table(self, name: str, before: int = 0) -> SqlTable:
        with sqlite3.connect(self.folder / "local.sqlite") as connection:
            connection.execute(f"CREATE TABLE {name} (sku TEXT PRIMARY KEY, stock INTEGER CHECK (stock < 100))")
            rows = [(each["sku"], 0) for each in items(before)]
            connection.execute(
                f"CREATE TRIGGER refuse_{name} BEFORE INSERT ON {name} WHEN new.sku = 'refused' "
                "BEGIN SELECT raise(ABORT, 'we do not sell this'); END"
            )
            connection.executemany(f"INSERT INTO {name} VALUES (?, ?)", rows)
        connection.close()
        url = f"sqlite:///{self.folder / 'local.sqlite'}"
        return SqlTable(table=name, key="sku", columns=["stock"], database=url)

    def job(self, name: str, source: Any, target: Any, **fields: Any) -> SyncJob[Any, Any]:
        given = {"name": name, "fetch_external": MemorySource(source), "target": target, "get_external_id": "sku"}
        if isinstance(target, SqlTable):
            del given["get_external_id"]
        return SyncJob(**{**given, "guards": None, **fields})

    def run(self, job: SyncJob[Any, Any], **options: Any) -> None:
        try:
            run_sync(job, settings=self.settings, **options)
        except SyncPipelinesError as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")

    def killed(self, job: SyncJob[Any, Any], instant: str, number: int) -> None:
        """Runs a sync in a process that is killed before or after the n-th call of a method of the ledger."""
        when, method = instant.split()
        child = os.fork()
        if not child:
            counted = killed_at(getattr(Ledger, method), number, after=when == "after")
            with patch.object(Ledger, method, counted):
                run_sync(job, settings=self.settings)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), status


class TellsNoDeletes(MemoryTarget):
    """Has a note of its own that begins as ours did."""

    def notes(self) -> list[str]:
        return ["no deletes: of the archive"]


def fill(shop: Shop) -> None:
    def fail(_results: Any) -> None:
        raise ValueError("nobody is told")

    bad = [*items(9), {"sku": "B1", "stock": 1_000}, {"sku": None, "stock": 1}]
    table = shop.table("variants")
    for source in (items(12), bad, items(12, stock=2)):  # clean, partial with deletes withheld, clean
        shop.run(shop.job("shop", source, table, deletes="hard"))
    shop.run(shop.job("shop", bad, table, fail_above=1))
    shop.run(shop.job("shop", items(3), table, deletes="hard"), limit=3)
    shop.run(shop.job("hooks", items(3), shop.table("hooks"), on_complete=fail))
    shop.run(shop.job("starts", items(3), shop.table("starts"), on_start=lambda: 1 / 0))
    guarded = shop.table("guarded")
    shop.run(shop.job("guarded", items(40), guarded, deletes="hard", guards=Guards()))
    shop.run(shop.job("guarded", items(12), guarded, deletes="hard", guards=Guards()))
    shop.run(shop.job("guarded", items(12), guarded, deletes="hard", guards=Guards()), dry_run=True)
    shop.run(shop.job("off", items(20), MemoryTarget(fails={"A07": TargetError("the shop does not answer")})))
    stop(shop)
    noted = TellsNoDeletes()
    shop.run(shop.job("noted", items(4), noted, deletes="hard"))
    noted.fails["A03"] = ValueError("still in use")
    shop.run(shop.job("noted", items(3), noted, deletes="hard"))
    kill(shop)
    deliver(shop, table)


def stop(shop: Shop) -> None:
    """A run that is stopped in the middle of a batch."""
    written: list[Any] = []

    def create(item: Any) -> None:
        if len(written) == 7:
            raise KeyboardInterrupt
        written.append(item)

    job = shop.job("stopped", items(20), None, find_local=lambda _sku: None, create=create, update=lambda *_: None)
    with suppress(KeyboardInterrupt):
        shop.run(job)


def kill(shop: Shop) -> None:
    """Runs that end in the middle of their applying, by pages and in bulk."""
    with patch.object(SyncRun, "_is_worth_it", lambda *_: False):
        shop.killed(shop.job("pages", items(23), shop.table("pages")), "after save_chunk", 3)
    mixed = [*items(23), {"sku": "odd", "stock": 1_000}, {"sku": "refused", "stock": 1}]
    instants = {
        "spans": ("after replace_chunk", 2),
        "odd": ("after save_chunk", 1),
        "refused": ("after save_chunk", 2),
        "done": ("before finish_run", 1),
        "again": ("after replace_chunk", 2),
    }
    with patch("sync_pipelines.targets.bulk.applying.ROWS_IN_SPAN", 8):
        for name, (instant, number) in instants.items():
            job = shop.job(name, mixed, shop.table(name, before=9), deletes="hard")
            shop.killed(job, instant, number)
    with open_workspace(shop.settings) as workspace:  # of the last one, the diff is made again
        [run] = workspace.ledger.latest_runs(job.name)
        SyncRun(job, workspace).diff(SnapshotRef(run.id, 25))


def deliver(shop: Shop, table: SqlTable) -> None:
    job = shop.job("shop", [], table)
    with open_workspace(shop.settings) as workspace:
        for stock in (3, 1_000):
            workspace.inbox.store("shop", encode({"sku": f"C{stock}", "stock": stock}), workspace.clock())
        Drain(job, workspace).run(DrainLimits(linger_s=0))
        workspace.inbox.store("shop", encode({"sku": "C4", "stock": 4}), workspace.clock())


def main(file: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, patch("sync_pipelines.runner.plan_files.PAGE_SIZE", PAGE_SIZE):
        fill(Shop(Path(folder)))
        with sqlite3.connect(Path(folder) / "ledger.sqlite") as ledger:
            ledger.execute(
                "UPDATE sync_leases SET described = 'process 1 on shop', process = ''"
            )  # this machine's name
            ledger.commit()
            for setting in ("journal_mode = DELETE", "page_size = 512"):
                ledger.execute(f"PRAGMA {setting}")
            ledger.execute("VACUUM")
        shutil.copyfile(Path(folder) / "ledger.sqlite", file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
