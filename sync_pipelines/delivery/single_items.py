"""`trigger_item`: one change into the inbox, to be applied by the next drain; `apply_item`: one change at once."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from sync_pipelines.database.inbox_storing import NewDelivery
from sync_pipelines.delivery.apply_or_store import apply_or_store
from sync_pipelines.engine.changes import Ignore, Upsert, as_change_event
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.results import ItemResult
from sync_pipelines.engine.stored_changes import StoredChange, stored_change
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.registry.registry import find_job
from sync_pipelines.runner.changes.read_delivery import given_id
from sync_pipelines.runner.changes.single_item import item_error
from sync_pipelines.runner.context.workspace import open_workspace, utc_now
from sync_pipelines.settings.model import Settings, load_settings
from sync_pipelines.webhooks.inline import Report
from sync_pipelines.webhooks.ledger_access import LedgerAccess

STORED = "stored"
"""What became of an item that waits in the inbox until the run that is under way has ended."""


def trigger_item(name: str, item: Any, *, delivery_id: str | None = None, settings: Settings | None = None) -> int:
    """Stores a change durably in the ledger's inbox; a sensor starts a run that applies what waits there.

    With it a handler of your own web application does what a `Webhook` does, without its HTTP.

    Args:
        name: The sync job's name.
        item: One item as the job's `fetch_external` would give it; or `Upsert(item)`, `Delete(external_id)` (with its
            `version`, if the sender gives one), or `Refetch(external_id)`.
        delivery_id: What names the delivery at its sender's. One that is repeated is stored once; if it has failed, it
            waits again. The same name with another item is another delivery.
        settings: By default those of the environment.

    Returns:
        The number of the delivery in the inbox; of a repeated one that of the first.

    Raises:
        ConfigurationError: There is no such job, it lacks the `fetch_one` of a `Refetch`, or the ledger can't be
            opened.
        ItemError: The item has no external id, or can't be kept.
    """
    job = find_job(name)
    change = _described(job, item)
    with open_workspace(settings) as workspace:
        delivery = NewDelivery(
            job=job.name,
            kind=change.kind,
            external_id=change.external_id,
            item=change.item,
            delivery_id=delivery_id,
            received_at=workspace.clock(),
        )
        return workspace.inbox.store_many([delivery])[0].id


def apply_item(name: str, item: Any, *, settings: Settings | None = None, report: Report | None = None) -> ItemResult:
    """Applies one change at once and notes it in the inbox, as a `Webhook` in inline mode does, without its HTTP.

    Args:
        name: The sync job's name.
        item: As for `trigger_item`.
        settings: By default those of the environment.
        report: `report(job, result)` is called with a change that was applied, say to report it to Dagster.

    Returns:
        What became of it, as of `sync_single_item`; or `stored`, if a run of the sync is under way, which may have
        fetched an older state: then it is applied after that run.

    Raises:
        ConfigurationError: There is no such job, it lacks the `fetch_one` of a `Refetch`, or the ledger can't be
            opened.
        ItemError: The item failed; nothing is stored.
        TargetError: The target does not answer; nothing is stored.
    """
    job = find_job(name)
    change = _described(job, item)
    access = LedgerAccess((settings or load_settings()).ledger_database_url())
    with closing(access):
        delivery = NewDelivery(
            job=job.name,
            kind=change.kind,
            external_id=change.external_id,
            item=change.item,
            received_at=utc_now(),
        )
        noted = apply_or_store(access)(job, as_change_event(item), delivery)
    if noted.result is None:
        return ItemResult(STORED, change.external_id or "")
    if report is not None:
        report(job, noted.result)
    return noted.result


def _described(job: SyncJob[Any, Any], item: Any) -> StoredChange:
    """Returns a change as it is kept."""
    change = as_change_event(item) if item is not None else Upsert(None)
    external_id: str | None = None
    try:
        external_id = given_id(job, change) if not isinstance(change, Ignore) else ""
        return stored_change(job, change, external_id)
    except ConfigurationError:
        raise
    except Exception as error:
        raise item_error(external_id, error) from error
