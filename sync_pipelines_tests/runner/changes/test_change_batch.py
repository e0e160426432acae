"""Changes are decided and written by one pair of functions, and a transaction that came to nothing is written again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.plan import Outcome
from sync_pipelines.engine.versions import Version
from sync_pipelines.errors import AccountsError
from sync_pipelines.runner.calls.target_driver import open_target
from sync_pipelines.runner.changes.change_batch import AskedItem, ChangeBatch
from sync_pipelines.runner.context.workspace import Workspace, open_workspace
from sync_pipelines.runner.decide.changes import DELETE, Change
from sync_pipelines.runner.decide.rules import RunRules
from sync_pipelines.runner.write.batch_writer import Recheck
from sync_pipelines.settings.model import Settings
from sync_pipelines.testing import MemoryTarget


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(Settings(data_dir=tmp_path, database_url=None, ledger_url=None)) as opened:
        yield opened


def item(sku: str, stock: int, version: int = 1) -> dict[str, Any]:
    return {"sku": sku, "stock": stock, "version": version}


class Shop:
    """A memory target with some records, and the rules of its job."""

    def __init__(self, workspace: Workspace, **fields: Any) -> None:
        self.target = MemoryTarget({"A": item("A", 1), "B": item("B", 2), "C": item("C", 3)}, columns=["stock"])
        given: dict[str, Any] = {
            "name": "stock",
            "fetch_external": list,
            "get_external_id": "sku",
            "target": self.target,
        }
        self.job: SyncJob[Any, Any] = SyncJob(**{**given, **fields})
        self.workspace = workspace

    def batch(self, **options: Any) -> ChangeBatch:
        with open_target(self.job) as driver:
            return ChangeBatch(RunRules.for_changes(self.job, driver, self.workspace.versions), **options)

    def stock(self) -> dict[str, int]:
        return {sku: record["stock"] for sku, record in self.target.records.items()}


def test_each_change_has_one_outcome(workspace: Workspace) -> None:
    shop = Shop(workspace, should_skip=lambda each: each["stock"] == 0)
    shop.target.fails["E"] = ValueError("no")
    batch = shop.batch()
    batch.decide(
        [
            Change(0, "A", item("A", 1)),
            Change(1, "B", item("B", 7)),
            Change(2, "C", DELETE),
            Change(3, "D", item("D", 4)),
            Change(4, "E", item("E", 5)),
            Change(5, "F", item("F", 0)),
            Change(6, "G", DELETE),
        ]
    )
    outcomes = batch.write(range(7))
    assert {place: outcome.value for place, outcome in outcomes.by_handle.items()} == {
        0: "unchanged",
        1: "updated",
        2: "deleted",
        3: "created",
        5: "skipped",
        6: "unchanged",
    }
    assert [(each.position, each.external_id, each.message) for each in outcomes.all_errors()] == [(4, "E", "no")]
    assert shop.stock() == {"A": 1, "B": 7, "D": 4}


def test_what_changed_between_decision_and_write_is_decided_once_more(workspace: Workspace) -> None:
    shop = Shop(workspace)
    batch = shop.batch()
    batch.decide([Change(0, "A", item("A", 7)), Change(1, "D", item("D", 4)), Change(2, "C", DELETE)])
    shop.target.records["A"]["stock"] = 7
    shop.target.records["D"] = item("D", 9)
    del shop.target.records["C"]
    outcomes = batch.write(range(3))
    assert outcomes.by_handle == {0: Outcome.UNCHANGED, 1: Outcome.UPDATED, 2: Outcome.UNCHANGED}


def test_a_batch_of_one_raises_its_error_and_looks_once(workspace: Workspace) -> None:
    shop = Shop(workspace)
    error = shop.target.fails["A"] = ValueError("no")
    batch = shop.batch(raises=True)
    batch.decide([Change(0, "A", item("A", 7))])
    with pytest.raises(ValueError, match="no") as caught:
        batch.write([0], recheck=Recheck.NOTHING)
    assert caught.value is error


def test_a_deleted_record_leaves_the_newest_version_behind_that_is_known(workspace: Workspace) -> None:
    shop = Shop(workspace, get_version="version")
    first = shop.batch()
    first.decide(
        [Change(0, "A", item("A", 5, 5)), Change(1, "B", DELETE, version=Version.of(8)), Change(2, "C", DELETE)]
    )
    first.write(range(3))
    second = shop.batch()
    second.decide([Change(0, "A", DELETE), Change(1, "B", item("B", 7, 7)), Change(2, "C", item("C", 1, 1))])
    assert second.decided.stale == {1}
    assert second.write(range(3)).by_handle == {0: Outcome.DELETED, 1: Outcome.SKIPPED, 2: Outcome.CREATED}
    assert workspace.versions.known("stock", ["A", "B", "C"]) == {"A": "n:5", "B": "n:8", "C": "n:1"}


def test_a_change_that_was_forgotten_is_an_error(workspace: Workspace) -> None:
    batch = Shop(workspace).batch()
    batch.decide([Change(0, "A", item("A", 7))])
    with pytest.raises(AccountsError, match="stock"):
        batch.write([0, 1])


def test_the_source_is_asked_once_for_each_item(workspace: Workspace) -> None:
    asked: list[str] = []

    def fetch_one(external_id: str) -> Any:
        asked.append(external_id)
        if external_id == "bad":
            raise ValueError("no")
        return item(external_id, 7) if external_id != "gone" else None

    batch = Shop(workspace, fetch_one=fetch_one).batch()
    names = ["A", "gone", "bad", "A"]
    items = batch.ask({place: AskedItem(name, name) for place, name in enumerate(names)})
    assert asked == ["A", "gone", "bad"]
    assert items == {0: item("A", 7), 1: None, 3: item("A", 7)}
    assert batch.outcomes.errors[2].message.startswith("fetch_one: ValueError: no (test_change_batch.py:")
    assert batch.outcomes.in_vain == set()
