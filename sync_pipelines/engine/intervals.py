"""How often a sync runs: what a scheduler ticks on, and which of its ticks are due.

A scheduler understands cron lines, and cron lines can't say "every 5 hours": their hours start again at midnight. So an
interval has cron lines that contain all of its occasions, and decides for each tick whether it is one. Where a list of
lines says the interval exactly, every tick is due.

Minutes and hours are elapsed time and know no daylight saving; days are days of a zone's calendar.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from math import gcd, lcm
from zoneinfo import ZoneInfo

from sync_pipelines.engine.cron_lines import checked_cron_line, cron_label, cron_line_at
from sync_pipelines.errors import ConfigurationError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_WEEKDAY = 4  # 1970-01-01 was a Thursday; cron counts from Sunday
_HOUR_MINUTES = 60
_DAY_MINUTES = 24 * 60
_WEEK_MINUTES = 7 * _DAY_MINUTES
_LONGEST_DAYS = 3660
_CHANGING_HOURS = range(1, 4)
_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")


@dataclass(frozen=True, slots=True)
class Due:
    """The sync is to run now.

    Args:
        due_at: The occasion it runs for, in UTC. Earlier than the tick when it makes up for a missed one.
    """

    due_at: datetime


@dataclass(frozen=True, slots=True)
class NotDue:
    """The tick is no occasion of the interval.

    Args:
        reason: For the operator; names the interval and the next run.
    """

    reason: str
    next_due_at: datetime


@dataclass(frozen=True, slots=True)
class _CountedMinutes:
    """Every so many minutes of elapsed time; occasion 0 is 1970-01-01 00:00 UTC."""

    minutes: int

    def locate(self, moment: datetime) -> tuple[int, bool]:
        """Returns the number of the latest occasion, and whether the moment is that occasion."""
        number, rest = divmod(moment - _EPOCH, timedelta(minutes=self.minutes))
        return number, not rest

    def occasion_at(self, number: int) -> datetime:
        """Returns the moment of that occasion, in UTC."""
        return _EPOCH + timedelta(minutes=number * self.minutes)


@dataclass(frozen=True, slots=True)
class _CountedDays:
    """Every so many days of a zone's calendar at one time of the day; occasion 0 is on 1970-01-01."""

    days: int
    at: time
    timezone: str

    def locate(self, moment: datetime) -> tuple[int, bool]:
        """Returns the number of the latest occasion, and whether the moment is on that occasion's day."""
        # By the date alone: a tick that a clock change moved by an hour is still the tick of its day.
        number, rest = divmod((moment.astimezone(ZoneInfo(self.timezone)).date() - _EPOCH.date()).days, self.days)
        return number, not rest

    def occasion_at(self, number: int) -> datetime:
        """Returns the moment of that occasion, in UTC."""
        return _wall_clock(_EPOCH.date() + timedelta(days=number * self.days), self.at, ZoneInfo(self.timezone))


def _wall_clock(day: date, at: time, zone: ZoneInfo) -> datetime:
    """Converts that time of that day to UTC, in the days of a clock change as the scheduler ticks.

    Between 1:00 and 3:59, where nearly all changes fall, a time that does not exist becomes the end of the gap, and of
    a time that comes twice the second counts.
    """
    moment = datetime.combine(day, at, zone)
    is_changing_hour = at.hour in _CHANGING_HOURS
    exists = moment.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == moment.replace(tzinfo=None)
    if not exists:
        return (moment.replace(minute=0) if is_changing_hour else moment).astimezone(UTC)
    return moment.replace(fold=int(is_changing_hour)).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Interval:
    """How often a sync runs. Made by `sync_intervals`; equal, hashable and picklable by value.

    Args:
        cron_lines: What the scheduler ticks on; contains every occasion.
        timezone: The IANA zone in which the cron lines are read.
        label: Part of an identifier: `every_5_hours`, `daily_at_0230`.
        title: For people, in few words: "every 5 hours".
        description: For people, whole: "every 5 hours, counted from 1970-01-01 UTC".
        count: Picks the occasions out of the ticks; None when every tick is due.
        period: How long it is from one occasion to the next; None for cron lines, which may be irregular.
    """

    cron_lines: tuple[str, ...]
    timezone: str
    label: str
    title: str
    description: str
    count: _CountedMinutes | _CountedDays | None = None
    period: timedelta | None = None

    @property
    def is_exact(self) -> bool:
        """True if every tick of the cron lines is due."""
        return self.count is None

    def decide(self, tick_at: datetime, last_due_at: datetime | None = None) -> Due | NotDue:
        """Decides whether a tick of the cron lines is due.

        A tick is due if it is an occasion, or if occasions were missed since the last due tick; however many were
        missed, one run makes up for them, and it runs for the latest.

        Args:
            tick_at: When the scheduler meant to tick, aware; not the present time.
            last_due_at: `due_at` or `tick_at` of the last tick that was due, aware; None if there was none or nobody
                knows, and then nothing is made up for.

        Raises:
            ValueError: A time is naive.
        """
        for moment in (tick_at, last_due_at):
            if moment is not None and moment.utcoffset() is None:
                raise ValueError(f"{moment!r} is naive; give an aware time")
        if self.count is None:
            return Due(tick_at.astimezone(UTC))
        number, is_occasion = self.count.locate(tick_at)
        if is_occasion:
            return Due(tick_at.astimezone(UTC))
        if last_due_at is not None and self.count.locate(last_due_at)[0] < number:
            return Due(self.count.occasion_at(number))
        next_due_at = self.count.occasion_at(number + 1)
        local = next_due_at.astimezone(ZoneInfo(self.timezone))
        return NotDue(f"{self.title}: next run at {local:%Y-%m-%d %H:%M} {self.timezone}", next_due_at)


class SyncIntervals:
    """Makes intervals: `sync_intervals.hours(1)`."""

    def minutes(self, n: int) -> Interval:
        """Repeats every n minutes of elapsed time, counted from 1970-01-01 00:00 UTC.

        Raises:
            ConfigurationError: `n` is no positive whole number, or more than ten years.
        """
        return _elapsed("minute", n, 1)

    def hours(self, n: int) -> Interval:
        """Repeats every n hours of elapsed time, counted from 1970-01-01 00:00 UTC.

        Raises:
            ConfigurationError: `n` is no positive whole number, or more than ten years.
        """
        return _elapsed("hour", n, _HOUR_MINUTES)

    def days(self, n: int, at: str = "00:00", timezone: str = "UTC") -> Interval:
        """Repeats every n days of the zone's calendar, counted from 1970-01-01, at that time of the day.

        Each day has one tick. A time that a clock change leaves out comes at the end of the gap; of a time that comes
        twice, the second counts.

        Args:
            n: Number of days. 7 is every Thursday, because 1970-01-01 was one.
            at: "HH:MM", 00:00 to 23:59.
            timezone: An IANA name such as "Europe/Berlin".

        Raises:
            ConfigurationError: An argument is none of these.
        """
        _check_number("days", n, _LONGEST_DAYS)
        match = _TIME_OF_DAY.fullmatch(str(at))
        if match is None:
            raise ConfigurationError(f"sync_intervals.days(at={at!r}): write the time of the day as 'HH:MM'")
        zone = _checked_timezone("days", timezone)
        return _calendar_days(n, time(int(match[1]), int(match[2])), zone)

    def cron(self, line: str, timezone: str = "UTC") -> Interval:
        """Repeats at the times that a cron line names.

        Args:
            line: Five fields: minute, hour, day of the month, month, day of the week.
            timezone: An IANA name such as "Europe/Berlin".

        Raises:
            ConfigurationError: The line or the zone is not valid.
        """
        checked, zone = checked_cron_line(line), _checked_timezone("cron", timezone)
        title = f"cron {checked} {zone}"
        return Interval((checked,), zone, cron_label(checked), title, title)


sync_intervals = SyncIntervals()
"""Makes the intervals of schedules: `.minutes(30)`, `.hours(1)`, `.days(1)`, `.cron("30 2 * * mon-fri")`."""


def as_interval(value: Interval | str) -> Interval:
    """Returns the interval that a declaration means: itself, or a cron line in UTC.

    Raises:
        ConfigurationError: It is neither.
    """
    if isinstance(value, Interval):
        return value
    if isinstance(value, str):
        return sync_intervals.cron(value)
    raise ConfigurationError(
        f"{value!r} is no interval: give sync_intervals.minutes(n), .hours(n), .days(n, at=..., timezone=...), "
        ".cron(line, timezone=...) or a cron line such as '30 2 * * *'"
    )


def _elapsed(unit: str, n: int, unit_minutes: int) -> Interval:
    _check_number(f"{unit}s", n, _LONGEST_DAYS * _DAY_MINUTES // unit_minutes)
    minutes = n * unit_minutes
    base = _coarsest_base(minutes)
    is_daily = _DAY_MINUTES % base == 0
    title = f"every {unit}" if n == 1 else f"every {n} {unit}s"
    origin = "00:00" if is_daily and base == minutes else "1970-01-01"
    return Interval(
        cron_lines=_lines_of_day(base) if is_daily else _lines_of_week(base // _HOUR_MINUTES),
        timezone="UTC",
        label=title.replace(" ", "_"),
        title=title,
        description=title if n == 1 else f"{title}, counted from {origin} UTC",
        count=None if base == minutes else _CountedMinutes(minutes),
        period=timedelta(minutes=minutes),
    )


def _coarsest_base(minutes: int) -> int:
    """Finds the longest interval in minutes that cron lines say exactly and that contains every occasion of this one.

    A day can be cut into any parts. A week is cut into whole hours only: that takes at most seven lines, whereas every
    7 minutes would take 49.
    """
    week = gcd(minutes, _WEEK_MINUTES)
    return week if week % _HOUR_MINUTES == 0 else gcd(minutes, _DAY_MINUTES)


def _lines_of_day(minutes: int) -> tuple[str, ...]:
    """Builds a line for each group of hours that share their minutes; `minutes` divides a day."""
    cycle = lcm(minutes, _HOUR_MINUTES)
    minutes_by_hour: dict[int, list[int]] = {}
    for minute in range(0, cycle, minutes):
        minutes_by_hour.setdefault(minute // _HOUR_MINUTES, []).append(minute % _HOUR_MINUTES)
    hours = cycle // _HOUR_MINUTES
    return tuple(cron_line_at(within, range(first, 24, hours)) for first, within in minutes_by_hour.items())


def _lines_of_week(hours: int) -> tuple[str, ...]:
    """Builds a line for each group of weekdays that share hours; `hours` divides a week that starts on Thursday."""
    hours_by_weekday: dict[int, list[int]] = {}
    for hour in range(0, 7 * 24, hours):
        hours_by_weekday.setdefault((_EPOCH_WEEKDAY + hour // 24) % 7, []).append(hour % 24)
    weekdays_by_hours: dict[tuple[int, ...], list[int]] = {}
    for weekday, within in sorted(hours_by_weekday.items()):
        weekdays_by_hours.setdefault(tuple(within), []).append(weekday)
    return tuple(cron_line_at([0], within, weekdays) for within, weekdays in weekdays_by_hours.items())


def _calendar_days(n: int, at: time, zone: str) -> Interval:
    is_weekly = n % 7 == 0
    days = "every day" if n == 1 else f"every {n} days"
    title = f"{days} at {at:%H:%M} {zone}"
    origin = "" if n == 1 else ", counted from 1970-01-01"
    return Interval(
        cron_lines=(cron_line_at([at.minute], [at.hour], [_EPOCH_WEEKDAY] if is_weekly else []),),
        timezone=zone,
        label=f"{'daily' if n == 1 else f'every_{n}_days'}_at_{at:%H%M}",
        title=title,
        description=f"{title}{origin}{', a Thursday' if is_weekly else ''}",
        count=None if n in (1, 7) else _CountedDays(n, at, zone),
        period=timedelta(days=n),
    )


def _check_number(unit: str, n: object, highest: int) -> None:
    # `type`, not `isinstance`: True is an int to Python and a slip to everybody else.
    if type(n) is not int or not 1 <= n <= highest:
        raise ConfigurationError(f"sync_intervals.{unit}({n!r}): give a whole number from 1 to {highest}")


def _checked_timezone(function: str, timezone: object) -> str:
    try:
        if isinstance(timezone, str):
            return ZoneInfo(timezone).key
    except (KeyError, ValueError, OSError):  # no such name; a path; a folder of names such as "Europe"
        pass
    raise ConfigurationError(
        f"sync_intervals.{function}(timezone={timezone!r}): give an IANA name such as 'Europe/Berlin' or 'UTC'"
    )
