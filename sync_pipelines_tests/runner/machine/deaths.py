"""Rules: a process dies at any transaction that writes; whoever goes on, or begins anew, comes to the same end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from hypothesis import strategies as st
from hypothesis.stateful import rule

from sync_pipelines.database.applied_since import AppliedSince
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import PlanError
from sync_pipelines.runner.runs.apply_plan import PlanRun
from sync_pipelines.runner.runs.differ import StagedDiffer
from sync_pipelines.runner.runs.dry_run import DryRun
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines_tests.runner.machine.base import deletes, fetches, in_bulk, readable_items
from sync_pipelines_tests.runner.machine.failures import Failures
from sync_pipelines_tests.runner.machine.model import Expected, Fetched, Item, Model, id_of, ids_of
from sync_pipelines_tests.runner.machine.plans import Plans
from sync_pipelines_tests.runner.machine.remembered import Remembered
from sync_pipelines_tests.runner.machine.world import DeathError, dying

instants = st.integers(0, 20)


@contextmanager
def without_tables(are_lost: bool) -> Iterator[None]:  # noqa: FBT001 - drawn
    """Lets the staging tables, which are caches, be gone."""
    if not are_lost:
        yield
        return
    with patch.object(StagedDiffer, "is_ready", lambda _differ, planned: planned.staged is None):
        yield


class Deaths(Remembered, Failures, Plans):
    """Nothing is lost, and nothing that matters is repeated."""

    def phase(self, job: Any, done: list[Any]) -> None:
        """The first phase that is not done yet."""
        run = SyncRun(job, self.world.workspace)
        act: Any = (run.fetch, run.diff, run.apply)[len(done)]
        done.append(act(*done[-1:]))

    @rule(
        items=fetches,
        deletes=deletes,
        bulk=st.booleans(),
        survived=st.sampled_from([0, 1, 1, 2, 2, 2]),
        instant=instants,
        then=st.sampled_from(["go on", "go on", "diff again", "tables are lost", "begin anew", "begin anew"]),
    )
    def run_is_killed(  # noqa: PLR0913, PLR0917 - drawn
        self,
        items: list[Item],
        deletes: str,
        bulk: bool,  # noqa: FBT001 - drawn
        survived: int,
        instant: int,
        then: str,
    ) -> None:
        job, done = self.world.job(lambda: items, deletes=deletes), list[Any]()
        before = self.model.copy()
        expected, withheld = self.model.sync(items, deletes=deletes == "hard")
        with in_bulk(bulk):
            while len(done) < survived:
                self.phase(job, done)
            try:
                with dying(instant):
                    self.phase(job, done)
            except DeathError:
                self.world.bury()
                if then == "begin anew" or not done:
                    self.stopped_in_between(before)
                    self.withheld = None  # nobody has asked whether it is superseded
                    self.keep_if_good(done, items)
                    return
            else:
                then = "go on"
            is_diffed_again = len(done) == 2 and then in {"diff again", "tables are lost"}
            del done[1 if then == "diff again" else len(done) :]
            with without_tables(then == "tables are lost"):
                while len(done) < 3:
                    self.phase(job, done)
        self.check_gone_on(done[-1], expected, len(items), is_diffed_again=is_diffed_again)
        self.whole_run_is_done(done[-1], items, withheld, deletes)

    def keep_if_good(self, done: list[Any], items: list[Item]) -> None:
        """The process may have died when all was done and noted."""
        run = self.world.ledger.ledger.run(done[0].run_id) if done else None
        if run is not None and run.outcome in {"clean", "partial"}:
            self.model.good.insert(0, run.counts["fetched"])
            self.model.arrivals.fetched(map(id_of, items), whole=True)
        elif run is not None and run.outcome == "guarded":
            self.model.arrivals.applied.append(Fetched(self.model.arrivals.tick(), ids_of(items)))

    def stopped_in_between(self, before: Model) -> None:
        """Each record is as it was or as it was to be; the model takes it as it is."""
        model, found = self.model, self.world.rows()
        for sku in {*before.rows, *found, *model.rows}:
            assert found.get(sku) in {before.rows.get(sku), model.rows.get(sku)}
        model.rows = found
        if model.missed_fetches is not None and before.missed_fetches is not None:
            model.missed_fetches = model.missed_fetches.found(*self.world.missed_fetches(), before.missed_fetches)
        model.unsure |= {*before.newest, *model.newest}
        model.newest = {sku: max(known.get(sku, 0) for known in (before.newest, model.newest)) for sku in model.unsure}

    def check_gone_on(
        self, results: SyncResults, expected: Expected, fetched: int, *, is_diffed_again: bool = False
    ) -> None:
        """Every item is counted once; what the dead attempt had written may count as unchanged, recovered."""
        wanted, found = expected.counts, results.counts()
        assert (results.accounts_balance, results.fetched, results.outcome) == (True, fetched, expected.outcome)
        for name in ("failed", "skipped", "duplicate"):
            assert found[name] == wanted[name]
        if is_diffed_again:
            assert results.unchanged >= wanted["unchanged"] + results.recovered
        else:
            assert results.created + results.updated + results.recovered == wanted["created"] + wanted["updated"]
            assert results.unchanged - results.recovered == wanted["unchanged"]
        assert results.deleted <= wanted["deleted"]  # of what is gone nobody can say who deleted it
        self.check_errors(results, expected)
        self.check_ledger(results)
        self.check_writes(results, has_died=True, is_diffed_again=is_diffed_again)

    @rule(items=fetches, deletes=deletes, instant=instants)
    def dry_run_is_killed(self, items: list[Item], deletes: str, instant: int) -> None:
        run, before = DryRun(self.world.job(lambda: items, deletes=deletes), self.world.workspace), self.model.copy()
        self.model.plan(items, deletes=deletes == "hard")
        try:
            with dying(instant):
                run.finish(run.diff(run.fetch()))
        except DeathError:
            self.world.bury()
            self.stopped_in_between(before)  # of what is up to date its version may be known, or not yet

    @rule(items=fetches, deletes=deletes, instant=instants)
    def applying_a_plan_is_killed(self, items: list[Item], deletes: str, instant: int) -> None:
        plan = self.dry_run_of(items, deletes)
        expected = self.model.apply(plan.diff)
        try:
            run = PlanRun(self.world.job(deletes=deletes), self.world.workspace)
            with dying(instant):
                results = run.apply_kept(plan.id, "it is right", "a test")
        except DeathError:
            self.world.bury()
            try:
                results = self.apply(plan)
            except PlanError:  # it died after all was done
                self.model.arrivals.applied.append(plan.fetch)
                return
            self.check_gone_on(results, expected, len(items))
        else:
            self.check(results, expected, fetched=len(items))
        self.model.arrivals.applied.append(plan.fetch)

    @rule(instant=instants)
    def drain_is_killed(self, instant: int) -> None:
        began_at = self.world.ledger.clock()
        try:
            with dying(instant):
                self.drain_now()
        except DeathError:
            self.world.bury()
            self.drain_now()
        self.model.drain(self.waiting)
        # of a delete that was in doubt nobody can tell whether it was the one that deleted
        self.model.arrivals.singles += AppliedSince(self.world.ledger.ledger, self.world.name).delivered_ids(began_at)
        self.nothing_waits()

    @rule(item=readable_items, instant=st.integers(0, 3))
    def single_item_is_killed(self, item: Item, instant: int) -> None:
        before = self.model.copy()
        self.model.apply(self.model.diff([item]))
        try:
            with dying(instant):
                self.world.apply_single(item)
        except (DeathError, Exception):  # noqa: BLE001 - or the item has failed
            self.stopped_in_between(before)
