"""`webhooks`: what operators do with deliveries. How `serve` receives is tested with the receiver."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import Result

from sync_pipelines.database.inbox import Completed, Inbox
from sync_pipelines.database.inbox_storing import NewDelivery

AT = datetime(2024, 5, 6, 12, 30, tzinfo=UTC)
Invoke = Callable[..., Result]


@pytest.fixture
def ids(place: Any) -> list[int]:
    """Four deliveries: one applied, one failed, one waiting, and one of another sync that failed."""
    place.write_stock_job()
    given: dict[str, Any] = {"kind": "upsert", "received_at": AT, "item": '{"sku":"A"}'}
    new = [
        NewDelivery(job="stock", external_id="A-1", **given),
        NewDelivery(
            job="stock",
            kind="event",
            received_at=AT,
            payload='{"id": 7}\n',
            headers={"x-event": "changed"},
            delivery_id="e-7",
        ),
        NewDelivery(job="stock", external_id="A-3", **given),
        NewDelivery(job="other", external_id="B-1", **given),
    ]
    with place.ledger() as ledger:
        inbox = Inbox(ledger)
        stored = [each.id for each in inbox.store_many(new)]
        inbox.complete(
            [Completed(stored[0], "A-1", "updated"), Completed(stored[1], None, None, "KeyError: 'sku'")], AT
        )
        inbox.complete([Completed(stored[3], "B-1", None, "no")], AT)
    return stored


def states(place: Any) -> dict[int, str]:
    with place.ledger() as ledger:
        return {each.id: each.state for each in Inbox(ledger).newest(limit=100)}


class TestList:
    def test_the_newest_come_first(self, invoke: Invoke, ids: list[int]) -> None:
        lines = invoke("webhooks", "list", "stock").stdout.splitlines()
        assert lines[0].split() == [
            "delivery", "sync", "received", "kind", "external", "id", "state", "attempts", "became",
        ]  # fmt: skip
        assert [int(line.split()[0]) for line in lines[1:]] == ids[2::-1]
        assert lines[2].split(maxsplit=6)[4:] == ["event", "failed", "1  KeyError: 'sku'"]

    def test_all_syncs_one_state_or_only_some(self, document: Callable[..., Any], ids: list[int]) -> None:
        listed = document("webhooks", "list", "--all")["deliveries"]
        assert [each["id"] for each in listed] == ids[::-1]
        assert [each["id"] for each in document("webhooks", "list", "--all", "--state", "failed")["deliveries"]] == [
            ids[3], ids[1],
        ]  # fmt: skip
        assert [each["id"] for each in document("webhooks", "list", "stock", "--limit", "1")["deliveries"]] == [ids[2]]
        assert listed[-1] == {
            "id": ids[0], "job": "stock", "kind": "upsert", "external_id": "A-1", "state": "applied",
            "action": "updated", "message": None, "attempts": 1, "received_at": AT.isoformat(), "next_try_at": None,
            "finished_at": AT.isoformat(), "delivery_id": None, "headers": None, "item": {"sku": "A"}, "payload": None,
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            ([], "give the name of a sync job, or --all"),
            (["stock", "--all"], "give the name of a sync job, or --all"),
            (["stock", "--state", "lost"], "--state 'lost' is none of waiting, applied, failed"),
            (["stokc"], "there is no sync job 'stokc'"),
        ],
    )
    def test_what_makes_no_sense_is_said(self, invoke: Invoke, ids: list[int], arguments: list[str], told: str) -> None:
        result = invoke("webhooks", "list", *arguments)
        assert result.exit_code == 2
        assert told in result.stderr

    def test_an_empty_inbox_says_so(self, invoke: Invoke, place: Any) -> None:
        place.write_stock_job()
        result = invoke("webhooks", "list", "stock", "--state", "failed")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no failed deliveries of stock\n")


class TestShow:
    def test_it_has_what_was_sent_and_why_it_failed(self, invoke: Invoke, ids: list[int]) -> None:
        text = invoke("webhooks", "show", str(ids[1])).stdout
        for told in (
            "state",
            "failed",
            "KeyError: 'sku'",
            "sender's id",
            "e-7",
            "header x-event",
            "changed",
            '{"id": 7}',
        ):
            assert told in text

    def test_one_that_waits_says_how_long(self, invoke: Invoke, ids: list[int]) -> None:
        text = invoke("webhooks", "show", str(ids[2])).stdout
        assert "waits" in text
        assert '{"sku":"A"}' in text

    def test_as_a_document(self, document: Callable[..., Any], ids: list[int]) -> None:
        shown = document("webhooks", "show", str(ids[1]))
        assert (shown["payload"], shown["headers"], shown["delivery_id"]) == (
            '{"id": 7}\n',
            {"x-event": "changed"},
            "e-7",
        )

    @pytest.mark.parametrize("number", ["999999", "9" * 30])
    def test_an_unknown_one_is_said(self, invoke: Invoke, ids: list[int], number: str) -> None:
        result = invoke("webhooks", "show", number)
        assert result.exit_code == 2
        assert f"the inbox has no delivery {number}; `sync-pipelines webhooks list --all` lists" in result.stderr


class TestReplay:
    def test_named_ones_wait_again(self, invoke: Invoke, place: Any, ids: list[int]) -> None:
        result = invoke("webhooks", "replay", str(ids[0]), str(ids[1]))
        assert (result.exit_code, result.stdout) == (0, "waiting to be applied again: 2 deliveries\n")
        assert states(place) == {ids[0]: "waiting", ids[1]: "waiting", ids[2]: "waiting", ids[3]: "failed"}

    def test_all_that_failed_of_a_sync_wait_again(
        self, document: Callable[..., Any], place: Any, ids: list[int]
    ) -> None:
        assert document("webhooks", "replay", "--failed", "stock") == {"replayed": [ids[1]]}
        assert document("webhooks", "replay", "--failed", "stock") == {"replayed": []}
        assert states(place)[ids[3]] == "failed"

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            ([], "give the numbers of deliveries, or --failed NAME"),
            (["1", "--failed", "stock"], "give the numbers of deliveries, or --failed NAME"),
            (["--failed", "stokc"], "there is no sync job 'stokc'"),
            (["1", "77", "78"], "the inbox has no delivery 77, 78; "),
        ],
    )
    def test_what_makes_no_sense_changes_nothing(
        self, invoke: Invoke, place: Any, ids: list[int], arguments: list[str], told: str
    ) -> None:
        before = states(place)
        result = invoke("webhooks", "replay", *arguments)
        assert result.exit_code == 2
        assert told in result.stderr
        assert states(place) == before


class TestDrop:
    def test_it_asks_first(self, invoke: Invoke, place: Any, ids: list[int]) -> None:
        declined = invoke("webhooks", "drop", str(ids[0]), stdin="n\n")
        assert declined.exit_code == 1
        assert "Remove 1 delivery for good?" in declined.stderr
        assert len(states(place)) == 4
        agreed = invoke("webhooks", "drop", str(ids[0]), stdin="y\n")
        assert (agreed.exit_code, agreed.stdout) == (0, "removed: 1 delivery\n")
        assert len(states(place)) == 3

    def test_without_asking(self, document: Callable[..., Any], place: Any, ids: list[int]) -> None:
        assert document("webhooks", "drop", str(ids[0]), str(ids[2]), "--yes") == {"dropped": [ids[0], ids[2]]}
        assert sorted(states(place)) == [ids[1], ids[3]]

    def test_a_mistyped_number_drops_nothing(self, invoke: Invoke, place: Any, ids: list[int]) -> None:
        result = invoke("webhooks", "drop", str(ids[0]), "777", "--yes")
        assert result.exit_code == 2
        assert "no delivery 777" in result.stderr
        assert "nothing was done" in result.stderr
        assert len(states(place)) == 4


def test_without_its_packages_the_receiver_says_what_to_install(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "sync_pipelines.cli.serve", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = invoke("webhooks", "serve")
    assert result.exit_code == 2
    assert "the receiver needs uvicorn; install it: pip install 'sync-pipelines[webhooks]'" in result.stderr


def test_help_names_the_commands(invoke: Invoke) -> None:
    text = invoke("webhooks", "--help").stdout
    assert [each for each in ("serve", "list", "show", "replay", "drop") if each not in text] == []
