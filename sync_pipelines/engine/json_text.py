"""The one reader of JSON: what a server, a sender, a file or a person writes as JSON means the same everywhere."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

Pairs = list[tuple[str, Any]]

_BOM = "\ufeff"
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s,:\[\]{}"]+')
_CHARSET = re.compile(r"""; *charset *= *["']?([^\s"';]+)""", re.IGNORECASE)
_NUMBER_BEGINS = frozenset("-0123456789")
_LINE_BREAK = "\n"


def parse_json(
    text: str | bytes,
    *,
    charset: str | None = None,
    decimals: bool = True,
    object_of_pairs: Callable[[Pairs], Any] | None = None,
) -> Any:
    """Reads a JSON text.

    Args:
        text: The text; of bytes what `json_text` makes of them.
        charset: The encoding that is declared for bytes.
        decimals: True for numbers with a point or an exponent as `Decimal` with all their digits, false for floats.
        object_of_pairs: Makes something of each object's names and values; by default a dict, where the last of two
            equal names counts.

    Raises:
        ValueError: It is no JSON; the message says why and where, without the text.

    Source:
        RFC 8259; its section 6 knows neither NaN nor Infinity, which Python's parser would let pass.
    """
    text = json_text(text, charset) if isinstance(text, bytes) else text.removeprefix(_BOM)
    try:
        return json.loads(
            text,
            parse_float=Decimal if decimals else _finite,
            parse_constant=partial(_refuse_constant, text),
            object_pairs_hook=object_of_pairs,
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ArithmeticError as error:
        kind = Decimal if decimals else _finite
        raise ValueError(f"it holds a number that is out of range: {_place_of_refused(text, kind)}") from error
    except ValueError as error:
        if "integer string conversion" not in str(error):
            raise
        place = _place_of_refused(text, int)  # Python refuses such for fear of an attack, and does not say where
        most = sys.get_int_max_str_digits()
        raise ValueError(f"it holds a number of more than {most} digits, which can't be read: {place}") from error


def _finite(written: str) -> float:
    number = float(written)
    if math.isinf(number):
        raise OverflowError
    return number


def _refuse_constant(text: str, name: str) -> Any:
    raise ValueError(f"it holds {name}; {name} is no JSON number: {_place(text, lambda token: token == name)}")


def _place_of_refused(text: str, kind: Callable[[str], Any]) -> str:
    """Says where the first number is that a type of numbers refuses."""

    def is_refused(token: str) -> bool:
        try:
            kind(token)
        except (ArithmeticError, ValueError) as error:
            # what is no such number at all is none that was refused
            return isinstance(error, ArithmeticError) or "integer string conversion" in str(error)
        return False

    return _place(text, lambda token: token[0] in _NUMBER_BEGINS and is_refused(token))


def _place(text: str, is_meant: Callable[[str], bool]) -> str:
    """Says where the first token is that is meant, in the words of Python's parser, which tells its hooks no place."""
    start = next((match.start() for match in _TOKEN.finditer(text) if is_meant(match.group())), 0)
    return f"line {text.count(_LINE_BREAK, 0, start) + 1} column {start - text.rfind(_LINE_BREAK, 0, start)}"


def json_text(raw: bytes, charset: str | None = None) -> str:
    """Decodes the bytes of a JSON text, which are UTF-8 wherever they can be, whatever is declared for them.

    A byte order mark, or the zeros that UTF-16 and UTF-32 have between the letters of JSON, tells the encoding first.
    Only what is none of these is read as it is declared.

    Args:
        charset: What is declared, such as the parameter of a content type.

    Raises:
        ValueError: It is in no known encoding; the message says where.

    Source:
        RFC 8259, section 8.1, by which a `charset` has no meaning; RFC 4627, section 3, for the zeros.
    """
    encoding = json.detect_encoding(raw)
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        text = _decoded(raw, charset) if charset and encoding == "utf-8" else None
        if text is None:
            declared = f", nor {charset[:40]!r} as it is declared" if charset else ""
            name = encoding.upper().removesuffix("-SIG")
            raise ValueError(f"it is not {name} at byte {error.start}{declared}") from error
        return text


def _decoded(raw: bytes, charset: str) -> str | None:
    try:
        return raw.decode(charset)
    except (LookupError, ValueError):
        return None


def charset_of(content_type: str) -> str | None:
    """Returns the charset that a content type declares."""
    declared = _CHARSET.search(content_type)
    return declared.group(1) if declared is not None else None
