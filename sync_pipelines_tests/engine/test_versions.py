"""Versions: what counts as one, and which of two is the newer one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipelines.engine.versions import Version, newer_of
from sync_pipelines.errors import ItemError

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
NUMBERS = st.one_of(
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**12), max_value=10**12),
)
MOMENTS = st.datetimes(
    datetime(1900, 1, 1),  # noqa: DTZ001 - the strategy adds the time zone
    datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=11))]),
)


@pytest.mark.parametrize(
    ("given", "same"),
    [
        (7, "7"),
        (7, 7.0),
        (7, Decimal("7.00")),
        ("7", " 7 "),
        ("1e3", 1000),
        ("0.1", 0.1),
        (10**40, str(10**40)),
        (NOON, "2026-01-31T12:00:00Z"),
        (NOON, "2026-01-31 12:00:00+00:00"),
        (NOON, "2026-01-31T13:00:00+01:00"),
        (NOON, "20260131T120000Z"),
        (NOON, NOON.astimezone(timezone(timedelta(hours=9)))),
        (NOON, pd.Timestamp(NOON)),
        (np.float64(1.5), "1.5"),
    ],
)
def test_every_form_of_a_version_is_the_same_version(given: Any, same: Any) -> None:
    assert Version.of(given) == Version.of(same)
    assert Version.of(given).text == Version.of(Version.from_text(Version.of(given).text).value).text


@pytest.mark.parametrize(
    "given",
    [
        None,
        True,
        False,
        "",
        "   ",
        "soon",
        "nan",
        "Infinity",
        float("nan"),
        float("-inf"),
        Decimal("sNaN"),
        NOON.date(),
        "2026-01-31",
        [1],
        {"at": 1},
        b"7",
        1j,
        pd.NaT,
        "7\x00",
    ],
)
def test_what_is_neither_a_number_nor_an_aware_moment_is_an_error_of_the_item(given: Any) -> None:
    with pytest.raises(ItemError, match="version"):
        Version.of(given)


@pytest.mark.parametrize(
    "given", [NOON.replace(tzinfo=None), "2026-01-31T12:00:00", "2026-01-31 12:00", pd.Timestamp("2026-01-31")]
)
def test_a_moment_without_a_time_zone_is_refused_with_what_to_do(given: Any) -> None:
    with pytest.raises(ItemError, match=r"no time zone; give an aware moment|neither"):
        Version.of(given)


@pytest.mark.parametrize(
    "given", [10**120, "1" * 101, "0." + "1" * 200, "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"]
)
def test_a_version_that_no_ledger_can_keep_is_an_error_of_the_item(given: Any) -> None:
    with pytest.raises(ItemError, match="version"):
        Version.of(given)


def test_a_long_text_is_shown_in_part() -> None:
    with pytest.raises(ItemError) as caught:
        Version.of("x" * 5_000)
    assert len(str(caught.value)) < 200


@given(st.one_of(NUMBERS, MOMENTS))
def test_a_version_comes_back_from_its_text(given: Any) -> None:
    version = Version.of(given)
    assert Version.from_text(version.text) == version
    assert len(version.text) <= 100


@given(NUMBERS, NUMBERS)
def test_of_two_numbers_the_smaller_is_older(one: Any, other: Any) -> None:
    def exact(number: Any) -> Decimal:
        return Decimal(str(number))

    assert Version.of(one).is_older_than(Version.of(other)) == (exact(one) < exact(other))


@given(MOMENTS, MOMENTS)
def test_of_two_moments_the_earlier_is_older_whatever_their_zones(one: datetime, other: datetime) -> None:
    assert Version.of(one).is_older_than(Version.of(other)) == (one < other)


@given(NUMBERS, MOMENTS)
def test_a_number_and_a_moment_are_neither_older_nor_newer(number: Any, moment: datetime) -> None:
    assert not Version.of(number).is_older_than(Version.of(moment))
    assert not Version.of(moment).is_older_than(Version.of(number))


def test_nothing_is_older_than_no_version() -> None:
    assert not Version.of(1).is_older_than(None)


def test_the_newer_of_two_is_the_second_unless_the_first_is_newer() -> None:
    one, two, moment = Version.of(1), Version.of(2), Version.of(NOON)
    assert newer_of(two, one) == two
    assert newer_of(one, two) == two
    assert newer_of(None, one) == one
    assert newer_of(one, None) == one
    assert newer_of(None, None) is None
    assert newer_of(one, moment) == moment
