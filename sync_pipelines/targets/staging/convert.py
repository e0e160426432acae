"""Whole columns of item values, converted at once where the result is known to be the codec's own, else one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from sync_pipelines.errors import ItemError
from sync_pipelines.snapshots import column_kinds
from sync_pipelines.snapshots.column_kinds import Kind, Unreadable
from sync_pipelines.targets.staging.copy_text import Dump, dump_for
from sync_pipelines.targets.types.codec import ColumnCodec, Facts

_LARGEST_EXACT_FLOAT = 2**53
_MOMENT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})$"
_DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_WHOLE = r"^-?[0-9]{1,18}$"
_UUID = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
_UUID_DIGITS = 32
_SAFE_DIGITS = 15  # a double holds them all
_MANY_DIGITS = 1_000
_USUAL = (date(1, 1, 3), date(9999, 12, 29))

Vector = tuple[Any, Any]
"""Values, and a mask that is true where they are sure; None for the mask if all are."""


@dataclass(frozen=True, slots=True)
class Converted:
    """A column ready to be loaded.

    Args:
        values: The values, null for those that were refused.
        refused: Places whose value does not convert, or which only the database can judge.
    """

    values: pa.Array
    refused: frozenset[int]


class ColumnConverter:
    """Converts columns of values for one column of the table.

    Args:
        codec: The column's codec.
        dialect: PostgreSQL's or SQLite's.
    """

    def __init__(self, codec: ColumnCodec, dialect: sa.Dialect) -> None:
        self.codec = codec
        self._on_sqlite = dialect.name == "sqlite"
        self._dump: Dump = dump_for(codec, dialect)

    def convert(self, kind: Kind, values: pa.Array) -> Converted:
        """Converts item values.

        Args:
            kind: How the snapshot keeps them.
            values: The values as it keeps them.
        """
        if kind is column_kinds.NOTHING or values.null_count == len(values):
            return Converted(pa.nulls(len(values), pa.string()), frozenset())
        quick = _VECTORS.get((self.codec.facts.family, kind.name))
        if quick is None:
            return self._convert_each(kind, values, list(range(len(values))), None)
        converted, sure = quick(values, self.codec, self._on_sqlite)
        if sure is None:
            return Converted(converted, frozenset())
        unsure = pc.and_(pc.invert(pc.fill_null(sure, fill_value=False)), values.is_valid())
        places = pc.indices_nonzero(unsure).to_pylist()
        return self._convert_each(kind, values, places, converted) if places else Converted(converted, frozenset())

    def convert_keys(self, external_ids: pa.Array) -> tuple[Converted, dict[int, Exception]]:
        """Converts external ids to key values; also gives why some do not convert."""
        errors: dict[int, Exception] = {}
        quick = _VECTORS.get((self.codec.facts.family, "text"))
        if self.codec.facts.scale is not None:
            quick = None  # a key that is not rounded yet would be another one
        converted, sure = quick(external_ids, self.codec, self._on_sqlite) if quick else (None, None)
        if quick is not None and sure is None:
            return Converted(converted, frozenset()), errors
        places = list(range(len(external_ids)))
        if sure is not None:
            places = pc.indices_nonzero(pc.invert(pc.fill_null(sure, fill_value=False))).to_pylist()
        if not places:
            return Converted(converted, frozenset()), errors
        given = external_ids.take(pa.array(places, pa.int64())).to_pylist()
        patches: dict[int, Any] = {}
        for place, external_id in zip(places, given, strict=True):
            try:
                patches[place] = self._without_nul(self._dump(self.codec.key_from_id(external_id)))
            except ItemError as error:
                errors[place] = error
                patches[place] = None
        return Converted(self._patched(converted, patches, len(external_ids)), frozenset(errors)), errors

    def _convert_each(self, kind: Kind, values: pa.Array, places: list[int], sure: pa.Array | None) -> Converted:
        """Converts the values at these places one by one, and puts them among those that are sure."""
        given = kind.from_arrow(values.take(pa.array(places, pa.int64())))
        patches: dict[int, Any] = {}
        refused: set[int] = set()
        for place, value in zip(places, given, strict=True):
            try:
                canonical = self.codec.from_item(_readable(value))
                patches[place] = None if canonical is None else self._checked(self._dump(canonical))
            except ItemError:
                refused.add(place)
                patches[place] = None
        return Converted(self._patched(sure, patches, len(values)), frozenset(refused))

    def _without_nul(self, dumped: Any) -> Any:
        """The value of a key, which may be too large for its column: then the database says so when it is written."""
        if isinstance(dumped, str) and not self._on_sqlite and "\x00" in dumped:
            raise ItemError(f"column {self.codec.name!r}: the text holds a NUL character")
        return dumped

    def _checked(self, dumped: Any) -> Any:
        """The value, unless the load of a whole page would fail on it; what is wrong with it the database says."""
        if isinstance(dumped, str) and not self._on_sqlite:
            self._without_nul(dumped)
            if self.codec.facts.family == "json" and "\\u0000" in dumped:
                raise ItemError("the text holds a NUL character")
            if self.codec.facts.family == "numeric" and not _fits_numeric(dumped, self.codec.facts):
                raise ItemError("the number is too large for the column")
            length = self.codec.facts.length
            if self.codec.facts.family == "text" and length is not None and len(dumped) > length:
                raise ItemError("the text is too long for the column")
        if self.codec.int_bits and not -(2 ** (self.codec.int_bits - 1)) <= int(dumped) < 2 ** (
            self.codec.int_bits - 1
        ):
            raise ItemError("the number is out of range of the column")
        return dumped

    def _patched(self, sure: pa.Array | None, patches: dict[int, Any], count: int) -> pa.Array:
        if self._on_sqlite:
            values = sure.to_pylist() if sure is not None else [None] * count
            for place, value in patches.items():
                values[place] = value
            return _any_array(values)
        texts = pc.cast(sure, pa.string()).to_pylist() if sure is not None else [None] * count
        for place, value in patches.items():
            texts[place] = value
        return pa.array(texts, pa.string())


def _readable(value: Any) -> Any:
    if type(value) is Unreadable:
        raise ItemError("the value can't be made again")
    return value


def _any_array(values: list[Any]) -> Any:
    """What goes to SQLite's driver may be of any mixture of types, which Arrow can't hold."""
    return PythonValues(values)


class PythonValues(list[Any]):
    """A column of driver values that is no Arrow array."""

    def to_pylist(self) -> list[Any]:
        """The values."""
        return self


def _fits_numeric(text: str, facts: Facts) -> bool:
    whole, _, fraction = text.lstrip("-").partition(".")
    if not whole.isdecimal() or (fraction and not fraction.isdecimal()):
        return False
    if facts.digits is None:
        return len(whole) <= _MANY_DIGITS and len(fraction) <= _MANY_DIGITS
    return len(whole.lstrip("0")) <= facts.digits - (facts.scale or 0)


def _text(values: Any, codec: ColumnCodec, on_sqlite: bool) -> Vector:  # noqa: FBT001 - one of a table of functions
    facts = codec.facts
    sure: Any = None
    if not on_sqlite:
        sure = pc.invert(pc.match_substring(values, "\x00"))
    if facts.padded:
        values = pc.utf8_rtrim(values, " ")
    if facts.length is not None:
        lengths = pc.utf8_length(values)
        fits = pc.less_equal(lengths, facts.length)
        if facts.length == _UUID_DIGITS:
            fits = pc.and_(fits, pc.less(lengths, _UUID_DIGITS))
        sure = fits if sure is None else pc.and_(sure, fits)
    return values, _none_if_all(sure)


def _none_if_all(sure: Any) -> Any:
    return None if sure is None or pc.all(sure, skip_nulls=True, min_count=0).as_py() else sure


def _int_as_text(values: Any, codec: ColumnCodec, on_sqlite: bool) -> Vector:  # noqa: FBT001
    return _text(pc.cast(values, pa.string()), codec, on_sqlite)


def _int(values: Any, codec: ColumnCodec, _on_sqlite: bool) -> Vector:  # noqa: FBT001
    bits = codec.int_bits or 64
    if bits == 64:  # noqa: PLR2004 - as wide as the snapshot's
        return values, None
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return values, _none_if_all(pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high)))


def _text_as_int(values: Any, codec: ColumnCodec, on_sqlite: bool) -> Vector:  # noqa: FBT001
    whole = pc.match_substring_regex(values, _WHOLE)
    numbers = pc.cast(pc.if_else(whole, values, None), pa.int64())
    converted, fits = _int(numbers, codec, on_sqlite)
    sure = whole if fits is None else pc.and_(whole, pc.fill_null(fits, fill_value=False))
    return converted, _none_if_all(sure)


def _float(values: Any, _codec: ColumnCodec, _on_sqlite: bool) -> Vector:  # noqa: FBT001
    return pc.if_else(pc.is_nan(values), None, values), None


def _int_as_float(values: Any, _codec: ColumnCodec, _on_sqlite: bool) -> Vector:  # noqa: FBT001
    sure = pc.and_(pc.less_equal(values, _LARGEST_EXACT_FLOAT), pc.greater_equal(values, -_LARGEST_EXACT_FLOAT))
    return pc.cast(pc.if_else(sure, values, None), pa.float64()), _none_if_all(sure)


def _decimal(values: Any, codec: ColumnCodec, on_sqlite: bool) -> Vector:  # noqa: FBT001
    """Decimals as text. Rounding is left to the codec, except that PostgreSQL rounds in the same way."""
    facts = codec.facts
    if on_sqlite:
        most = _SAFE_DIGITS - (facts.scale if facts.scale is not None else 6)
        scale = facts.scale if facts.scale is not None else 6
        pattern = rf"^-?[0-9]{{1,{most}}}(\.[0-9]{{1,{scale}}})?$" if 0 < scale < _SAFE_DIGITS else r"^-?[0-9]{1,15}$"
        sure = pc.match_substring_regex(values, pattern)
        return pc.cast(pc.if_else(sure, values, None), pa.float64()), _none_if_all(sure)
    most = _MANY_DIGITS if facts.digits is None else facts.digits - (facts.scale or 0) - 1
    if most < 1 or (facts.scale or 0) < 0:
        return values, pc.equal(values, "")  # sure of none
    sure = pc.match_substring_regex(values, rf"^-?[0-9]{{1,{most}}}(\.[0-9]{{1,{_MANY_DIGITS}}})?$")
    return values, _none_if_all(sure)


def _int_as_decimal(values: Any, codec: ColumnCodec, on_sqlite: bool) -> Vector:  # noqa: FBT001
    if on_sqlite:
        return values, None
    return _decimal(pc.cast(values, pa.string()), codec, on_sqlite)


def _bool(values: Any, _codec: ColumnCodec, _on_sqlite: bool) -> Vector:  # noqa: FBT001
    return values, None


def _moment(values: Any, _codec: ColumnCodec, on_sqlite: bool) -> Vector:  # noqa: FBT001
    """Moments as the wall clock in UTC, which is the session's zone. PostgreSQL rounds them as the codec does.

    Arrow writes moments with a zone thirty times slower than without.
    """
    wall_clock = pc.cast(values, pa.timestamp("us"))
    return (pc.cast(wall_clock, pa.string()) if on_sqlite else wall_clock), None


def _text_as_moment(values: Any, codec: ColumnCodec, on_sqlite: bool) -> Vector:  # noqa: FBT001
    sure = pc.match_substring_regex(values, _MOMENT)
    try:
        moments = pc.cast(pc.if_else(sure, values, None), pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:  # a 30th of February, say
        return values, pc.equal(values, "")  # sure of none
    converted, _ = _moment(moments, codec, on_sqlite)
    return converted, _none_if_all(pc.and_(sure, _is_usual(moments)))


def _day(values: Any, _codec: ColumnCodec, on_sqlite: bool) -> Vector:  # noqa: FBT001
    return (pc.cast(values, pa.string()) if on_sqlite else values), None


def _text_as_day(values: Any, codec: ColumnCodec, on_sqlite: bool) -> Vector:  # noqa: FBT001
    sure = pc.match_substring_regex(values, _DAY)
    try:
        days = pc.cast(pc.if_else(sure, values, None), pa.date32())
    except pa.ArrowInvalid:
        return values, pc.equal(values, "")  # sure of none
    converted, _ = _day(days, codec, on_sqlite)
    return converted, _none_if_all(pc.and_(sure, _is_usual(days)))


def _is_usual(times: Any) -> Any:
    """True for moments and days that are Python's in every zone; Arrow also reads the years 0 and 10000."""
    first, last = (pa.scalar(bound, pa.date32()).cast(times.type) for bound in _USUAL)
    inside = pc.and_(pc.greater_equal(times, first), pc.less_equal(times, last))
    return pc.fill_null(inside, fill_value=False)


def _text_as_uuid(values: Any, _codec: ColumnCodec, on_sqlite: bool) -> Vector:  # noqa: FBT001
    if on_sqlite:
        return values, pc.equal(values, "")  # sure of none: it depends on how the application keeps them
    sure = pc.match_substring_regex(values, _UUID)
    return pc.utf8_lower(values), _none_if_all(sure)


def _label(values: Any, codec: ColumnCodec, _on_sqlite: bool) -> Vector:  # noqa: FBT001
    if not codec.facts.labels:
        return values, pc.equal(values, "")  # sure of none
    return values, _none_if_all(pc.is_in(values, value_set=pa.array(codec.facts.labels, pa.string())))


_VECTORS: dict[tuple[str, str], Callable[[Any, ColumnCodec, bool], Vector]] = {
    ("text", "text"): _text,
    ("text", "int"): _int_as_text,
    ("int", "int"): _int,
    ("int", "text"): _text_as_int,
    ("int", "number"): _text_as_int,
    ("int", "decimal"): _text_as_int,
    ("float", "float"): _float,
    ("float", "int"): _int_as_float,
    ("numeric", "decimal"): _decimal,
    ("numeric", "text"): _decimal,
    ("numeric", "number"): _decimal,
    ("numeric", "int"): _int_as_decimal,
    ("bool", "bool"): _bool,
    ("datetime", "utc"): _moment,
    ("datetime", "naive"): _moment,
    ("datetime", "text"): _text_as_moment,
    ("datetime", "moment"): _text_as_moment,
    ("date", "date"): _day,
    ("date", "text"): _text_as_day,
    ("uuid", "text"): _text_as_uuid,
    ("enum", "text"): _label,
}
