"""Chooses the codec of a column: by its reflected type, or by the type that the application declares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any, TypeGuard

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from sync_pipelines.targets.types import sqlalchemy_types as storage
from sync_pipelines.targets.types import times, values
from sync_pipelines.targets.types.codec import ColumnCodec, Convert, Facts
from sync_pipelines.targets.types.json_values import equal_json, to_json
from sync_pipelines.targets.types.unwrap import none_if_missing, plain


def build_codec(
    name: str, kind: TypeEngine[Any], *, dialect: sa.Dialect, type_name: str, ask: Convert | None = None
) -> ColumnCodec:
    """Builds the codec of a column.

    Args:
        ask: For a PostgreSQL type that only the database understands: text -> the text that the database makes of it,
            raising ValueError for text that it refuses.
    """
    codec = ColumnCodec(name=name, type_name=type_name, storage=storage.AsGiven(), convert=values.to_text)
    if ask is not None:
        return replace(
            codec, storage=storage.DatabaseText(), convert=partial(_asked, ask), restore=str, facts=Facts("asked")
        )
    if isinstance(kind, sa.types.TypeDecorator) and not isinstance(kind, sa.Interval):
        return _decorated(codec, kind, dialect)
    if isinstance(kind, sa.Enum):
        return _enum(codec, kind)
    if isinstance(kind, sa.ARRAY):
        return _array(codec, kind, dialect)
    for types, build in _BUILDERS:
        if isinstance(kind, types):
            return build(codec, kind, dialect.name)
    return replace(codec, convert=partial(values.to_flexible, numeric=False))


def build_flexible_codec(name: str, type_name: str, *, numeric: bool) -> ColumnCodec:
    """Builds the codec of a SQLite column whose type SQLite itself doesn't know, such as `STRING`, or that has none.

    Args:
        numeric: True where text that looks like a number becomes one.
    """
    convert = partial(values.to_flexible, numeric=numeric)
    codec = ColumnCodec(name=name, type_name=type_name, storage=storage.AsGiven(), convert=convert)
    return replace(codec, key_forms=_flexible_forms, base_type=None if numeric else "BLOB")


def build_blob_codec(name: str, type_name: str) -> ColumnCodec:
    """Builds the codec of a BLOB of SQLite, which keeps text and numbers as well."""
    codec = build_flexible_codec(name, type_name, numeric=False)
    return replace(codec, convert=values.to_blob, restore=codec.convert)


def _flexible_forms(value: Any) -> list[Any]:
    return values.flexible_forms(value) if isinstance(value, str) else [value]


def build_json_codec(codec: ColumnCodec, convert: Convert, carried: storage.JsonText) -> ColumnCodec:
    """Builds the codec of a JSON column, whose values are converted and carried in that way."""
    facts = Facts("json")
    return replace(codec, convert=convert, unwrap=none_if_missing, equal=equal_json, storage=carried, facts=facts)


def has_python_values(declared: Any) -> TypeGuard[TypeEngine[Any]]:
    """True for types that give the application Python values of its own, which the database does not know."""
    if isinstance(declared, sa.Enum):
        return declared.enum_class is not None
    return isinstance(declared, sa.types.TypeDecorator) and not isinstance(declared, sa.Interval)


def _asked(ask: Convert, value: Any) -> Any:
    return ask(_literal(value))


def _literal(value: Any) -> str:
    if isinstance(value, list | tuple):
        return storage.array_literal(map(plain, value), _literal)
    return str(value) if isinstance(value, timedelta) else values.to_text(value)


def _decorated(codec: ColumnCodec, kind: sa.types.TypeDecorator[Any], dialect: sa.Dialect) -> ColumnCodec:
    if isinstance(kind, sa.PickleType):
        carried = storage.Readable(kind)
        return replace(codec, storage=carried, convert=_as_it_is, unwrap=none_if_missing, facts=Facts("own"))
    inner = build_codec(codec.name, kind.impl_instance, dialect=dialect, type_name=codec.type_name)
    return _through(kind, dialect, inner, codec)


def _through(
    kind: sa.types.TypeDecorator[Any], dialect: sa.Dialect, inner: ColumnCodec, codec: ColumnCodec
) -> ColumnCodec:
    """Builds the codec of an application's own type: a value goes into the database and back, in Python."""
    own = sa.types.TypeDecorator
    binds = type(kind).process_bind_param is not own.process_bind_param
    reads = type(kind).process_result_value is not own.process_result_value

    def convert(value: Any) -> Any:
        bound = kind.process_bind_param(value, dialect) if binds else value
        kept = None if bound is None else inner.convert(bound)
        return kind.process_result_value(kept, dialect) if reads else kept

    carried = storage.Readable(kind)
    return replace(
        codec, storage=carried, convert=convert, unwrap=none_if_missing, restore=_as_it_is, facts=Facts("own")
    )


def build_declared_codec(codec: ColumnCodec, kind: TypeEngine[Any], dialect: sa.Dialect) -> ColumnCodec:
    """Builds the codec of a column whose type the application declares, where the database's own is known.

    Args:
        codec: That of the column as the database has it.
        kind: An Enum with a class, a type decorator, or an Interval.
    """
    if isinstance(kind, sa.Interval):
        return replace(_interval(codec, kind, "sqlite"), storage=storage.Readable(kind))
    if isinstance(kind, sa.Enum):
        return _enum(codec, kind)
    if isinstance(kind, sa.PickleType):
        return _decorated(codec, kind, dialect)
    assert isinstance(kind, sa.types.TypeDecorator)  # noqa: S101 - what else has_python_values finds; tells mypy
    return _through(kind, dialect, codec, codec)


def _as_it_is(value: Any) -> Any:
    return value


def _enum(codec: ColumnCodec, kind: sa.Enum) -> ColumnCodec:
    if kind.enum_class is None:
        labels = tuple(kind.enums)
        return replace(codec, convert=partial(values.to_label, labels=labels), facts=Facts("enum", labels=labels))
    carried = storage.Readable(kind)
    return replace(codec, storage=carried, unwrap=none_if_missing, convert=partial(_member, kind), facts=Facts("enum"))


def _member(kind: sa.Enum, value: Any) -> Any:
    """Returns the member of the Enum class for itself, for the label that the database keeps, or for its value."""
    members = kind.enum_class
    assert members is not None  # noqa: S101 - only called for Enums with a class; tells mypy
    if isinstance(value, members):
        return value
    bare = plain(value)
    if bare in kind.enums:
        return dict(zip(kind.enums, members, strict=False))[bare]
    try:
        return members(bare)
    except ValueError:
        raise ValueError(f"allowed are: {', '.join(str(member.value) for member in members)}") from None


def _array(codec: ColumnCodec, kind: sa.ARRAY[Any], dialect: sa.Dialect) -> ColumnCodec:
    if isinstance(kind.item_type, sa.JSON):
        return replace(codec, convert=_json_elements, equal=equal_json, storage=storage.PostgresJsonArray())
    element = build_codec(codec.name, kind.item_type, dialect=dialect, type_name=codec.type_name)
    carried = storage.PostgresArray(_array_storage(kind.item_type), dimensions=kind.dimensions)
    return replace(
        codec,
        storage=carried,
        convert=partial(_elements, element.convert),
        restore=partial(_elements, element.restore or element.convert),
    )


def _array_storage(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """Returns the element's type without length and precision: a cast to these would cut values silently."""
    plain_types: list[tuple[type[TypeEngine[Any]], TypeEngine[Any]]] = [
        (sa.String, sa.Text()),
        (sa.Numeric, sa.Numeric()),
        (sa.Integer, sa.BigInteger()),
        (sa.DateTime, sa.DateTime(timezone=bool(getattr(kind, "timezone", False)))),
        (sa.Time, sa.Time(timezone=bool(getattr(kind, "timezone", False)))),
        (postgresql.INTERVAL, postgresql.INTERVAL()),
    ]
    return next((carried for types, carried in plain_types if isinstance(kind, types)), kind)


def _elements(convert: Convert, value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise TypeError("it is not a list")
    parts: list[Any] = []
    for part in value:
        bare = plain(part)
        if isinstance(bare, list | tuple):
            parts.append(_elements(convert, bare))
        else:
            parts.append(None if bare is None else convert(bare))
    return [] if all(part == [] for part in parts) else parts  # PostgreSQL keeps no empty dimensions


def _json_elements(value: Any) -> list[Any]:
    """Converts an array of one dimension: lists inside are JSON's."""
    if not isinstance(value, list | tuple):
        raise TypeError("it is not a list")
    return [to_json(part) for part in value]


def _integer(codec: ColumnCodec, kind: Any, dialect: str) -> ColumnCodec:
    bits = 64
    if dialect != "sqlite" and not isinstance(kind, sa.BigInteger):
        bits = 16 if isinstance(kind, sa.SmallInteger) else 32
    return replace(codec, convert=values.to_int, int_bits=bits, facts=Facts("int"))


def _float(codec: ColumnCodec, kind: Any, dialect: str) -> ColumnCodec:
    if dialect == "sqlite":
        return replace(codec, convert=values.to_float, facts=Facts("float"))
    if isinstance(kind, sa.REAL):
        return replace(codec, convert=values.to_float32, storage=storage.SinglePrecision())
    return replace(codec, convert=values.to_float_in_range, facts=Facts("float"))


def _numeric(codec: ColumnCodec, kind: Any, dialect: str) -> ColumnCodec:
    facts = Facts("numeric", digits=kind.precision, scale=kind.scale)
    if dialect == "sqlite":
        convert = partial(values.to_sqlite_decimal, scale=kind.scale)
        return replace(codec, convert=convert, storage=storage.SqliteNumber(), facts=facts)
    return replace(codec, convert=partial(values.to_scaled_decimal, scale=kind.scale), facts=facts)


def _text(codec: ColumnCodec, kind: Any, dialect: str) -> ColumnCodec:
    is_sqlite = dialect == "sqlite"
    padded = isinstance(kind, sa.CHAR) and not is_sqlite
    convert = partial(values.to_limited_text, length=kind.length, padded=padded, keeps_blanks=is_sqlite)
    return replace(codec, convert=convert, facts=Facts("text", length=kind.length, padded=padded))


def _uuid(codec: ColumnCodec, kind: Any, dialect: str) -> ColumnCodec:
    is_sqlite = dialect == "sqlite"
    carried: TypeEngine[Any] = storage.AsText()
    if is_sqlite:
        carried = storage.Readable(sa.Uuid(as_uuid=True, native_uuid=kind.native_uuid))
    return replace(codec, convert=values.to_uuid, storage=carried, facts=Facts("uuid"))


def _json(codec: ColumnCodec, _kind: Any, dialect: str) -> ColumnCodec:
    if dialect == "sqlite":
        return build_json_codec(codec, _sqlite_json, storage.JsonText())
    return build_json_codec(codec, to_json, storage.PostgresJson())


def _sqlite_json(value: Any) -> Any:
    form = to_json(value)
    is_large = type(form) is int and not values.INT64_MIN <= form <= values.INT64_MAX
    if is_large or isinstance(form, Decimal):
        return to_json(float(form))  # a lone number lies there as a number, not as text
    return form


def _time_storage(dialect: str) -> TypeEngine[Any]:
    carried: dict[str, TypeEngine[Any]] = {"sqlite": storage.SqliteTime(), "postgresql": storage.DatabaseText()}
    return carried.get(dialect, storage.AsGiven())


def _datetime(codec: ColumnCodec, kind: Any, dialect: str) -> ColumnCodec:
    precision = getattr(kind, "precision", None)
    codec = replace(codec, storage=_time_storage(dialect))
    facts = Facts("datetime", aware=bool(kind.timezone), digits=precision)
    convert = partial(times.to_datetime, aware=bool(kind.timezone), precision=precision)
    return replace(codec, convert=convert, facts=facts)


def _date(codec: ColumnCodec, _kind: Any, dialect: str) -> ColumnCodec:
    codec = replace(codec, storage=_time_storage(dialect))
    return replace(codec, convert=times.to_date, facts=Facts("date"))


def _time(codec: ColumnCodec, kind: Any, dialect: str) -> ColumnCodec:
    precision = getattr(kind, "precision", None)
    codec = replace(codec, storage=_time_storage(dialect))
    return replace(codec, convert=partial(times.to_time, aware=bool(kind.timezone), precision=precision))


def _interval(codec: ColumnCodec, kind: Any, dialect: str) -> ColumnCodec:
    codec = replace(codec, convert=partial(times.to_interval, precision=getattr(kind, "precision", None)))
    if dialect == "postgresql":
        return replace(codec, storage=storage.DatabaseText(), restore=times.from_postgres_interval)
    return replace(codec, storage=storage.Readable(sa.Interval()) if dialect == "sqlite" else storage.AsGiven())


_Build = Callable[[ColumnCodec, Any, str], ColumnCodec]
_BUILDERS: tuple[tuple[type[TypeEngine[Any]] | tuple[type[TypeEngine[Any]], ...], _Build], ...] = (
    (sa.Boolean, lambda codec, _kind, _dialect: replace(codec, convert=values.to_bool, facts=Facts("bool"))),
    (sa.Integer, _integer),
    (sa.Float, _float),
    (sa.Numeric, _numeric),
    (sa.Uuid, _uuid),
    (sa.JSON, _json),
    (sa.DateTime, _datetime),
    (sa.Date, _date),
    (sa.Time, _time),
    ((sa.Interval, postgresql.INTERVAL), _interval),
    (sa.LargeBinary, lambda codec, _kind, _dialect: replace(codec, convert=values.to_bytes)),
    (sa.String, _text),
)
