"""The state machine without any rule: the world, the model, and how they are compared."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

from sync_pipelines.engine.results import SyncResults
from sync_pipelines.engine.webhooks import Delete
from sync_pipelines.runner.sync_run import SyncRun
from sync_pipelines_tests.runner.machine.model import REFUSED, UNREADABLE, Expected, Model, State
from sync_pipelines_tests.runner.machine.world import World

skus = st.sampled_from(["a", "b", "ü", "7"])
writes = st.dictionaries(skus, st.sampled_from([0, 1, 2, 3, None]), min_size=1)
readable_items = st.fixed_dictionaries(
    {
        "sku": st.one_of(skus, st.just(7)),
        "quantity": st.sampled_from([0, 1, 2, 3, REFUSED, UNREADABLE]),
        "skip": st.sampled_from([False, False, False, True]),
    }
)
odd_items = st.fixed_dictionaries({"sku": st.sampled_from([None, " "]), "quantity": st.just(1), "skip": st.just(False)})
good_items = st.fixed_dictionaries({"sku": skus, "quantity": st.integers(0, 3), "skip": st.just(False)})
fetches = st.one_of(
    st.lists(good_items, max_size=6),
    st.lists(readable_items, max_size=6),
    st.lists(st.one_of(readable_items, odd_items), max_size=6),
)
changes = st.one_of(readable_items, readable_items, st.builds(Delete, skus))
parts = st.one_of(
    st.fixed_dictionaries({"limit": st.integers(1, 4)}),
    st.fixed_dictionaries({"only": st.sets(skus, min_size=1, max_size=3)}),
)
deletes = st.sampled_from(["off", "hard"])


def in_bulk(bulk: bool) -> AbstractContextManager[Any]:  # noqa: FBT001 - drawn
    """Takes the bulk path, or the one page by page."""
    return patch.object(SyncRun, "_is_worth_it", lambda _run, _files: bulk)


class Machine(RuleBasedStateMachine):
    """Each feature is a mixin with rules; after every step the table is what the model says.

    Args:
        world: The table and the ledger.
    """

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.model = Model(fails_late=world.kind == "functions", marks=world.kind == "marks")
        self.before: dict[str, State] = {}
        """The records before what a run is to be held against."""

    @initialize(rows=st.dictionaries(skus, st.integers(0, 3), min_size=1))
    def begin(self, rows: dict[str, int]) -> None:
        self.world.begin()
        for sku, quantity in rows.items():
            self.world.write(sku, quantity)
        self.model.rows.update(rows)

    @invariant()
    def the_table_is_what_the_model_says(self) -> None:
        if self.world.name != "stock":  # else the example has not begun
            assert self.world.rows() == self.model.rows
            self.before = dict(self.model.rows)

    def check(self, results: SyncResults, expected: Expected, **more: int) -> None:
        """Compares what a run says, and what the ledger says of it, with what was expected."""
        wanted = {**expected.counts, **more}
        assert {name: results.counts()[name] for name in wanted} == wanted
        assert results.accounts_balance
        assert results.outcome == expected.outcome
        self.check_ledger(results)
        self.check_writes(results)

    def check_writes(self, results: SyncResults, *, has_died: bool = False) -> None:
        """For features that remember what a run has written."""

    def check_ledger(self, results: SyncResults) -> None:
        looked_at = self.world.ledger
        run = looked_at.ledger.latest_runs(self.world.name, 1)[0]
        errors = looked_at.ledger.errors(run.id)
        assert looked_at.leases.of_job(self.world.name) is None
        assert (run.id, run.outcome, run.failure) == (results.run_id, results.outcome, results.failure)
        assert run.completed_at is not None
        assert run.counts == results.counts()
        told = [(each.position, each.external_id) for each in errors]
        assert told == [(each.position, each.external_id) for each in results.errors]

    @staticmethod
    def check_errors(results: SyncResults, expected: Expected) -> None:
        """Whose errors there are, and where in the fetch."""
        told = [(each.position, each.external_id if each.external_id != " " else None) for each in results.errors]
        assert sorted(told, key=str) == sorted(expected.errors, key=str)
