"""A sync in bulk, in a process of its own that ends by SIGKILL at a chosen or random instant."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import sqlalchemy as sa

from sync_pipelines.database.batches import Batches
from sync_pipelines.database.connections import create_database
from sync_pipelines.database.history import History
from sync_pipelines.database.ledger import Ledger
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.runner.context.workspace import Workspace, open_workspace
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.runner.runs.comparing_run import PlanRef, SnapshotRef
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.targets.staging.apply_sql import BatchApplier
from sync_pipelines.targets.staging.diff_sql import Planner
from sync_pipelines.targets.staging.load import StageLoader
from sync_pipelines.targets.staging.staged_table import StagedTable
from sync_pipelines.targets.staging.staging_tables import StagingTables
from sync_pipelines_tests.runner.crash_child import killed, killed_at

NAME = "crashing"
ROWS_IN_BATCH = 150
MOST_IN_BATCH = ROWS_IN_BATCH * 11 // 10
"""A batch is a range of the plan, and may hold somewhat more."""
LEASE_S = 2.0
"""So long a run that is killed between two phases keeps its lease for the next one."""
UNCHANGED, UPDATED, CREATED, GONE = 200, 300, 700, 100
CHECKED, REFUSED, MISPLACED = 3, 4, 2
"""Records that break a CHECK, that a trigger refuses, that refer to a group which is not there."""
FAILING = CHECKED + REFUSED + MISPLACED
FETCHED = UNCHANGED + UPDATED + CREATED + FAILING
PLANNED = UPDATED + CREATED + GONE


def item(sku: str, stock: int, shop: int = 1) -> dict[str, Any]:
    """An item or a record."""
    return {"sku": sku, "stock": stock, "shop": shop, "name": f"thing {sku}"}


def items() -> list[dict[str, Any]]:
    """What the source has: some of all kinds, mixed."""
    good = [item(f"same-{number}", 1) for number in range(UNCHANGED)]
    good += [item(f"old-{number}", 2) for number in range(UPDATED)]
    good += [item(f"new-{number}", number % 100) for number in range(CREATED)]
    good += [item(f"checked-{number}", -1) for number in range(CHECKED)]
    good += [item(f"refused-{number}", 1) for number in range(REFUSED)]
    good += [item(f"misplaced-{number}", 1, shop=7) for number in range(MISPLACED)]
    random.Random(4).shuffle(good)
    return good


def breaking_source() -> Iterator[dict[str, Any]]:
    """Gives enough for a page, then ends the process."""
    yield from items()[:1_150]
    killed()


def expected() -> dict[str, int]:
    """The records after a sync."""
    return {each["sku"]: each["stock"] for each in items() if each["sku"].startswith(("same", "old", "new"))}


_POSTGRES = """
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF tg_op = 'DELETE' THEN INSERT INTO written VALUES (old.sku); RETURN old; END IF;
    IF new.sku LIKE 'refused%' THEN RAISE EXCEPTION 'we do not sell %', new.sku USING ERRCODE = 'P0001'; END IF;
    INSERT INTO written VALUES (new.sku); RETURN new;
END $$;
CREATE TRIGGER note BEFORE INSERT OR UPDATE OR DELETE ON variants FOR EACH ROW EXECUTE FUNCTION note();
"""
_SQLITE = """
CREATE TRIGGER note_insert AFTER INSERT ON variants BEGIN INSERT INTO written VALUES (new.sku); END;
CREATE TRIGGER note_update AFTER UPDATE ON variants BEGIN INSERT INTO written VALUES (new.sku); END;
CREATE TRIGGER note_delete AFTER DELETE ON variants BEGIN INSERT INTO written VALUES (old.sku); END;
CREATE TRIGGER refuse BEFORE INSERT ON variants WHEN new.sku LIKE 'refused%'
    BEGIN SELECT raise(ABORT, 'we do not sell this'); END;
"""


def make_table(url: str) -> None:
    """The table with the records that are there before, and triggers that note every write."""
    database = create_database(url)
    with database.begin() as connection:
        variants = "sku varchar(40) PRIMARY KEY, stock integer NOT NULL CHECK (stock >= 0), name varchar(60)"
        for statement in (
            "CREATE TABLE shops (id integer PRIMARY KEY)",
            "INSERT INTO shops VALUES (1)",
            "CREATE TABLE written (sku varchar(40))",
            f"CREATE TABLE variants ({variants}, shop integer REFERENCES shops (id))",
        ):
            connection.exec_driver_sql(statement)
        before = [item(f"same-{number}", 1) for number in range(UNCHANGED)]
        before += [item(f"old-{number}", 1) for number in range(UPDATED)]
        before += [item(f"gone-{number}", 1) for number in range(GONE)]
        insert = "INSERT INTO variants (sku, stock, shop, name) VALUES (:sku, :stock, :shop, :name)"
        connection.execute(sa.text(insert), before)
        raw: Any = connection.connection.driver_connection
        if database.dialect.name == "postgresql":
            raw.execute(_POSTGRES)
        else:
            raw.executescript(_SQLITE)
    database.dispose()


def job(url: str, **fields: Any) -> SyncJob[Any, Any]:
    """The sync."""
    target = SqlTable(table="variants", key="sku", columns=["stock", "shop", "name"], database=url)
    given = {"name": NAME, "fetch_external": items, "target": target, "deletes": "hard", "guards": None}
    return SyncJob(**{**given, **fields})


def in_batches() -> ExitStack:
    """Small batches, all in bulk."""
    stack = ExitStack()
    stack.enter_context(patch("sync_pipelines.targets.staging.apply_sql.ROWS_IN_BATCH", ROWS_IN_BATCH))
    stack.enter_context(patch("sync_pipelines.snapshots.snapshot.SNAPSHOT_PAGE", 400))
    stack.enter_context(patch("sync_pipelines.snapshots.snapshot._FIRST_PAGE", 400))
    return stack


_PLACES: dict[str, tuple[Any, str]] = {
    "load": (StageLoader, "load"),
    "plan": (Planner, "make_plan"),
    "quarantine": (Planner, "make_quarantine"),
    "diff errors": (Ledger, "save_diff_errors"),
    "begin apply": (Ledger, "begin_apply"),
    "write": (BatchApplier, "_write"),
    "note done": (StagingTables, "note_done"),
    "batch": (BatchApplier, "_attempt"),
    "ledger": (Batches, "replace"),
    "chunk": (Batches, "save"),
    "late": (StagedTable, "quarantined"),
    "move": (History, "keep_blocks"),
    "forget": (StagedTable, "forget_recorded"),
    "drop": (StagedTable, "drop"),
    "finish": (Ledger, "finish_run"),
}


def killing(instant: str, number: int) -> Any:
    """Makes the process kill itself: `before ...` or `after ...` a method of that name is called for the n-th time."""
    when, _, place = instant.partition(" ")
    owner, method = _PLACES[place]
    return patch.object(owner, method, killed_at(getattr(owner, method), number, after=when == "after"))


def kill_soon(after_s: float) -> None:
    """Kills the process in a while, whatever it does then."""

    def wait_and_kill() -> None:
        time.sleep(after_s)
        killed()

    threading.Thread(target=wait_and_kill, daemon=True).start()


def run_and_be_killed(folder: Path, url: str, instant: str, number: int) -> None:
    """A whole run, up to that instant."""
    settings = Settings(data_dir=folder, database_url=None, ledger_url=None)
    with in_batches() as stack:
        if instant == "fetch":
            given = job(url, fetch_external=breaking_source)
        elif instant == "on_complete":
            given = job(url, on_complete=lambda _results: killed())
        else:
            stack.enter_context(killing(instant, number))
            given = job(url)
        run_sync(given, settings=settings)


def go_on_and_be_killed(folder: Path, url: str, after_s: float, *, anew: bool) -> None:
    """A new run, or what is left of the last one, up to a random instant."""
    settings = Settings(data_dir=folder, database_url=None, ledger_url=None, lease_s=LEASE_S)
    with in_batches(), open_workspace(settings) as workspace:
        kill_soon(after_s)
        run = SyncRun(job(url), workspace, wait_s=10)
        plan = None if anew else plan_of_last_run(workspace)
        if plan is None:
            plan = run.diff(run.fetch())
        run.apply(plan)


def plan_of_last_run(workspace: Workspace) -> PlanRef | None:
    """The plan of the last run, if its diff was done."""
    runs = workspace.ledger.latest_runs(NAME)
    done = runs and "diff" in runs[0].phase_ms
    return PlanRef(runs[0].id, PLANNED) if done else None


def go_on_killed_at(folder: Path, url: str, instant: str, number: int) -> None:
    """What is left of the last run, up to a chosen instant."""
    settings = Settings(data_dir=folder, database_url=None, ledger_url=None)
    with in_batches(), open_workspace(settings) as workspace, killing(instant, number):
        plan = plan_of_last_run(workspace)
        assert plan is not None
        SyncRun(job(url), workspace).apply(plan)


def one_phase(folder: Path, url: str, phase: str) -> None:
    """One phase of a run, which knows of the others only what they left in a file: the reference."""
    reference = folder / "reference.json"
    with in_batches(), open_workspace(Settings(data_dir=folder, database_url=None, ledger_url=None)) as workspace:
        run = SyncRun(job(url), workspace)
        given = json.loads(reference.read_text(encoding="utf-8")) if phase != "fetch" else {}
        if phase == "fetch":
            left: Any = asdict(run.fetch())
        elif phase == "diff":
            left = asdict(run.diff(SnapshotRef(**given)))
        else:
            results = run.apply(PlanRef(**given))
            left = {**results.counts(), "messages": [error.message for error in results.errors]}
    reference.write_text(json.dumps(left), encoding="utf-8")
