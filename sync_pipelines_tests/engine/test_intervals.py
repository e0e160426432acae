"""Intervals against Dagster's own clock: its iterator of cron ticks, run over real changes of daylight saving."""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise, product
from zoneinfo import ZoneInfo

import pytest
from dagster._utils.schedules import (
    has_out_of_range_cron_interval,
    is_valid_cron_schedule,
    schedule_execution_time_iterator,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from sync_pipelines.engine.intervals import Due, Interval, NotDue, sync_intervals

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_MINUTES = 24 * 60
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe")
# From a week before to a week after each change; the zones change on different days of these months.
SPRING_AND_AUTUMN = (
    (datetime(2026, 2, 25, tzinfo=UTC), datetime(2026, 4, 14, tzinfo=UTC)),
    (datetime(2026, 9, 24, tzinfo=UTC), datetime(2026, 11, 10, tzinfo=UTC)),
)


def ticks(interval: Interval, start_at: datetime, end_at: datetime) -> Iterator[datetime]:
    """The ticks from start (inclusive) to end (exclusive), as Dagster's scheduler would have them."""
    lines = list(interval.cron_lines)
    for tick_at in schedule_execution_time_iterator(start_at.timestamp(), lines, interval.timezone):
        if tick_at.timestamp() >= end_at.timestamp():
            return
        yield tick_at


def due_ticks(interval: Interval, start_at: datetime, end_at: datetime) -> list[datetime]:
    """The due ticks of a scheduler that runs without a break."""
    last_due_at, due = None, []
    for tick_at in ticks(interval, start_at, end_at):
        decision = interval.decide(tick_at, last_due_at)
        if isinstance(decision, Due):
            last_due_at = decision.due_at
            due.append(tick_at)
    return due


def counted_minutes(minutes: int, start_at: datetime, end_at: datetime) -> list[datetime]:
    """What is to be: every so many minutes since 1970."""
    step = timedelta(minutes=minutes)
    occasion_at = EPOCH + -((EPOCH - start_at) // step) * step
    expected = []
    while occasion_at < end_at:
        expected.append(occasion_at)
        occasion_at += step
    return expected


def line_minutes(line: str) -> set[int]:
    """The minutes of a week, from Sunday, that a line names: a second reader of cron lines, for the test."""
    minute_text, hour_text, _, _, weekday_text = line.split()
    return {
        weekday * DAY_MINUTES + hour * 60 + minute
        for weekday in field_values(weekday_text, 7)
        for hour in field_values(hour_text, 24)
        for minute in field_values(minute_text, 60)
    }


def field_values(text: str, size: int) -> set[int]:
    values: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        low, _, high = (f"0-{size - 1}" if span == "*" else span).partition("-")
        values |= set(range(int(low), int(high or low) + 1, int(step or 1)))
    return values


def week_of_occasions(minutes: int) -> set[int]:
    """The minutes of a week, from Sunday, on which an interval that divides a week comes. 1970 began on a Thursday."""
    return {(minute + 4 * DAY_MINUTES) % (7 * DAY_MINUTES) for minute in range(0, 7 * DAY_MINUTES, minutes)}


@pytest.mark.parametrize(
    ("interval", "lines"),
    [
        (sync_intervals.minutes(1), ("* * * * *",)),
        (sync_intervals.minutes(5), ("*/5 * * * *",)),
        (sync_intervals.minutes(30), ("*/30 * * * *",)),
        (sync_intervals.minutes(90), ("0 */3 * * *", "30 1-22/3 * * *")),
        (sync_intervals.minutes(1440), ("0 0 * * *",)),
        (sync_intervals.hours(1), ("0 * * * *",)),
        (sync_intervals.hours(6), ("0 */6 * * *",)),
        (sync_intervals.hours(84), ("0 12 * * 0", "0 0 * * 4")),
        (sync_intervals.days(1, at="02:30", timezone="Europe/Berlin"), ("30 2 * * *",)),
        (sync_intervals.days(7, at="18:05"), ("5 18 * * 4",)),
    ],
)
def test_what_cron_lines_can_say_is_said_by_them_alone(interval: Interval, lines: tuple[str, ...]) -> None:
    assert interval.cron_lines == lines
    assert interval.is_exact


@pytest.mark.parametrize(
    ("interval", "lines"),
    [
        (sync_intervals.minutes(7), ("* * * * *",)),
        (sync_intervals.minutes(50), ("*/10 * * * *",)),
        (sync_intervals.hours(5), ("0 * * * *",)),
        (sync_intervals.hours(36), ("0 */12 * * *",)),
        (sync_intervals.hours(48), ("0 0 * * *",)),
        (sync_intervals.days(2, at="04:15"), ("15 4 * * *",)),
        (sync_intervals.days(14, at="04:15"), ("15 4 * * 4",)),
    ],
)
def test_what_cron_lines_cannot_say_ticks_on_the_coarsest_that_contain_it(
    interval: Interval, lines: tuple[str, ...]
) -> None:
    assert interval.cron_lines == lines
    assert not interval.is_exact


def test_cron_lines_say_every_length_up_to_1500_minutes_or_contain_it() -> None:
    for minutes in range(1, 1501):
        interval = sync_intervals.minutes(minutes)
        said = set().union(*(line_minutes(line) for line in interval.cron_lines))
        if interval.is_exact:
            assert said == week_of_occasions(minutes), minutes
        else:
            needed = week_of_occasions(math.gcd(minutes, 7 * DAY_MINUTES))
            assert needed <= said, minutes
        assert interval.is_exact or DAY_MINUTES % minutes != 0, minutes


def test_no_line_of_a_list_repeats_another() -> None:
    for minutes in range(1, 1501):
        lines = sync_intervals.minutes(minutes).cron_lines
        assert len(lines) <= 8, minutes
        assert sum(len(line_minutes(line)) for line in lines) == len(set().union(*map(line_minutes, lines))), minutes


def test_dagster_accepts_the_lines_of_every_length() -> None:
    for minutes in range(1, 1501):
        lines = list(sync_intervals.minutes(minutes).cron_lines)
        assert is_valid_cron_schedule(lines), minutes
        assert not has_out_of_range_cron_interval(lines), minutes


@settings(deadline=None, max_examples=60)
@given(minutes=st.integers(1, 4000), start_at=st.datetimes(datetime(1970, 1, 1), datetime(2060, 1, 1)))  # noqa: DTZ001
def test_due_ticks_are_exactly_every_so_many_minutes(minutes: int, start_at: datetime) -> None:
    start_at = start_at.replace(tzinfo=UTC)
    end_at = start_at + timedelta(minutes=min(3 * minutes, 5000))
    assert due_ticks(sync_intervals.minutes(minutes), start_at, end_at) == counted_minutes(minutes, start_at, end_at)


@settings(deadline=None, max_examples=40)
@given(hours=st.integers(1, 400), start_at=st.datetimes(datetime(1970, 1, 1), datetime(2060, 1, 1)))  # noqa: DTZ001
def test_due_ticks_are_exactly_every_so_many_hours(hours: int, start_at: datetime) -> None:
    start_at = start_at.replace(tzinfo=UTC)
    end_at = start_at + timedelta(hours=2 * hours)
    assert due_ticks(sync_intervals.hours(hours), start_at, end_at) == counted_minutes(60 * hours, start_at, end_at)


@pytest.mark.parametrize(
    ("interval", "minutes"),
    [
        (sync_intervals.hours(5), 300),
        (sync_intervals.hours(36), 36 * 60),
        (sync_intervals.minutes(90), 90),
        (sync_intervals.minutes(7), 7),
    ],
)
@pytest.mark.parametrize(("start_at", "end_at"), SPRING_AND_AUTUMN)
def test_elapsed_time_knows_no_daylight_saving(
    interval: Interval, minutes: int, start_at: datetime, end_at: datetime
) -> None:
    due = due_ticks(interval, start_at, end_at)
    assert interval.timezone == "UTC"
    assert due == counted_minutes(minutes, start_at, end_at)
    assert {later - earlier for earlier, later in pairwise(due)} == {timedelta(minutes=minutes)}


CLOCK_TIMES = ["00:00", "00:30", "01:30", "02:00", "02:15", "02:30", "03:00", "12:00", "23:59"]


@pytest.mark.parametrize(("start_at", "end_at"), SPRING_AND_AUTUMN)
def test_each_counted_day_has_exactly_one_due_tick(start_at: datetime, end_at: datetime) -> None:
    """Also when the time is left out in spring or comes twice in autumn."""
    for days, zone, at in product([1, 2, 3, 7, 14], ZONES, CLOCK_TIMES):
        assert_one_due_tick_a_counted_day(days, zone, at, start_at, end_at)


def assert_one_due_tick_a_counted_day(days: int, zone: str, at: str, start_at: datetime, end_at: datetime) -> None:
    interval = sync_intervals.days(days, at=at, timezone=zone)
    due = due_ticks(interval, start_at, end_at)
    dates = [tick_at.astimezone(ZoneInfo(zone)).date() for tick_at in due]
    first, last = start_at.date() + timedelta(days=1), end_at.date() - timedelta(days=2)
    expected = [
        day
        for day in (first + timedelta(days=offset) for offset in range((last - first).days + 1))
        if (day - date(1970, 1, 1)).days % days == 0
    ]
    assert [day for day in dates if first <= day <= last] == expected, interval
    assert len(set(dates)) == len(dates), interval


@pytest.mark.parametrize("at", ["00:00", "01:30", "02:00", "02:15", "02:30", "03:00", "23:59"])
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(("start_at", "end_at"), SPRING_AND_AUTUMN)
def test_the_next_run_that_a_reason_names_is_the_next_due_tick(
    zone: str, at: str, start_at: datetime, end_at: datetime
) -> None:
    interval = sync_intervals.days(2, at=at, timezone=zone)
    promised_at = None
    for tick_at in ticks(interval, start_at, end_at):
        decision = interval.decide(tick_at)
        if isinstance(decision, NotDue):
            promised_at = decision.next_due_at
        elif promised_at is not None:
            assert decision.due_at == promised_at == tick_at.astimezone(UTC)


@pytest.mark.parametrize("day", [date(2026, 3, 28), date(2026, 3, 29)])
def test_a_tick_that_daylight_saving_has_shifted_is_still_the_tick_of_its_day(day: date) -> None:
    interval = sync_intervals.days(2, at="02:30", timezone="Europe/Berlin")
    noon_before = datetime(day.year, day.month, day.day, 12, tzinfo=UTC) - timedelta(days=1)
    (tick_at,) = ticks(interval, noon_before, noon_before + timedelta(days=1))
    assert tick_at.strftime("%H:%M") == ("03:00" if day.day == 29 else "02:30")
    is_occasion = (day - date(1970, 1, 1)).days % 2 == 0
    assert isinstance(interval.decide(tick_at), Due) == is_occasion


def test_the_local_date_counts_and_not_the_date_in_utc() -> None:
    interval = sync_intervals.days(2, at="00:15", timezone="Pacific/Auckland")
    local = ZoneInfo("Pacific/Auckland")
    assert interval.decide(datetime(1970, 1, 3, 0, 15, tzinfo=local)) == Due(datetime(1970, 1, 2, 12, 15, tzinfo=UTC))
    assert isinstance(interval.decide(datetime(1970, 1, 4, 0, 15, tzinfo=local)), NotDue)


@pytest.mark.parametrize("zone", ["America/Havana", "America/Santiago", "Africa/Cairo", "Antarctica/Troll"])
@pytest.mark.parametrize("at", ["00:00", "00:30", "01:30", "23:30"])
def test_zones_with_unusual_changes_name_a_next_run_on_the_right_day(zone: str, at: str) -> None:
    interval = sync_intervals.days(3, at=at, timezone=zone)
    noon = datetime(2026, 1, 1, 12, tzinfo=ZoneInfo(zone))
    for offset in range(365):
        decision = interval.decide(noon + timedelta(days=offset))
        if isinstance(decision, NotDue):
            next_day = decision.next_due_at.astimezone(ZoneInfo(zone)).date()
            assert (next_day - date(1970, 1, 1)).days % 3 == 0
            assert 1 <= (next_day - (noon + timedelta(days=offset)).date()).days <= 2


def test_one_catch_up_run_makes_up_for_all_missed_ones() -> None:
    interval = sync_intervals.hours(5)
    occasions = counted_minutes(300, datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 6, 5, tzinfo=UTC))
    last_due_at, after_outage = occasions[0], occasions[6] + timedelta(hours=2)
    assert interval.decide(after_outage, last_due_at) == Due(occasions[6])
    assert isinstance(interval.decide(after_outage + timedelta(hours=1), occasions[6]), NotDue)
    assert interval.decide(occasions[7], occasions[6]) == Due(occasions[7])


def test_the_tick_of_a_catch_up_run_serves_as_well_as_its_occasion() -> None:
    interval = sync_intervals.days(3, at="02:30", timezone="Europe/Berlin")
    local = ZoneInfo("Europe/Berlin")
    occasion_at = datetime(2026, 1, 1, 2, 30, tzinfo=local)
    tick_at = occasion_at + timedelta(days=1)
    assert interval.decide(tick_at, occasion_at - timedelta(days=3)) == Due(occasion_at.astimezone(UTC))
    assert isinstance(interval.decide(tick_at + timedelta(days=1), tick_at), NotDue)
    assert isinstance(interval.decide(tick_at + timedelta(days=2), tick_at), Due)


def test_nothing_is_made_up_for_when_no_earlier_run_is_known() -> None:
    interval = sync_intervals.hours(5)
    occasion_at = counted_minutes(300, datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 6, 2, tzinfo=UTC))[0]
    assert isinstance(interval.decide(occasion_at + timedelta(hours=1), None), NotDue)
    assert interval.decide(occasion_at, None) == Due(occasion_at)


def test_a_tick_that_is_evaluated_again_is_due_again() -> None:
    occasion_at = counted_minutes(300, datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 6, 2, tzinfo=UTC))[0]
    assert sync_intervals.hours(5).decide(occasion_at, occasion_at) == Due(occasion_at)


@settings(deadline=None, max_examples=60)
@given(
    interval=st.one_of(
        st.integers(1, 60).map(sync_intervals.hours),
        st.integers(1, 9).map(lambda n: sync_intervals.days(n, at="02:30", timezone="Europe/Berlin")),
    ),
    outages=st.lists(st.tuples(st.integers(0, 900), st.integers(1, 90)), max_size=4),
)
def test_after_any_outages_no_occasion_is_lost_and_none_runs_twice(
    interval: Interval, outages: list[tuple[int, int]]
) -> None:
    """Dagster evaluates only the latest tick that it missed; so does this scheduler."""
    start_at, end_at = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 12, tzinfo=UTC)
    everything = list(ticks(interval, start_at, end_at))
    down = [(start_at + timedelta(hours=a), start_at + timedelta(hours=a + b)) for a, b in outages]
    evaluated = [
        tick_at
        for tick_at, next_at in zip(everything, [*everything[1:], end_at], strict=True)
        if not any(begin <= tick_at and next_at <= end for begin, end in down)
    ]
    expected = [decided.due_at for t in everything if isinstance(decided := interval.decide(t), Due)]
    last_due_at, due = None, []
    for tick_at in evaluated:
        decision = interval.decide(tick_at, last_due_at)
        if isinstance(decision, Due):
            last_due_at = decision.due_at
            due.append(last_due_at)
        if last_due_at is not None:
            assert last_due_at == max(due_at for due_at in expected if due_at <= tick_at)
    assert len(set(due)) == len(due)
    assert set(due) <= set(expected)


@pytest.mark.parametrize(
    ("interval", "label", "description"),
    [
        (sync_intervals.hours(5), "every_5_hours", "every 5 hours, counted from 1970-01-01 UTC"),
        (sync_intervals.hours(7), "every_7_hours", "every 7 hours, counted from 1970-01-01 UTC"),
        (sync_intervals.hours(1), "every_hour", "every hour"),
        (sync_intervals.minutes(90), "every_90_minutes", "every 90 minutes, counted from 00:00 UTC"),
        (
            sync_intervals.days(1, at="02:30", timezone="Europe/Berlin"),
            "daily_at_0230",
            "every day at 02:30 Europe/Berlin",
        ),
        (sync_intervals.days(3), "every_3_days_at_0000", "every 3 days at 00:00 UTC, counted from 1970-01-01"),
        (
            sync_intervals.days(7),
            "every_7_days_at_0000",
            "every 7 days at 00:00 UTC, counted from 1970-01-01, a Thursday",
        ),
        (
            sync_intervals.cron("*/15 8-18 * * MON-FRI"),
            "cron_xby15_8to18_x_x_montofri",
            "cron */15 8-18 * * mon-fri UTC",
        ),
    ],
)
def test_an_interval_says_what_it_is(interval: Interval, label: str, description: str) -> None:
    assert interval.label == label
    assert interval.description == description
    assert re.fullmatch("[a-z0-9_]+", interval.label)


def test_the_reason_of_a_skipped_tick_names_the_next_run() -> None:
    decision = sync_intervals.hours(5).decide(datetime(2026, 11, 23, 14, tzinfo=UTC))
    expected_at = counted_minutes(300, datetime(2026, 11, 23, 14, tzinfo=UTC), datetime(2026, 11, 24, tzinfo=UTC))[0]
    assert decision == NotDue(f"every 5 hours: next run at {expected_at:%Y-%m-%d %H:%M} UTC", expected_at)


def test_the_reason_gives_the_next_run_in_the_zone_of_the_interval() -> None:
    interval = sync_intervals.days(2, at="02:30", timezone="America/New_York")
    decision = interval.decide(datetime(1970, 1, 2, 7, 30, tzinfo=UTC))
    assert isinstance(decision, NotDue)
    assert decision.reason == ("every 2 days at 02:30 America/New_York: next run at 1970-01-03 02:30 America/New_York")


@pytest.mark.parametrize(
    "make",
    [
        lambda: sync_intervals.minutes(7),
        lambda: sync_intervals.hours(1),
        lambda: sync_intervals.days(3, at="02:30", timezone="Europe/Berlin"),
        lambda: sync_intervals.cron("0 4 * * *"),
    ],
)
def test_intervals_are_values(make) -> None:
    interval, twin = make(), make()
    assert interval == twin
    assert len({interval, twin}) == 1
    assert pickle.loads(pickle.dumps(interval)) == interval
    with pytest.raises(AttributeError):
        interval.timezone = "UTC"


def test_naive_times_are_refused() -> None:
    naive = datetime(2026, 1, 1)  # noqa: DTZ001
    with pytest.raises(ValueError, match="naive"):
        sync_intervals.hours(1).decide(naive)
    with pytest.raises(ValueError, match="naive"):
        sync_intervals.hours(1).decide(naive.replace(tzinfo=UTC), naive)
