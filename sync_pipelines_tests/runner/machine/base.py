"""The state machine without any rule: the world, the model, and how they are compared."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

from sync_pipelines.database.failure_rows import GIVEN_UP, OPEN
from sync_pipelines.engine.changes import Delete
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.runner.runs.comparing_run import ComparingRun
from sync_pipelines_tests.runner.machine.missed_fetches import MissedFetches
from sync_pipelines_tests.runner.machine.model import REFUSED, UNREADABLE, Expected, Model, State
from sync_pipelines_tests.runner.machine.world import World

skus = st.sampled_from(["a", "b", "ü", "7"])
writes = st.dictionaries(skus, st.sampled_from([0, 1, 2, 3, None]), min_size=1)
readable_items = st.fixed_dictionaries(
    {
        "sku": st.one_of(skus, st.just(7)),
        "quantity": st.sampled_from([0, 1, 2, 3, REFUSED, UNREADABLE]),
        "skip": st.sampled_from([False, False, False, True]),
        "version": st.integers(1, 4),
    }
)
odd_items = st.fixed_dictionaries(
    {"sku": st.sampled_from([None, " "]), "quantity": st.just(1), "skip": st.just(False), "version": st.just(4)}
)
good_items = st.fixed_dictionaries(
    {"sku": skus, "quantity": st.integers(0, 3), "skip": st.just(False), "version": st.integers(1, 4)}
)
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
    return patch.object(ComparingRun, "_is_worth_it", lambda _run, _files: bulk)


class Machine(RuleBasedStateMachine):
    """Each feature is a mixin with rules; after every step the table is what the model says.

    Args:
        world: The table and the ledger.
    """

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.model = Model()
        self.before: dict[str, State] = {}
        """The records before what a run is to be held against."""

    @initialize(
        rows=st.dictionaries(skus, st.integers(0, 3), min_size=1),
        outside=st.sets(skus, max_size=1),
        holds_version=st.booleans(),
    )
    def begin(self, rows: dict[str, int], outside: set[str], holds_version: bool) -> None:  # noqa: FBT001 - drawn
        kind = self.world.kind
        holds_version = kind == "versions" and holds_version
        self.world.begin(holds_version=holds_version)
        self.model = Model(
            fails_late=kind == "functions",
            marks=kind == "marks",
            versions=kind == "versions",
            holds_version=holds_version,
            missed_fetches=MissedFetches() if kind == "grace" else None,
        )
        self.others_write({**rows, "others": 5} if self.world.is_scoped else rows, {*outside, "others"})

    def trouble(self, skus: set[str]) -> None:
        """Lets these items fail, and no others."""
        self.world.troubled = self.model.troubled = skus

    def failures(self) -> set[str | None]:
        """Whose failures are open or given up."""
        found = self.world.ledger.failures.newest(self.world.name, [OPEN, GIVEN_UP], 1_000)
        return {each.external_id for each in found}

    def others_write(self, rows: Mapping[str, int | None], outside: set[str]) -> None:
        for sku, quantity in rows.items():
            is_outside = self.world.is_scoped and sku in outside
            self.model.write(sku, self.world.write(sku, quantity, outside=is_outside), outside=is_outside)
        self.look()

    @invariant()
    def the_table_is_what_the_model_says(self) -> None:
        if self.world.name != "stock":  # else the example has not begun
            self.look()

    def look(self) -> None:
        """Compares the records, and what the ledger knows of them, with the model."""
        model = self.model
        assert self.world.rows() == model.rows
        self.before = dict(model.rows)
        if self.world.is_scoped:
            assert self.world.outside() == model.outside
        if model.missed_fetches is not None:
            assert self.world.missed_fetches() == (model.missed_fetches.number, model.missed_fetches.counted)
        if model.versions:
            self.look_at_versions(self.world.newest())

    def look_at_versions(self, found: dict[str, int]) -> None:
        """Whatever has become of a record, nothing newer is known of it than what has come."""
        for sku in {*found, *self.model.newest}:
            if sku in self.model.unsure:
                assert found.get(sku, 0) <= self.model.newest.get(sku, 0)
            else:
                assert found.get(sku) == self.model.newest.get(sku)
        self.model.newest = found
        self.model.unsure.clear()

    def check(self, results: SyncResults, expected: Expected, **more: int) -> None:
        """Compares what a run says, and what the ledger says of it, with what was expected."""
        wanted = {**expected.counts, **more}
        assert {name: results.counts()[name] for name in wanted} == wanted
        assert results.accounts_balance
        assert results.outcome == expected.outcome
        self.check_ledger(results)
        self.check_writes(results)

    def check_writes(self, results: SyncResults, *, has_died: bool = False, is_diffed_again: bool = False) -> None:
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
