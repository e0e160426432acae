"""What identifies an item on both sides, as text."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from sync_pipelines.engine.calls import resolve
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.places import note_place
from sync_pipelines.errors import ItemError

_ID_TYPES = (str, int, float, Decimal, UUID, date)


def external_id_of(job: SyncJob[Any, Any], item: Any) -> str:
    """Returns the external id of an item as the source writes it; `TargetDriver.canonical_id` says it as the key does.

    Raises:
        UnicodeEncodeError: It is no text that could be kept.
    """
    try:
        identity = resolve(job.identify(item))
    except Exception as error:
        if job.get_external_id is not None:
            note_place(error, "get_external_id")
        raise
    external_id = checked_external_id(identity)
    external_id.encode("utf-8")
    return external_id


def checked_external_id(value: Any) -> str:
    """Makes text of an external id.

    Raises:
        ItemError: The id is missing (None, NaN), empty, or a truth value.
    """
    if value is None or type(value).__name__ in {"NAType", "NaTType"} or value != value:  # noqa: PLR0124 - NaN
        raise ItemError("the item has no external id (None)")
    if isinstance(value, Enum):
        value = value.value
    if getattr(getattr(value, "dtype", None), "kind", "") in {"i", "u", "f"}:
        value = value.item()  # a number of numpy's
    if isinstance(value, bool) or not isinstance(value, _ID_TYPES):
        raise ItemError(f"the external id is a {type(value).__name__}; an id is text or a number")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a pandas column with a gap turns 7 into 7.0
    text = str(value).strip() if not isinstance(value, str) else value
    if not text.strip():
        raise ItemError(f"the item's external id is empty ({value!r})")
    return text
