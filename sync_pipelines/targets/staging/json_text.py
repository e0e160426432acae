"""Expressions by which PostgreSQL writes a column's value as the engine's JSON, where that is known to be the codec's.

What the database writes is read back as the very value that the codec gives: the texts need not be the same to a digit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from sync_pipelines.targets.staging.readable import is_readable
from sync_pipelines.targets.types.codec import ColumnCodec

Text = sa.ColumnElement[str]


def literal(text: str) -> Text:
    """A text as part of an expression."""
    return sa.literal(text, sa.Text())


NULL: Text = literal("null")


def json_text(codec: ColumnCodec, value: sa.ColumnElement[Any]) -> Text | None:
    """The JSON of a value that is in the column, or staged for it; None if only the codec can tell.

    Args:
        codec: The column's codec.
    """
    write = _WRITERS.get(codec.facts.family)
    if write is None or (codec.facts.scale or 0) < 0:  # of a negative scale the codec keeps how many digits count
        return None
    text, readable = write(codec, value), is_readable(codec, value)
    if readable is not None:
        text = sa.case((readable, text), else_=_json(_as_text(value)))
    return sa.func.coalesce(text, NULL, type_=sa.Text())


def id_text(codec: ColumnCodec, value: sa.ColumnElement[Any]) -> Text | None:
    """The JSON of the external id that a key of that one column stands for; None if only the codec can tell."""
    family = codec.facts.family
    if family == "text":
        return _text(codec, value)
    if family in {"int", "uuid"}:
        return literal('"') + _as_text(value) + literal('"')
    return None


def _as_text(value: sa.ColumnElement[Any]) -> Text:
    return sa.cast(value, sa.Text())


def _json(value: sa.ColumnElement[Any]) -> Text:
    return _as_text(sa.func.to_json(value))


def _tagged(kind: str, text: Text) -> Text:
    return literal(f'{{"$":"{kind}","v":"') + text + literal('"}')


def _text(_codec: ColumnCodec, value: sa.ColumnElement[Any]) -> Text:
    return _json(_as_text(value))


def _plain(_codec: ColumnCodec, value: sa.ColumnElement[Any]) -> Text:
    return _as_text(value)


def _bool(_codec: ColumnCodec, value: sa.ColumnElement[Any]) -> Text:
    return _json(value)


def _float(_codec: ColumnCodec, value: sa.ColumnElement[Any]) -> Text:
    # the infinite ones are quoted, and Python reads them bare; a whole number would be read as an int
    bare: Text = sa.func.replace(_json(value), '"', "", type_=sa.Text())
    is_whole = bare.regexp_match("^-?[0-9]+$")
    return sa.case((is_whole, bare + literal(".0")), else_=bare)


def _numeric(_codec: ColumnCodec, value: sa.ColumnElement[Any]) -> Text:
    return _tagged("decimal", _as_text(value))


def _datetime(codec: ColumnCodec, value: sa.ColumnElement[Any]) -> Text:
    is_aware = codec.facts.aware
    moment = sa.func.timezone("UTC", value) if is_aware else value
    text: Text = sa.func.to_char(moment, 'YYYY-MM-DD"T"HH24:MI:SS.US', type_=sa.Text())
    return _tagged("datetime", text + literal("+00:00") if is_aware else text)


def _date(_codec: ColumnCodec, value: sa.ColumnElement[Any]) -> Text:
    return _tagged("date", sa.func.to_char(value, "YYYY-MM-DD", type_=sa.Text()))


def _uuid(_codec: ColumnCodec, value: sa.ColumnElement[Any]) -> Text:
    return _tagged("uuid", _as_text(value))


_WRITERS: dict[str, Callable[[ColumnCodec, sa.ColumnElement[Any]], Text]] = {
    "text": _text,
    "int": _plain,
    "bool": _bool,
    "float": _float,
    "numeric": _numeric,
    "datetime": _datetime,
    "date": _date,
    "uuid": _uuid,
}
