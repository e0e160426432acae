"""Rules: what has failed is kept, tried again as the source has it by then, and over when it went through."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from sync_pipelines.database.failure_rows import GIVEN_UP, OPEN
from sync_pipelines.runner.retrying_failures import RetryRun
from sync_pipelines_tests.runner.machine.base import readable_items, skus
from sync_pipelines_tests.runner.machine.model import Expected, Item
from sync_pipelines_tests.runner.machine.runs import Runs

answers = st.dictionaries(skus, st.one_of(readable_items, st.none()))


class Failures(Runs):
    """After a whole run exactly what failed in it is open; a retry leaves open what fails again."""

    def failures(self) -> set[str | None]:
        found = self.world.ledger.failures.newest(self.world.name, [OPEN, GIVEN_UP], 1_000)
        return {each.external_id for each in found}

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
