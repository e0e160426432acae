"""The kinds of typed columns in a snapshot: the Python values that each holds, and how it gives the same ones back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal
from typing import Any

import pyarrow as pa

from sync_pipelines.engine.codec import decode, encode
from sync_pipelines.errors import ConfigurationError

NoneType = type(None)
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Unreadable:
    """Stands for a value that can't be made again from what was kept."""

    error: Exception


def _unchanged(value: Any) -> Any:
    return value


def _always(_values: Sequence[Any]) -> bool:
    return True


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """One kind of column.

    Args:
        arrow: How the file keeps it.
        types: The exact Python types it holds; None fits everywhere. Empty for the kind that holds any value.
        fits: Says whether values of these types fit, where the types alone don't decide.
        keep: Python value -> what Arrow takes for it.
        restore: What Arrow gives -> the same Python value.
    """

    name: str
    arrow: pa.DataType
    types: frozenset[type]
    fits: Callable[[Sequence[Any]], bool] = _always
    keep: Callable[[Any], Any] = _unchanged
    restore: Callable[[Any], Any] = _unchanged

    def holds(self, types: set[type], values: Sequence[Any]) -> bool:
        """True if a column of this kind can keep all these values."""
        return types <= self.types and (not types or self.fits(values))

    def to_arrow(self, values: Sequence[Any]) -> pa.Array:
        """Makes the column."""
        if self.keep is not _unchanged:
            keep = self.keep
            values = [None if value is None else keep(value) for value in values]
        return pa.array(values, self.arrow)

    def from_arrow(self, column: pa.Array | pa.ChunkedArray) -> list[Any]:
        """Returns the values of a column as they were; `Unreadable` in the place of one that can't be made again."""
        values: list[Any] = column.to_pylist()
        if self.restore is _unchanged:
            return values
        restore = self.restore
        try:
            return [None if value is None else restore(value) for value in values]
        except ConfigurationError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, it is narrowed down to one value
            return [None if value is None else self._restored(value) for value in values]

    def _restored(self, value: Any) -> Any:
        try:
            return self.restore(value)
        except Exception as error:  # noqa: BLE001 - one bad value never stops the others
            return Unreadable(error)


def _are_int64(values: Sequence[Any]) -> bool:
    known = [value for value in values if value is not None]
    return bool(min(known) >= INT64_MIN and max(known) <= INT64_MAX)


def _zones(values: Sequence[Any]) -> set[tzinfo | None]:
    """Returns the time zones; none if one has no hash, as dateutil's: then it is not one of Python's own."""
    try:
        return {value.tzinfo for value in values if value is not None}
    except TypeError:
        return set()


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdecimal() else float(text)


NOTHING = Kind("nothing", pa.string(), frozenset())
TEXT = Kind("text", pa.string(), frozenset({str}))
INT = Kind("int", pa.int64(), frozenset({int}), fits=_are_int64)
FLOAT = Kind("float", pa.float64(), frozenset({float}))
# int and float side by side, as JSON sources give them: 10 stays an int, 10.0 a float
NUMBER = Kind("number", pa.string(), frozenset({int, float}), keep=repr, restore=_number)
BOOL = Kind("bool", pa.bool_(), frozenset({bool}))
DECIMAL = Kind("decimal", pa.string(), frozenset({Decimal}), keep=str, restore=Decimal)
UTC_MOMENT = Kind("utc", pa.timestamp("us", "UTC"), frozenset({datetime}), fits=lambda values: _zones(values) == {UTC},
                  restore=lambda value: value.replace(tzinfo=UTC))  # fmt: skip
NAIVE_MOMENT = Kind("naive", pa.timestamp("us"), frozenset({datetime}), fits=lambda values: _zones(values) == {None})
MOMENT = Kind(
    "moment", pa.string(), frozenset({datetime}), keep=datetime.isoformat, restore=datetime.fromisoformat
)  # of any zone, as its offset
DATE = Kind("date", pa.date32(), frozenset({date}))
BYTES = Kind("bytes", pa.binary(), frozenset({bytes}))
ANY = Kind("any", pa.string(), frozenset(), keep=encode, restore=decode)

_BY_PREFERENCE = (TEXT, INT, FLOAT, NUMBER, BOOL, DECIMAL, UTC_MOMENT, NAIVE_MOMENT, MOMENT, DATE, BYTES)
KINDS = {kind.name: kind for kind in (NOTHING, *_BY_PREFERENCE, ANY)}
_WIDER = {INT: NUMBER, FLOAT: NUMBER, UTC_MOMENT: MOMENT, NAIVE_MOMENT: MOMENT}


def types_of(values: Sequence[Any]) -> set[type]:
    """Returns the exact types of the values, without that of None."""
    return set(map(type, values)) - {NoneType}


def kind_for(values: Sequence[Any], known: Kind = NOTHING) -> Kind:
    """Returns the narrowest kind that holds these values and those that a column of the known kind already has."""
    types = types_of(values)
    if known is ANY or known.holds(types, values):
        return known
    own = next((kind for kind in _BY_PREFERENCE if kind.holds(types, values)), ANY)
    if known in {NOTHING, own}:
        return own
    wider = _WIDER.get(known, known)
    return wider if wider.holds(types, values) else ANY
