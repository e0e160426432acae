"""Rows of pandas DataFrames as plain Python values, page by page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from sync_pipelines.errors import ConfigurationError
from sync_pipelines.sources.held_values import held_values
from sync_pipelines.sources.pages import PAGE_SIZE, Page

_PLAIN_TYPES = {bool, bytes, date, datetime, Decimal, float, int, str, time, timedelta, type(None)}
_MISSING_TYPES = (type(pd.NA), type(pd.NaT))


def rows_of_frame(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Returns each row as a dict of plain Python values, converting a page of rows at a time.

    - NaN, NaT, `pd.NA` and None become None; an empty string stays an empty string.
    - Numbers become int, float and bool. An `Int64` column with a gap keeps its ints; a `float64` column with a gap
      keeps its floats even where all are whole, because nothing says that they were ints once. Read such columns with
      `dtype_backend="numpy_nullable"` or `dtype={"stock": "Int64"}`.
    - Timestamps become `datetime`, aware ones stay aware; nanoseconds are cut off. Periods and intervals become text.
    - In the place of a value that Python can't hold, such as a year after 9999, there is an `ItemError`: that item then
      fails with its external id, and the others go on.
    - The index is left out, except for levels that have a name (as after `groupby` and `set_index`): they come first.
    - Column labels that are whole numbers become text.

    Raises:
        ConfigurationError: Two columns (or a column and an index level) have one name, or a label is neither text nor a
            whole number.
    """
    return (row for page in _pages_of_frame(frame, PAGE_SIZE) for row in page)


def pages_of_frames(frames: pd.DataFrame | Iterable[pd.DataFrame], page_size: int) -> Iterator[Page]:
    """Returns the rows of one DataFrame or of many as pages; see `frame_pages`."""
    all_frames = [frames] if isinstance(frames, pd.DataFrame) else frames
    return (page for frame in all_frames for page in _pages_of_frame(_checked_frame(frame), page_size))


def _checked_frame(frame: object) -> pd.DataFrame:
    if isinstance(frame, pd.DataFrame):
        return frame
    raise ConfigurationError(f"frame_pages got a {type(frame).__name__}; give a DataFrame or an iterable of DataFrames")


def _pages_of_frame(frame: pd.DataFrame, page_size: int) -> Iterator[Page]:
    levels = [number for number, name in enumerate(frame.index.names) if name is not None]
    names = _field_names([frame.index.names[level] for level in levels], frame.columns)
    return (
        _rows_of_slice(frame.iloc[start : start + page_size], levels, names, start)
        for start in range(0, len(frame), page_size)
    )


def _field_names(index_names: list[Any], columns: pd.Index) -> list[str]:
    labels = [*index_names, *columns]
    for label in labels:
        if not isinstance(label, str | int | np.integer):
            raise ConfigurationError(
                f"the DataFrame has the column label {label!r}; a field's name is text: rename or flatten the columns"
            )
    names = [str(label) for label in labels]
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ConfigurationError(
            f"the DataFrame has more than one column (or named index level) called {', '.join(map(repr, repeated))}; "
            "rename all but one"
        )
    return names


def _rows_of_slice(rows: pd.DataFrame, levels: list[int], names: list[str], start: int) -> Page:
    if levels:
        rows = rows.reset_index(level=levels)
    if not names:
        return [{} for _ in range(len(rows))]
    columns = [
        _plain_column(rows.iloc[:, number], lambda row, name=name: f"row {start + row} of the DataFrame: {name}")  # type: ignore[misc]
        for number, name in enumerate(names)
    ]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _plain_column(column: pd.Series[Any], place: Callable[[int], str]) -> list[Any]:
    values = held_values(
        len(column),
        lambda: _python_values(column),
        lambda row: _python_values(column.iloc[[row]])[0],
        lambda row: f"{place(row)} is {_shown(column, row)} ({column.dtype})",
    )
    # Last, so that whatever stands for a gap in this type is replaced.
    for row in column.isna().to_numpy().nonzero()[0].tolist():
        values[row] = None
    return values


def _shown(column: pd.Series[Any], row: int) -> str:
    try:
        return str(column.iloc[row])
    except (ValueError, ArithmeticError):
        return "a value"


def _python_values(column: pd.Series[Any]) -> list[Any]:
    # Not the kind alone: an Arrow-backed column of dates calls itself a column of times.
    kind = column.dtype.kind if isinstance(column.dtype, np.dtype) else ""
    if kind and kind in "biuf":
        return column.tolist()
    if kind == "M" or isinstance(column.dtype, pd.DatetimeTZDtype):
        return list(pd.DatetimeIndex(column).to_pydatetime())
    values = column.tolist()
    if set(map(type, values)) <= _PLAIN_TYPES:
        return values
    return [_plain_value(value) for value in values]


def _plain_value(value: Any) -> Any:
    """Converts one value of a column that holds objects, whatever they are."""
    if isinstance(value, dict):
        return {key: _plain_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain_value(inner) for inner in value]
    if isinstance(value, np.datetime64 | np.timedelta64):
        value = pd.Timestamp(value) if isinstance(value, np.datetime64) else pd.Timedelta(value)
    elif isinstance(value, np.generic):
        value = value.item()
    return _plain_scalar(value)


def _plain_scalar(value: Any) -> Any:
    if isinstance(value, _MISSING_TYPES) or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime(warn=False)
    if isinstance(value, pd.Timedelta):
        return value.to_pytimedelta()
    return str(value) if isinstance(value, pd.Period | pd.Interval) else value
