"""`sync_single_item`: one item through the very same path."""

from __future__ import annotations

from typing import Any

from sync_pipelines.engine.calls import call, resolve
from sync_pipelines.engine.codec import decode, encode
from sync_pipelines.engine.declaration import SyncJob, checked_external_id
from sync_pipelines.engine.plan import Action, Outcome, PlanEntry
from sync_pipelines.engine.redaction import exception_type, message_of
from sync_pipelines.engine.results import ItemResult
from sync_pipelines.errors import ItemError, TargetError
from sync_pipelines.runner.applying import ChunkResult, ChunkWriter
from sync_pipelines.runner.target_driver import TargetDriver, open_target


def sync_single_item(job: SyncJob[Any, Any], item: Any) -> ItemResult:
    """Brings one local record up to an item, as a web handler or a webhook wants it. Calls no run hooks.

    Args:
        job: The sync job.
        item: One item as `fetch_external` would give it.

    Returns:
        What became of it: `created`, `updated`, `unchanged` or `skipped`.

    Raises:
        ItemError: The item failed; the message is the error's own, its cause the error itself.
        ConfigurationError: The target does not fit its database.
        TargetError: The target does not answer.
    """
    with open_target(job) as driver:
        return apply_item(job, driver, item)


def apply_item(job: SyncJob[Any, Any], driver: TargetDriver, item: Any) -> ItemResult:
    """Applies one item to an opened target. Raises `ItemError` if it fails."""
    external_id: str | None = None
    try:
        external_id = checked_external_id(resolve(job.identify(item)))
        external_id = driver.canonical_id(external_id)
        item = decode(encode(item))  # what a run would hand to the functions
        if job.should_skip is not None and call(job.should_skip, item):
            return ItemResult(Outcome.SKIPPED.value, external_id)
        return ItemResult(_write(driver, external_id, item).value, external_id)
    except Exception as error:
        if isinstance(error, TargetError):
            raise
        raise item_error(external_id, error) from error


def item_error(external_id: str | None, error: Exception) -> ItemError:
    """The error of one item, with its own message."""
    if isinstance(error, ItemError):
        return ItemError(message_of(error), external_id=external_id)
    return ItemError(f"{exception_type(error)}: {message_of(error)}", external_id=external_id)


def _write(driver: TargetDriver, external_id: str, item: Any) -> Outcome:
    found, broken = driver.find([external_id])
    if external_id in broken:
        raise broken[external_id]
    local = found.get(external_id)
    if local is None:
        driver.compare(item, None)  # an item that can't be written fails here, before anything is
    action = Action.CREATE if local is None else Action.UPDATE
    chunk = ChunkWriter(driver, [PlanEntry(action, external_id, 0, item)], result=RaisingResult())
    chunk.assign(0, local)
    return chunk.write().outcomes[0]


class RaisingResult(ChunkResult):
    """That of a single item, whose error is raised as it is."""

    def fail(self, number: int, entry: PlanEntry, error: Exception) -> None:  # noqa: ARG002
        """Raises it."""
        raise error
