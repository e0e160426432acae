"""How values of items and local records are shown: readable, and without secrets."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import date, time
from typing import Any

from sync_pipelines.engine.codec import decode
from sync_pipelines.engine.items import field_names, read_field
from sync_pipelines.engine.redaction import HIDDEN, SENSITIVE_NAMES, redact
from sync_pipelines.errors import SyncPipelinesError

_SECRET = re.compile(rf"password|passwd|passphrase|({SENSITIVE_NAMES})$", re.IGNORECASE)
_CONTAINERS = (list, tuple, set, frozenset)
_SHOWN_CHARS = 80


def first_of(names: Sequence[str], most: int) -> str:
    """Joins the first names, and counts the others: `A-1, A-2 and 1,998 more`."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def shown_value(name: str, value: Any) -> Any:
    """Converts the value of a field to what JSON can hold: numbers, text, lists and objects; secrets redacted.

    Args:
        name: The field's name; what is called a password, a token or the like is not shown at all.
    """
    if value is None or isinstance(value, bool):
        return value
    if _SECRET.search(name):
        return HIDDEN
    if isinstance(value, int | float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): shown_value(str(key), element) for key, element in value.items()}
    if isinstance(value, _CONTAINERS):
        return [shown_value(name, element) for element in value]
    return _shown_other(value)


def shown_stored(text: str | None) -> Any:
    """Converts an item as it is stored to what JSON can hold; its text, if it can't be made again."""
    if text is None:
        return None
    try:
        return shown_value("", decode(text))
    except (SyncPipelinesError, ValueError, TypeError, AttributeError):  # its class has changed, or is gone
        return redact(text)


def _shown_other(value: Any) -> Any:
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    own_text: Any = type(value).__str__
    is_model = hasattr(type(value), "model_fields") or own_text is object.__str__
    if is_model and (names := field_names(value)):
        return {field: shown_value(field, read_field(value, field)) for field in names}
    return redact(str(value))


def shown_text(name: str, value: Any, most_chars: int | None = _SHOWN_CHARS) -> str:
    """Writes the value of a field on a line, for people.

    Args:
        most_chars: Longer ones are cut; None for all of it.
    """
    shown = shown_value(name, value)
    plain = isinstance(shown, str) and shown not in {"", "null", "true", "false"} and shown == shown.strip()
    text = shown if plain else json.dumps(shown, ensure_ascii=False)
    if not text.isprintable():  # a line stays one line, and no value gives orders to a terminal
        text = json.dumps(shown)
    return text if most_chars is None or len(text) <= most_chars else text[: most_chars - 1] + "…"
