"""Canonical values as PostgreSQL's COPY reads them, and as SQLite's driver takes them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from sync_pipelines.targets.columns import ColumnCodec
from sync_pipelines.targets.storage import array_literal

Dump = Callable[[Any], Any]


def dump_for(codec: ColumnCodec, dialect: sa.Dialect) -> Dump:
    """The function that makes of a canonical value what is loaded: text on PostgreSQL, a driver's value on SQLite."""
    if isinstance(codec.storage, sa.ARRAY):
        return postgres_text
    process = codec.storage.dialect_impl(dialect).bind_processor(dialect)
    if dialect.name == "sqlite":
        return process or _given
    return (lambda value: postgres_text(process(value))) if process else postgres_text


def _given(value: Any) -> Any:
    return value


def postgres_text(value: Any) -> str:
    """The text of a value as PostgreSQL reads it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, list):
        return _array(value)
    return str(value)


def _array(values: list[Any]) -> str:
    if any(isinstance(each, list) for each in values):
        return f"{{{','.join('NULL' if each is None else _array(each) for each in values)}}}"
    return array_literal(values, postgres_text)
