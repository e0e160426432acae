"""`webhook_app`: items are applied inline into the ledger that was given, and never beside a run."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from sync_pipelines.database.leases import Holder, Leases
from sync_pipelines.delivery.apply_or_store import one_at_a_time
from sync_pipelines.delivery.webhook_app import webhook_app
from sync_pipelines.engine.changes import Upsert
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.results import ItemResult
from sync_pipelines.engine.webhook_signatures import Unsigned
from sync_pipelines.engine.webhooks import Webhook
from sync_pipelines.errors import SyncBusyError
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.settings.model import Settings
from sync_pipelines.testing import MemoryTarget
from sync_pipelines.webhooks.ledger_access import LedgerAccess

JOB: SyncJob[Any, Any] = SyncJob(
    name="by-hand",
    fetch_external=list,
    get_external_id="sku",
    get_version="version",
    target=MemoryTarget(),
    webhook=Webhook(signature=Unsigned(), mode="inline"),
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "given", database_url=None, ledger_url=None, jobs=())


def test_versions_are_kept_in_the_ledger_that_was_given(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNC_PIPELINES_DATA_DIR", str(tmp_path / "environment"))
    monkeypatch.setattr("sync_pipelines.delivery.webhook_app.find_jobs", lambda *_, **__: {JOB.name: JOB})
    app = webhook_app(settings=settings)

    async def send() -> Any:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://receiver") as client:
            return (await client.post("/webhooks/by-hand", json={"sku": "A", "version": 3})).json()

    assert anyio.run(send)["action"] == "created"
    app.close()
    with open_workspace(settings) as workspace:
        assert workspace.versions.known(JOB.name, ["A"]) == {"A": "n:3"}
    assert not (tmp_path / "environment").exists()


def test_an_item_is_applied_once_more_after_a_run_that_began_meanwhile(settings: Settings) -> None:
    """The run may have looked at the record before the item was written, and written an older one after it."""
    access = LedgerAccess(settings.ledger_database_url())

    def apply(_job: Any, _change: Any) -> ItemResult:
        leases = Leases(access.ledger())
        lease = leases.acquire(JOB.name, Holder("a run"), timedelta(minutes=1))
        assert lease is not None
        leases.release(lease)
        return ItemResult("updated", "A")

    with pytest.raises(SyncBusyError, match="began while an item was applied"):
        one_at_a_time(apply, access)(JOB, Upsert({"sku": "A"}))
    result = ItemResult("updated", "A")
    assert one_at_a_time(lambda *_: result, access)(JOB, Upsert({"sku": "A"})) == result
    access.close()
