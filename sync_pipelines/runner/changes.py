"""One change of an item through the very same path: an upsert, a delete, or whatever the source says it is now."""

from __future__ import annotations

from typing import Any

from sync_pipelines.engine.calls import call
from sync_pipelines.engine.declaration import SyncJob, checked_external_id
from sync_pipelines.engine.plan import Action, Outcome, PlanEntry
from sync_pipelines.engine.results import ItemResult
from sync_pipelines.engine.webhooks import Change, Delete, Ignore, Refetch
from sync_pipelines.errors import ConfigurationError, TargetError
from sync_pipelines.runner.applying import ChunkWriter
from sync_pipelines.runner.single import RaisingResult, item_error, sync_single_item
from sync_pipelines.runner.target_driver import TargetDriver, open_target


def apply_change(job: SyncJob[Any, Any], change: Change) -> ItemResult:
    """Applies one change at once. Calls no run hooks.

    Args:
        job: The sync job.
        change: What `parse` of a webhook gives.

    Raises:
        ItemError: The item failed.
        ConfigurationError: The job has no `fetch_one` for a `Refetch`, or the target does not fit its database.
        TargetError: The target does not answer.
    """
    if isinstance(change, Delete):
        return delete_single_item(job, change.external_id)
    if isinstance(change, Refetch):
        return _refetch(job, change.external_id)
    if isinstance(change, Ignore):
        return ItemResult(Outcome.SKIPPED.value, "")
    return sync_single_item(job, change.item)


def _refetch(job: SyncJob[Any, Any], external_id: str) -> ItemResult:
    fetch_one = getattr(job, "fetch_one", None)
    if fetch_one is None:
        raise ConfigurationError(f"sync job {job.name!r}: Refetch({external_id!r}) needs a fetch_one; give the job one")
    item = call(fetch_one, external_id)
    return delete_single_item(job, external_id) if item is None else sync_single_item(job, item)


def delete_single_item(job: SyncJob[Any, Any], external_id: str) -> ItemResult:
    """Deletes the local record of an item that is gone: `deleted`, or `unchanged` if there is none.

    Raises:
        ItemError: It can't be deleted.
        TargetError: The target does not answer.
    """
    with open_target(job) as driver:
        try:
            return _delete(driver, driver.canonical_id(checked_external_id(external_id)))
        except TargetError:
            raise
        except Exception as error:
            raise item_error(external_id, error) from error


def _delete(driver: TargetDriver, external_id: str) -> ItemResult:
    found, broken = driver.find([external_id])
    if external_id in broken:
        raise broken[external_id]
    if external_id not in found:
        return ItemResult(Outcome.UNCHANGED.value, external_id)
    chunk = ChunkWriter(driver, [PlanEntry(Action.DELETE, external_id)], result=RaisingResult())
    chunk.assign(0, found[external_id])
    chunk.write()
    return ItemResult(Outcome.DELETED.value, external_id)
