"""How one change of an item stands in the inbox: its kind, its external id, and what else it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sync_pipelines.engine.changes import ChangeEvent, Delete, Ignore, Refetch, Upsert
from sync_pipelines.engine.codec import decode, encode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.versions import Version
from sync_pipelines.errors import ConfigurationError, ItemError

UPSERT, DELETE, REFETCH = "upsert", "delete", "refetch"
EVENT = "event"
"""The kind of a payload that is yet to be parsed."""


@dataclass(frozen=True, slots=True)
class StoredChange:
    """Holds a change as the inbox keeps it.

    Args:
        item: The engine's JSON: of an upsert its item; of a delete its version, None if it has none.
    """

    kind: str
    external_id: str | None
    item: str | None = None


def stored_change(job: SyncJob[Any, Any], change: ChangeEvent, external_id: str) -> StoredChange:
    """Returns a change as it is kept.

    Raises:
        ConfigurationError: The job lacks what the change needs.
        ItemError: The version of a delete is none, or the change is an `Ignore`.
    """
    if isinstance(change, Ignore):
        raise ItemError("of an Ignore there is nothing to store")
    if isinstance(change, Upsert):
        return StoredChange(UPSERT, external_id, encode(change.item))
    if isinstance(change, Refetch):
        if job.fetch_one is None:
            raise ConfigurationError(f"sync job {job.name!r}: Refetch needs a fetch_one; give the job one")
        return StoredChange(REFETCH, external_id)
    version = version_of_delete(job, change)
    return StoredChange(DELETE, external_id, None if version is None else encode({"version": change.version}))


def change_of(kind: str, external_id: str | None, item: str | None) -> ChangeEvent:
    """Returns the change that is kept so.

    Raises:
        ItemError: The kind is unknown here.
    """
    if kind == UPSERT:
        return Upsert(stored_item(item or ""))
    if kind == DELETE:
        return Delete(external_id or "", decode(item)["version"] if item is not None else None)
    if kind == REFETCH:
        return Refetch(external_id or "")
    raise ItemError(f"a delivery of the kind {kind!r} comes from a newer version of sync_pipelines")


def version_of_delete(job: SyncJob[Any, Any], change: Delete) -> Version | None:
    """Returns the version of a delete, None if it has none.

    Raises:
        ConfigurationError: The items of the job have none that it could be compared to.
        ItemError: It is neither a number nor an aware moment.
    """
    if change.version is None:
        return None
    if job.get_version is None:
        raise ConfigurationError(
            f"sync job {job.name!r}: Delete(..., version={change.version!r}) needs a get_version, which says the "
            "versions of items; give the job one"
        )
    return Version.of(change.version)


def stored_item(text: str) -> Any:
    """Reads an item that was stored by itself.

    Raises:
        ItemError: Its class is not there any more; other items may be of other classes.
    """
    try:
        return decode(text)
    except ConfigurationError as error:
        raise ItemError(str(error)) from error
