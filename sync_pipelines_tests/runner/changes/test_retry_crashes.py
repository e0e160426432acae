"""A retry and a drain that die at any statement: what has failed stays so until it went through, and counts once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace

import pytest

from sync_pipelines.database.failure_rows import STATES, FailureRow
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.engine.retry import Retry
from sync_pipelines.runner.changes.drain import Drain
from sync_pipelines.runner.changes.retry_failures import RetryRun
from sync_pipelines_tests.runner.desk import AT_ONCE, Desk
from sync_pipelines_tests.runner.instants import FETCHED, Item, Stage, new


def items(bad: Collection[str]) -> list[Item]:
    """What the source has; the table takes none of those that are bad."""
    return [new(each["sku"], -1 if each["sku"] in bad else 2) for each in FETCHED]


@pytest.fixture(params=[False, True])
def failing(request: pytest.FixtureRequest, stage: Stage) -> Stage:
    """A stage whose job has versions, or none; a delivery that fails is not tried again."""
    stage.fields = {"guards": None, "deletes": "off", **({"get_version": "version"} if request.param else {})}
    stage.workspace = replace(stage.workspace, retries=Retry(attempts=1))
    return stage


def fail(stage: Stage, bad: Collection[str]) -> None:
    """A run of which these fail."""
    assert stage.run(fetch_external=lambda: items(bad)).error_count == len(bad)


def failures(stage: Stage) -> dict[str | None, FailureRow]:
    return {each.external_id: each for each in stage.workspace.failures.newest(stage.name, STATES, 100)}


def test_a_retry_that_dies_counts_each_attempt_once_and_resolves_only_what_went_through(failing: Stage) -> None:
    mended = {each["sku"]: each for each in items(["old-0"])}

    def retry() -> SyncResults:
        return RetryRun(failing.job(fetch_one=mended.get), failing.workspace).run(everything=True)

    for instant in failing.each_instant(retry, lambda: fail(failing, ["new-0", "new-1", "old-0"]), first=1, step=3):
        left, rows = failures(failing), failing.rows()
        assert all(left[sku].state == "open" or rows.get(sku) == 2 for sku in ("new-0", "new-1")), instant
        assert (left["old-0"].state, left["old-0"].attempts in {1, 2}) == ("open", True), instant
        results = retry()
        assert (results.accounts_balance, results.error_count) == (True, 1), instant
        found = failures(failing)
        assert (found["old-0"].state, found["old-0"].attempts) == ("open", left["old-0"].attempts + 1), instant
        assert {found[sku].state for sku in ("new-0", "new-1")} == {"resolved"}, instant
        assert {sku: failing.rows()[sku] for sku in ("new-0", "new-1", "old-0")} == {"new-0": 2, "new-1": 2, "old-0": 1}
        assert set(failing.told().values()) == {1}, instant


def test_a_drain_that_dies_resolves_only_what_went_through_and_settles_each_delivery_once(failing: Stage) -> None:
    deliveries: list[int] = []

    def deliver() -> None:
        fail(failing, ["old-0", "new-0"])
        desk = Desk(failing.workspace, failing.name)
        stored = (new("old-0", 5), new("new-0", -3), new("more", 7))
        deliveries[:] = [*desk.upsert(*({**each, "version": 3} for each in stored)), *desk.delete("old-9")]

    def drain() -> SyncResults:
        return Drain(failing.job(), failing.workspace).run(AT_ONCE)

    for instant in failing.each_instant(drain, deliver, first=1, step=3):
        left = failures(failing)
        assert left["old-0"].state == "open" or failing.rows()["old-0"] == 5, instant
        assert left["new-0"].state == "open", instant
        assert drain().accounts_balance, instant
        found, rows = failures(failing), failing.rows()
        assert (found["old-0"].state, found["new-0"].state) == ("resolved", "open"), instant
        assert (rows["old-0"], rows["more"], "new-0" in rows, "old-9" in rows) == (5, 7, False, False), instant
        desk = Desk(failing.workspace, failing.name)
        assert Counter(desk.show(each).state for each in deliveries) == {"applied": 3, "failed": 1}, instant
        assert desk.show(deliveries[1]).attempts == 1, instant
        told = failing.told()
        assert set(told.values()) == {1}, instant
