"""The writer: what comes together is stored together, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from sync_pipelines.database.inbox_storing import NewDelivery, Stored
from sync_pipelines.errors import RunError
from sync_pipelines.webhooks.delivery_writer import MAX_BATCH, DeliveryWriter, NotStoredError

AT = datetime(2024, 5, 6, tzinfo=UTC)


def delivery(number: int) -> NewDelivery:
    return NewDelivery(job="stock", kind="upsert", received_at=AT, external_id=str(number), item="{}")


def numbers(deliveries: Sequence[NewDelivery]) -> list[int]:
    return [int(each.external_id or "") for each in deliveries]


class Place:
    """Stores in memory, at a gate that can be closed."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.errors: dict[int, Exception] = {}

    def store(self, deliveries: Sequence[NewDelivery]) -> list[Stored]:
        assert self.gate.wait(10)
        for number in numbers(deliveries):
            if number in self.errors:
                raise self.errors[number]
        self.batches.append(numbers(deliveries))
        return [Stored(1_000 + number) for number in numbers(deliveries)]


@pytest.fixture
def place() -> Place:
    return Place()


async def store_all(writer: DeliveryWriter, count: int, meanwhile: Callable[[], object] = lambda: None) -> list[Any]:
    tasks = [asyncio.create_task(writer.store(delivery(number))) for number in range(count)]
    await asyncio.sleep(0.05)
    meanwhile()
    return list(await asyncio.gather(*tasks, return_exceptions=True))


def run(work: Any, writer: DeliveryWriter) -> Any:
    try:
        return asyncio.run(work)
    finally:
        writer.close()


def test_what_gathers_while_a_transaction_commits_is_stored_in_the_next_one(place: Place) -> None:
    place.gate.clear()
    writer = DeliveryWriter(place.store)
    stored = run(store_all(writer, MAX_BATCH + 50, place.gate.set), writer)
    assert [each.id for each in stored] == list(range(1_000, 1_550))
    assert [each for batch in place.batches for each in batch] == list(range(MAX_BATCH + 50))
    assert len(place.batches) <= 3
    assert max(map(len, place.batches)) <= MAX_BATCH


def test_nobody_waits_for_ever_and_what_nobody_waits_for_is_not_stored(place: Place) -> None:
    place.gate.clear()
    writer = DeliveryWriter(place.store, timeout_s=0.2)

    async def work() -> None:
        first = asyncio.create_task(writer.store(delivery(1)))
        await asyncio.sleep(0.05)
        with pytest.raises(NotStoredError, match="did not answer in time"):
            await writer.store(delivery(2))
        with pytest.raises(NotStoredError):
            await first
        place.gate.set()
        assert (await writer.store(delivery(3))).id == 1_003

    run(work(), writer)
    assert place.batches == [[1], [3]], "the first was under way, so that nobody knows"


def test_too_many_are_refused_at_once(place: Place) -> None:
    place.gate.clear()
    writer = DeliveryWriter(place.store, max_waiting=5)
    stored = run(store_all(writer, 20, place.gate.set), writer)
    refused = [each for each in stored if isinstance(each, NotStoredError)]
    assert len(refused) >= 10
    assert all("too many" in str(each) for each in refused)
    assert sum(map(len, place.batches)) == 20 - len(refused)


def test_one_that_cannot_be_stored_does_not_take_the_others_with_it(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.errors[3] = ValueError("bad")
    writer = DeliveryWriter(place.store)
    stored = run(store_all(writer, 6), writer)
    assert [isinstance(each, Stored) for each in stored] == [True, True, True, False, True, True]
    assert "stock: a delivery can't be stored: ValueError: bad" in caplog.text


def test_a_ledger_that_is_away_is_told_to_all_and_logged_once(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.errors |= dict.fromkeys(range(10), RunError("the ledger is away"))
    writer = DeliveryWriter(place.store)

    async def work() -> list[Any]:
        failed = await store_all(writer, 10)
        place.errors.clear()
        return [*failed, await writer.store(delivery(11))]

    *failed, stored = run(work(), writer)
    assert {type(each) for each in failed} == {NotStoredError}
    assert stored.id == 1_011
    assert caplog.text.count("the ledger is away") == 1
    assert "the ledger answers again" in caplog.text


def test_closing_stores_what_waits_and_a_later_delivery_starts_anew(place: Place) -> None:
    place.gate.clear()
    writer = DeliveryWriter(place.store)
    threading.Timer(0.2, place.gate.set).start()

    async def work() -> list[Any]:
        tasks = [asyncio.create_task(writer.store(delivery(number))) for number in range(10)]
        await asyncio.sleep(0.05)
        await asyncio.to_thread(writer.close)
        return list(await asyncio.gather(*tasks))

    assert len(run(work(), writer)) == 10
    assert asyncio.run(writer.store(delivery(99))).id == 1_099
    writer.close()
    writer.close()


def test_several_event_loops_may_share_it(place: Place) -> None:
    writer = DeliveryWriter(place.store)
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.extend(asyncio.run(store_all(writer, 20)))) for _ in range(3)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert len([each for each in found if isinstance(each, Stored)]) == 60
