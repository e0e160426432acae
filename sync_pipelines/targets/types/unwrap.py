"""Takes the wrapping of numpy, pandas and Enum off values, without importing numpy or pandas."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

_PLAIN_TYPES = frozenset({str, int, bool, datetime, date, bytes, dict, list, type(None)})


def plain(value: Any) -> Any:
    """Returns the value as a plain Python object; None for NaN, NaT, NA and None."""
    kind = type(value)
    if kind in _PLAIN_TYPES:
        return value
    if isinstance(value, Enum):
        return plain(value.value)
    if kind.__module__.partition(".")[0] == "numpy":
        value = _from_numpy(value)
    return None if is_missing(value) else value


def none_if_missing(value: Any) -> Any:
    """Returns the value with its wrapping, for a column whose type may want it; None for NaN, NaT, NA and None."""
    return None if plain(value) is None else value


def is_missing(value: Any) -> bool:
    """True for None and for what pandas and numpy write where there is no value: NaN, NaT and NA."""
    if value is None or type(value).__name__ in {"NAType", "NaTType"}:
        return True
    if isinstance(value, Decimal):
        return value.is_nan()
    return isinstance(value, float) and value != value  # noqa: PLR0124 - the definition of NaN, cheaper than math.isnan


def _from_numpy(value: Any) -> Any:
    name = type(value).__name__
    if name == "ndarray":
        return value.tolist()
    if name in {"datetime64", "timedelta64"}:
        return value.astype(f"{name}[us]").item()  # in nanoseconds item() would give a number
    return value.item()


def shortened(value: Any, length: int = 80) -> str:
    """Returns the repr of a value for an error message, at most `length` characters."""
    text = repr(value)
    return text if len(text) <= length else f"{text[: length - 3]}..."
