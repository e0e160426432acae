"""An event that is parsed when it is applied, and carries several changes: each has its own outcome and its place."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import Engine

from sync_pipelines.database.inbox import Inbox
from sync_pipelines.engine.changes import Delete, Refetch, Upsert
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.webhook_signatures import Unsigned
from sync_pipelines.engine.webhooks import Webhook
from sync_pipelines.runner.changes.drain import Drain
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.settings.model import Settings
from sync_pipelines.testing import MemoryTarget
from sync_pipelines_tests.children import exit_code, fork
from sync_pipelines_tests.runner import drain_child as child
from sync_pipelines_tests.runner.crash_child import killed, killed_at
from sync_pipelines_tests.runner.desk import AT_ONCE, Clock, Desk

Make = Callable[..., SyncJob[Any, Any]]
pytestmark = pytest.mark.each_database


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(data_dir=tmp_path / "data", ledger_url=database_url, database_url=None)


def item(sku: str, stock: int = 1) -> dict[str, Any]:
    return {"sku": sku, "stock": stock}


class Parse:
    """Gives the changes in a body; until it is mended, only of bodies that have no `late` ones."""

    def __init__(self) -> None:
        self.is_mended = False

    def __call__(self, event: Any) -> Any:
        for each in event.body:
            if each.get("late") and not self.is_mended:
                raise KeyError("colour")
            yield Delete(each["gone"]) if "gone" in each else {name: each[name] for name in each if name != "late"}

    @property
    def webhook(self) -> Webhook:
        return Webhook(signature=Unsigned(), parse=self)


def test_each_change_has_its_own_outcome_and_only_what_failed_is_tried_again(
    job: Make, desk: Desk, target: MemoryTarget, clock: Clock
) -> None:
    target.records["old"] = item("old")
    tried: list[str] = []

    def should_skip(each: Any) -> bool:
        tried.append(each["sku"])
        if each["sku"] == "bad" and len(tried) < 4:
            raise ValueError("no such colour")
        return False

    [given] = desk.event([item("A"), {"gone": "old"}, item("bad"), {"no": "id"}, item("B")])
    able = job(webhook=Parse().webhook, should_skip=should_skip)
    results = desk.drain(able)
    rows = desk.workspace.inbox.newest("stock")[::-1]
    assert [row.action or row.message for row in rows] == [
        "created",
        "deleted",
        "should_skip: ValueError: no such colour (test_several_changes.py:69, in should_skip)",
        "ItemError: the item has no field 'sku'; it has: no",
        "created",
    ]
    assert (rows[0].id, [row.came_with for row in rows]) == (given, [None] + [given] * 4)
    assert (results.created, results.deleted, results.error_count) == (2, 1, 2)
    clock.advance(10)
    desk.drain(able)
    assert desk.actions(*(row.id for row in rows)) == ["created", "deleted", "created", "waiting", "created"]
    assert tried == ["A", "bad", "B", "bad"]


def test_of_no_change_nothing_is_left_to_do(job: Make, desk: Desk) -> None:
    given = desk.event([], [])
    desk.drain(job(webhook=Parse().webhook))
    assert desk.actions(*given) == ["skipped", "skipped"]


def test_several_changes_of_one_record_count_in_their_order(job: Make, desk: Desk, target: MemoryTarget) -> None:
    desk.event([item("A", 1), {"gone": "A"}, item("A", 3)], [item("B", 1), item("B", 2), {"gone": "B"}])
    desk.drain(job(webhook=Parse().webhook))
    assert target.records == {"A": item("A", 3)}
    assert desk.workspace.inbox.count("stock") == 0


def test_what_came_since_is_not_undone_by_an_event_that_could_not_be_parsed_before(
    job: Make, desk: Desk, target: MemoryTarget, clock: Clock
) -> None:
    parse = Parse()
    late = {"late": True}
    desk.event([item("C", 1) | late, item("A", 1), {"gone": "B"}, item("D", 1), item("A", 2)])
    desk.upsert(item("A", 9), item("B", 9))
    desk.drain(job(webhook=parse.webhook))
    parse.is_mended = True
    desk.upsert(item("D", 9))  # it waits
    clock.advance(10)
    desk.drain(job(webhook=parse.webhook))
    assert target.records == {"A": item("A", 9), "B": item("B", 9), "C": item("C", 1), "D": item("D", 9)}
    assert desk.workspace.inbox.count("stock") == 0


@pytest.mark.parametrize("seed", range(4))
def test_whenever_it_can_be_parsed_the_newest_state_wins(job: Make, desk: Desk, clock: Clock, seed: int) -> None:
    """Events and single deliveries in any order and in small batches; some events could not be parsed at first."""
    rng, parse, target = random.Random(seed), Parse(), MemoryTarget()
    expected: dict[str, Any] = {}
    for number in range(60):
        changes = [item(rng.choice("ABCDE"), number * 10 + place) for place in range(rng.randint(0, 3))]
        gone = [{"gone": rng.choice("ABCDE")}] if rng.random() < 0.2 else []
        for change in [*changes, *gone]:
            if "gone" in change:
                expected.pop(change["gone"], None)
            else:
                expected[change["sku"]] = change
        if len(changes) == 1 and not gone and rng.random() < 0.5:
            desk.upsert(*changes)
        else:
            desk.event([*({**change, "late": True} if rng.random() < 0.3 else change for change in changes), *gone])
        if rng.random() < 0.1:
            desk.drain(job(target=target, webhook=parse.webhook))
    parse.is_mended = True
    clock.advance(100_000)
    with patch("sync_pipelines.runner.changes.drain.BATCH_SIZE", 7):
        desk.drain(job(target=target, webhook=parse.webhook))
    assert desk.workspace.inbox.count("stock") == 0
    assert target.records == expected


def test_one_that_is_sent_again_while_it_is_not_split_is_known_as_a_whole(job: Make, desk: Desk) -> None:
    from sync_pipelines.database.inbox_storing import NewDelivery
    from sync_pipelines.engine.stored_changes import stored_change
    from sync_pipelines.webhooks.parts import parts_of

    able, body = job(webhook=Parse().webhook), '[{"sku":"A"},{"sku":"B"}]'
    whole = NewDelivery(job="stock", kind="event", received_at=desk.workspace.clock(), payload=body, delivery_id="e-1")
    parts = parts_of(whole, [stored_change(able, Upsert({"sku": sku}), sku) for sku in "AB"])
    inbox = desk.workspace.inbox
    inbox.store_many([whole])
    desk.drain(able)
    assert [each.repeated for each in inbox.store_many(parts)] == [True, True]
    assert [row.action for row in inbox.newest("stock")] == ["created", "created"]


def test_notifications_in_one_delivery_are_asked_for_each(job: Make, desk: Desk, target: MemoryTarget) -> None:
    webhook = Webhook(signature=Unsigned(), parse=lambda event: [Refetch(each) for each in event.body])
    desk.event(["A", "B", "A"])
    desk.drain(job(webhook=webhook, fetch_one=lambda sku: item(sku, 5)))
    assert target.records == {"A": item("A", 5), "B": item("B", 5)}


def drain_and_be_killed(settings: Settings, url: str, instant: str, number: int) -> None:
    steps: dict[str, tuple[Any, str]] = {
        "split": (Inbox, "split"), "complete": (Inbox, "complete"), "write": (child.BatchWriter, "write")
    }  # fmt: skip
    word, _, step = instant.partition(" ")
    owner, name = steps[step]
    killing = patch.object(owner, name, killed_at(getattr(owner, name), number, after=word == "after"))
    with open_workspace(settings) as workspace, killing, child.small_batches():
        Drain(several_job(url), workspace).run(AT_ONCE)


def drain_and_be_killed_some_time(settings: Settings, url: str, after_s: float) -> None:
    threading.Timer(after_s, killed).start()
    with open_workspace(settings) as workspace, child.small_batches():
        Drain(several_job(url), workspace).run(AT_ONCE)


def several_job(url: str) -> SyncJob[Any, Any]:
    return child.job(url, get_version=None, webhook=Parse().webhook)


def deliver(settings: Settings, url: str) -> dict[int, int]:
    """Events of four items each, and one that the table refuses; gives what the table has in the end."""
    child.make_table(url)
    expected = {0: 100_000, 1: 100_001}
    with open_workspace(settings) as workspace:
        desk = Desk(workspace)
        for number in range(12):
            changes = [{"sku": (number + place) % 9, "stock": number * 10 + place} for place in range(4)]
            desk.event([*changes, {"sku": 50 + number, "stock": child.BAD_STOCK}])
            expected |= {each["sku"]: each["stock"] for each in changes}
    return expected


def assert_accounted(settings: Settings, database: Engine, expected: dict[int, int]) -> None:
    """Each change is applied or waits with its reason, and the table is what they say."""
    with open_workspace(settings) as workspace:
        results = Drain(several_job(database.url.render_as_string(hide_password=False)), workspace).run(AT_ONCE)
        assert results.accounts_balance
        rows = workspace.inbox.newest("stock", limit=1_000)
    assert len(rows) == 60
    assert sum(row.state == "applied" for row in rows) == 48
    assert {row.attempts for row in rows if row.state == "waiting"} == {1}
    with database.begin() as connection:
        found = connection.exec_driver_sql("SELECT sku, stock FROM variants").all()
    assert {row[0]: row[1] for row in found} == expected


@pytest.mark.parametrize(
    "instant",
    [
        "before split",
        "after split",
        "after write",
        *(pytest.param(each, marks=pytest.mark.soak) for each in ("before write", "before complete", "after complete")),
    ],
)
def test_after_a_kill_each_change_is_applied_once_or_fails_with_its_reason(
    settings: Settings, database: Engine, database_url: str, instant: str
) -> None:
    expected = deliver(settings, database_url)
    assert exit_code(fork(drain_and_be_killed, settings, database_url, instant, 2)) == -signal.SIGKILL
    assert_accounted(settings, database, expected)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
def test_after_kills_at_random_instants_it_is_so_too(
    settings: Settings, database: Engine, database_url: str, seed: int
) -> None:
    rng, expected = random.Random(seed), deliver(settings, database_url)
    for _ in range(4):
        code = exit_code(fork(drain_and_be_killed_some_time, settings, database_url, rng.uniform(0.02, 0.5)))
        assert code in {0, -signal.SIGKILL}
    assert_accounted(settings, database, expected)
