"""Whether something newer has been applied, case by case, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sync_pipelines.database.applied_since import AppliedSince
from sync_pipelines.database.inbox import Completed, Inbox
from sync_pipelines.database.ledger import Ledger, RunRow, open_ledger

NOON = datetime(2026, 5, 6, 12, 0, tzinfo=UTC)


def at(minute: int) -> datetime:
    return NOON + timedelta(minutes=minute)


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    with open_ledger(database_url) as opened:
        yield opened


def run(  # noqa: PLR0913 - what a run may be
    ledger: Ledger,
    minute: int,
    kind: str = "full",
    *,
    outcome: str | None = "clean",
    applied_all: bool = True,
    applies: bool = True,
    **options: Any,
) -> RunRow:
    """A run that begins at that minute and is done half a minute later; without an outcome it is killed."""
    row = RunRow(f"{kind}-{minute}", "stock", kind, None, options, at(minute))
    ledger.start_run(row)
    if applies:
        ledger.begin_apply(row.id, at(minute))
    if outcome is not None:
        end, counts = at(minute) + timedelta(seconds=30), {"fetched": 1}
        failure = "no" if outcome == "failed" else None
        ledger.finish_run(row.id, outcome=outcome, counts=counts, failure=failure, applied_all=applied_all, at=end)
    return row


def deliver(ledger: Ledger, minute: int, external_id: str, action: str) -> None:
    """A delivery that is applied at that minute."""
    inbox = Inbox(ledger)
    inbox.complete([Completed(inbox.store("stock", "{}", at(minute)), external_id, action)], at(minute))


def test_a_whole_run_that_began_later_and_writes_is_newer(ledger: Ledger) -> None:
    since, first = AppliedSince(ledger, "stock"), run(ledger, 0)
    run(ledger, 1, "drain")
    run(ledger, 2, "dry run")
    run(ledger, 3, applies=False)
    assert since.whole_run(first) is None
    later = run(ledger, 4, outcome=None)
    assert since.whole_run(first) == later.id
    assert since.whole_run(later) is None


@pytest.mark.parametrize("asks_source", [False, True])
def test_a_retry_is_newer_only_where_the_source_was_asked(ledger: Ledger, asks_source: bool) -> None:  # noqa: FBT001 - parametrised
    since = AppliedSince(ledger, "stock", asks_source=asks_source)
    run(ledger, 1, "retry")
    assert since.single_items(at(0)) is asks_source
    assert since.single_items(at(2)) is False


def test_a_delivery_is_newer_if_it_was_written(ledger: Ledger) -> None:
    since = AppliedSince(ledger, "stock")
    deliver(ledger, 1, "A", "unchanged")
    assert since.single_items(at(0)) is False
    deliver(ledger, 2, "B", "deleted")
    assert since.single_items(at(0)) is True
    assert since.single_items(at(2)) is False
    assert since.item_ids(at(0)) == {"A"}  # what was deleted has not come


def test_fetches_since_are_the_newest_whole_one_and_later_parts_whatever_else_ran(ledger: Ledger) -> None:
    since = AppliedSince(ledger, "stock")
    run(ledger, 1)
    whole = run(ledger, 2, outcome="guarded")
    run(ledger, 3, outcome="failed")
    part = run(ledger, 4, only=["A"])
    for minute in range(10, 260):
        run(ledger, minute, "drain")
    assert [each.id for each in since.fetches(at(0))] == [part.id, whole.id]
    assert since.fetches(at(4)) == []


def test_a_killed_run_may_have_applied_until_the_next_one_began(ledger: Ledger) -> None:
    since = AppliedSince(ledger, "stock")
    assert since.until(at(9)) is None
    run(ledger, 0)
    assert since.until(at(9)) == at(0) + timedelta(seconds=30)
    run(ledger, 1, outcome=None)
    assert since.until(at(9)) == at(9)
    run(ledger, 2, "drain")
    assert since.until(at(9)) == at(2)


def test_what_a_run_has_applied_is_uncertain_until_it_is_known_to_have_applied_all(ledger: Ledger) -> None:
    since = AppliedSince(ledger, "stock")
    run(ledger, 0, outcome="failed")  # of its hook, or of too many items
    assert since.uncertain_since() is None
    run(ledger, 1, outcome="failed", applied_all=False)
    assert since.uncertain_since() == at(1)
    run(ledger, 2, outcome=None)
    run(ledger, 3, outcome="failed", applied_all=False, applies=False)  # in its fetch
    assert since.uncertain_since() == at(2)
