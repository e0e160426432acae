"""Deliveries of every kind: what becomes of each, in which order, how often a failing one is tried."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from sync_pipelines.database.inbox import FAILED, WAITING
from sync_pipelines.engine.changes import Delete, Ignore, Refetch, Upsert
from sync_pipelines.engine.codec import encode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.retry import Retry
from sync_pipelines.engine.webhook_signatures import Unsigned
from sync_pipelines.engine.webhooks import Webhook, WebhookEvent
from sync_pipelines.errors import ItemError, WebhookRejectedError
from sync_pipelines.settings.model import Settings
from sync_pipelines.testing import MemoryTarget
from sync_pipelines_tests.runner.desk import Clock, Desk

Make = Callable[..., SyncJob[Any, Any]]
WAITS_S = [10, 40, 160, 640, 2560]
"""Between the six attempts."""


@pytest.fixture
def settings(tmp_path: Any, database_url: str) -> Settings:
    """Ledger on SQLite and on PostgreSQL."""
    return Settings(data_dir=tmp_path / "data", ledger_url=database_url, database_url=None)


def item(sku: Any, stock: Any = 1) -> dict[str, Any]:
    return {"sku": sku, "stock": stock}


class Numbers(MemoryTarget):
    """Ids are numbers: `007` and 7 are one record."""

    def canonical_id(self, external_id: str) -> str:
        return str(int(external_id))

    def _id_of(self, each: Any) -> str:
        return self.canonical_id(super()._id_of(each))


def webhook(parse: Any) -> Webhook:
    return Webhook(signature=Unsigned(), parse=parse)


def test_deliveries_of_all_kinds(job: Make, desk: Desk, target: MemoryTarget) -> None:
    target.records |= {"gone": item("gone"), "asked": item("asked"), "asked and gone": item("asked and gone")}
    source = {"asked": item("asked", 5)}
    given = [
        *desk.upsert(item("new")),
        *desk.delete("gone", "never there"),
        *desk.refetch("asked", "asked and gone", "nowhere"),
    ]
    results = desk.drain(job(fetch_one=source.get))
    assert target.records == {"new": item("new"), "asked": item("asked", 5)}
    assert desk.actions(*given) == ["created", "deleted", "unchanged", "updated", "deleted", "unchanged"]
    assert (results.fetched, results.created, results.updated, results.deleted, results.unchanged) == (4, 1, 1, 2, 2)
    assert results.outcome == "clean"


def test_what_parse_can_say(job: Make, desk: Desk, target: MemoryTarget) -> None:
    said = {
        "bare": item("bare"),
        "upsert": Upsert(item("upsert")),
        "delete": Delete("old"),
        "refetch": Refetch("asked"),
        "ignore": Ignore("nothing to us"),
        "none": None,
    }
    target.records["old"] = item("old")

    async def parse(event: WebhookEvent) -> Any:
        return said[event.body["say"]]

    given = desk.event(*({"say": word} for word in said))
    desk.drain(job(webhook=webhook(parse), fetch_one=lambda sku: item(sku, 9)))
    assert desk.actions(*given) == ["created", "created", "deleted", "created", "skipped", "skipped"]
    assert target.records == {"bare": item("bare"), "upsert": item("upsert"), "asked": item("asked", 9)}
    assert [desk.show(each).external_id for each in given[:4]] == ["bare", "upsert", "old", "asked"]


@pytest.mark.parametrize(
    "error", [KeyError("sku"), WebhookRejectedError("no such shop"), RecursionError(), ItemError("x")]
)
def test_a_parse_that_raises_fails_its_delivery_alone(
    job: Make, desk: Desk, target: MemoryTarget, clock: Clock, error: Exception
) -> None:
    is_mended = False

    def parse(event: WebhookEvent) -> Any:
        if event.body["sku"] == "bad" and not is_mended:
            raise error
        return event.body

    given = desk.event(item("bad"), item("good"))
    results = desk.drain(job(webhook=webhook(parse)))
    assert (desk.actions(*given), results.error_count) == (["waiting", "created"], 1)
    assert type(error).__name__ in str(desk.show(given[0]).message)
    is_mended = True
    clock.advance(10)
    desk.drain(job(webhook=webhook(parse)))
    assert desk.actions(*given) == ["created", "created"]
    assert sorted(target.records) == ["bad", "good"]


def test_an_event_of_a_job_without_a_webhook_fails_and_says_so(job: Make, desk: Desk) -> None:
    [given] = desk.event(item("A"))
    desk.drain(job())
    assert desk.show(given).message == (
        "ItemError: the job has no webhook any more whose parse could read the delivery"
    )


def test_a_kind_of_a_newer_version_fails_and_says_so(job: Make, desk: Desk) -> None:
    given = desk.store("rename", external_id="A")
    desk.drain(job())
    assert "'rename' comes from a newer version" in str(desk.show(given).message)


def test_a_refetch_without_fetch_one_fails_and_takes_no_other_with_it(
    job: Make, desk: Desk, target: MemoryTarget
) -> None:
    given = [*desk.upsert(item("A", 2)), *desk.refetch("A")]
    desk.drain(job())
    assert (desk.actions(*given), target.records) == (["created", "waiting"], {"A": item("A", 2)})
    assert "give stock a fetch_one" in str(desk.show(given[1]).message)


@pytest.mark.parametrize("external_id", ["", "  ", None])
def test_a_delete_without_an_id_fails_alone(job: Make, desk: Desk, external_id: str | None) -> None:
    given = [desk.store("delete", external_id=external_id), *desk.upsert(item("A"))]
    desk.drain(job())
    assert desk.actions(*given) == ["waiting", "created"]
    assert "external id is empty" in str(desk.show(given[0]).message)


def test_a_delete_for_a_job_that_has_no_delete_says_what_is_missing(desk: Desk) -> None:
    records = {"A": item("A")}
    job = SyncJob[Any, Any](
        name="stock",
        fetch_external=list,
        get_external_id="sku",
        find_local=records.get,
        create=lambda each: records.update({each["sku"]: each}),
        update=lambda each, local: None,
    )
    given = [*desk.delete("A", "never there"), *desk.upsert(item("B"))]
    desk.drain(job)
    assert desk.actions(*given) == ["waiting", "unchanged", "created"]
    assert "has no delete" in str(desk.show(given[0]).message)


def test_a_failing_delivery_is_tried_six_times_ever_later_and_then_has_failed(
    job: Make, desk: Desk, target: MemoryTarget, clock: Clock
) -> None:
    target.fails = {"bad": ValueError("no such colour")}
    [bad] = desk.upsert(item("bad"))
    for attempt, wait_s in enumerate(WAITS_S, start=1):
        assert desk.drain(job()).error_count == 1
        shown = desk.show(bad)
        assert (shown.state, shown.attempts, shown.action) == (WAITING, attempt, None)
        assert shown.next_try_at == clock.now + timedelta(seconds=wait_s)
        assert shown.message == "ValueError: no such colour"
        clock.advance(wait_s - 1)
        assert desk.drain(job()).fetched == 0
        clock.advance(1)
    desk.drain(job())
    shown = desk.show(bad)
    assert (shown.state, shown.attempts, shown.next_try_at, shown.finished_at) == (FAILED, 6, None, clock.now)
    assert shown.message == "ValueError: no such colour"
    assert desk.drain(job()).fetched == 0


def test_what_has_failed_can_be_replayed_and_has_all_its_attempts_again(
    job: Make, desk: Desk, target: MemoryTarget, clock: Clock
) -> None:
    target.fails = {"bad": ValueError("no"), "worse": ValueError("never")}
    given = desk.upsert(item("bad"), item("worse"))
    for _ in range(6):
        desk.drain(job())
        clock.advance(10_000)
    assert desk.actions(*given) == ["failed", "failed"]
    del target.fails["bad"]
    assert desk.workspace.inbox.replay_failed("stock", desk.workspace.clock()) == given
    desk.drain(job())
    assert desk.actions(*given) == ["created", "waiting"]
    assert desk.show(given[1]).attempts == 1
    assert target.records == {"bad": item("bad")}


@pytest.mark.parametrize("attempts", [1, 2, 7, 40, 1_000])
def test_waits_end_at_six_hours_however_many_attempts_there_are(attempts: int, clock: Clock) -> None:
    wait = Retry(2_000, first_wait_s=10).next_at(attempts, clock.now)
    assert wait is not None
    assert wait - clock.now == min(timedelta(seconds=10 * 4 ** min(attempts - 1, 10)), timedelta(hours=6))


def test_the_first_attempt_may_be_the_last(clock: Clock) -> None:
    assert Retry(attempts=1).next_at(1, clock.now) is None


def test_a_poisoned_id_blocks_nobody_and_lets_later_items_of_the_same_id_through(
    job: Make, desk: Desk, target: MemoryTarget, clock: Clock
) -> None:
    def refuses(each: Any) -> bool:
        if each["stock"] == "poison":
            raise ValueError("poison")
        return False

    poisoned = job(should_skip=refuses)
    given = desk.upsert(item("A", "poison"), item("B", 1))
    desk.drain(poisoned)
    assert desk.actions(*given) == ["waiting", "created"]
    later = desk.upsert(item("A", 2), item("B", 2))
    desk.drain(poisoned)
    assert desk.actions(*given, *later) == ["duplicate", "created", "created", "updated"]
    clock.advance(100_000)
    assert desk.drain(poisoned).fetched == 0
    assert target.records == {"A": item("A", 2), "B": item("B", 2)}


@pytest.mark.parametrize(("first", "second"), [("7", "007"), ("007", "7"), ("007", None), (None, "07"), (None, None)])
def test_an_older_failing_delivery_never_overwrites_a_newer_one_however_its_id_is_written(
    job: Make, desk: Desk, clock: Clock, first: str | None, second: str | None
) -> None:
    """Deliveries know of their ids what the receiver knew; None: nothing."""
    target = Numbers()
    target.fails = {"7": ValueError("not today")}
    [older] = desk.upsert(item("007", 1), external_id=first) if first else [_nameless(desk, item(7, 1))]
    desk.drain(job(target=target))
    target.fails = {}
    [newer] = desk.upsert(item("7", 2), external_id=second) if second else [_nameless(desk, item("07", 2))]
    desk.drain(job(target=target))
    clock.advance(100_000)
    desk.drain(job(target=target))
    assert desk.actions(older, newer) == ["duplicate", "created"]
    assert [each["stock"] for each in target.records.values()] == [2]


def _nameless(desk: Desk, given: Any) -> int:
    return desk.store("upsert", item=encode(given))


def test_an_older_event_that_could_not_be_parsed_never_overwrites_a_newer_one(
    job: Make, desk: Desk, target: MemoryTarget, clock: Clock
) -> None:
    """Nobody knew its id when the newer one was applied."""
    is_mended = False

    def parse(event: WebhookEvent) -> Any:
        if event.body["stock"] == 1 and not is_mended:
            raise KeyError("colour")
        return event.body

    given = desk.event(item("A", 1), item("A", 2))
    desk.drain(job(webhook=webhook(parse)))
    is_mended = True
    clock.advance(10)
    desk.drain(job(webhook=webhook(parse)))
    assert desk.actions(*given) == ["duplicate", "created"]
    assert target.records == {"A": item("A", 2)}


@pytest.mark.parametrize(
    "story",
    [
        (("upsert", 6), ("delete", 0), {}),
        (("delete", 0), ("upsert", 5), {"A": 5}),
        (("upsert", 6), ("upsert", 5), {"A": 6}),
        (("upsert", 4), ("upsert", 5), {"A": 5}),
    ],
)
def test_such_an_event_of_a_job_with_versions_never_undoes_what_came_after_it(
    job: Make, desk: Desk, clock: Clock, story: Any
) -> None:
    late, then, left = story
    target = MemoryTarget({"A": {"sku": "A", "stock": 3}})
    is_mended = False

    def parse(event: WebhookEvent) -> Any:
        if event.body["late"] and not is_mended:
            raise KeyError("colour")
        return Delete("A") if event.body["kind"] == "delete" else item("A", event.body["version"])

    versioned = job(target=target, webhook=webhook(parse), get_version="stock")
    for (kind, version), is_late in ((late, True), (then, False)):
        desk.event({"kind": kind, "version": version, "late": is_late})
    desk.drain(versioned)
    is_mended = True
    clock.advance(10)
    desk.drain(versioned)
    assert {sku: each["stock"] for sku, each in target.records.items()} == left
    assert desk.workspace.inbox.count("stock") == 0


def test_such_an_older_event_has_the_source_asked_if_it_can_be(
    job: Make, desk: Desk, target: MemoryTarget, clock: Clock
) -> None:
    is_mended = False

    def parse(event: WebhookEvent) -> Any:
        if event.body["stock"] == 1 and not is_mended:
            raise KeyError("colour")
        return event.body

    asking = job(webhook=webhook(parse), fetch_one=lambda sku: item(sku, 3))
    given = desk.event(item("A", 1), item("B", 1), item("A", 2))
    desk.drain(asking)
    is_mended = True
    clock.advance(10)
    desk.drain(asking)
    assert desk.actions(*given) == ["updated", "created", "created"]
    assert target.records == {"A": item("A", 3), "B": item("B", 1)}


@pytest.mark.parametrize("asks", [True, False])
def test_a_batch_that_runs_ahead_for_an_item_leaves_no_older_one_behind_that_overwrites_it(
    job: Make,
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
    asks: bool,  # noqa: FBT001 - parametrised
) -> None:
    """What waits for the items of a batch is taken with it, as far as the inbox knows their ids."""
    monkeypatch.setattr("sync_pipelines.runner.changes.drain.BATCH_SIZE", 1)
    target = Numbers()
    given = [
        *desk.upsert(item("7", 1)),
        *desk.event(item("7", 2)),
        *desk.upsert(item("7", 3), external_id="007"),
        *desk.upsert(item("7", 4)),
    ]
    fields: dict[str, Any] = {"fetch_one": lambda _: item("7", 4)} if asks else {}
    desk.drain(job(target=target, webhook=webhook(None), **fields))
    assert [each["stock"] for each in target.records.values()] == [4]
    assert desk.workspace.inbox.count("stock") == 0
    assert desk.actions(*given)[3] == "created"


def test_a_newer_one_that_waits_for_its_next_try_is_not_overtaken(
    job: Make, desk: Desk, target: MemoryTarget, clock: Clock
) -> None:
    target.fails = {"A": ValueError("not today")}
    desk.upsert(item("A", 1))
    desk.drain(job())
    desk.upsert(item("A", 2))
    desk.drain(job())
    clock.advance(10)
    target.fails = {}
    desk.drain(job())
    assert target.records == {"A": item("A", 2)}
    assert desk.workspace.inbox.count("stock") == 0


def test_order_per_id_is_kept_across_batches(
    job: Make, desk: Desk, target: MemoryTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync_pipelines.runner.changes.drain.BATCH_SIZE", 3)
    for stock in range(4):
        desk.upsert(*(item(sku, stock) for sku in "ABCDE"))
    desk.delete("B")
    results = desk.drain(job())
    assert target.records == {sku: item(sku, 3) for sku in "ACDE"}
    assert (results.created, results.duplicate_count, results.unchanged) == (4, 16, 1)


@pytest.mark.parametrize(
    "external_id",
    [
        "x" * 201,
        "é" * 10_000,
        "".join(random.Random(3).choices(string.printable, k=5_000)).strip(),
        "a\x00b",
        "\U0001f600'\"%s",
    ],
)
def test_odd_ids_are_applied_and_found_again(
    job: Make, desk: Desk, target: MemoryTarget, clock: Clock, external_id: str
) -> None:
    target.fails = {external_id: ValueError("not today")}
    [older] = desk.upsert(item(external_id, 1))
    versioned = job(get_version="stock")
    desk.drain(versioned)
    target.fails = {}
    newer = [*desk.upsert(item(external_id, 3)), *desk.upsert(item(external_id, 2))]
    desk.drain(versioned)
    clock.advance(100_000)
    stale = desk.upsert(item(external_id, 2))
    desk.drain(versioned)
    assert desk.actions(older, *newer, *stale) == ["duplicate", "created", "duplicate", "skipped"]
    assert target.records == {external_id: item(external_id, 3)}


def test_an_id_that_is_no_unicode_fails_alone(job: Make, desk: Desk) -> None:
    given = desk.event({"sku": "\ud800"}, {"sku": "A"})
    desk.drain(job(webhook=webhook(None), get_version=lambda _: 1))
    assert desk.actions(*given) == ["waiting", "created"]


def test_a_message_that_no_database_takes_is_kept_all_the_same(job: Make, desk: Desk, target: MemoryTarget) -> None:
    target.fails = {"bad": ValueError("a \x00 and \ud800")}
    given = desk.upsert(item("bad"), item("A"))
    desk.drain(job())
    assert desk.actions(*given) == ["waiting", "created"]
    assert "\\x00" in str(desk.show(given[0]).message)
