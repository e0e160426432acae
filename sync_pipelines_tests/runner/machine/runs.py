"""Rules: whole runs, limited ones, broken fetches, and what others write meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from sync_pipelines.engine.completeness import tell_incomplete
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import FetchError
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines_tests.runner.machine.base import Machine, deletes, fetches, in_bulk, parts, skus, writes
from sync_pipelines_tests.runner.machine.model import Diff, Expected, Item, State, id_of, is_live, quantity_of
from sync_pipelines_tests.runner.machine.world import World


@dataclass(frozen=True)
class Withheld:
    """What guards have withheld of the newest whole run."""

    id: str
    deletes: str
    diff: Diff
    fetched: int
    made: tuple[int, int]


class Runs(Machine):
    """A whole run leaves the table as the fetch says, but for what looks like a broken source."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.withheld: Withheld | None = None
        self.superseded: list[Withheld] = []

    def sync(self, items: list[Item], *, bulk: bool, selection: Any = None, **fields: Any) -> SyncResults:
        with in_bulk(bulk):
            run = SyncRun(self.world.job(lambda: items, **fields), self.world.workspace)
            return run.apply(run.diff(run.fetch(**(selection or {}))))

    @rule(items=fetches, deletes=deletes, bulk=st.booleans())
    def run(self, items: list[Item], deletes: str, bulk: bool) -> None:  # noqa: FBT001 - drawn
        self.run_whole(items, deletes=deletes, bulk=bulk)

    def run_whole(self, items: list[Item], *, deletes: str, bulk: bool) -> Expected:
        results = self.sync(items, bulk=bulk, deletes=deletes)
        expected, withheld = self.model.sync(items, deletes=deletes == "hard")
        self.check(results, expected, fetched=len(items))
        self.check_errors(results, expected)
        self.whole_run_is_done(results, items, withheld, deletes)
        return expected

    def whole_run_is_done(self, results: SyncResults, items: list[Item], withheld: Diff | None, deletes: str) -> None:
        """What guards withhold is a plan; what they do not is what later fetches are held against."""
        self.model.arrivals.fetched(map(id_of, items), whole=True, is_guarded=withheld is not None)
        self.superseded += [self.withheld] if self.withheld is not None else []
        self.withheld = None
        if withheld is None:
            self.model.good.insert(0, results.fetched)
            assert results.plan_id is None
        else:
            self.withheld = Withheld(
                results.plan_id or "", deletes, withheld, results.fetched, self.model.arrivals.now()
            )

    @rule(bulk=st.booleans())
    def run_of_what_is_there(self, bulk: bool) -> None:  # noqa: FBT001 - drawn
        items = [self.item_of(sku, state) for sku, state in self.model.rows.items() if is_live(state)]
        results = self.sync(items, bulk=bulk, deletes="hard")
        expected, withheld = self.model.sync(items, deletes=True)
        assert expected.counts["unchanged"] == len(items) or self.model.holds_version
        self.check(results, expected, fetched=len(items))
        self.whole_run_is_done(results, items, withheld, "hard")

    def item_of(self, sku: str, state: State) -> Item:
        """The item of a record as it is."""
        version = self.model.newest.get(sku, 1)
        return {"sku": sku, "quantity": quantity_of(state), "skip": False, "version": version}

    @rule(items=fetches, part=parts, bulk=st.booleans())
    def run_of_a_part(self, items: list[Item], part: dict[str, Any], bulk: bool) -> None:  # noqa: FBT001 - drawn
        failed = self.failures()
        results = self.sync(items, bulk=bulk, deletes="hard", selection=part)
        taken = [item for item in items if id_of(item) in part["only"]] if "only" in part else items[: part["limit"]]
        taken_ids = {id_of(item) for item in taken} - {None}
        expected = self.model.apply(self.model.diff(taken))
        expected.not_found = len(part.get("only", set()) - taken_ids)
        self.check(results, expected, fetched=len(taken))
        assert self.failures() == (failed - taken_ids) | {sku for _, sku in expected.errors}
        self.model.arrivals.fetched(map(id_of, taken), whole=False, only=part.get("only", ()))

    @rule(items=fetches, bulk=st.booleans())
    def run_that_is_not_complete(self, items: list[Item], bulk: bool) -> None:  # noqa: FBT001 - drawn
        """The source ends early and says so: what did not come is not missing, has not vanished, is no measure."""

        def fetch() -> Iterator[Item]:
            yield from items
            tell_incomplete("the source ends early")

        failed = self.failures()
        results = self.sync(items, bulk=bulk, deletes="hard", fetch_external=fetch)
        expected = self.model.apply(self.model.diff(items))
        self.check(results, expected, fetched=len(items))
        assert self.failures() == (failed - (set(map(id_of, items)) - {None})) | {sku for _, sku in expected.errors}
        assert results.plan_id is None
        self.model.arrivals.fetched(map(id_of, items), whole=False)

    @rule(items=fetches)
    def fetch_that_breaks_off(self, items: list[Item]) -> None:
        def fetch() -> Iterator[Item]:
            yield from items
            raise OSError("the line is dead")

        with pytest.raises(FetchError) as caught:
            SyncRun(self.world.job(fetch, deletes="hard"), self.world.workspace).fetch()
        assert caught.value.items_fetched == len(items)
        assert caught.value.results.outcome == "failed"
        self.check_ledger(caught.value.results)

    @rule(rows=writes, outside=st.sets(skus, max_size=1))
    def somebody_else_writes(self, rows: dict[str, int | None], outside: set[str]) -> None:
        self.others_write(rows, outside)
