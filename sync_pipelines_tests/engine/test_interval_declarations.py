"""Declarations of intervals that are wrong, and cron lines that are right or wrong."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta

import pytest
from dagster._utils.schedules import (
    has_out_of_range_cron_interval,
    is_valid_cron_schedule,
    schedule_execution_time_iterator,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from sync_pipelines.engine.cron_lines import checked_cron_line
from sync_pipelines.engine.intervals import as_interval, sync_intervals
from sync_pipelines.errors import ConfigurationError
from sync_pipelines_tests.children import run_child


@pytest.mark.parametrize("unit", ["minutes", "hours", "days"])
@pytest.mark.parametrize("n", [0, -1, True, 1.0, 1.5, "5", None, 10**9])
def test_only_positive_whole_numbers_are_lengths(unit: str, n: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"{unit}\({re.escape(repr(n))}\)"):
        getattr(sync_intervals, unit)(n)


@pytest.mark.parametrize("at", ["2:30", "24:00", "12:60", "noon", "02:30:00", "", 230, None, "０２:30"])  # noqa: RUF001
def test_only_hours_and_minutes_are_times_of_the_day(at: object) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"at={at!r}")):
        sync_intervals.days(1, at=at)  # type: ignore[arg-type]


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "CEST", "Europe", "", "/etc/localtime", "../UTC", None, UTC])
def test_only_iana_names_are_time_zones(zone: object) -> None:
    for make in (lambda: sync_intervals.days(1, timezone=zone), lambda: sync_intervals.cron("0 1 * * *", zone)):
        with pytest.raises(ConfigurationError, match=re.escape(f"timezone={zone!r}")):
            make()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("* * * *", "has 4 fields"),
        ("* * * * * *", "has 6 fields"),
        ("", "has 0 fields"),
        ("60 * * * *", "'60' in the field minute is not 0 to 59"),
        ("0 24 * * *", "'24' in the field hour is not 0 to 23"),
        ("0 0 0 * *", "'0' in the field day of the month is not 1 to 31"),
        ("0 0 * 13 *", "'13' in the field month is not 1 to 12 or jan to dec"),
        ("0 0 * * 8", "'8' in the field day of the week is not 0 to 7 or sun to sat"),
        ("0 0 * * monday", "'monday' in the field day of the week"),
        ("0 0 * mon *", "'mon' in the field month"),
        ("*/90 * * * *", "has a step outside 1 to 59"),
        ("*/0 * * * *", "has a step outside 1 to 59"),
        ("5/15 * * * *", "write 5-59/15"),
        ("30-10 * * * *", "runs backwards"),
        ("*-5 * * * *", "starts with *"),
        ("1,,2 * * * *", "'' in the field minute"),
        ("0 0 L * *", "'l' in the field day of the month"),
        ("0 0 * * 5#3", "'5#3' in the field day of the week"),
        ("0 0 31 2 *", "no such month has a day 31"),
        ("0 0 31 4,jun *", "no such month has a day 31"),
        ("@daily", "write '0 0 * * *' instead of @daily"),
        ("@reboot", "has 1 fields"),
    ],
)
def test_a_wrong_cron_line_is_refused_with_the_reason(line: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(complaint)) as caught:
        sync_intervals.cron(line)
    assert repr(line) in str(caught.value)


@pytest.mark.parametrize("line", ["0 0 29 2 *", "0 0 31 jan,apr *", "0 0 * * 7", "0 0 * * SUN", "  5  4 * * 1-5 "])
def test_unusual_lines_that_do_come_are_accepted(line: str) -> None:
    assert is_valid_cron_schedule(sync_intervals.cron(line).cron_lines[0])


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.from_regex(r"(\*|[0-9]{1,2}(-[0-9]{1,2})?|mon|fri-sat|jan)(/[1-9]?[0-9])?", fullmatch=True),
        min_size=5,
        max_size=5,
    )
)
def test_every_line_that_is_accepted_ticks_in_dagster(fields: list[str]) -> None:
    try:
        line = checked_cron_line(" ".join(fields))
    except ConfigurationError:
        return
    assert is_valid_cron_schedule(line)
    assert not has_out_of_range_cron_interval(line)
    assert next(schedule_execution_time_iterator(datetime(2026, 1, 1, tzinfo=UTC).timestamp(), line, "UTC"))


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("0-0 * * * *", "0 * * * *"),
        ("5-5/1,30,07-7 * * * *", "5,30,07 * * * *"),
        ("0 0-0 1-1 jan-1 sun-0", "0 0 1 jan sun"),
        ("1-5 2-3 * * 0-7", "1-5 2-3 * * 0-7"),
    ],
)
def test_a_range_of_one_value_is_that_value(line: str, meant: str) -> None:
    """For Dagster it is all values: a sync that was to start once an hour would start every minute."""
    assert checked_cron_line(line) == meant
    ticks = schedule_execution_time_iterator(datetime(2026, 1, 1, 0, 30, tzinfo=UTC).timestamp(), meant, "UTC")
    minutes = {int(each) for each in meant.split(maxsplit=1)[0].split(",")} if "-" not in meant else set(range(1, 6))
    assert {next(ticks).minute for _ in range(20)} <= minutes


def test_a_cron_line_stands_for_an_interval_in_utc() -> None:
    assert as_interval("30 2 * * *") == sync_intervals.cron("30 2 * * *", timezone="UTC")
    assert as_interval(sync_intervals.hours(5)) == sync_intervals.hours(5)


@pytest.mark.parametrize("value", [30, None, timedelta(hours=1), ["0 * * * *"], sync_intervals.hours])
def test_nothing_else_stands_for_an_interval(value: object) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(repr(value))) as caught:
        as_interval(value)  # type: ignore[arg-type]
    assert "sync_intervals.minutes(n)" in str(caught.value)
    assert "cron line" in str(caught.value)


def test_intervals_need_neither_dagster_nor_pandas() -> None:
    code = (
        "import sys, sync_pipelines.engine.intervals\n"
        "assert not {'dagster', 'pandas', 'pyarrow', 'sqlalchemy'} & set(sys.modules)"
    )
    run_child([sys.executable, "-c", code], check=True)
