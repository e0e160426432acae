"""Brings values into the form in which JSON columns hold them: writing, reading and writing again gives the same."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal
from typing import Any
from uuid import UUID

from sync_pipelines.targets.types.unwrap import plain

_WIDE = Context(prec=150_000)


def to_json(value: Any) -> Any:
    """Gives the value as JSON has it.

    Decimals and floats are numbers, whole ones without ".0"; decimals with more digits than a double has stay decimals.
    Aware times are ISO 8601 in
    UTC, naive ones, dates and times of day ISO 8601; durations are seconds; UUIDs and Enums their text and value; NaN
    and NaT are null; tuples are lists; dataclasses and pydantic models are objects. Text stays text: `'{"a": 1}'` is a
    JSON string, not an object.

    Raises:
        TypeError: Something in it has no JSON form: bytes, sets, objects.
        ValueError: A number is infinite, or text can't be written as UTF-8.
    """
    if value is None or isinstance(value, bool):
        return value
    bare = plain(value)  # Enum, numpy, pandas
    if bare is not value:
        return to_json(bare)
    for kinds, convert in _CONVERSIONS:
        if isinstance(value, kinds):
            return convert(value)
    return _record(value)


def json_text(value: Any) -> str:
    """Gives the JSON text of a value, keys sorted: equal values have equal text."""
    return dump_json(to_json(value), sort_keys=True)


def dump_json(form: Any, *, sort_keys: bool = False) -> str:
    """Writes what `to_json` gives, with all digits of its decimals."""
    try:
        return json.dumps(form, sort_keys=sort_keys, ensure_ascii=False)
    except TypeError:  # Python's own writer knows no decimals
        return _dumped(form, sort_keys=sort_keys)


def load_json(text: str) -> Any:
    """Reads what a JSON column holds, with all digits.

    Raises:
        ValueError: It is no JSON.
    """
    try:
        return json.loads(text, parse_float=Decimal)
    except ArithmeticError as error:
        raise ValueError("it holds a number that is out of range") from error


def _dumped(form: Any, *, sort_keys: bool) -> str:
    if isinstance(form, dict):
        pairs = sorted(form.items()) if sort_keys else form.items()
        inner = (f"{dump_json(key)}: {_dumped(part, sort_keys=sort_keys)}" for key, part in pairs)
        return f"{{{', '.join(inner)}}}"
    if isinstance(form, list):
        return f"[{', '.join(_dumped(part, sort_keys=sort_keys) for part in form)}]"
    return str(form) if isinstance(form, Decimal) else dump_json(form)


def equal_json(old: Any, new: Any) -> bool:
    """True if two values of JSON columns are the same: Python finds True equal to 1, JSON does not."""
    return dump_json(old, sort_keys=True) == dump_json(new, sort_keys=True)


def _number(value: float | Decimal) -> int | float | Decimal | None:
    if isinstance(value, int):
        return int(value)
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return int(value) if value.adjusted() < 1000 else _number(float(value))  # noqa: PLR2004 - no double is longer
    number = float(value)
    if math.isnan(number):
        return None
    if isinstance(value, Decimal) and value.is_finite() and Decimal(repr(number)) != value:
        return value.normalize(_WIDE)
    if math.isinf(number):
        raise ValueError("JSON has no infinite numbers")
    return int(number) if number.is_integer() else number


def _key(key: Any) -> str:
    form = to_json(key)
    if isinstance(form, str):
        return form
    if isinstance(form, list | dict):
        raise TypeError("a key of a JSON object must be text")
    return json.dumps(form)


def _text(value: str) -> str:
    value.encode()  # a lone surrogate fails here, with a reason
    return str(value)


def _record(value: Any) -> Any:
    if hasattr(type(value), "model_fields") and hasattr(value, "model_dump"):
        return to_json(value.model_dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_json({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _time_text(value: datetime) -> str:
    moment = datetime.combine(value.date(), value.timetz())  # drops pandas' subclass and its nanoseconds
    return (moment if moment.tzinfo is None else moment.astimezone(UTC)).isoformat()


_CONVERSIONS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (str, _text),
    ((int, float, Decimal), _number),
    (Mapping, lambda value: {_key(key): to_json(part) for key, part in value.items()}),
    ((list, tuple), lambda value: [to_json(part) for part in value]),
    (datetime, _time_text),
    ((date, time), lambda value: value.isoformat()),
    (timedelta, lambda value: _number(value.total_seconds())),
    (UUID, str),
)
