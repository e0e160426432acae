"""The drain: what waits in the inbox is applied, newest first served, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from sync_pipelines.database.batches import BatchKey
from sync_pipelines.database.inbox import FAILED, Completed
from sync_pipelines.engine.codec import encode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.retry import Retry
from sync_pipelines.errors import ConfigurationError, RetryableError, TargetError
from sync_pipelines.runner.changes.drain import Drain, DrainLimits
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.testing import MemoryTarget

Make = Callable[..., SyncJob[Any, Any]]
AT_ONCE = DrainLimits(idle_wait_s=0)


def item(sku: Any, stock: int = 1) -> dict[str, Any]:
    return {"sku": sku, "stock": stock}


@pytest.fixture
def deliver(workspace: Workspace) -> Callable[..., list[int]]:
    def store(*items: Any, job: str = "stock") -> list[int]:
        return [workspace.inbox.store(job, encode(each), workspace.clock()) for each in items]

    return store


Deliver = Callable[..., list[int]]


def never(*_: Any) -> None:
    raise AssertionError("called")


def test_what_waits_is_applied_and_settled(
    job: Make, workspace: Workspace, deliver: Deliver, target: MemoryTarget
) -> None:
    target.records["B"] = item("B")
    target.records["C"] = item("C")
    deliver(item("A"), item("B", 2), item("C"), item("D"))
    draining = job(never, on_start=never, on_complete=never, should_skip=lambda each: each["sku"] == "D")
    results = Drain(draining, workspace).run(AT_ONCE)
    assert (results.created, results.updated, results.unchanged, results.skipped) == (1, 1, 1, 1)
    assert (results.fetched, results.accounts_balance, results.outcome) == (4, True, "clean")
    assert workspace.inbox.count("stock") == 0
    assert [(each.external_id, each.action) for each in workspace.inbox.completed("stock")] == [
        ("D", "skipped"),
        ("C", "unchanged"),
        ("B", "updated"),
        ("A", "created"),
    ]
    run = workspace.ledger.run(results.run_id)
    assert run is not None
    assert (run.kind, run.outcome, run.counts["fetched"]) == ("drain", "clean", 4)


def test_of_several_deliveries_for_one_record_the_newest_counts(
    job: Make, workspace: Workspace, deliver: Deliver, target: MemoryTarget
) -> None:
    deliver(item("A", 1), item("B", 1), item("A", 2), item("A", 3))
    drain = Drain(job(), workspace)
    results = drain.run(AT_ONCE)
    assert (results.created, results.duplicate_count) == (2, 2)
    assert target.records == {"A": item("A", 3), "B": item("B", 1)}
    assert [(each.external_id, each.action) for each in drain.applied] == [
        ("A", "duplicate"),
        ("B", "created"),
        ("A", "duplicate"),
        ("A", "created"),
    ]


def test_a_newer_delivery_wins_across_batches_too(
    job: Make, workspace: Workspace, deliver: Deliver, target: MemoryTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync_pipelines.runner.changes.drain.BATCH_SIZE", 2)
    deliver(*(item("A", stock) for stock in range(7)), item("B"))
    results = Drain(job(), workspace).run(AT_ONCE)
    assert target.records == {"A": item("A", 6), "B": item("B")}
    assert (results.fetched, results.accounts_balance) == (8, True)
    assert workspace.inbox.count("stock") == 0


def test_a_newer_delivery_wins_where_but_one_fits_into_a_batch(
    job: Make, workspace: Workspace, deliver: Deliver, target: MemoryTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync_pipelines.runner.changes.drain._BATCH_BYTES", 1)
    deliver(*(item("A", stock) for stock in range(3)), item("B"))
    results = Drain(job(), workspace).run(AT_ONCE)
    assert target.records == {"A": item("A", 2), "B": item("B")}
    assert (results.fetched, results.duplicate_count, results.accounts_balance) == (4, 0, True)


def test_slow_items_come_in_ever_smaller_batches_so_that_a_full_sync_gets_its_turn(
    job: Make, workspace: Workspace, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync_pipelines.runner.changes.drain._QUICK_S", 0.0)
    monkeypatch.setattr("sync_pipelines.runner.changes.drain._SLOW_S", 0.0)
    deliver(*(item(f"A{number}") for number in range(200)))
    results = Drain(job(), workspace).run(AT_ONCE)
    batches = workspace.batches.of_run(results.run_id)
    created = [batches[BatchKey(number=number)].counts["created"] for number in range(len(batches))]
    assert created == [
        100,
        50,
        25,
        12,
        10,
        3,
    ]


def test_a_delivery_that_fails_blocks_no_other_and_says_why(
    job: Make, workspace: Workspace, deliver: Deliver, target: MemoryTarget
) -> None:
    target.fails = {"bad": ValueError("password=hunter22")}
    deliver(item("A"), item("bad"), item(None), "A", item("B"))
    workspace.inbox.store("stock", "no json", workspace.clock())
    workspace.inbox.store("stock", '{"$":"object","c":"gone:Item","v":{}}', workspace.clock())
    workspace = replace(workspace, retries=Retry(attempts=1))
    results = Drain(job(), workspace).run(AT_ONCE)
    assert (results.created, results.error_count, results.accounts_balance) == (2, 5, True)
    assert sorted(target.records) == ["A", "B"]
    assert (workspace.inbox.count("stock"), workspace.inbox.count("stock", FAILED)) == (0, 5)
    failed = [each for each in reversed(workspace.inbox.completed("stock")) if each.action is None]
    assert failed[0] == Completed(2, "bad", None, "ValueError: password=***")
    assert failed[1].message == "ItemError: the item has no external id (None)"
    assert failed[3].message is not None
    assert failed[3].message.startswith("JSONDecodeError")
    assert "gone:Item" in str(failed[4].message)


def test_only_deliveries_of_the_own_job_are_taken(job: Make, workspace: Workspace, deliver: Deliver) -> None:
    deliver(item("A"), job="other")
    assert Drain(job(), workspace).run(AT_ONCE).fetched == 0
    assert workspace.inbox.count("other") == 1


class KilledError(BaseException):
    """Stands for a process that ends there and then."""


def test_a_drain_that_was_killed_between_writing_and_settling_does_no_harm(
    job: Make, workspace: Workspace, deliver: Deliver, target: MemoryTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deliveries are found again; what was created is not created twice."""
    deliver(item("A"), item("B"))

    def killed(*_: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr("sync_pipelines.database.inbox.Inbox.complete", killed)
        with pytest.raises(KilledError):
            Drain(job(), workspace).run(AT_ONCE)
    assert sorted(target.records) == ["A", "B"]
    assert workspace.inbox.count("stock") == 2
    results = Drain(job(), workspace).run(AT_ONCE)
    assert (results.unchanged, results.error_count) == (2, 0)
    assert target.writes == 2
    assert workspace.inbox.count("stock") == 0
    assert {run.outcome for run in workspace.ledger.latest_runs("stock")} == {"failed", "clean"}


def test_a_record_that_appears_while_a_drain_decides_is_not_created_twice(
    workspace: Workspace, job: Make, deliver: Deliver
) -> None:
    """A full run may write the same record; the drain looks once more before it creates."""

    class Busy(MemoryTarget):
        def find_many(self, external_ids: Any) -> Any:
            found = super().find_many(external_ids)
            self.records.setdefault("A", item("A"))
            return found

    deliver(item("A", 2))
    target = Busy()
    results = Drain(job(target=target), workspace).run(AT_ONCE)
    assert (results.updated, results.error_count) == (1, 0)
    assert target.records == {"A": item("A", 2)}


@pytest.mark.usefixtures("no_waits")
def test_a_target_that_does_not_answer_leaves_everything_waiting(
    job: Make, workspace: Workspace, deliver: Deliver
) -> None:
    class Away(MemoryTarget):
        def find_many(self, external_ids: Any) -> Any:
            raise RetryableError("no route to host")

    deliver(item("A"))
    with pytest.raises(TargetError, match="no route to host"):
        Drain(job(target=Away()), workspace).run(AT_ONCE)
    assert workspace.inbox.count("stock") == 1
    [run] = workspace.ledger.latest_runs("stock")
    assert run.outcome == "failed"


def test_late_arrivals_are_waited_for(job: Make, workspace: Workspace, deliver: Deliver, target: MemoryTarget) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 1:
            deliver(item("late"))

    Drain(job(), workspace).run(DrainLimits(idle_wait_s=0.05), sleep)
    assert sorted(target.records) == ["late"]
    assert workspace.inbox.count("stock") == 0


def test_a_drain_ends_although_more_waits_so_that_a_full_sync_gets_its_turn(
    job: Make, workspace: Workspace, deliver: Deliver
) -> None:
    deliver(item("A"))
    assert Drain(job(), workspace).run(DrainLimits(longest_s=0)).fetched == 0
    assert workspace.inbox.count("stock") == 1


def test_deliveries_with_ids_that_the_target_makes_equal_are_one_record(
    job: Make, workspace: Workspace, deliver: Deliver
) -> None:
    class Numbers(MemoryTarget):
        def canonical_id(self, external_id: str) -> str:
            return str(int(external_id))

        def _id_of(self, each: Any) -> str:
            return self.canonical_id(super()._id_of(each))

    target = Numbers()
    deliver(item("007", 1), item(7, 2), item("x"))
    results = Drain(job(target=target), workspace).run(AT_ONCE)
    assert (results.created, results.duplicate_count, results.error_count) == (1, 1, 1)
    assert target.records == {"7": item(7, 2)}


def test_the_class_of_an_item_is_kept(workspace: Workspace, deliver: Deliver) -> None:
    @dataclass
    class Product:
        sku: str

    seen: list[Any] = []
    job = SyncJob[Any, Any](
        name="stock",
        fetch_external=list,
        get_external_id="sku",
        find_local=lambda external_id: None,
        create=seen.append,
        update=lambda each, local: None,
    )
    deliver(Product("A"))
    Drain(job, workspace).run(AT_ONCE)
    assert seen == [Product("A")]


def test_a_target_that_does_not_fit_fails_the_drain_and_keeps_what_waits(
    job: Make, workspace: Workspace, deliver: Deliver
) -> None:
    class Unfit(MemoryTarget):
        def open(self, identify: Any) -> Any:
            raise ConfigurationError("the table is missing")

    deliver(item("A"))
    with pytest.raises(ConfigurationError, match="the table is missing"):
        Drain(job(target=Unfit()), workspace).run(AT_ONCE)
    assert workspace.inbox.count("stock") == 1
