"""What is cleaned up after a set time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from sync_pipelines.database.inbox import Completed
from sync_pipelines.runner.changes.drain import Drain, DrainLimits
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings


@pytest.mark.parametrize("kind", ["full", "drain"])
def test_a_run_removes_deliveries_that_were_settled_long_ago(
    job: Callable[..., Any], settings: Settings, kind: str
) -> None:
    """A drain too: a sync that lives on webhooks alone may have no other runs."""
    with open_workspace(settings) as workspace:
        now = workspace.clock()
        old, recent, waiting = (workspace.inbox.store("stock", "{}", now - timedelta(days=90)) for _ in range(3))
        workspace.inbox.complete([Completed(old, "A", None, "no")], now - timedelta(days=31))
        workspace.inbox.complete([Completed(recent, "A", "created")], now - timedelta(days=29))
    if kind == "full":
        run_sync(job([{"sku": "A"}]), settings=settings)
    with open_workspace(settings) as workspace:
        if kind == "drain":
            Drain(job(), workspace).run(DrainLimits(idle_wait_s=0))
        assert [each.id for each in workspace.inbox.newest("stock")] == [waiting, recent]
