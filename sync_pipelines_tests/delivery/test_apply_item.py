"""`apply_item`: what a handler of somebody's own does with one call."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sync_pipelines.database.inbox import Inbox
from sync_pipelines.database.leases import Holder, Leases
from sync_pipelines.delivery import single_items
from sync_pipelines.delivery.single_items import apply_item
from sync_pipelines.engine.changes import Delete
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.results import ItemResult
from sync_pipelines.errors import ConfigurationError, ItemError
from sync_pipelines.runner.changes.drain import Drain, DrainLimits
from sync_pipelines.runner.context.workspace import Workspace, open_workspace
from sync_pipelines.settings.model import Settings
from sync_pipelines.testing import MemoryTarget


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> SyncJob[Any, Any]:
    job: SyncJob[Any, Any] = SyncJob(name="by-hand", fetch_external=list, get_external_id="sku", target=MemoryTarget())
    monkeypatch.setattr(single_items, "find_job", lambda _: job)
    return job


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, database_url=None, ledger_url=None, jobs=())


def noted(workspace: Workspace) -> list[tuple[str | None, str, str | None]]:
    return [(each.external_id, each.state, each.action) for each in Inbox(workspace.ledger).newest("by-hand")]


def test_a_change_is_applied_noted_and_reported(job: SyncJob[Any, Any], settings: Settings) -> None:
    told: list[ItemResult] = []

    def report(_job: SyncJob[Any, Any], result: ItemResult) -> None:
        told.append(result)

    assert apply_item("by-hand", {"sku": "A"}, settings=settings, report=report) == ItemResult("created", "A")
    assert apply_item("by-hand", Delete("A"), settings=settings, report=report) == ItemResult("deleted", "A")
    assert [each.action for each in told] == ["created", "deleted"]
    with open_workspace(settings) as workspace:
        assert noted(workspace) == [("A", "applied", "deleted"), ("A", "applied", "created")]


def test_what_fails_is_not_noted(job: SyncJob[Any, Any], settings: Settings) -> None:
    with pytest.raises(ItemError):
        apply_item("by-hand", {"sku": None}, settings=settings)
    with open_workspace(settings) as workspace:
        assert noted(workspace) == []


def test_while_a_run_is_under_way_the_change_waits_for_it(job: SyncJob[Any, Any], settings: Settings) -> None:
    with open_workspace(settings) as workspace:
        lease = Leases(workspace.ledger).acquire("by-hand", Holder("run", None, "here", ""), timedelta(minutes=1))
        assert lease is not None
        assert apply_item("by-hand", {"sku": "A"}, settings=settings) == ItemResult("stored", "A")
        assert noted(workspace) == [("A", "waiting", None)]
        Leases(workspace.ledger).release(lease)
        assert Drain(job, workspace).run(DrainLimits(idle_wait_s=0)).created == 1


def test_a_job_that_is_not_there_is_named(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="by-hand"):
        apply_item("by-hand", {"sku": "A"}, settings=settings)
