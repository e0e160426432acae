"""`trigger_item`: one item into the inbox, to be applied by the next drain."""

from __future__ import annotations

from typing import Any

from sync_pipelines.engine.calls import resolve
from sync_pipelines.engine.codec import encode
from sync_pipelines.engine.declaration import checked_external_id
from sync_pipelines.registry.registry import find_job
from sync_pipelines.runner.single import item_error
from sync_pipelines.runner.workspace import open_workspace
from sync_pipelines.settings.model import Settings


def trigger_item(name: str, item: Any, *, settings: Settings | None = None) -> int:
    """Stores an item durably in the ledger's inbox; a sensor starts a run that applies what waits there.

    Args:
        name: The sync job's name.
        item: One item as the job's `fetch_external` would give it.
        settings: By default those of the environment.

    Returns:
        The number of the delivery in the inbox.

    Raises:
        ConfigurationError: There is no such job, or the ledger can't be opened.
        ItemError: The item has no external id, or can't be kept.
    """
    job = find_job(name)
    external_id: str | None = None
    try:
        external_id = checked_external_id(resolve(job.identify(item)))
        text = encode(item)
    except Exception as error:
        raise item_error(external_id, error) from error
    with open_workspace(settings) as workspace:
        return workspace.inbox.store(job.name, text, workspace.clock())
