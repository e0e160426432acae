"""JSON as sources read it: decimals keep their digits, and what is no JSON is said to be none."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

Pairs = list[tuple[str, Any]]


def parse_json(
    text: str | bytes, *, decimals: bool = True, object_of_pairs: Callable[[Pairs], Any] | None = None
) -> Any:
    """Reads a JSON text.

    Args:
        text: The text; bytes are UTF-8, UTF-16 or UTF-32, with or without a byte order mark.
        decimals: True for numbers with a point or an exponent as `Decimal` with all their digits, false for floats.
        object_of_pairs: Makes something of each object's names and values; by default a dict, where the last of two
            equal names wins.

    Raises:
        ValueError: It is no JSON; the message says why and where, without the text.

    Source:
        RFC 8259; its section 6 knows neither NaN nor Infinity, which Python's parser would let pass.
    """
    try:
        return json.loads(
            text,
            parse_float=Decimal if decimals else None,
            parse_constant=_refuse_constant,
            object_pairs_hook=object_of_pairs,
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ArithmeticError as error:
        raise ValueError("it holds a number that is out of range") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
