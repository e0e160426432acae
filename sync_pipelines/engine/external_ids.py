"""What identifies an item on both sides, as text."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from sync_pipelines.engine.calls import resolve
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.json_text import parse_json
from sync_pipelines.engine.places import note_place
from sync_pipelines.errors import ItemError

_MOST_DIGITS = 1_000
_ID_TYPES = (str, int, float, Decimal, UUID, date)


def external_id_of(job: SyncJob[Any, Any], item: Any) -> str:
    """Returns the external id of an item as the source writes it; `TargetDriver.canonical_id` says it as the key does.

    Args:
        item: The item, or the `ItemError` that a source has left in its place, which may know the id.

    Raises:
        ItemError: There is no id that can be read.
        UnicodeEncodeError: It is no text that could be kept.
    """
    try:
        if isinstance(item, ItemError):
            given: Any = item if item.external_id is None else item.external_id
        else:
            given = resolve(job.identify(item))
    except Exception as error:
        if job.get_external_id is not None:
            note_place(error, "get_external_id")
        raise
    external_id = checked_external_id(given)
    external_id.encode("utf-8")
    return external_id


def checked_external_id(value: Any) -> str:
    """Makes text of an external id.

    Raises:
        ItemError: The id is missing (None, NaN), empty, or a truth value.
    """
    if isinstance(value, ItemError):
        raise value  # a source that found a field it can't read leaves the error in its place
    if value is None or type(value).__name__ in {"NAType", "NaTType"} or value != value:  # noqa: PLR0124 - NaN
        raise ItemError("the item has no external id (None)")
    if isinstance(value, Enum):
        value = value.value
    if getattr(getattr(value, "dtype", None), "kind", "") in {"i", "u", "f"}:
        value = value.item()  # a number of numpy's
    if isinstance(value, bool) or not isinstance(value, _ID_TYPES):
        raise ItemError(f"the external id is a {type(value).__name__}; an id is text or a number")
    value = id_number(value)
    text = str(value).strip() if not isinstance(value, str) else value
    if not text.strip():
        raise ItemError(f"the item's external id is empty ({value!r})")
    return text


def id_number(value: Any) -> Any:
    """Makes a whole number of 7.0, which pandas makes of 7 in a column with a gap, and of a decimal 7.00."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Decimal) and value.is_finite() and value.adjusted() < _MOST_DIGITS:
        return int(value) if value == value.to_integral_value() else value
    return value


def json_spellings(external_id: str) -> list[str]:
    """Returns the usual spellings of a composite id, ours first; of an id that is no JSON array of values, itself."""
    try:
        parts = parse_json(external_id)
    except ValueError:
        return [external_id]
    if not isinstance(parts, list) or not parts or any(isinstance(part, (list, dict)) for part in parts):
        return [external_id]
    plain = [_json_part(id_number(part)) for part in parts]
    return [
        json.dumps(plain, ensure_ascii=is_ascii, separators=separators)
        for is_ascii in (False, True)
        for separators in ((", ", ": "), (",", ":"))
    ]


def _json_part(part: Any) -> Any:
    return str(part) if isinstance(part, Decimal) else part
