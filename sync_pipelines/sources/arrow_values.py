"""Arrow's values as plain Python ones: a value that Python can't hold fails its own item, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sync_pipelines.sources.held_values import held_values
from sync_pipelines.sources.pages import Page

if TYPE_CHECKING:
    import pyarrow as pa

_DAY_S = 24 * 60 * 60
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def rows_of_batch(batch: pa.RecordBatch, names: Sequence[str], place: Callable[[int], str]) -> Page:
    """Returns the rows as dicts. Nanoseconds, which Python's times lack, are cut off.

    Args:
        names: The columns to take.
        place: Says where the row of that number in the batch is, for messages.
    """
    columns = [_values(batch.column(name), lambda row, name=name: f"{place(row)}: {name}") for name in names]  # type: ignore[misc]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _values(column: pa.Array, place: Callable[[int], str]) -> list[Any]:
    return held_values(
        len(column),
        partial(_python_values, column),
        lambda row: _python_values(column.slice(row, 1))[0],
        lambda row: f"{place(row)} is {_shown(column.slice(row, 1))} ({column.type})",
    )


def _shown(value: pa.Array) -> str:
    import pyarrow as pa  # noqa: PLC0415 - a job that reads a CSV file should not wait for it

    try:
        return str(value.cast(pa.string())[0])
    except (pa.ArrowException, ValueError):
        return "a value"


def _python_values(column: pa.Array) -> list[Any]:
    import pyarrow as pa  # noqa: PLC0415 - as above

    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False)
    elif pa.types.is_duration(column.type) and column.type.unit == "ns":
        column = column.cast(pa.duration("us"), safe=False)
    elif pa.types.is_time(column.type):
        _check_times(column)
    values: list[Any] = column.to_pylist()
    # Inside lists and structs, pyarrow gives pandas' own types for nanoseconds.
    return [_without_nanoseconds(value) for value in values] if "[ns" in str(column.type) else values


def _check_times(column: pa.Array) -> None:
    """Refuses 24:00 and later, of which pyarrow makes times early in the day."""
    import pyarrow as pa  # noqa: PLC0415 - as above
    import pyarrow.compute as pc  # noqa: PLC0415 - as above

    ticks = column.view(pa.int32() if pa.types.is_time32(column.type) else pa.int64())
    bounds = pc.min_max(ticks).as_py()
    if bounds["min"] is not None and not 0 <= bounds["min"] <= bounds["max"] < _DAY_S * _PER_SECOND[column.type.unit]:
        raise ValueError("it is no time of day")


def _without_nanoseconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nanoseconds(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_without_nanoseconds(inner) for inner in value)
    if hasattr(value, "to_pydatetime"):
        return value.to_pydatetime(warn=False)
    return value.to_pytimedelta() if hasattr(value, "to_pytimedelta") else value
