"""Conditions that a local value is one that Python reads: others have left what no item can mean."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from sync_pipelines.targets.types.codec import ColumnCodec

_SQLITE_FORMS: dict[str, tuple[tuple[str, ...], int | None]] = {
    "int": (("integer",), None),
    "numeric": (("integer", "real"), None),
    "date": (("text",), 10),
    "datetime": (("text",), 26),
    "uuid": (("text",), 32),
}
"""How keys lie in SQLite: the kinds of storage, and how many characters."""


def is_readable(codec: ColumnCodec, value: sa.ColumnElement[Any]) -> sa.ColumnElement[bool] | None:
    """The condition that Python has a value for what a column of PostgreSQL holds; None if it always has.

    `ColumnCodec.from_database` leaves the others as they are.
    """
    if codec.facts.family in {"date", "datetime"}:
        return sa.and_(value >= sa.literal_column("'0001-01-01'"), value < sa.literal_column("'10000-01-01'"))
    return value != sa.literal_column("'NaN'") if codec.facts.family in {"float", "numeric"} else None


def has_usual_form(local: sa.ColumnElement[Any], family: str) -> sa.ColumnElement[bool]:
    """The condition that a key of SQLite lies there as this project and SQLAlchemy write it."""
    types, length = _SQLITE_FORMS[family]
    has_type = sa.func.typeof(local).in_(types)
    return has_type if length is None else sa.and_(has_type, sa.func.length(local) == length)
