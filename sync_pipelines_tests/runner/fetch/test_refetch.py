"""`fetch_one`: the source is asked where deliveries can't tell; what it may answer, and what if it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import httpx
import pytest

from sync_pipelines.database.failure_rows import OPEN
from sync_pipelines.engine.changes import Refetch
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.retry import Retry
from sync_pipelines.engine.webhook_signatures import Unsigned
from sync_pipelines.engine.webhooks import Webhook, WebhookEvent
from sync_pipelines.errors import ConfigurationError, FetchError, RetryableError, RunError
from sync_pipelines.runner.changes.retry_failures import retry_failures
from sync_pipelines.runner.changes.single_item import sync_single_item
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.fetch.refetch import again_after_outage
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
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


class NoRouteError(Exception):
    """What a client that we do not know raises."""


class TooBusyError(Exception):
    """What a client makes of a status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.response = SimpleNamespace(status_code=status)


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize(
    "error",
    [
        RetryableError("503"), ConnectionRefusedError("refused"), TimeoutError(), FetchError("broke off"),
        TooBusyError(503), TooBusyError(429), httpx.ConnectError("no route"), httpx.ReadTimeout("slow"),
        URLError("no route"),
    ],
)  # fmt: skip
def test_an_item_that_a_source_that_is_down_is_asked_for_is_tried_for_days_at_no_cost(
    job: Make, desk: Desk, target: MemoryTarget, clock: Clock, error: Exception
) -> None:
    source = Source(A=1)
    source.errors["A"] = error
    [given] = desk.refetch("A")
    for _ in range(8):
        desk.drain(job(fetch_one=source.fetch_one))
        shown = desk.show(given)
        assert (shown.state, shown.attempts) == ("waiting", 0)
        assert shown.next_try_at is not None
        assert timedelta(seconds=10) <= shown.next_try_at - clock.now <= timedelta(hours=1)
        clock.now = shown.next_try_at + timedelta(hours=12)
    source.errors.clear()
    desk.drain(job(fetch_one=source.fetch_one))
    assert (desk.actions(given), target.records) == (["created"], {"A": item("A", 1)})


def test_the_longer_an_outage_is_the_less_often_it_is_asked_about(clock: Clock) -> None:
    began_at, tries = clock.now, 0
    while clock.now < began_at + timedelta(days=4):
        clock.now = again_after_outage(began_at, clock.now, is_down=False)
        tries += 1
    assert 96 < tries < 160
    assert again_after_outage(clock.now, clock.now, is_down=True) - clock.now == timedelta(seconds=60)


@pytest.mark.usefixtures("no_waits")
def test_as_a_single_item_too_it_is_no_fault_of_the_item(job: Make, settings: Settings) -> None:
    """An inline webhook answers with 503 then, and its sender tries again."""
    source = Source()
    source.errors["A"] = RetryableError("503")
    with pytest.raises(FetchError, match="stock: the source does not answer: 503"):
        sync_single_item(job(fetch_one=source.fetch_one), Refetch("A"), settings=settings)


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize("error", [NoRouteError("?"), TooBusyError(404), TooBusyError(500), KeyError("price")])
def test_what_is_the_items_own_fault_has_its_attempts_and_no_more(
    job: Make, desk: Desk, clock: Clock, error: Exception
) -> None:
    source = Source(A=1)
    source.errors["A"] = error
    [given] = desk.refetch("A")
    for _ in range(6):
        desk.drain(job(fetch_one=source.fetch_one))
        clock.advance(100_000)
    assert (desk.actions(given), desk.show(given).attempts) == (["failed"], 6)


@pytest.mark.usefixtures("no_waits")
def test_a_target_function_or_a_parse_that_gets_no_answer_costs_no_attempt_either(
    job: Make, desk: Desk, target: MemoryTarget, clock: Clock
) -> None:
    is_down = True

    def create(each: Any) -> None:
        if is_down:
            raise RetryableError("503")
        target.records[each["sku"]] = each

    def parse(event: WebhookEvent) -> Any:
        if is_down:
            raise RetryableError("503")
        return event.body

    functions = {"target": None, "find_local": target.records.get, "create": create, "update": create}
    able = job(**functions, webhook=Webhook(signature=Unsigned(), parse=parse))
    given = [*desk.upsert(item("A")), *desk.event(item("B"))]
    for _ in range(10):
        desk.drain(able)
        clock.advance(100_000)
    assert [desk.show(each).attempts for each in given] == [0, 0]
    is_down = False
    desk.drain(able)
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


REFUSALS = [ConfigurationError("SHOP_TOKEN is not set"), TooBusyError(401), TooBusyError(407), TooBusyError(403)]
TOLD = "stock: .*fetch_one.*(SHOP_TOKEN is not set|status 40[137])"


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize("error", REFUSALS, ids=repr)
@pytest.mark.parametrize("count", [1, 30])
def test_what_a_person_must_mend_ends_the_drain_at_no_cost_and_the_source_is_asked_no_more(  # noqa: PLR0913, PLR0917 - fixtures
    job: Make, desk: Desk, target: MemoryTarget, clock: Clock, error: Exception, count: int
) -> None:
    source = Source()
    names = [f"A{number}" for number in range(count)]
    source.errors = dict.fromkeys(names, error)
    given = [*desk.upsert(item("first")), *desk.refetch(*names)]
    for _ in range(7):
        with pytest.raises(FetchError, match=TOLD):
            desk.drain(job(fetch_one=source.fetch_one))
        clock.advance(100_000)
    assert {desk.show(each).attempts for each in given[1:]} == {0}
    assert (set(desk.actions(*given[1:])), sorted(target.records)) == ({"waiting"}, ["first"])
    assert len(source.asked) <= 70
    source.errors.clear()
    source.stock = dict.fromkeys(names, 1)
    desk.drain(job(fetch_one=source.fetch_one))
    assert set(desk.actions(*given)) == {"created"}


def test_one_item_that_these_credentials_may_not_read_is_at_fault_if_others_may_be_read(
    job: Make, desk: Desk, target: MemoryTarget
) -> None:
    source = Source(B=2)
    source.errors["A"] = TooBusyError(403)
    given = desk.refetch("A", "B")
    desk.drain(job(fetch_one=source.fetch_one))
    assert [desk.show(each).attempts for each in given] == [1, 1]
    assert sorted(target.records) == ["B"]


@pytest.mark.parametrize("error", REFUSALS, ids=repr)
def test_what_a_person_must_mend_is_no_fault_of_a_single_item(job: Make, settings: Settings, error: Exception) -> None:
    source = Source()
    source.errors["A"] = error
    with pytest.raises(FetchError, match=TOLD):
        sync_single_item(job(fetch_one=source.fetch_one), Refetch("A"), settings=settings)


@pytest.mark.parametrize("error", REFUSALS, ids=repr)
def test_what_a_person_must_mend_costs_failures_that_are_tried_again_nothing(
    job: Make, workspace: Workspace, settings: Settings, target: MemoryTarget, error: Exception
) -> None:
    target.fails = {"A": ValueError("no such colour")}
    able = job(fetch_external=lambda: [item("A")], retry=Retry(attempts=2))
    run_sync(able, settings=settings)
    source = Source()
    source.errors["A"] = error
    for _ in range(3):
        with pytest.raises(FetchError, match=TOLD):
            retry_failures(replace(able, fetch_one=source.fetch_one), external_ids=["A"], settings=settings)
    failure = workspace.failures.of_item("stock", "A")
    assert failure is not None
    assert (failure.state, failure.attempts) == (OPEN, 1)


@pytest.mark.parametrize("error", REFUSALS[:2], ids=repr)
def test_what_a_parse_or_a_target_function_needs_a_person_for_ends_the_drain_at_no_cost(
    job: Make, desk: Desk, target: MemoryTarget, clock: Clock, error: Exception
) -> None:
    """What needs no person is applied."""
    is_wrong = True

    def create(each: Any) -> None:
        if is_wrong and each["sku"] == "A":
            raise error
        target.records[each["sku"]] = each

    def parse(event: WebhookEvent) -> Any:
        if is_wrong:
            raise error
        return event.body

    functions = {"target": None, "find_local": target.records.get, "create": create, "update": create}
    able = job(**functions, webhook=Webhook(signature=Unsigned(), parse=parse))
    given = [*desk.upsert(item("A")), *desk.event(item("B")), *desk.upsert(item("C"))]
    for _ in range(7):
        with pytest.raises(RunError, match=r"stock: .*(SHOP_TOKEN is not set|status 401)"):
            desk.drain(able)
        clock.advance(100_000)
    assert [desk.show(each).attempts for each in given] == [0, 0, 1]
    with pytest.raises(RunError, match=r"stock: .*(SHOP_TOKEN is not set|status 401)"):
        sync_single_item(able, item("A"))
    is_wrong = False
    desk.drain(able)
    assert desk.actions(*given) == ["created", "created", "created"]
