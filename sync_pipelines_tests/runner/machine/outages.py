"""Rules: a target that takes no writes for a while."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from sqlalchemy import Engine, event

from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import TargetError
from sync_pipelines.runner.runs.comparing_run import PlanRef
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines_tests.runner.machine.base import deletes, fetches, in_bulk
from sync_pipelines_tests.runner.machine.deaths import Deaths
from sync_pipelines_tests.runner.machine.model import Item

_WRITES = re.compile(r'\s*(?:WITH\b.*?)?\b(?:INSERT INTO|UPDATE|DELETE FROM)\s+"?stock\b', re.IGNORECASE | re.DOTALL)
_SAYS = {"read-only": ("attempt to write a readonly database", sqlite3.SQLITE_READONLY)}
_SAYS["full"] = ("database or disk is full", sqlite3.SQLITE_FULL)
_STATES: dict[str, type[psycopg.Error]] = {
    "read-only": psycopg.errors.ReadOnlySqlTransaction,
    "full": psycopg.errors.DiskFull,
}


@contextmanager
def taking_no_writes(kind: str, after: int) -> Iterator[list[str]]:
    """After so many writes to the table, the database refuses all further ones as it does in that state.

    Yields:
        The statements that were refused.
    """
    written, refused = 0, list[str]()

    def refuse(_cursor: Any, statement: str, _parameters: Any, context: Any) -> None:
        nonlocal written
        if not _WRITES.match(statement):
            return
        written += 1
        if written <= after:
            return
        refused.append(statement)
        if context.dialect.name != "sqlite":
            raise _STATES[kind](f"cannot execute it: the database is {kind}")
        error = sqlite3.OperationalError(_SAYS[kind][0])
        error.sqlite_errorcode = _SAYS[kind][1]
        raise error

    for name in ("do_execute", "do_executemany"):
        event.listen(Engine, name, refuse)
    try:
        yield refused
    finally:
        for name in ("do_execute", "do_executemany"):
            event.remove(Engine, name, refuse)


class Outages(Deaths):
    """What is no item's fault costs no item anything."""

    @precondition(lambda machine: machine.world.kind != "functions")  # whose errors are theirs, item by item
    @rule(
        items=fetches,
        deletes=deletes,
        bulk=st.booleans(),
        kind=st.sampled_from(["read-only", "full"]),
        after=st.integers(0, 3),
    )
    def target_takes_no_writes(
        self,
        items: list[Item],
        deletes: str,
        bulk: bool,  # noqa: FBT001 - drawn
        kind: str,
        after: int,
    ) -> None:
        """The run ends; each record is as it was or as it was to be; a later run does the rest."""
        failed, before = self.failures(), self.model.copy()
        expected, withheld = self.model.sync(items, deletes=deletes == "hard")
        run = SyncRun(self.world.job(lambda: items, deletes=deletes), self.world.workspace)
        with in_bulk(bulk):
            plan = run.diff(run.fetch())
            with taking_no_writes(kind, after) as refused:
                ended = self.applied(run, plan)
        if isinstance(ended, SyncResults):
            assert not refused
            self.check(ended, expected, fetched=len(items))
            self.whole_run_is_done(ended, items, withheld, deletes)
            return
        assert refused
        assert ended.results.outcome == "failed"
        self.check_ledger(ended.results)
        assert self.failures() <= failed | {sku for _, sku in expected.errors}
        self.stopped_in_between(before)
        self.withheld = None  # nobody has asked whether it is superseded

    @staticmethod
    def applied(run: SyncRun, plan: PlanRef) -> SyncResults | TargetError:
        try:
            return run.apply(plan)
        except TargetError as error:
            return error
