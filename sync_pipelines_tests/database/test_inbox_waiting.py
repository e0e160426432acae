"""The inbox: what waits is found by its item, by an index."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from sync_pipelines.database.inbox import Completed, Inbox
from sync_pipelines.database.inbox_storing import NewDelivery
from sync_pipelines.database.ledger import Ledger, open_ledger

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    with open_ledger(database_url) as opened:
        yield opened


@pytest.fixture
def inbox(ledger: Ledger) -> Inbox:
    return Inbox(ledger)


def store(inbox: Inbox, *external_ids: str | None, job: str = "stock") -> list[int]:
    new = [NewDelivery(job=job, kind="delete", received_at=NOON, external_id=each) for each in external_ids]
    return [each.id for each in inbox.store_many(new)]


def ids(inbox: Inbox, *external_ids: str) -> list[int]:
    return [each.id for each in inbox.waiting_of("stock", list(external_ids), after=0, max_bytes=1_000)]


def test_what_waits_for_an_item_is_found_in_its_order_also_what_is_not_due(inbox: Inbox) -> None:
    first, _, second = store(inbox, "A", "B", "A")
    store(inbox, "A", job="other")
    settled, nameless = store(inbox, "A", None)
    inbox.complete(
        [Completed(first, "A", None, "no", NOON + timedelta(hours=1)), Completed(settled, "A", "created")], NOON
    )
    assert ids(inbox, "A") == [first, second]
    assert [each.id for each in inbox.oldest_waiting("stock", 9, due_at=NOON)] == [second - 1, second, nameless]


def test_of_many_large_ones_no_more_is_read_than_fits(inbox: Inbox) -> None:
    """At least one, and whatever has been tried: it must not come after a newer one."""
    new = [NewDelivery(job="stock", kind="upsert", received_at=NOON, external_id="A", item="é" * 400) for _ in range(5)]
    first, *_, tried = (each.id for each in inbox.store_many(new))
    inbox.complete([Completed(tried, "A", None, "no", NOON + timedelta(hours=1))], NOON)
    assert [each.id for each in inbox.oldest_waiting("stock", 9, NOON, max_bytes=1)] == [first]
    assert [each.id for each in inbox.oldest_waiting("stock", 9, NOON, max_bytes=1_700)][:2] == [first, first + 1]
    assert [each.id for each in inbox.waiting_of("stock", ["A"], after=first, max_bytes=799)] in (
        [tried],  # PostgreSQL counts bytes
        [first + 1, tried],
    )
    assert [each.id for each in inbox.waiting_of("stock", ["A"], after=first, max_bytes=0)] == [tried]


def test_ids_that_begin_alike_are_not_mistaken_for_each_other(inbox: Inbox) -> None:
    long = "x" * 200
    one, _, other = store(inbox, long + "1", long + "2", long)
    assert ids(inbox, long + "1") == [one]
    assert ids(inbox, long) == [other]


def test_many_items_are_looked_for_in_parts(inbox: Inbox) -> None:
    stored = store(inbox, *(f"A{number}" for number in range(1_200)))
    assert ids(inbox, *(f"A{number}" for number in range(1_300))) == stored


def test_an_id_with_a_nul_is_found(inbox: Inbox) -> None:
    [stored] = store(inbox, "a\x00b")
    assert ids(inbox, "a\x00b") == [stored]


def test_on_postgresql_the_deliveries_for_an_item_are_found_by_their_index(postgres: Engine, postgres_url: str) -> None:
    with open_ledger(postgres_url) as opened:
        inbox = Inbox(opened)
        store(inbox, *(f"A{number}" for number in range(20)))
    statement = (
        "EXPLAIN SELECT * FROM sync_pipelines.inbox WHERE job = 'stock' AND state = 'waiting' "
        "AND substr(external_id, 1, 200) IN ('A7', 'A8') AND external_id IN ('A7', 'A8')"
    )
    with postgres.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        connection.execute(text("SET LOCAL enable_bitmapscan = off"))
        plan = "\n".join(row[0] for row in connection.execute(text(statement)))
    assert "ix_inbox_external_id" in plan, plan


def test_the_newest_delivery_that_was_applied_is_known_per_item(inbox: Inbox) -> None:
    first, second, other, late = store(inbox, "A", "A", "B", "A")
    inbox.complete(
        [Completed(first, "A", "created"), Completed(second, "A", "updated"), Completed(other, "B", None)], NOON
    )
    assert inbox.newest_applied("stock", ["A", "B", "C"], since=0) == {"A": second}
    assert inbox.newest_applied("stock", ["A"], since=second) == {}
    assert inbox.show(late) is not None
