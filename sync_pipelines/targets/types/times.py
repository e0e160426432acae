"""Converts dates, times and durations: naive means UTC, and rounding is PostgreSQL's."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sync_pipelines.targets.types.values import BLANKS

_MICROSECOND = timedelta(microseconds=1)
_DAY_US = 24 * 60 * 60 * 1_000_000
# PostgreSQL counts from here and rounds away from it.
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_PYTHON_DURATION = re.compile(r"(?:(-?\d+) days?, )?(\d+):(\d\d):(\d\d)(?:\.(\d{1,6}))?", re.ASCII)
_POSTGRES_INTERVAL = re.compile(
    r"(?:([+-]?\d+) years?)? ?(?:([+-]?\d+) mons?)? ?(?:([+-]?\d+) days?)? ?"
    r"(?:([+-]?)(\d+):(\d\d):(\d\d)(?:\.(\d{1,6}))?)?",
    re.ASCII,
)
_MONTHS, _MONTH_DAYS = 12, 30  # as the database compares intervals
_ISO_DURATION: TypeAdapter[timedelta] = TypeAdapter(timedelta)
_MICROSECOND_DIGITS = 6
_FINE = re.compile(r"([.,][0-9]{6})([0-9]+)")
_RUN_ON = re.compile(r"(?:^|[T ])[0-9]{7,}")


def to_datetime(value: Any, *, aware: bool, precision: int | None) -> datetime:
    """Gives the moment in UTC.

    Args:
        value: A datetime (naive means UTC), a date (its midnight, UTC) or ISO 8601 text.
        aware: True for an aware result, False for naive UTC.
        precision: Digits of the second that the column keeps, 0 to 6; None keeps all.
    """
    moment = _as_datetime(value)
    moment = moment.replace(tzinfo=UTC, fold=0) if moment.tzinfo is None else moment.astimezone(UTC)
    if precision is not None and precision < _MICROSECOND_DIGITS:
        since = (moment - _EPOCH) // _MICROSECOND
        moment = _EPOCH + (-1 if since < 0 else 1) * _rounded(abs(since), precision) * _MICROSECOND
    return moment if aware else moment.replace(tzinfo=None)


def to_date(value: Any) -> date:
    """Gives the calendar day; of a datetime its own day, in its own zone."""
    if isinstance(value, str):
        text = value.strip(BLANKS)
        try:
            return date.fromisoformat(text)
        except ValueError:
            return _as_datetime(text).date()
    return _as_datetime(value).date()


def to_time(value: Any, *, aware: bool, precision: int | None) -> time:
    """Gives the time of day in UTC.

    Args:
        value: A time (naive means UTC) or ISO 8601 text.

    Raises:
        ValueError: The time rounds up to 24:00, which Python can't hold; or has a zone without a fixed offset.
    """
    finer = timedelta()
    moment = value
    if isinstance(value, str):
        text, finer = _split_finer(value)
        if _RUN_ON.search(text):
            raise ValueError("it is not a time of day")  # Python reads 20240102 as twenty past eight
        moment = time.fromisoformat(text)
    if not isinstance(moment, time):
        raise TypeError("it is not a time of day")
    since = timedelta(hours=moment.hour, minutes=moment.minute, seconds=moment.second, microseconds=moment.microsecond)
    microseconds = (since + finer) // _MICROSECOND
    if moment.tzinfo is not None:
        offset = moment.utcoffset()
        if offset is None:
            raise ValueError("its zone has no offset without a date")
        microseconds = (microseconds - offset // _MICROSECOND) % _DAY_US
    microseconds = _rounded(microseconds, precision)
    if microseconds >= _DAY_US:
        raise ValueError("it rounds up to 24:00")
    return to_clock(microseconds * _MICROSECOND).replace(tzinfo=UTC if aware else None)


def to_clock(since_midnight: timedelta) -> time:
    """Gives the time of day, without a zone."""
    return (_EPOCH + since_midnight).time()


def to_interval(value: Any, *, precision: int | None) -> timedelta:
    """Gives the duration.

    Args:
        value: A timedelta, its text, or an ISO 8601 duration. A number does not convert, for it has no unit.
    """
    if isinstance(value, str):
        text, finer = _split_finer(value)
        value = _duration(text) + finer
    if not isinstance(value, timedelta):
        raise TypeError("it is not a duration: give a timedelta")
    within_day = value.seconds * 1_000_000 + value.microseconds
    return timedelta(days=value.days, microseconds=_rounded(within_day, precision))


def from_postgres_interval(text: str) -> timedelta:
    """Reads what PostgreSQL writes in its own style of intervals."""
    match = _POSTGRES_INTERVAL.fullmatch(text)
    if match is None:
        raise ValueError("it is not a duration")
    years, months, days, sign, hours, minutes, seconds, fraction = match.groups(default="0")
    time_of_day = timedelta(
        hours=int(hours),
        minutes=int(minutes),
        seconds=int(seconds),
        microseconds=int(fraction.ljust(_MICROSECOND_DIGITS, "0")),
    )
    whole_days = (int(years) * _MONTHS + int(months)) * _MONTH_DAYS + int(days)
    return timedelta(days=whole_days) + (-time_of_day if sign == "-" else time_of_day)


def _duration(text: str) -> timedelta:
    match = _PYTHON_DURATION.fullmatch(text)
    if match is None:
        try:
            return _ISO_DURATION.validate_python(text)
        except ValidationError:
            raise ValueError("it is not a duration") from None
    days, hours, minutes, seconds, fraction = match.groups(default="0")
    return timedelta(
        days=int(days),
        hours=int(hours),
        minutes=int(minutes),
        seconds=int(seconds),
        microseconds=int(fraction.ljust(_MICROSECOND_DIGITS, "0")),
    )


def _as_datetime(value: Any) -> datetime:
    if isinstance(value, str):
        text, finer = _split_finer(value)
        if len(text) > len("20240102") and _RUN_ON.search(text, len("20240102")):
            raise ValueError("it is not a date and time")  # Python takes what follows seconds for their fraction
        return datetime.fromisoformat(text) + finer
    if isinstance(value, datetime):
        # Built anew, because pandas' subclass carries nanoseconds along.
        return datetime.combine(date(value.year, value.month, value.day), _time_of(value))
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    raise TypeError("it is not a date or time")


def _split_finer(text: str) -> tuple[str, timedelta]:
    """Splits off what is finer than a microsecond, which databases round and Python cuts off."""
    text = text.strip(BLANKS)
    match = _FINE.search(text)
    if match is None:
        return text, timedelta()
    return text[: match.end(1)] + text[match.end(2) :], _MICROSECOND if match[2] >= "5" else timedelta()


def _time_of(value: datetime) -> time:
    return time(
        value.hour, value.minute, value.second, value.microsecond, tzinfo=value.tzinfo, fold=getattr(value, "fold", 0)
    )


def _rounded(microseconds: int, precision: int | None) -> int:
    if precision is None or precision >= _MICROSECOND_DIGITS:
        return microseconds
    unit: int = 10 ** (_MICROSECOND_DIGITS - precision)
    return (microseconds + unit // 2) // unit * unit
