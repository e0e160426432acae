"""One codec per column of MySQL or MariaDB: what comes back of a value, so that a second run changes nothing.

Both servers change values on their way in, some even in strict mode: blanks and fractions are cut off, fixed binary
values filled up, two-digit years completed. Here a value is brought into the form that comes back before it is written.

Source: the chapters on data types in the manuals of both servers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import time, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from sync_pipelines.targets.dialects import mysql_sqlalchemy_types as mysql_storage
from sync_pipelines.targets.types import sqlalchemy_types as storage
from sync_pipelines.targets.types import times, values
from sync_pipelines.targets.types.choose_codec import build_json_codec
from sync_pipelines.targets.types.codec import ColumnCodec, Convert, Facts
from sync_pipelines.targets.types.json_values import to_json
from sync_pipelines.targets.types.unwrap import plain

_UINT64_MAX = 2**64 - 1
_UUID_BYTES = 16
_DECIMAL_DIGITS = 65
_PLACES_WITHOUT_EXPONENT = 6
_YEARS = range(1901, 2156)
_DAY = timedelta(days=1)
# A statement has more in it than one value, and some characters are written as two.
_ROOM_BYTES = 4096


@dataclass(frozen=True, slots=True)
class MysqlColumn:
    """A column as `information_schema` describes it.

    Args:
        data_type: The type without size, in small letters; `json_text` for MariaDB's JSON.
        type_name: The type as the database writes it, e.g. `int(10) unsigned`.
        length: Characters (bytes of a binary type) that fit, None for other types.
        octets: Bytes that fit, None for types that are neither text nor binary.
        scale: Digits after the point, None if not said.
        fraction: Digits of a second that are kept.
        fills_itself: True if the database makes a number where NULL is written.
        packet_bytes: Longest statement that the server takes.
    """

    name: str
    data_type: str
    type_name: str
    charset: str | None
    collation: str | None
    length: int | None
    octets: int | None
    scale: int | None
    fraction: int
    nullable: bool
    fills_itself: bool
    packet_bytes: int


def build_mysql_codec(column: MysqlColumn) -> ColumnCodec:
    """Builds the codec of a column; that of a type not known here converts nothing."""
    codec = ColumnCodec(name=column.name, type_name=column.type_name, storage=storage.AsGiven(), convert=_refused)
    build = _BUILDERS.get(column.data_type)
    built = codec if build is None else build(codec, column)
    if column.fills_itself or (column.data_type == "timestamp" and not column.nullable):
        return replace(built, unwrap=partial(_filled, built.unwrap))
    return built


def why_unwritable(column: MysqlColumn) -> str | None:
    """Says why no sync can write that column; None if one can."""
    return None if column.data_type in _BUILDERS else f"which is of the type {column.type_name}, not known here"


def why_no_key(column: MysqlColumn) -> str | None:
    """Says why the type of that column is none for a key; None if it is one."""
    if column.data_type == "float":
        return "is of the type float, whose values are not found again by comparing; take decimal or double"
    if column.data_type in {"json", "json_text"} or column.data_type not in _BUILDERS:
        return f"is of the type {column.type_name}, which is none for a key"
    return None


def _refused(_value: Any) -> Any:
    raise ValueError("columns of this type are not written by SqlTable; name the others in columns")


def _filled(unwrap: Convert, value: Any) -> Any:
    """Refuses NULL, which does not stay NULL in such a column: the database makes a number or the time of it."""
    bare = unwrap(value)
    if bare is None:
        raise ValueError("the column can't be NULL")
    return bare


def _boolean_or_number(value: Any) -> Any:
    """Gives a boolean for 0 and 1 only: `tinyint(1)` is a boolean by custom, and holds other small numbers too."""
    number = values.to_bool(value) if isinstance(value, str) and not values.looks_numeric(value) else _to_int(value)
    return bool(number) if number in (0, 1) else number


def _to_int(value: Any) -> int | None:
    number = values.to_int(value)
    if number is not None and not values.INT64_MIN <= number <= _UINT64_MAX:
        raise ValueError("it is out of range")
    return number


def _integer(codec: ColumnCodec, column: MysqlColumn) -> ColumnCodec:
    if column.type_name.lower().startswith("tinyint(1)"):
        return replace(codec, convert=_boolean_or_number, facts=Facts("bool"))
    return replace(codec, convert=_to_int, facts=Facts("int"))


def _numeric(codec: ColumnCodec, column: MysqlColumn) -> ColumnCodec:
    scale = column.scale or 0
    carried = mysql_storage.FineDecimal(scale) if scale > _PLACES_WITHOUT_EXPONENT else storage.AsGiven()
    convert = partial(_to_decimal, scale)
    return replace(codec, convert=convert, storage=carried, facts=Facts("numeric", scale=scale))


def _to_decimal(scale: int, value: Any) -> Any:
    number = _finite(partial(values.to_scaled_decimal, scale=scale), value)
    if number is not None and number.adjusted() >= _DECIMAL_DIGITS - scale:
        raise ValueError("it is out of range")
    return number


def _finite(convert: Convert, value: Any) -> Any:
    number = convert(value)
    if isinstance(number, float) and number in (float("inf"), float("-inf")):
        raise ValueError("the database has no infinite numbers")
    if number is not None and not isinstance(number, float) and not number.is_finite():
        raise ValueError("the database has no infinite numbers")
    return number


def _float(codec: ColumnCodec, column: MysqlColumn) -> ColumnCodec:
    single = column.data_type == "float"
    last = values.to_float32 if single else values.to_float
    convert = partial(_finite, partial(_scaled_float, last, column.scale))
    carried = mysql_storage.SingleFloat() if single else storage.AsGiven()
    return replace(codec, convert=convert, restore=last, storage=carried, facts=Facts("float"))


def _scaled_float(last: Convert, scale: int | None, value: Any) -> Any:
    if scale is not None:
        value = values.to_scaled_decimal(value, scale=scale)
    return None if value is None else last(value)


def _text(codec: ColumnCodec, column: MysqlColumn) -> ColumnCodec:
    padded, length = column.data_type == "char", column.length
    convert = partial(_limited, column, partial(values.to_limited_text, length=length, padded=padded))
    if column.data_type.endswith("text"):
        convert = partial(_limited, column, values.to_text)
    return replace(codec, convert=convert, facts=Facts("text", length=length, padded=padded))


def _limited(column: MysqlColumn, convert: Convert, value: Any) -> Any:
    """Cuts blanks off that a `text` has no room for, as the database does; refuses what no statement can carry."""
    text = convert(value)
    if 4 * len(text) < min(column.octets or 0, column.packet_bytes // 2):
        return text
    kept = text.encode()
    if column.data_type.endswith("text") and len(kept) > (column.octets or 0):
        rest = kept[column.octets :]
        text = text[: len(text) - len(rest)] if not rest.strip(b" ") else text
    escaped = sum(map(text.count, "\\'\"\0\n\r\x1a"))
    _require_room(column, len(text.encode()) + escaped)
    return text


def _require_room(column: MysqlColumn, size_bytes: int) -> None:
    if size_bytes > column.packet_bytes - _ROOM_BYTES:
        raise ValueError(
            f"it is longer than the server takes in a statement; raise its max_allowed_packet ({column.packet_bytes:,})"
        )


def _to_bytes(column: MysqlColumn, value: Any) -> bytes:
    fixed = column.data_type == "binary"
    if fixed and column.length == _UUID_BYTES and not _is_bytes(value):
        return values.to_uuid(value).bytes
    kept = values.to_bytes(value)
    _require_room(column, 2 * len(kept) if 2 * len(kept) > column.packet_bytes else len(kept))
    return kept.ljust(column.length or 0, b"\0") if fixed else kept


def _is_bytes(value: Any) -> bool:
    return isinstance(value, bytes | bytearray | memoryview) or (isinstance(value, str) and value.startswith("\\x"))


def _bits(codec: ColumnCodec, column: MysqlColumn) -> ColumnCodec:
    single = column.type_name.lower() == "bit(1)"
    return replace(codec, convert=partial(_to_bits, single), facts=Facts("bool" if single else "int"))


def _to_bits(single: bool, value: Any) -> Any:  # noqa: FBT001 - `partial` gives it
    if isinstance(value, bytes | bytearray):
        value = int.from_bytes(value)
    return _boolean_or_number(value) if single else _to_int(value)


def _datetime(codec: ColumnCodec, column: MysqlColumn) -> ColumnCodec:
    aware = column.data_type == "timestamp"
    convert = partial(times.to_datetime, aware=aware, precision=column.fraction)
    return replace(codec, convert=convert, storage=mysql_storage.Moment(), facts=Facts("datetime", aware=aware))


def _to_time(fraction: int, value: Any) -> time | timedelta:
    """Gives a time of day, or the duration that such a column holds as well: longer than a day, or negative."""
    try:
        return times.to_time(value, aware=False, precision=fraction)
    except (TypeError, ValueError):
        if not isinstance(value, str | timedelta):
            raise
    length = times.to_interval(value, precision=fraction)
    return times.to_clock(length) if timedelta(0) <= length < _DAY else length


def _to_year(value: Any) -> int | None:
    year = values.to_int(value)
    if year is not None and year != 0 and year not in _YEARS:
        raise ValueError(f"a year is 0, or from {_YEARS[0]} to {_YEARS[-1]}")
    return year


def _labels(column: MysqlColumn) -> tuple[str, ...]:
    """Returns the labels of an `enum` or `set`, in their order, out of `enum('a','it''s')`."""
    inside = column.type_name.partition("(")[2].rpartition(")")[0]
    return tuple(part.replace("''", "'") for part in inside[1:-1].split("','")) if inside else ()


def _enum(codec: ColumnCodec, column: MysqlColumn) -> ColumnCodec:
    labels = dict.fromkeys(_labels(column))  # looked up by value, listed in their order
    return replace(codec, convert=partial(values.to_label, labels=labels), facts=Facts("enum"))


def _members(labels: tuple[str, ...], value: Any) -> str:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple | set | frozenset):
        raise TypeError("it is neither text nor a list")
    members = {values.to_text(plain(part)) for part in parts} - {""}
    if unknown := members - set(labels):
        raise ValueError(f"{', '.join(sorted(unknown))}: allowed are: {', '.join(labels)}")
    return ",".join(label for label in labels if label in members)


def _json(codec: ColumnCodec, column: MysqlColumn) -> ColumnCodec:
    return build_json_codec(codec, _to_native_json if column.data_type == "json" else to_json, storage.JsonText())


def _to_native_json(value: Any) -> Any:
    """Gives the JSON that MySQL gives back: whole numbers of 64 bits exactly, all others rounded to doubles."""
    return _rounded(to_json(value))


def _rounded(form: Any) -> Any:
    if isinstance(form, dict):
        return {key: _rounded(part) for key, part in form.items()}
    if isinstance(form, list):
        return [_rounded(part) for part in form]
    if isinstance(form, Decimal) or (
        isinstance(form, int) and not isinstance(form, bool) and not values.INT64_MIN <= form <= _UINT64_MAX
    ):
        return to_json(float(form))
    return form


_Build = Callable[[ColumnCodec, MysqlColumn], ColumnCodec]
_BUILDERS: dict[str, _Build] = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "bigint"), _integer),
    "decimal": _numeric,
    **dict.fromkeys(("float", "double"), _float),
    **dict.fromkeys(("char", "varchar", "tinytext", "text", "mediumtext", "longtext"), _text),
    **dict.fromkeys(
        ("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"),
        lambda codec, column: replace(codec, convert=partial(_to_bytes, column)),
    ),
    "bit": _bits,
    **dict.fromkeys(("datetime", "timestamp"), _datetime),
    "date": lambda codec, _: replace(codec, convert=times.to_date, facts=Facts("date")),
    "time": lambda codec, column: replace(
        codec, convert=partial(_to_time, column.fraction), storage=mysql_storage.Duration()
    ),
    "year": lambda codec, _: replace(codec, convert=_to_year, facts=Facts("int")),
    "enum": _enum,
    "set": lambda codec, column: replace(codec, convert=partial(_members, _labels(column)), facts=Facts("set")),
    **dict.fromkeys(("json", "json_text"), _json),
    "uuid": lambda codec, _: replace(codec, convert=values.to_uuid, storage=storage.AsText(), facts=Facts("uuid")),
}
