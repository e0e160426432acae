"""What the drain's tests are written with: a clock that stands still, and a desk where deliveries come in."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from sync_pipelines.database.inbox import Delivery
from sync_pipelines.database.inbox_storing import NewDelivery
from sync_pipelines.engine.codec import encode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.runner.changes.drain import Drain, DrainLimits
from sync_pipelines.runner.context.workspace import Workspace

AT_ONCE = DrainLimits(idle_wait_s=0)


class Clock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 31, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        """The time, aware."""
        return self.now

    def advance(self, seconds: float = 1) -> None:
        """Lets time pass."""
        self.now += timedelta(seconds=seconds)


class Desk:
    """Stores deliveries of one sync job and drains them.

    Args:
        workspace: Has the inbox and the clock.
        job: The sync job's name.
    """

    def __init__(self, workspace: Workspace, job: str = "stock") -> None:
        self.workspace = workspace
        self._job = job

    def upsert(self, *items: Any, external_id: str | None = None, delivery_id: str | None = None) -> list[int]:
        """Items as a webhook brings them, with what the receiver knows of their id."""
        named = {"delivery_id": delivery_id}
        return [
            self._store("upsert", item=encode(each), external_id=external_id or _sku(each), **named) for each in items
        ]

    def delete(self, *external_ids: str) -> list[int]:
        """Items that are gone."""
        return [self._store("delete", external_id=each) for each in external_ids]

    def refetch(self, *external_ids: str) -> list[int]:
        """Items of which something has changed."""
        return [self._store("refetch", external_id=each) for each in external_ids]

    def event(self, *bodies: Any) -> list[int]:
        """Bodies that are yet to be parsed."""
        return [self._store("event", payload=json.dumps(each)) for each in bodies]

    def store(self, kind: str, **given: Any) -> int:
        """A delivery as it is."""
        return self._store(kind, **given)

    def _store(self, kind: str, **given: Any) -> int:
        new = NewDelivery(job=self._job, kind=kind, received_at=self.workspace.clock(), **given)
        return self.workspace.inbox.store_many([new])[0].id

    def drain(self, job: SyncJob[Any, Any]) -> SyncResults:
        """Applies what is due; the accounts balance."""
        results = Drain(job, self.workspace).run(AT_ONCE)
        assert results.accounts_balance
        return results

    def show(self, delivery: int) -> Delivery:
        """A delivery as the inbox has it now."""
        found = self.workspace.inbox.show(delivery)
        assert found is not None
        return found

    def actions(self, *deliveries: int) -> list[str | None]:
        """What became of deliveries: their action, `waiting` or `failed`."""
        return [each.action or each.state for each in map(self.show, deliveries)]


def _sku(item: Any) -> str | None:
    sku = item.get("sku") if isinstance(item, dict) else None
    return str(sku) if sku is not None else None
