"""Converts values, whatever they came as, into the one Python value that a column type would give back.

Every function takes a value that is not missing and was made plain (`plain`), and raises `ValueError`, `TypeError` or
`ArithmeticError` for one that does not convert. None of them knows a database.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Collection
from contextlib import suppress
from datetime import timedelta
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any
from uuid import UUID

from sync_pipelines.targets.types.json_values import json_text

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
BLANKS = " \t\n\v\f\r"
"""What may stand around a number or a truth value in text, as databases have it; a no-break space may not."""
_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|[+-]?(?:inf|infinity|nan)", re.IGNORECASE | re.ASCII
)
_UUID = re.compile(r"(?:urn:uuid:)?\{?[0-9a-f-]{32,}\}?", re.IGNORECASE | re.ASCII)
_HYPHENATED_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_MAX_EXPONENT = 1000
_SQLITE_BLANKS = " \t\n\v\f\r"
_SAYS_ITSELF = (int, UUID, IPv4Address, IPv6Address, IPv4Network, IPv6Network, IPv4Interface, IPv6Interface)
_TRUE = frozenset({"true", "t", "yes", "y", "on", "1"})
_FALSE = frozenset({"false", "f", "no", "n", "off", "0"})
# PostgreSQL keeps up to 131072 digits before the point and 16383 after it; the default context would stop at 28.
_WIDE = Context(prec=150_000, rounding=ROUND_HALF_UP)
_FLOAT32_DIGITS = 9


def to_bool(value: Any) -> bool:
    """Gives True or False for booleans, for 0 and 1 as any number, and for the words PostgreSQL accepts."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        word = value.strip(BLANKS).lower()
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
    elif isinstance(value, int | float | Decimal) and value in (0, 1):
        return bool(value)
    raise ValueError("it is neither true nor false")


def to_decimal(value: Any) -> Decimal | None:
    """Gives the exact decimal; of a float the shortest decimal that is that float. The text "NaN" is None."""
    if isinstance(value, float):
        number = Decimal(repr(value))
    elif isinstance(value, int | Decimal):
        number = Decimal(value)
    elif isinstance(value, str):
        text = value.strip(BLANKS)
        if not _NUMBER.fullmatch(text):
            raise ValueError("it is not a number")
        number = Decimal(text)
    else:
        raise TypeError("it is not a number")
    return None if number.is_nan() else number


def to_scale(number: Decimal, scale: int | None) -> Decimal:
    """Rounds as PostgreSQL does: half away from zero, at `scale` digits after the point (may be negative)."""
    if scale is None or not number.is_finite():
        return number
    try:
        return number.quantize(Decimal(1).scaleb(-scale), context=_WIDE)
    except InvalidOperation:
        return number  # more digits than any database keeps: its own error says so better


def to_scaled_decimal(value: Any, scale: int | None) -> Decimal | None:
    """Gives the decimal that PostgreSQL would give back; the text "NaN" is None."""
    number = to_decimal(value)
    return None if number is None else to_scale(number, scale)


def to_sqlite_decimal(value: Any, scale: int | None) -> Decimal | None:
    """Gives the decimal that SQLite would give back: whole numbers of 64 bits are exact, all others floats."""
    if isinstance(value, float) and value.is_integer() and INT64_MIN <= value <= INT64_MAX:
        value = int(value)
    number = to_decimal(value)
    if number is None:
        return None
    number = to_scale(number, scale)
    is_whole = is_int64(number) and not (scale is None and isinstance(value, str) and _has_fraction(value))
    if not number.is_finite() or is_whole:
        return number
    stored = float(number)
    if stored.is_integer() and INT64_MIN <= stored <= INT64_MAX:
        return Decimal(int(stored))
    return to_scale(Decimal(repr(stored)), scale)


def _has_fraction(text: str) -> bool:
    """True for a number that is written with a point or an exponent: SQLite reads it as a float, though it be whole."""
    return any(character in text for character in ".eE")


def is_int64(number: Decimal) -> bool:
    """True for a whole number that fits in 64 bits."""
    return number.is_finite() and INT64_MIN <= number <= INT64_MAX and number == number.to_integral_value()


def to_int(value: Any) -> int | None:
    """Gives the whole number: of 7, 7.0, Decimal("7.00"), "7" and "007"; 7.5 does not convert.

    Text must be written as a whole number: "1.000" is a thousand for one person and one for another, and a database
    refuses it.
    """
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        text = value.strip(BLANKS)
        if not _WHOLE.fullmatch(text):
            to_decimal(text)  # which says so if it is no number at all
            raise ValueError("it is not written as a whole number")
        return int(text)
    number = to_decimal(value)
    if number is None:
        return None
    if not number.is_finite() or number.adjusted() > _MAX_EXPONENT or number != number.to_integral_value():
        raise ValueError("it is not a whole number")
    return int(number)


def to_float(value: Any) -> float | None:
    """Gives the double precision number, infinite or zero beyond its range; the text "NaN" is None."""
    number = to_decimal(value)
    return value if isinstance(value, float) and number is not None else None if number is None else float(number)


def to_float_in_range(value: Any) -> float | None:
    """Does as `to_float`, and refuses what a double can't hold, as most databases do."""
    number, kept = to_decimal(value), to_float(value)
    if number is not None and kept is not None and number.is_finite() and (math.isinf(kept) or (number and not kept)):
        raise ValueError("it is out of range")
    return kept


def to_float32(value: Any) -> float | None:
    """Gives the shortest number that is the same in single precision, as PostgreSQL's `real` gives it back.

    What single precision can't hold stays as it is: the database says so.
    """
    number = to_float_in_range(value)
    if number is None:
        return None
    packed = _packed(number)
    if packed is None:
        return number
    kept: float = struct.unpack("<f", packed)[0]
    if number and not kept:
        return number
    shorter = (float(f"{kept:.{digits}g}") for digits in range(1, _FLOAT32_DIGITS))
    return next((short for short in shorter if _packed(short) == packed), kept)


def _packed(number: float) -> bytes | None:
    try:
        return struct.pack("<f", number)
    except OverflowError:
        return None


def to_text(value: Any) -> str:
    """Gives the text of a value.

    Numbers without a fraction have no ".0" (pandas makes 7 a 7.0 where a column has gaps), booleans are "true" and
    "false", times ISO 8601 (aware ones in UTC), dicts and lists JSON with sorted keys. Bytes do not convert.
    """
    if isinstance(value, str):
        if not value.isascii():
            value.encode()  # a lone surrogate fails here, with a reason, and not inside a driver
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, _SAYS_ITSELF):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError("bytes are no text: decode them first")
    text = json_text(value)
    return text[1:-1] if text.startswith('"') else text


def decimal_text(number: Decimal) -> str:
    """Gives the digits of a decimal, without an exponent if any database could hold so many."""
    return format(number, "f") if abs(number.adjusted()) < _WIDE.prec else str(number)


def to_limited_text(value: Any, *, length: int | None, padded: bool, keeps_blanks: bool = False) -> str:
    """Gives the text as a column of limited length gives it back.

    Args:
        length: Characters that fit. Blanks beyond them are cut off, as PostgreSQL does; other text is left alone.
            In 32 characters a UUID is written without hyphens.
        padded: True for CHAR, where blanks at the end mean nothing.
        keeps_blanks: True where all blanks stay, as on SQLite, to which the names of types with a length mean text.
    """
    text = to_text(value)
    if length == 32 and _HYPHENATED_UUID.fullmatch(text):  # noqa: PLR2004 - the length of a UUID's hex digits
        return text.replace("-", "").lower()
    if keeps_blanks:
        return text
    if padded:
        return text.rstrip(" ")
    if length is not None and len(text) > length and not text[length:].strip(" "):
        return text[:length]
    return text


def to_label(value: Any, labels: Collection[str]) -> str:
    """Gives the text of a value that must be one of the labels of an enum, where any are known."""
    text = to_text(value)
    if labels and text not in labels:
        raise ValueError(f"allowed are: {', '.join(labels)}")
    return text


def to_bytes(value: Any) -> bytes:
    r"""Gives bytes; text only as PostgreSQL writes bytes, "\x" and hex digits."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str) and value.startswith("\\x"):
        return bytes.fromhex(value[2:])
    raise TypeError("it is not bytes")


def to_uuid(value: Any) -> UUID:
    """Gives a UUID; also of its text in any common form and of its 16 bytes."""
    if isinstance(value, UUID):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return UUID(bytes=bytes(value))
    if isinstance(value, str):
        text = value.strip(BLANKS)
        if not _UUID.fullmatch(text):
            raise ValueError("it is not a UUID")
        return UUID(text)
    raise TypeError("it is not a UUID")


def to_flexible(value: Any, *, numeric: bool) -> Any:
    """Gives what SQLite keeps in a column whose type it doesn't know.

    Args:
        numeric: True where text that looks like a number becomes one (SQLite's numeric affinity).
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, float) and not numeric:
        return value
    if isinstance(value, int | float | Decimal) or (numeric and isinstance(value, str) and looks_numeric(value)):
        number = to_sqlite_decimal(value, None)
        return None if number is None else int(number) if is_int64(number) else float(number)
    return str(value) if isinstance(value, timedelta) else to_text(value)


def to_blob(value: Any) -> Any:
    r"""Gives what SQLite keeps in a BLOB: whatever it is given, but bytes for text such as `"\x00ff"`."""
    try:
        return to_bytes(value)
    except (TypeError, ValueError):
        return to_flexible(value, numeric=False)


def flexible_forms(text: str) -> list[Any]:
    """Gives the values of SQLite that are the same external id: of `"1"` the text and the number, say."""
    forms: list[Any] = [text]
    if looks_numeric(text):
        number = to_sqlite_decimal(text, None)
        if number is not None:
            forms.append(int(number) if is_int64(number) else float(number))
    with suppress(TypeError, ValueError):
        forms.append(to_bytes(text))
    return forms


def looks_numeric(text: str) -> bool:
    """True for text that is a number for SQLite; digits of other scripts are none, nor are other blanks."""
    bare = text.strip(_SQLITE_BLANKS)
    return bool(_NUMBER.fullmatch(bare)) and any(character.isdigit() for character in bare)
