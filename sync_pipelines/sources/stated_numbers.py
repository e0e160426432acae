"""Numbers as answers state them: as numbers, or as text with separators of thousands. One of two meanings is none."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

_TOO_LARGE = 10**18
_PLAIN = re.compile(r"(?P<whole>[0-9]{1,18})(?:[.,](?P<decimals>0+))?")
_GROUPED = re.compile(
    r"(?P<whole>[1-9][0-9]{0,2}(?P<by>[ \u00a0\u2009\u202f'\u2019_.,])[0-9]{3}(?:(?P=by)[0-9]{3}){0,4})"
    r"(?:(?!(?P=by))[.,]0+)?"
)
_TWO_MEANINGS = re.compile(r"[0-9]{1,3}[.,][0-9]{3}")
_NO_DIGIT = re.compile(r"[^0-9]")


def whole_number(value: Any) -> int | None:
    """Returns a whole number from 0 on, whether it comes as 250, 250.0, "250" or "1 250"; None for anything else.

    Of `"1,200"` and `"1.200"` nobody can say whether they mean 1200 or 1.2: they are no number, see `at_most`.
    """
    if isinstance(value, str):
        return _of_text(value.strip())
    if isinstance(value, float | Decimal):
        is_whole = math.isfinite(value) and 0 <= value < _TOO_LARGE and value == int(value)
        return int(value) if is_whole else None
    return value if type(value) is int and 0 <= value < _TOO_LARGE else None


def at_most(value: Any) -> int | None:
    """Returns the larger meaning of a text that is a number of two meanings; None for anything else."""
    is_ambiguous = isinstance(value, str) and _TWO_MEANINGS.fullmatch(value.strip()) is not None
    return int(_NO_DIGIT.sub("", value)) if is_ambiguous else None


def _of_text(text: str) -> int | None:
    if _TWO_MEANINGS.fullmatch(text):
        return None
    found = _PLAIN.fullmatch(text) or _GROUPED.fullmatch(text)
    return int(_NO_DIGIT.sub("", found["whole"])) if found is not None else None
