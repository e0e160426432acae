"""Rules: dry runs, and their plans applied at once or after whatever happened since."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis.stateful import Bundle, consumes, precondition, rule

from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import PlanError
from sync_pipelines.runner.runs.apply_plan import PlanRun
from sync_pipelines.runner.runs.dry_run import DryRun
from sync_pipelines_tests.runner.machine.base import deletes, fetches, writes
from sync_pipelines_tests.runner.machine.model import Diff, Fetched, Item, ids_of
from sync_pipelines_tests.runner.machine.runs import Runs, Withheld


@dataclass(frozen=True)
class Plan:
    """A plan and what the model says of it."""

    id: str
    deletes: str
    diff: Diff
    fetched: int
    made: tuple[int, int]
    fetch: Fetched


class Plans(Runs):
    """A dry run writes nothing; its plan does what it said, once, to what has not changed since."""

    unapplied = Bundle("unapplied")
    applied = Bundle("applied")

    @rule(target=unapplied, items=fetches, deletes=deletes)
    def dry_run(self, items: list[Item], deletes: str) -> Plan:
        return self.dry_run_of(items, deletes)

    def dry_run_of(self, items: list[Item], deletes: str) -> Plan:
        run = DryRun(self.world.job(lambda: items, deletes=deletes), self.world.workspace)
        results = run.finish(run.diff(run.fetch()))
        diff = self.model.plan(items, deletes=deletes == "hard")
        assert results.outcome == "planned"
        wanted = {**diff.settled.counts, **diff.planned(), "fetched": len(items)}
        assert results.counts() == wanted
        self.check_ledger(results)
        arrivals = self.model.arrivals
        return Plan(results.run_id, deletes, diff, len(items), arrivals.now(), Fetched(arrivals.tick(), ids_of(items)))

    def apply(self, plan: Plan | Withheld, reason: str | None = "it is right") -> SyncResults:
        run = PlanRun(self.world.job(deletes=plan.deletes), self.world.workspace)
        return run.apply_kept(plan.id, reason, "a test")

    @rule(target=applied, plan=consumes(unapplied))
    def apply_some_plan(self, plan: Plan) -> Plan:
        return self.apply_a_plan(plan)

    def apply_a_plan(self, plan: Plan) -> Plan:
        results = self.apply(plan)
        expected = self.model.apply(plan.diff, plan.made)
        self.check(results, expected, fetched=plan.fetched)
        self.check_errors(results, expected)
        self.model.arrivals.applied.append(plan.fetch)
        return plan

    @rule(target=applied, items=fetches, deletes=deletes, rows=writes)
    def apply_a_plan_after_somebody_else_wrote(
        self, items: list[Item], deletes: str, rows: dict[str, int | None]
    ) -> Plan:
        plan = self.dry_run_of(items, deletes)
        self.others_write(rows, set())
        return self.apply_a_plan(plan)

    @rule(plan=applied)
    def apply_it_again(self, plan: Plan | Withheld) -> None:
        with pytest.raises(PlanError, match="a plan is applied once"):
            self.apply(plan)

    @precondition(lambda self: self.superseded)
    @rule()
    def apply_what_is_superseded(self) -> None:
        """Whatever guards withheld before the newest whole run, nobody can release any more."""
        with pytest.raises(PlanError, match="is superseded"):
            self.apply(self.superseded[-1])

    @precondition(lambda self: self.withheld is not None)
    @rule(target=applied)
    def release(self) -> Withheld:
        """What guards have withheld is applied once somebody says why it is right."""
        plan = self.withheld
        assert plan is not None
        with pytest.raises(PlanError, match="apply it with a reason"):
            self.apply(plan, None)
        self.check(self.apply(plan), self.model.apply(plan.diff, plan.made), fetched=0)
        self.withheld = None
        self.model.good = [plan.fetched]  # what came before is no measure any more
        return plan
