"""`fetch_one`: the source is asked where deliveries can't tell; what it may answer, and what if it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.errors import FetchError, RetryableError
from sync_pipelines.testing import MemoryTarget
from sync_pipelines_tests.runner.desk import Clock, Desk

Make = Callable[..., SyncJob[Any, Any]]


class Source:
    """What the source has of each item now, and how it was asked."""

    def __init__(self, **stock: int | None) -> None:
        self.stock = stock
        self.asked: list[str] = []
        self.errors: dict[str, Exception] = {}

    def fetch_one(self, sku: str) -> Any:
        self.asked.append(sku)
        if sku in self.errors:
            raise self.errors[sku]
        stock = self.stock.get(sku)
        return None if stock is None else item(sku, stock)


def item(sku: Any, stock: Any = 1, version: int = 1) -> dict[str, Any]:
    return {"sku": sku, "stock": stock, "version": version}


def test_a_source_is_asked_once_for_many_thin_events_of_one_item(job: Make, desk: Desk, target: MemoryTarget) -> None:
    source = Source(A=5)
    given = desk.refetch("A", "A", "A")
    desk.drain(job(fetch_one=source.fetch_one))
    assert (source.asked, target.records) == (["A"], {"A": item("A", 5)})
    assert desk.actions(*given) == ["duplicate", "duplicate", "created"]


def test_a_thin_event_makes_up_for_an_item_before_or_after_it(job: Make, desk: Desk, target: MemoryTarget) -> None:
    source = Source(A=5, B=6)
    given = [*desk.upsert(item("A", 1)), *desk.refetch("A", "B"), *desk.upsert(item("B", 1))]
    desk.drain(job(fetch_one=source.fetch_one))
    assert target.records == {"A": item("A", 5), "B": item("B", 6)}
    assert desk.actions(*given) == ["duplicate", "created", "created", "duplicate"]


def test_what_is_beyond_doubt_is_not_asked_for(job: Make, desk: Desk) -> None:
    source = Source(A=5)
    given = [*desk.upsert(item("A"), item("A", 2), item("B")), *desk.delete("C")]
    desk.drain(job(fetch_one=source.fetch_one))
    assert source.asked == []
    assert desk.actions(*given) == ["duplicate", "created", "created", "unchanged"]


def test_an_item_that_is_gone_at_the_source_is_deleted(job: Make, desk: Desk, target: MemoryTarget) -> None:
    target.records["A"] = item("A")
    given = [*desk.refetch("A"), *desk.upsert(item("B")), *desk.delete("B")]
    results = desk.drain(job(fetch_one=Source().fetch_one))
    assert (target.records, results.deleted) == ({}, 1)
    assert desk.actions(*given) == ["deleted", "duplicate", "unchanged"]


def test_another_item_than_asked_for_is_an_error_of_that_delivery(job: Make, desk: Desk, target: MemoryTarget) -> None:
    given = [*desk.refetch("A"), *desk.upsert(item("C"))]
    desk.drain(job(fetch_one=lambda _: item("B")))
    assert (desk.actions(*given), sorted(target.records)) == (["waiting", "created"], ["C"])
    assert desk.show(given[0]).message == "ItemError: fetch_one('A') gave another item: 'B'"


@pytest.mark.parametrize("answer", [7, "A", [], {"stock": 1}, {"sku": None}, object()])
def test_an_answer_that_is_no_such_item_is_an_error_of_that_delivery(
    job: Make, desk: Desk, target: MemoryTarget, answer: Any
) -> None:
    given = [*desk.refetch("A"), *desk.upsert(item("C"))]
    desk.drain(job(fetch_one=lambda _: answer))
    assert (desk.actions(*given), sorted(target.records)) == (["waiting", "created"], ["C"])


def test_the_source_is_asked_by_the_id_as_it_writes_it(job: Make, desk: Desk) -> None:
    class Numbers(MemoryTarget):
        def canonical_id(self, external_id: str) -> str:
            return str(int(external_id))

        def _id_of(self, each: Any) -> str:
            return self.canonical_id(super()._id_of(each))

    source = Source(**{"007": 5})
    target = Numbers()
    given = [*desk.upsert(item("007", 1), item(7, 2)), *desk.refetch("007")]
    desk.drain(job(target=target, fetch_one=source.fetch_one))
    assert (source.asked, target.records) == (["007"], {"7": item("007", 5)})
    assert desk.actions(*given) == ["duplicate", "duplicate", "created"]


def test_an_async_fetch_one_and_several_at_a_time(job: Make, desk: Desk, target: MemoryTarget) -> None:
    async def fetch_one(sku: str) -> Any:
        return item(sku, 3)

    desk.refetch(*(f"A{number}" for number in range(50)))
    desk.drain(job(fetch_one=fetch_one, concurrency=8))
    assert target.records == {f"A{number}": item(f"A{number}", 3) for number in range(50)}


def test_should_skip_and_the_target_have_their_say_on_what_was_fetched(
    job: Make, desk: Desk, target: MemoryTarget
) -> None:
    target.records = {"same": item("same", 5)}
    target.fails = {"bad": ValueError("no such colour")}
    source = Source(skipped=0, same=5, bad=6)
    given = desk.refetch("skipped", "same", "bad")
    desk.drain(job(fetch_one=source.fetch_one, should_skip=lambda each: each["stock"] == 0))
    assert desk.actions(*given) == ["skipped", "unchanged", "waiting"]
    assert desk.show(given[2]).message == "ValueError: no such colour"


@pytest.mark.usefixtures("no_waits")
def test_an_item_that_the_source_does_not_answer_for_waits_and_the_others_do_not(
    job: Make, desk: Desk, target: MemoryTarget, clock: Clock
) -> None:
    source = Source(A=1, B=2)
    source.errors["A"] = RetryableError("503")
    given = desk.refetch("A", "B")
    desk.drain(job(fetch_one=source.fetch_one))
    assert (desk.actions(*given), source.asked.count("A")) == (["waiting", "created"], 4)
    assert desk.show(given[0]).message == "RetryableError: 503"
    source.errors.clear()
    clock.advance(10)
    desk.drain(job(fetch_one=source.fetch_one))
    assert desk.actions(*given) == ["created", "created"]


@pytest.mark.usefixtures("no_waits")
def test_a_source_that_is_down_ends_the_drain_and_costs_nobody_an_attempt(
    job: Make, desk: Desk, target: MemoryTarget, clock: Clock
) -> None:
    """What needs no answer of it is applied."""
    source = Source()
    names = [f"A{number}" for number in range(40)]
    source.errors = dict.fromkeys(names, RetryableError("no route to host"))
    given = [*desk.upsert(item("first")), *desk.refetch(*names), *desk.upsert(item("last"))]
    with pytest.raises(FetchError, match="no route to host"):
        desk.drain(job(fetch_one=source.fetch_one))
    assert {desk.show(each).attempts for each in given[1:-1]} == {0}
    assert (set(desk.actions(*given[1:-1])), sorted(target.records)) == ({"waiting"}, ["first", "last"])
    [run] = desk.workspace.ledger.latest_runs("stock")
    assert (run.outcome, "no route to host" in str(run.failure)) == ("failed", True)
    source.errors.clear()
    clock.advance(60)
    desk.drain(job(fetch_one=source.fetch_one))
    assert desk.workspace.inbox.count("stock") == 0


@pytest.mark.usefixtures("no_waits")
def test_many_items_that_get_no_answer_keep_none_of_the_others_waiting_for_ever(job: Make, desk: Desk) -> None:
    """Nobody can tell them from a source that is down."""
    source = Source(good=1)
    names = [f"A{number}" for number in range(12)]
    source.errors = dict.fromkeys(names, RetryableError("503"))
    given = desk.refetch(*names[:10], *names, "good")
    with pytest.raises(FetchError):
        desk.drain(job(fetch_one=source.fetch_one))
    desk.drain(job(fetch_one=source.fetch_one))
    assert desk.actions(given[-1]) == ["created"]
    assert {desk.show(each).state for each in given[:-1]} == {"waiting", "applied"}  # a repeated one is a duplicate


def test_a_fetch_one_that_raises_fails_one_delivery_after_the_other_until_it_is_given_up(
    job: Make, desk: Desk, clock: Clock
) -> None:
    source = Source()
    source.errors["A"] = KeyError("price")
    [given] = desk.refetch("A")
    for _ in range(6):
        desk.drain(job(fetch_one=source.fetch_one))
        clock.advance(100_000)
    assert (desk.actions(given), len(source.asked)) == (["failed"], 6)


class TestEqualVersions:
    """An item with the version that the record has, and something else in it."""

    def test_the_source_is_asked_if_it_can_be(self, job: Make, desk: Desk, target: MemoryTarget) -> None:
        source = Source(A=3)
        versioned = job(fetch_one=source.fetch_one, get_version="version")
        desk.upsert(item("A", 1))
        desk.drain(versioned)
        [given] = desk.upsert(item("A", 2))
        desk.drain(versioned)
        assert (source.asked, target.records) == (["A"], {"A": item("A", 3)})
        assert desk.actions(given) == ["updated"]

    def test_a_source_that_says_it_is_gone_has_it_deleted(self, job: Make, desk: Desk, target: MemoryTarget) -> None:
        versioned = job(fetch_one=Source().fetch_one, get_version="version")
        desk.upsert(item("A", 1))
        desk.drain(versioned)
        [given] = desk.upsert(item("A", 2))
        desk.drain(versioned)
        assert (target.records, desk.actions(given)) == ({}, ["deleted"])

    def test_an_error_of_the_source_is_that_of_the_delivery(self, job: Make, desk: Desk, target: MemoryTarget) -> None:
        source = Source()
        source.errors["A"] = KeyError("price")
        versioned = job(fetch_one=source.fetch_one, get_version="version")
        desk.upsert(item("A", 1), item("B", 1))
        desk.drain(versioned)
        given = desk.upsert(item("A", 2), item("B", 1))
        desk.drain(versioned)
        assert (desk.actions(*given), target.records["A"]) == (["waiting", "unchanged"], item("A", 1))

    def test_without_a_source_to_ask_the_later_delivery_wins(self, job: Make, desk: Desk, target: MemoryTarget) -> None:
        versioned = job(get_version="version")
        for stock in (1, 2):
            desk.upsert(item("A", stock))
            desk.drain(versioned)
        assert target.records == {"A": item("A", 2)}

    def test_in_one_batch_they_contradict_each_other_and_the_source_is_asked(
        self, job: Make, desk: Desk, target: MemoryTarget
    ) -> None:
        source = Source(A=3)
        given = desk.upsert(item("A", 1), item("A", 2), item("B", 4), item("B", 4))
        desk.drain(job(fetch_one=source.fetch_one, get_version="version"))
        assert (source.asked, target.records) == (["A"], {"A": item("A", 3), "B": item("B", 4)})
        assert desk.actions(*given) == ["duplicate", "created", "duplicate", "created"]

    def test_what_the_source_says_is_not_older_than_the_record_either(
        self, job: Make, desk: Desk, target: MemoryTarget
    ) -> None:
        """A source may answer from a copy that lags behind."""
        versioned = job(fetch_one=lambda sku: item(sku, 1, version=1), get_version="version")
        desk.upsert(item("A", 2, version=2))
        desk.drain(versioned)
        [given] = desk.refetch("A")
        desk.drain(versioned)
        assert (target.records, desk.actions(given)) == ({"A": item("A", 2, version=2)}, ["skipped"])
