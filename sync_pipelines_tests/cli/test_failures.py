"""`failures` and `retry`: what operators do with items that failed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import Result

from sync_pipelines.database.inbox import Completed, Inbox
from sync_pipelines.database.inbox_storing import NewDelivery

Invoke = Callable[..., Result]
Document = Callable[..., Any]

JOB = """
    import json
    from pathlib import Path
    from sync_pipelines import Retry, SyncJob

    def fetch():
        yield from json.loads(Path("items.json").read_text())

    def create(item):
        if item["stock"] < 0:
            raise ValueError(f"{item['sku']}: stock {item['stock']} is below zero")

    JOB = SyncJob(
        name="stock", fetch_external=fetch, get_external_id="sku", find_local=lambda sku: None, create=create,
        update=max, retry=Retry(attempts=3, first_wait_s=0.001),
        fetch_one=lambda sku: next((item for item in fetch() if item["sku"] == sku), None),
    )
"""


@pytest.fixture
def failed(place: Any, invoke: Invoke) -> Any:
    """Two items of three have failed."""
    place.write_job("stock", JOB)
    give(place, {"A-1": -1, "A-2": -2, "A-3": 3})
    assert invoke("run", "stock").exit_code == 1
    return place


def give(place: Any, stock: dict[str, int]) -> None:
    items = [f'{{"sku": "{sku}", "stock": {count}, "api_key": "hunter2"}}' for sku, count in stock.items()]
    (place.root / "items.json").write_text(f"[{', '.join(items)}]")


def test_failures_are_shown_by_cause(failed: Any, invoke: Invoke) -> None:
    result = invoke("failures", "stock")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert len(lines) == 2
    assert lines[1].split()[0] == "2"
    assert "create: ValueError: <id>: stock <number> is below zero (stock.py:" in lines[1]
    assert "A-1, A-2" in lines[1]


def test_failures_are_listed_one_by_one(failed: Any, invoke: Invoke) -> None:
    lines = invoke("failures", "stock", "--list").stdout.splitlines()
    assert lines[0].split("  ")[0] == "external id"
    assert sorted(line.split()[0] for line in lines[1:]) == ["A-1", "A-2"]
    assert all("open" in line and "is below zero" in line for line in lines[1:])
    limited = invoke("failures", "stock", "--list", "--limit", "1")
    assert "1 of 2 failed items are shown" in limited.stderr


def test_an_item_without_an_id_is_shown_in_the_list_since_nothing_else_can_name_it(
    failed: Any, invoke: Invoke, document: Document
) -> None:
    (failed.root / "items.json").write_text('[{"sku": null, "stock": 7, "api_key": "hunter2"}]')
    assert invoke("run", "stock").exit_code == 1
    listed = invoke("failures", "stock", "--list")
    assert '{"sku": null, "stock": 7, "api_key": "***"}' in listed.stderr
    assert [line.split()[0] for line in listed.stdout.splitlines()[1:]].count("(none)") == 1
    rows = document("failures", "stock", "--list")["failures"]
    [nameless] = [row for row in rows if row["external_id"] is None]
    assert nameless["item"] == {"sku": None, "stock": 7, "api_key": "***"}


def test_without_a_name_the_syncs_with_failures_are_counted(failed: Any, invoke: Invoke, document: Document) -> None:
    lines = invoke("failures").stdout.splitlines()
    assert lines[0].split() == ["sync", "open", "given", "up", "last"]
    assert [line.split()[:3] for line in lines[1:]] == [["stock", "2", "0"]]
    [counted] = document("failures")["jobs"]
    assert (counted["job"], counted["open"], counted["given_up"]) == ("stock", 2, 0)
    refused = invoke("failures", "--list")
    assert (refused.exit_code, "name it" in refused.stderr) == (2, True)


def test_a_retry_with_nothing_due_says_what_would_try_all(place: Any, invoke: Invoke) -> None:
    place.write_job("stock", JOB.replace("first_wait_s=0.001", "first_wait_s=3600"))
    give(place, {"A-1": -1})
    invoke("run", "stock")
    assert "none of them due; now: sync-pipelines retry stock --all" in invoke("retry", "stock").stderr


def test_one_failure_is_shown_whole_without_its_secrets(failed: Any, invoke: Invoke, document: Document) -> None:
    shown = invoke("failures", "stock", "--id", "A-1").stdout
    assert "item stock: -1" in shown
    assert "item api_key: ***" in shown
    assert "hunter2" not in shown
    found = document("failures", "stock", "--id", "A-1")
    assert found["item"] == {"sku": "A-1", "stock": -1, "api_key": "***"}
    assert (found["state"], found["attempts"], found["exception_type"]) == ("open", 1, "ValueError")


def test_documents_have_what_the_tables_have(failed: Any, document: Document) -> None:
    by_cause = document("failures", "stock")
    assert (by_cause["count"], by_cause["deliveries_given_up"], by_cause["gone_causes"]) == (2, 0, [])
    [cause] = by_cause["causes"]
    assert (cause["count"], cause["given_up"], cause["sample_ids"]) == (2, 0, ["A-1", "A-2"])
    listed = document("failures", "stock", "--list")["failures"]
    assert {each["external_id"] for each in listed} == {"A-1", "A-2"}


def test_a_run_shows_its_causes_in_log_and_document(place: Any, invoke: Invoke, document: Document) -> None:
    place.write_job("stock", JOB)
    give(place, {"A-1": -1, "A-3": 3})
    run = invoke("run", "stock")
    assert "errors by cause: 1 x create: ValueError: <id>: stock <number> is below zero (stock.py:" in run.stderr
    give(place, {"A-3": 3})
    found = document("run", "stock", exit_code=0)
    assert [each["count"] for each in found["gone_causes"]] == [1]
    assert "gone since the last run: 1 x create: ValueError" in invoke("failures", "stock").stderr


def test_what_is_resolved_is_shown_when_it_is_asked_for(failed: Any, invoke: Invoke, document: Document) -> None:
    give(failed, {"A-1": 1})
    invoke("run", "stock")
    assert "no open failures of stock" in invoke("failures", "stock").stderr
    found = document("failures", "stock", "--list", "--state", "resolved")["failures"]
    assert {each["external_id"]: each["resolved_by"] == "vanished" for each in found} == {"A-1": False, "A-2": True}


def test_a_retry_tries_what_is_due_and_says_what_is_left(failed: Any, invoke: Invoke, document: Document) -> None:
    give(failed, {"A-1": 1, "A-2": -2})
    result = invoke("retry", "stock")
    assert result.exit_code == 1
    assert "stock: partial: 2 fetched = 1 created, 1 failed" in result.stdout
    assert "1 failed items are left: sync-pipelines failures stock" in result.stderr
    give(failed, {"A-2": 2})
    assert document("retry", "stock", "--id", "A-2")["counts"]["created"] == 1
    assert invoke("retry", "stock", "--all").exit_code == 0


def test_what_is_given_up_is_told(failed: Any, invoke: Invoke, document: Document) -> None:
    for _ in range(3):
        invoke("retry", "stock", "--all")
    assert document("failures", "stock")["causes"][0]["given_up"] == 2
    assert document("failures", "stock", "--state", "given-up")["count"] == 2
    assert document("failures", "stock", "--state", "open")["count"] == 0


def test_deliveries_that_are_given_up_are_told_besides(failed: Any, invoke: Invoke) -> None:
    at = datetime(2026, 1, 31, tzinfo=UTC)
    with failed.ledger() as ledger:
        inbox = Inbox(ledger)
        [stored] = inbox.store_many([NewDelivery(job="stock", kind="upsert", received_at=at, item='{"sku":"A"}')])
        inbox.complete([Completed(stored.id, "A", None, "no")], at)
    told = invoke("failures", "stock").stderr
    assert "1 deliveries have been given up besides: sync-pipelines webhooks list stock --state failed" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("failures", "stokc"), "stokc"),
        (("failures", "stock", "--state", "broken"), "--state 'broken' is none of open, given-up, resolved"),
        (("failures", "stock", "--id", "X"), "stock has no failure of 'X'; `sync-pipelines failures stock --list`"),
        (("retry", "stock", "--id", "X"), "'X' has no failure; `sync-pipelines failures stock --list`"),
        (("retry", "stock", "--id", "A-1", "--all"), "--id and --all exclude each other"),
    ],
)
def test_what_is_wrong_is_named(failed: Any, invoke: Invoke, arguments: tuple[str, ...], told: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert told in result.stderr
