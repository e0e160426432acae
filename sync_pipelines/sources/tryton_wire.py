"""The JSON that Tryton speaks: dates, decimals and bytes travel as objects with a `__class__`."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from sync_pipelines.engine.json_text import Pairs, parse_json
from sync_pipelines.errors import ConfigurationError


def to_wire(value: Any) -> str:
    """Writes a request as JSON.

    Raises:
        ConfigurationError: A value has no form on the wire, such as a datetime without time zone.
    """
    try:
        return json.dumps(value, default=_encode, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"Tryton can't be sent this value: {error}") from error


def from_wire(answer: str | bytes, charset: str | None = None) -> Any:
    """Reads an answer; every datetime in it becomes an aware one in UTC, which is what the server keeps.

    Bare numbers with a point are floats, as they are on the server; its decimals are objects.

    Raises:
        ValueError: It is no JSON, or a typed value in it is incomplete.
    """
    return parse_json(answer, charset=charset, decimals=False, object_of_pairs=_decode)


def _decode(pairs: Pairs) -> Any:
    value = dict(pairs)
    name = value.get("__class__")
    decoder = _DECODERS.get(name) if isinstance(name, str) else None
    try:
        return decoder(value) if decoder else value
    except (KeyError, TypeError, ArithmeticError) as error:
        raise ValueError(f"a typed value is incomplete: {error!r}") from error


def _date_parts(value: Mapping[str, Any]) -> tuple[int, int, int]:
    return value["year"], value["month"], value["day"]


def _time_parts(value: Mapping[str, Any]) -> tuple[int, int, int, int]:
    return value["hour"], value["minute"], value["second"], value.get("microsecond", 0)


_DECODERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "Decimal": lambda value: Decimal(value["decimal"]),
    "datetime": lambda value: datetime(*_date_parts(value), *_time_parts(value), tzinfo=UTC),
    "date": lambda value: date(*_date_parts(value)),
    "time": lambda value: time(*_time_parts(value)),
    "timedelta": lambda value: timedelta(seconds=value["seconds"]),
    "bytes": lambda value: base64.b64decode(value["base64"]),
}


def _encode_datetime(value: datetime) -> dict[str, Any]:
    if value.tzinfo is None:
        raise TypeError(f"the datetime {value.isoformat()} has no time zone")
    utc = value.astimezone(UTC)
    return {"__class__": "datetime", "year": utc.year, "month": utc.month, "day": utc.day, **_encode_time(utc.time())}


def _encode_time(value: time) -> dict[str, int]:
    return {"hour": value.hour, "minute": value.minute, "second": value.second, "microsecond": value.microsecond}


_ENCODERS: tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...] = (
    ((set, frozenset), sorted),
    # A datetime is a date as well, so it comes first.
    (datetime, _encode_datetime),
    (date, lambda value: {"__class__": "date", "year": value.year, "month": value.month, "day": value.day}),
    (time, lambda value: {"__class__": "time", **_encode_time(value)}),
    (timedelta, lambda value: {"__class__": "timedelta", "seconds": value.total_seconds()}),
    (Decimal, lambda value: {"__class__": "Decimal", "decimal": str(value)}),
    ((bytes, bytearray), lambda value: {"__class__": "bytes", "base64": base64.b64encode(value).decode("ascii")}),
)


def _encode(value: Any) -> Any:
    for kind, encoder in _ENCODERS:
        if isinstance(value, kind):
            return encoder(value)
    raise TypeError(f"{type(value).__name__} has no form on the wire")
