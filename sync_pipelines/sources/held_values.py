"""Whole columns of a source's values, of which Python can't hold some: a year 10000, text that is no Unicode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sync_pipelines.errors import ItemError

# What a conversion raises about a value; the errors of Arrow and pandas are of these kinds.
_ABOUT_A_VALUE = (ValueError, TypeError, ArithmeticError, LookupError, NotImplementedError)


def held_values(
    count: int, whole: Callable[[], list[Any]], single: Callable[[int], Any], described: Callable[[int], str]
) -> list[Any]:
    """Converts a column at once; where that fails, value by value, with an `ItemError` in the place of one that fails.

    Args:
        whole: Converts all values.
        single: Converts the value in that place.
        described: Says what is in that place: file, row, column, value.
    """
    try:
        return whole()
    except _ABOUT_A_VALUE:
        return [_held(place, single, described) for place in range(count)]


def _held(place: int, single: Callable[[int], Any], described: Callable[[int], str]) -> Any:
    try:
        return single(place)
    except _ABOUT_A_VALUE as error:
        return ItemError(f"{described(place)}, which Python does not hold ({type(error).__name__}: {error})")
