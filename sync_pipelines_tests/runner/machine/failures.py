"""Rules: what has failed is kept, tried again as the source has it by then, and over when it went through."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from sync_pipelines.runner.changes.retry_failures import RetryRun
from sync_pipelines_tests.runner.machine.base import good_items, readable_items, skus
from sync_pipelines_tests.runner.machine.items import Items
from sync_pipelines_tests.runner.machine.model import Expected, Item
from sync_pipelines_tests.runner.machine.runs import Runs

answers = st.dictionaries(skus, st.one_of(readable_items, st.none()))


class Failures(Runs, Items):
    """After a whole run exactly what failed in it is open; a retry leaves open what fails again."""

    @rule(items=st.lists(readable_items, min_size=1, max_size=6), bulk=st.booleans(), answers=answers)
    def run_and_try_again(
        self,
        items: list[Item],
        bulk: bool,  # noqa: FBT001 - drawn
        answers: dict[str, Item | None],
    ) -> None:
        failed = {sku for _, sku in self.run_whole(items, deletes="off", bulk=bulk).errors}
        if self.withheld is not None:
            return  # of a fetch that looks broken nothing is over
        assert self.failures() == failed
        self.before = dict(self.model.rows)

        def fetch_one(sku: str) -> Any:
            answer = answers.get(sku)
            return {**answer, "sku": sku} if answer is not None else None

        results = RetryRun(self.world.job(fetch_one=fetch_one), self.world.workspace).run(everything=True)
        expected = Expected()
        for sku in sorted(failed, key=str):
            answer = fetch_one(str(sku))
            if answer is not None:
                expected.add(self.model.apply(self.model.diff([answer])))
        counted = {name: results.counts()[name] for name in ("created", "updated", "failed")}
        assert counted == {name: expected.counts[name] for name in counted}
        assert self.failures() == {sku for _, sku in expected.errors}
        self.check_writes(results)

    @rule(
        items=st.lists(good_items, min_size=2, max_size=6),
        troubled=st.sets(skus, min_size=1),
        come=st.lists(good_items, min_size=1, max_size=3),
        bulk=st.booleans(),
    )
    def run_and_items_come(
        self,
        items: list[Item],
        troubled: set[str],
        come: list[Item],
        bulk: bool,  # noqa: FBT001 - drawn
    ) -> None:
        """What failed for a while is tried again as it was kept, unless its item came by itself meanwhile."""
        if self.waiting:
            self.drain()
            self.look()
        self.trouble(troubled)
        failed = {str(sku) for _, sku in self.run_whole(items, deletes="off", bulk=bulk).errors}
        self.trouble(set())
        self.look()
        if self.withheld is not None:
            return
        kept = {sku: items[place] for sku, place in self.model.winners(items).items() if sku in failed}
        over = self.items_come(come, kept)
        assert self.failures() == failed - over
        self.look()
        results = RetryRun(self.world.job(), self.world.workspace).run(everything=True)
        expected = self.model.apply(self.model.diff([kept[sku] for sku in sorted(failed - over)]))
        assert {name: results.counts()[name] for name in expected.counts} == expected.counts
        assert not self.failures()
        self.check_writes(results)

    def items_come(self, come: list[Item], kept: dict[str, Item]) -> set[str]:
        """Drains items. Gives whose failures are over by it: those of items that came later or are no older."""
        model, over = self.model, set()
        for sku, place in model.winners(come).items():
            is_stale = model.is_older(come[place], model.newest.get(sku))
            if sku in kept and not is_stale and not model.is_older(come[place], kept[sku]["version"]):
                over.add(sku)
        self.changes_arrive(come)
        self.drain()
        return over
