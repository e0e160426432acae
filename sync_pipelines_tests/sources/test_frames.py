"""Rows of DataFrames as plain Python values."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipelines.errors import ConfigurationError
from sync_pipelines.sources.frame_pages import frame_pages
from sync_pipelines.sources.frames import rows_of_frame

MOMENT = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)


def values(column: Any) -> list[Any]:
    """What becomes of one column."""
    return [row["x"] for row in rows_of_frame(pd.DataFrame({"x": column}))]


def typed(found: list[Any]) -> list[tuple[type, Any]]:
    return [(type(value), value) for value in found]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pd.Series([1, 2**62 + 1]), [1, 2**62 + 1]),
        (pd.Series([1, 2], dtype="uint8"), [1, 2]),
        (pd.Series([1, None], dtype="Int64"), [1, None]),
        (pd.Series([2**62 + 1, None], dtype="Int64"), [2**62 + 1, None]),
        (pd.Series([1.5, None]), [1.5, None]),
        (pd.Series([1, None]), [1.0, None]),
        (pd.Series([0.5, None], dtype="Float64"), [0.5, None]),
        (pd.Series([float("inf"), -0.5]), [float("inf"), -0.5]),
        (pd.Series([True, False]), [True, False]),
        (pd.Series([True, None], dtype="boolean"), [True, None]),
        (pd.Series(["007", "", None]), ["007", "", None]),
        (pd.Series(["a", np.nan], dtype=object), ["a", None]),
        (pd.Series(["a", None, "a"], dtype="category"), ["a", None, "a"]),
        (pd.Series([3, None], dtype="category"), [3, None]),
        (pd.Series([Decimal("1.50"), None]), [Decimal("1.50"), None]),
        (pd.Series([Decimal("NaN"), Decimal("1.50")]), [None, Decimal("1.50")]),
        (pd.Series([date(2026, 3, 29), None]), [date(2026, 3, 29), None]),
        (pd.Series([b"\x00", None]), [b"\x00", None]),
        (pd.Series(pd.to_timedelta(["90min", None])), [timedelta(minutes=90), None]),
        (pd.Series([pd.Period("2026-01", "M"), pd.NaT]), ["2026-01", None]),
        (pd.Series(pd.arrays.SparseArray([1, 0])), [1, 0]),
        (pd.Series([None, None], dtype=object), [None, None]),
        (pd.Series([1, None], dtype=pd.ArrowDtype(pa.int64())), [1, None]),
        (pd.Series([Decimal("1.50"), None], dtype=pd.ArrowDtype(pa.decimal128(9, 2))), [Decimal("1.50"), None]),
        (pd.Series([date(2026, 3, 29), None], dtype=pd.ArrowDtype(pa.date32())), [date(2026, 3, 29), None]),
        (pd.Series([[1, 2], None], dtype=pd.ArrowDtype(pa.list_(pa.int64()))), [[1, 2], None]),
    ],
)
def test_values_become_plain_python(column: pd.Series, expected: list[Any]) -> None:
    assert typed(values(column)) == typed(expected)


def test_whatever_stands_for_missing_among_objects_becomes_none() -> None:
    column = pd.Series([None, np.nan, pd.NaT, pd.NA, float("nan"), np.float64("nan"), "x"], dtype=object)
    assert values(column) == [None] * 6 + ["x"]


def test_numpy_scalars_among_objects_become_plain_python() -> None:
    column = pd.Series(
        [np.int64(3), np.float32(0.5), np.bool_(True), np.str_("a"), np.datetime64("2026-03-29T01:30:00.123456")],
        dtype=object,
    )
    assert typed(values(column)) == typed([3, 0.5, True, "a", MOMENT.replace(tzinfo=None)])


def test_nested_values_become_plain_python() -> None:
    column = pd.Series(
        [np.array([1, 2]), {"a": np.int64(1), "b": [pd.NaT, np.nan]}, [pd.Timestamp(MOMENT)], (np.bool_(False),)],
        dtype=object,
    )
    found = values(column)
    assert found == [[1, 2], {"a": 1, "b": [None, None]}, [MOMENT], [False]]
    assert [type(found[0][0]), type(found[1]["a"]), type(found[2][0]), type(found[3][0])] == [int, int, datetime, bool]


@pytest.mark.parametrize(
    "dtype", ["datetime64[ns, UTC]", "datetime64[us, UTC]", object, pd.ArrowDtype(pa.timestamp("us", tz="UTC"))]
)
def test_aware_times_stay_aware(dtype: Any) -> None:
    first, second = values(pd.Series([MOMENT, None], dtype=dtype))
    assert (type(first), first, first.utcoffset(), second) == (datetime, MOMENT, timedelta(0), None)


def test_times_keep_their_zone() -> None:
    (found,) = values(pd.Series([MOMENT]).dt.tz_convert("Europe/Berlin"))
    assert found == MOMENT
    assert found.isoformat() == MOMENT.astimezone(ZoneInfo("Europe/Berlin")).isoformat()


def test_naive_times_stay_naive() -> None:
    naive = MOMENT.replace(tzinfo=None)
    assert typed(values(pd.Series([naive, pd.NaT]))) == [(datetime, naive), (type(None), None)]


@pytest.mark.parametrize("as_objects", [False, True])
def test_nanoseconds_are_cut_off_without_a_warning(as_objects: bool) -> None:  # noqa: FBT001
    column = pd.Series([pd.Timestamp("2026-03-29T01:30:00.123456789")])
    assert values(column.astype(object) if as_objects else column) == [MOMENT.replace(tzinfo=None)]


def test_the_index_is_left_out_unless_it_has_a_name() -> None:
    frame = pd.DataFrame({"sku": ["a", "b", "b"], "quantity": [1, 2, 3]}, index=[7, 8, 9])
    assert next(rows_of_frame(frame)) == {"sku": "a", "quantity": 1}
    assert list(rows_of_frame(frame.groupby("sku").sum())) == [{"sku": "a", "quantity": 1}, {"sku": "b", "quantity": 5}]


def test_named_levels_of_an_index_come_first_and_others_are_left_out() -> None:
    index = pd.MultiIndex.from_tuples([("a", 1, "x"), ("b", 2, "y")], names=["sku", None, "place"])
    (first, _) = rows_of_frame(pd.DataFrame({"quantity": [5, 6]}, index=index))
    assert list(first.items()) == [("sku", "a"), ("place", "x"), ("quantity", 5)]


def test_an_index_whose_labels_repeat_does_not_mix_rows() -> None:
    frame = pd.DataFrame({"quantity": [1, None, 3]}, index=pd.Index(["a", "a", "a"], name="sku"))
    assert [row["quantity"] for row in rows_of_frame(frame)] == [1.0, None, 3.0]


def test_number_labels_become_text() -> None:
    assert list(rows_of_frame(pd.DataFrame([[1, 2]]))) == [{"0": 1, "1": 2}]


@pytest.mark.parametrize(
    ("frame", "name"),
    [
        (pd.DataFrame([[1, 2]], columns=["sku", "sku"]), "'sku'"),
        (pd.DataFrame({"sku": [1]}, index=pd.Index([1], name="sku")), "'sku'"),
        (pd.DataFrame([[1, 2]], columns=[1, "1"]), "'1'"),
    ],
)
def test_two_columns_of_one_name_are_refused_before_any_row(frame: pd.DataFrame, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"more than one column .* called {name}"):
        rows_of_frame(frame)


@pytest.mark.parametrize("columns", [pd.MultiIndex.from_tuples([("a", "b")]), [None], [1.5]])
def test_labels_that_are_no_names_are_refused(columns: Any) -> None:
    with pytest.raises(ConfigurationError, match="column label"):
        rows_of_frame(pd.DataFrame([[1]], columns=columns))


def test_empty_frames_have_no_rows_and_no_pages() -> None:
    assert list(rows_of_frame(pd.DataFrame())) == []
    assert list(rows_of_frame(pd.DataFrame({"sku": []}))) == []
    assert list(frame_pages(pd.DataFrame({"sku": []}))) == []


def test_a_frame_comes_in_pages_of_the_asked_size() -> None:
    frame = pd.DataFrame({"n": range(7)})
    pages = list(frame_pages(frame, page_size=3))
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [row["n"] for page in pages for row in page] == list(range(7))


def test_many_frames_are_read_one_after_the_other() -> None:
    read: list[int] = []

    def frames() -> Iterator[pd.DataFrame]:
        for number in range(3):
            read.append(number)
            yield pd.DataFrame({"n": [number, number]})

    pages = frame_pages(frames(), page_size=10)
    assert next(pages) == [{"n": 0}, {"n": 0}]
    assert read == [0]
    assert [page[0]["n"] for page in pages] == [1, 2]


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="got a dict"):
        list(frame_pages([{"sku": 1}]))  # type: ignore[list-item]


@pytest.mark.parametrize("page_size", [0, -1, True, 1.0, None])
def test_a_page_size_that_is_no_positive_whole_number_is_refused_at_once(page_size: Any) -> None:
    with pytest.raises(ConfigurationError, match="page_size"):
        frame_pages(pd.DataFrame(), page_size=page_size)


def test_rows_are_converted_as_they_are_asked_for() -> None:
    frame = pd.DataFrame({"n": pd.Series(range(25_000))})
    rows = rows_of_frame(frame)
    assert next(rows) == {"n": 0}
    frame.loc[20_000, "n"] = -1
    assert sum(1 for row in rows if row["n"] == -1) == 1


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
            st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]))),
            st.one_of(st.none(), st.booleans()),
            st.one_of(st.none(), st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))),  # noqa: DTZ001
            st.one_of(st.none(), st.decimals(allow_nan=False)),
        ),
        max_size=12,
    )
)
def test_a_frame_gives_back_what_was_put_in(rows: list[tuple[Any, ...]]) -> None:
    types = {"i": "Int64", "t": "str", "b": "boolean", "at": "datetime64[us, UTC]", "d": object}
    columns = dict(zip(types, zip(*rows, strict=True) if rows else [[]] * 5, strict=True))
    frame = pd.DataFrame({name: pd.Series(list(columns[name]), dtype=types[name]) for name in types})
    expected = [dict(zip(types, row, strict=True)) for row in rows]
    assert [row for page in frame_pages(frame, page_size=5) for row in page] == expected
