"""`item`: one item at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from typer.testing import Result

from sync_pipelines.database.leases import Holder, Leases

Invoke = Callable[..., Result]
ITEM = '{"sku": "A-1", "quantity": 5}'


def test_an_item_is_applied_and_its_action_printed(place: Any) -> None:
    place.write_stock_job()
    done = place.run("item", "stock", ITEM)
    assert (done.returncode, done.stdout, done.stderr) == (0, "created A-1\n", "")
    assert place.sql("SELECT * FROM variants") == [("A-1", 5)]


def test_the_item_may_come_from_stdin(place: Any) -> None:
    place.write_stock_job()
    done = place.run("item", "stock", "-", stdin=ITEM)
    assert (done.returncode, done.stdout) == (0, "created A-1\n")


def test_the_action_tells_what_became_of_it(place: Any, invoke: Invoke, document: Callable[..., Any]) -> None:
    place.write_stock_job()
    assert invoke("item", "stock", ITEM).stdout == "created A-1\n"
    assert invoke("item", "stock", ITEM).stdout == "unchanged A-1\n"
    updated = document("item", "stock", '{"sku": "A-1", "quantity": 6}')
    assert updated == {"job": "stock", "action": "updated", "external_id": "A-1"}


def test_an_item_that_fails_ends_with_1_and_its_own_message(place: Any, invoke: Invoke) -> None:
    place.write_stock_job()
    result = invoke("item", "stock", '{"sku": "A-1", "quantity": -5}')
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: item 'A-1': IntegrityError: CHECK constraint failed: stock >= 0\n"
    assert place.sql("SELECT * FROM variants") == []


def test_an_item_without_an_id_ends_with_1(place: Any, invoke: Invoke) -> None:
    place.write_stock_job()
    result = invoke("item", "stock", '{"quantity": 5}')
    assert result.exit_code == 1
    assert "the item has no field 'sku'" in result.stderr


@pytest.mark.parametrize("text", ["{sku: 1}", "", "[1]", '"A-1"', "null"])
def test_what_is_no_json_object_ends_with_2(place: Any, invoke: Invoke, text: str) -> None:
    place.write_stock_job()
    result = invoke("item", "stock", text)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: the item is ")


def test_an_unknown_job_ends_with_2(place: Any, invoke: Invoke) -> None:
    place.write_stock_job()
    result = invoke("item", "stok", ITEM)
    assert result.exit_code == 2
    assert "there is no sync job 'stok'; there are: " in result.stderr


def test_what_an_item_writes_is_in_the_history_of_its_record(
    place: Any, invoke: Invoke, document: Callable[..., Any]
) -> None:
    place.write_stock_job()
    invoke("item", "stock", ITEM)
    invoke("item", "stock", '{"sku": "A-1", "quantity": 6}')

    events = document("history", "stock", "A-1")["events"]

    assert [(each["kind"], each["changes"]) for each in events if each["changes"]] == [
        ("updated", {"stock": {"old": 5, "new": 6}}),
        ("created", {"sku": {"old": None, "new": "A-1"}, "stock": {"old": None, "new": 5}}),
    ]


def test_an_item_that_comes_while_a_run_is_under_way_waits_in_the_inbox(place: Any, invoke: Invoke) -> None:
    place.write_stock_job()
    with place.ledger() as ledger:
        assert Leases(ledger).acquire("stock", Holder("another run"), timedelta(minutes=5))

    result = invoke("item", "stock", ITEM)

    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "stored A-1",
        "a run of this sync is under way: the item waits in the inbox, and is applied after that run",
    ]
    assert "waiting" in invoke("webhooks", "list", "stock").stdout
