"""A small sync with guards, in a table that is made new for each instant at which its process dies."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from sync_pipelines.database.connections import create_database
from sync_pipelines.database.plans import PlanRow
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.guards import Guards
from sync_pipelines.engine.history import lines_of
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import PlanError
from sync_pipelines.runner.context.workspace import Workspace, open_workspace
from sync_pipelines.runner.runs.apply_plan import PlanRun
from sync_pipelines.runner.runs.comparing_run import PlanRef, SnapshotRef
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines_tests.children import fork
from sync_pipelines_tests.runner.crash_child import killed
from sync_pipelines_tests.runner.machine.world import DeathError, dying

APPLIED_BEFORE = 3
"""The exit code of a process that finds its plan applied."""
Item = dict[str, Any]
SKUS = 10
KEPT = 5
CREATED = 3
_LETTERS = {"c": "created", "u": "updated", "d": "deleted"}
_INSERT = "INSERT INTO things (sku, stock, version) VALUES (:sku, :stock, :version)"


def old(sku: str) -> Item:
    """A record as it is before."""
    return {"sku": sku, "stock": 1, "version": 1}


def new(sku: str, stock: int = 2) -> Item:
    """An item as the source has it now."""
    return {"sku": sku, "stock": stock, "version": 2}


OLD = [old(f"old-{number}") for number in range(SKUS)]
MISSING = {each["sku"] for each in OLD[KEPT:]}
FETCHED = [new(each["sku"]) for each in OLD[:KEPT]] + [new(f"new-{number}") for number in range(CREATED)]
NEW = {each["sku"]: each["stock"] for each in FETCHED}
WRITTEN = {("updated", f"old-{number}") for number in range(KEPT)}
WRITTEN |= {("created", f"new-{number}") for number in range(CREATED)}
DELETED = {("deleted", each) for each in MISSING}
UNRELEASED = NEW | dict.fromkeys(MISSING, 1)


@contextmanager
def open_stage(url: str, ledger: str | None, folder: Path) -> Iterator[Stage]:
    """A stage in that database; the ledger in the database of that URL, None for a file of its own."""
    settings = Settings(data_dir=folder, database_url=None, ledger_url=ledger)
    with _entered(url, settings) as stage:
        stage.make_table()
        yield stage


@contextmanager
def _entered(url: str, settings: Settings, name: str = "") -> Iterator[Stage]:
    database = create_database(url)
    try:
        with open_workspace(settings) as workspace:
            yield Stage(database, workspace, url, settings, name=name)
    finally:
        database.dispose()


def release_at_once(url: str, settings: Settings, name: str, plan_id: str) -> None:
    """In a process of its own, whose exit code says whether the plan was applied before."""
    with _entered(url, settings, name) as stage:
        try:
            stage.release(plan_id, wait_s=60)
        except PlanError:
            sys.exit(APPLIED_BEFORE)


def run_and_be_killed(url: str, settings: Settings, name: str, after: int) -> None:
    """In a process of its own, which ends by SIGKILL at that transaction."""
    with _entered(url, settings, name) as stage, dying(after, killed):
        stage.run()


@dataclass
class Stage:
    """Where processes die: one database with a table, and the ledger in the same or in another one.

    Args:
        database: Has the table.
        workspace: Has the ledger.
        url: Of the database.
        settings: Of the ledger.
        fields: Of the job.
    """

    database: sa.Engine
    workspace: Workspace
    url: str
    settings: Settings
    fields: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    _names: Iterator[int] = field(default_factory=count)

    def as_new(self) -> Stage:
        """The same for another test."""
        copy_of_it = copy(self)
        copy_of_it.fields = {}
        copy_of_it.begin()
        return copy_of_it

    def make_table(self) -> None:
        columns = "sku VARCHAR(20) PRIMARY KEY, stock INTEGER CHECK (stock >= 0), version INTEGER"
        self.execute(f"CREATE TABLE things ({columns})")

    def execute(self, statement: str, given: Any = None) -> None:
        with self.database.begin() as connection:
            connection.execute(sa.text(statement), given)

    def begin(self) -> None:
        """A sync of another name, and the table as it was."""
        self.name = f"things-{next(self._names)}"
        self.execute("DELETE FROM things")
        self.execute(_INSERT, OLD)

    def rows(self) -> dict[str, int]:
        with self.database.connect() as connection:
            return {row.sku: row.stock for row in connection.execute(sa.text("SELECT sku, stock FROM things"))}

    def job(self, **fields: Any) -> SyncJob[Any, Any]:
        given = {
            "name": self.name,
            "fetch_external": lambda: FETCHED,
            "target": SqlTable(table="things", key="sku", columns=["stock", "version"], database=self.database),
            "deletes": "hard",
            "guards": Guards(few=0, max_shrink_share=None),
        }
        return SyncJob(**{**given, **self.fields, **fields})

    def run(self, **fields: Any) -> SyncResults:
        """A run from its beginning."""
        run = SyncRun(self.job(**fields), self.workspace)
        return run.apply(run.diff(run.fetch()))

    def go_on(self) -> SyncResults:
        """What is left of the newest run, phase by phase, as a re-execution from failure does; a new one if nothing."""
        runs = self.workspace.ledger.latest_runs(self.name)
        run = SyncRun(self.job(), self.workspace)
        if not runs or "fetch" not in runs[0].phase_ms:
            return self.run()
        plan = PlanRef(runs[0].id, 1)
        if "diff" not in runs[0].phase_ms:
            plan = run.diff(SnapshotRef(runs[0].id, len(FETCHED)))
        return run.apply(plan)

    def release(
        self, plan_id: str | None, reason: str = "they are gone", by: str = "ann", *, wait_s: float = 0, **fields: Any
    ) -> SyncResults:
        """Applies what guards have withheld, or the plan of a dry run."""
        return PlanRun(self.job(**fields), self.workspace, wait_s=wait_s).apply_kept(plan_id or "", reason, by)

    def plan_of(self, results: SyncResults) -> PlanRow:
        """The plan that a run has left or applied."""
        found = self.workspace.plans.plan(results.plan_id or "")
        assert found is not None
        return found

    def told(self) -> Counter[tuple[str, str]]:
        """How often the history says that a record was written, by what was done and its id."""
        found: Counter[tuple[str, str]] = Counter()
        rows, blocks = self.workspace.ledger.tables.history, self.workspace.ledger.tables.history_blocks
        with self.workspace.ledger.transaction() as connection:
            for row in connection.execute(sa.select(rows).where(rows.c.job == self.name)):
                found[row.action, row.external_id] += 1
            for block in connection.execute(sa.select(blocks).where(blocks.c.job == self.name)):
                for line in lines_of(block.lines):
                    external_id, letter, _ = line.split("\t")
                    found[_LETTERS[letter], external_id.strip('"')] += 1
        return found

    def open_plans(self) -> list[PlanRow]:
        return [each for each in self.workspace.plans.latest(self.name, 100) if each.state in {"open", "applying"}]

    def bury(self) -> None:
        """Lets others know that whoever had the lease is dead."""
        leases = self.workspace.leases
        lease = leases.of_job(self.name)
        if lease is not None:
            leases.release(lease)

    def in_a_process(self, function: Callable[..., None], *given: Any) -> ForkServerProcess:
        """Begins something in a process of its own, with what it needs to come to this stage."""
        return fork(function, self.url, self.settings, self.name, *given)

    def dies(self, after: int, act: Callable[[], Any]) -> bool:
        """Does something until it dies at that transaction; False if it came to its end before."""
        try:
            with dying(after):
                act()
        except DeathError:
            self.bury()
            return True
        return False

    def each_instant(
        self, act: Callable[[], Any], prepare: Callable[[], Any] = lambda: None, *, first: int = 0, step: int = 1
    ) -> Iterator[int]:
        """Yields after each death, until the whole comes to its end alive.

        Args:
            act: Dies.
            prepare: Comes before.
            first: The first instant.
            step: How many instants later the next one is: all of them take minutes.
        """
        for instant in count(first, step):
            self.begin()
            prepare()
            if not self.dies(instant, act):
                return
            yield instant
