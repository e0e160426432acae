"""Canonical values as PostgreSQL's COPY reads them, and as SQLite's driver takes them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from sync_pipelines.targets.types.codec import ColumnCodec
from sync_pipelines.targets.types.sqlalchemy_types import PostgresArray, array_literal

Dump = Callable[[Any], Any]


def dump_for(codec: ColumnCodec, dialect: sa.Dialect) -> Dump:
    """The function that makes of a canonical value what is loaded: text on PostgreSQL, a driver's value on SQLite."""
    if isinstance(codec.storage, PostgresArray):
        return postgres_text
    process = codec.storage.dialect_impl(dialect).bind_processor(dialect)
    if dialect.name == "sqlite":
        return process or _given
    return (lambda value: postgres_text(process(value))) if process else postgres_text


def _given(value: Any) -> Any:
    return value


def postgres_text(value: Any) -> str:
    """The text of a value as PostgreSQL reads it."""
    return next(write(value) for kinds, write in _WRITERS if isinstance(value, kinds))


def _isoformat(value: date | time) -> str:
    return value.isoformat()


def _interval(value: timedelta) -> str:
    # each field with its sign: in some styles a minus in front would count for all of them
    return f"{value.days:+d} days {value.seconds:+d} seconds {value.microseconds:+d} microseconds"


def _array(values: list[Any]) -> str:
    if any(isinstance(each, list) for each in values):
        return f"{{{','.join('NULL' if each is None else _array(each) for each in values)}}}"
    return array_literal(values, postgres_text)


_WRITERS: tuple[tuple[Any, Callable[[Any], str]], ...] = (
    (str, str),
    (bool, lambda value: "true" if value else "false"),
    (Decimal, lambda value: format(value, "f")),
    ((date, time), _isoformat),
    (timedelta, _interval),
    (bytes, lambda value: f"\\x{value.hex()}"),
    (list, _array),
    (object, str),
)
