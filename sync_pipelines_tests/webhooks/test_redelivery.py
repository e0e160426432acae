"""A delivery that is sent again: it waits again if it has failed, and nothing is done if it was applied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sync_pipelines.database.inbox import Completed
from sync_pipelines.database.ledger import RunRow, open_ledger
from sync_pipelines.delivery.single_items import trigger_item
from sync_pipelines.engine.changes import Delete, Refetch
from sync_pipelines.engine.results import ItemResult
from sync_pipelines.errors import SyncBusyError
from sync_pipelines.runner.changes.drain import Drain
from sync_pipelines.runner.changes.single_item import apply_change
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.settings.model import Settings
from sync_pipelines.testing import MemoryTarget
from sync_pipelines_tests.runner.desk import AT_ONCE
from sync_pipelines_tests.webhooks.conftest import Client, make_job, receiving

pytestmark = pytest.mark.each_database
ITEM = {"sku": "A-1", "quantity": 5}
NAMED = {"X-Id": "e-1"}


def target_job(target: MemoryTarget, **webhook: Any) -> Any:
    plain = make_job(delivery_id="X-Id", **webhook)
    return replace(plain, target=target, find_local=None, create=None, update=None)


@pytest.fixture
def drained(tmp_path: Path, database_url: str) -> Callable[..., None]:
    """Applies what waits, `hours` later; each has one attempt."""

    def drain(job: Any, hours: float = 0) -> None:
        settings = Settings.model_validate(
            {"data_dir": tmp_path, "ledger_url": database_url, "database_url": None, "delivery_attempts": 1}
        )
        with open_workspace(settings) as workspace:
            later = replace(workspace, clock=lambda: datetime.now(UTC) + timedelta(hours=hours))
            Drain(job, later).run(AT_ONCE)

    return drain


def states(client: Client) -> list[tuple[str, str | None]]:
    return [(row.state, row.action) for row in client.rows()]


def test_one_that_failed_for_good_waits_again_and_is_applied(database_url: str, drained: Callable[..., None]) -> None:
    target = MemoryTarget()
    job = target_job(target)
    broken = replace(job, should_skip=lambda item: item["nothing"])
    with receiving(database_url, job) as client:
        first = client.post("stock", ITEM, NAMED)
        drained(broken)
        assert states(client) == [("failed", None)]
        again = client.post("stock", ITEM, NAMED)
        assert (again.status, again.document) == (202, first.document)
        assert states(client) == [("waiting", None)]
        drained(job)
        assert (states(client), target.records) == ([("applied", "created")], {"A-1": ITEM})
        last = client.post("stock", ITEM, NAMED)
        assert (last.status, states(client)) == (200, [("applied", "created")])


def test_one_whose_parse_was_mended_means_what_it_means_now(database_url: str, drained: Callable[..., None]) -> None:
    """It came as an event that could not be parsed, or with a meaning that was wrong."""
    target = MemoryTarget()
    before = [
        target_job(target, parse=lambda event: event.body["nothing"]),
        target_job(target, parse=lambda event: {**event.body, "sku": 7}),
    ]
    job = target_job(target, parse=lambda event: event.body)
    for number, broken in enumerate(before):
        named = {"X-Id": f"e-{number}"}
        with receiving(database_url, broken) as client:
            assert client.post("stock", {**ITEM, "n": number}, named).status == 202
        drained(replace(broken, should_skip=lambda item: item["nothing"]))
        with receiving(database_url, job) as client:
            assert client.post("stock", {**ITEM, "n": number}, named).status == 202
            drained(job)
            assert target.records == {"A-1": {**ITEM, "n": number}}
            assert [row.state for row in client.rows()] == ["applied"] * (number + 1)


def test_the_same_name_with_another_body_is_another_delivery(database_url: str, drained: Callable[..., None]) -> None:
    target = MemoryTarget()
    job = target_job(target)
    with receiving(database_url, job) as client:
        bodies = [ITEM, {**ITEM, "quantity": 6}, {"sku": "B", "quantity": 1}]
        replies = [client.post("stock", body, NAMED) for body in bodies for _ in range(2)]
        assert [each.status for each in replies] == [202, 200] * 3
        assert len({each.document["delivery"] for each in replies}) == 3
        drained(job)
        assert target.records == {"A-1": bodies[1], "B": bodies[2]}
        assert [client.post("stock", body, NAMED).status for body in bodies] == [200] * 3
        assert len(client.rows()) == 3


def test_a_sender_that_counts_its_attempts_in_the_body_sends_the_same_item(database_url: str) -> None:
    job = make_job(delivery_id="X-Id", parse=lambda event: event.body["item"])
    with receiving(database_url, job) as client:
        statuses = [client.post("stock", {"item": ITEM, "attempt": n}, NAMED).status for n in range(3)]
        assert (statuses, len(client.rows())) == ([202, 200, 200], 1)


def test_a_notification_with_another_body_is_never_taken_for_the_one_before(database_url: str) -> None:
    """What it says is not in it: the source has to be asked again."""
    job = make_job(delivery_id="X-Id", parse=lambda event: Refetch(event.body["sku"]))
    object.__setattr__(job, "fetch_one", dict)
    with receiving(database_url, job) as client:
        statuses = [client.post("stock", {**ITEM, "at": n}, NAMED).status for n in (1, 1, 2)]
        assert (statuses, len(client.rows())) == ([202, 200, 202], 2)


def test_one_that_is_sent_again_does_not_undo_what_came_since(database_url: str, drained: Callable[..., None]) -> None:
    target = MemoryTarget()
    job = target_job(target)
    with receiving(database_url, job) as client:
        client.post("stock", ITEM, NAMED)
        drained(replace(job, should_skip=lambda item: item["nothing"]))
        client.post("stock", {**ITEM, "quantity": 9}, {"X-Id": "e-2"})
        drained(job)
        assert client.post("stock", ITEM, NAMED).status == 202
        drained(job)
        assert target.records == {"A-1": {**ITEM, "quantity": 9}}
        assert states(client) == [("applied", "duplicate"), ("applied", "created")]


def test_one_that_waits_for_its_next_try_is_tried_at_once_when_it_is_sent_again(
    database_url: str, tmp_path: Path
) -> None:
    target = MemoryTarget()
    job = target_job(target)
    with receiving(database_url, job) as client:
        client.post("stock", ITEM, NAMED)
        [row] = client.rows()
        later = datetime.now(UTC) + timedelta(hours=6)
        client.inbox().complete([Completed(row.id, None, None, "no", later)], datetime.now(UTC))
        assert client.post("stock", ITEM, NAMED).status == 200
        [row] = client.rows()
        assert (row.state, row.attempts, row.message) == ("waiting", 0, None)
        assert row.next_try_at is not None
        assert row.next_try_at <= datetime.now(UTC)


def test_of_several_changes_only_those_that_failed_wait_again(database_url: str, drained: Callable[..., None]) -> None:
    target = MemoryTarget()
    job = target_job(target, parse=lambda event: event.body)
    body = [{"sku": "A"}, {"sku": "B"}, {"sku": "C"}]
    with receiving(database_url, job) as client:
        client.post("stock", body, NAMED)
        drained(replace(job, should_skip=lambda item: item["nothing"] if item["sku"] == "B" else False))
        assert [row.state for row in client.rows()] == ["applied", "failed", "applied"]
        finished = [row.finished_at for row in client.rows()]
        assert client.post("stock", body, NAMED).status == 202
        assert [row.state for row in client.rows()] == ["applied", "waiting", "applied"]
        drained(job)
        assert sorted(target.records) == ["A", "B", "C"]
        assert [row.finished_at for row in client.rows()][::2] == finished[::2], "the others are not applied again"


class TestInline:
    def test_one_that_waits_and_failed_is_applied_when_it_is_sent_again(self, database_url: str) -> None:
        busy = [True]

        def apply(job: Any, change: Any) -> Any:
            if busy[0]:
                raise SyncBusyError("a run is under way")
            return ItemResult("created", change.item["sku"])

        with receiving(database_url, make_job(mode="inline", delivery_id="X-Id"), apply=apply) as client:
            assert client.post("stock", ITEM, NAMED).status == 202
            busy[0] = False
            assert client.post("stock", ITEM, NAMED).status == 202, "it waits, and its turn comes"
            [row] = client.rows()
            client.inbox().complete([Completed(row.id, None, None, "no")], datetime.now(UTC))
            reply = client.post("stock", ITEM, NAMED)
            assert (reply.status, reply.document["action"]) == (200, "created")
            [row] = client.rows()
            assert (row.state, row.action, row.message) == ("applied", "created", None)
            other = client.post("stock", {**ITEM, "quantity": 6}, NAMED)
            assert (other.status, len(client.rows())) == (200, 2)

    @pytest.mark.parametrize("by", ["a later delivery", "a whole run"])
    def test_one_that_failed_is_left_to_the_drain_if_anything_newer_may_have_come(
        self, database_url: str, by: str, drained: Callable[..., None]
    ) -> None:
        target = MemoryTarget()
        job = target_job(target, mode="inline")
        with receiving(database_url, job, apply=partial(apply_change, ledger=None)) as client:
            broken = replace(job, webhook=replace(job.webhook, mode="inbox"), should_skip=lambda item: item["nothing"])
            with receiving(database_url, broken) as stored:
                assert stored.post("stock", ITEM, NAMED).status == 202
            drained(broken)
            assert states(client) == [("failed", None)]
            if by == "a later delivery":
                assert client.post("stock", {**ITEM, "quantity": 9}, {"X-Id": "e-2"}).status == 200
            else:
                now = datetime.now(UTC)
                with open_ledger(database_url) as ledger:
                    ledger.start_run(RunRow("r", "stock", "full", None, {}, now))
                    ledger.begin_apply("r", now)
                    ledger.finish_run("r", outcome="clean", counts={}, failure=None, applied_all=True, at=now)
            written = dict(target.records)
            assert client.post("stock", ITEM, NAMED).status == 202
            drained(job)
            assert target.records == written
            assert states(client)[0] == ("applied", "duplicate" if by == "a later delivery" else "skipped")


def test_trigger_item_has_a_failed_one_wait_again(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path, "ledger_url": database_url, "database_url": None})
    job = make_job()
    monkeypatch.setattr("sync_pipelines.delivery.single_items.find_job", lambda _: job)
    number = trigger_item("stock", ITEM, delivery_id="e-1", settings=settings)
    with open_workspace(settings) as workspace:
        workspace.inbox.complete([Completed(number, None, None, "no")], datetime.now(UTC))
        assert trigger_item("stock", ITEM, delivery_id="e-1", settings=settings) == number
        row = workspace.inbox.show(number)
        assert row is not None
        assert row.state == "waiting"
        others = [trigger_item("stock", each, delivery_id="e-1", settings=settings) for each in (
            {**ITEM, "quantity": 6}, Delete("A-1"), Delete("A-1"), Delete("B"),
        )]  # fmt: skip
        assert (len({number, *others}), others[1]) == (4, others[2])
