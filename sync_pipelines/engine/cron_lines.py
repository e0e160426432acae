"""Checking and writing cron lines of five fields, in the part of the language that every cron understands alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sync_pipelines.errors import ConfigurationError

_PART = re.compile(r"(?P<low>\*|[0-9a-z]+)(-(?P<high>[0-9a-z]+))?(/(?P<step>[0-9]+))?")
_DIGITS_MAX = 2
_DAYS_OF_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_LABEL_WORDS = {"*": "x", "/": "by", "-": "to", ",": "and", " ": "_"}


@dataclass(frozen=True, slots=True)
class _Field:
    """One of the five fields: its name, its lowest and highest value, and names for values from the lowest on."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_MINUTE = _Field("minute", 0, 59)
_HOUR = _Field("hour", 0, 23)
_DAY = _Field("day of the month", 1, 31)
_MONTH = _Field("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"))
_WEEKDAY = _Field("day of the week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat"))
_FIELDS = (_MINUTE, _HOUR, _DAY, _MONTH, _WEEKDAY)


def checked_cron_line(line: object) -> str:
    """Checks a cron line and gives it back in lower case with single spaces, and a range of one value as that value.

    Values, names (`mon`, `jan`), `*`, ranges, steps of `*` or a range, and lists of these are understood. Macros
    (`@daily`), seconds and the signs `L`, `W`, `#` and `?` are not: schedulers disagree on them.

    Args:
        line: Five fields: minute, hour, day of the month, month, day of the week (0 or 7 is Sunday).

    Raises:
        ConfigurationError: The line is no such line, or names only days that no month has.
    """
    if not isinstance(line, str):
        raise ConfigurationError(f"a cron line is text such as '30 2 * * *', not {line!r}")
    fields = line.lower().split()
    if fields and fields[0] in _MACROS:
        raise ConfigurationError(f"cron line {line!r}: write {_MACROS[fields[0]]!r} instead of {fields[0]}")
    if len(fields) != len(_FIELDS):
        raise ConfigurationError(
            f"cron line {line!r} has {len(fields)} fields; it needs five: "
            "minute, hour, day of the month, month, day of the week"
        )
    values = [_field_values(text, field, line) for text, field in zip(fields, _FIELDS, strict=True)]
    days, months = values[2], values[3]
    if min(days) > max(_DAYS_OF_MONTH[month - 1] for month in months):
        raise ConfigurationError(f"cron line {line!r} never comes: no such month has a day {min(days)}")
    return " ".join(map(_plain, fields, _FIELDS))


def _plain(text: str, field: _Field) -> str:
    """Writes a range of one value as that value: Dagster's parser takes `5-5` for all values."""
    return ",".join(_plain_part(part, field) for part in text.split(","))


def _plain_part(part: str, field: _Field) -> str:
    match = _PART.fullmatch(part)
    if match is None or match["high"] is None:
        return part
    return match["low"] if _number(match["low"], field) == _number(match["high"], field) else part


def _number(text: str, field: _Field) -> int:
    return field.low + field.names.index(text) if text in field.names else int(text)


def _field_values(text: str, field: _Field, line: str) -> set[int]:
    return {value for part in text.split(",") for value in _part_values(part, field, line)}


def _part_values(part: str, field: _Field, line: str) -> range:
    match = _PART.fullmatch(part)
    if match is None:
        raise _refusal(line, field, part, "is neither a value, nor a range, nor a step of one of them")
    low_text, high_text, step_text = match["low"], match["high"], match["step"]
    if low_text == "*":
        if high_text is not None:
            raise _refusal(line, field, part, "is a range that starts with *")
        low, high = field.low, field.high
    else:
        low = _value(low_text, field, line)
        high = low if high_text is None else _value(high_text, field, line)
        if step_text is not None and high_text is None:
            raise _refusal(line, field, part, f"has a step but no range: write {low}-{field.high}/{step_text}")
    if low > high:
        raise _refusal(line, field, part, "runs backwards: write two ranges with a comma")
    step = 1 if step_text is None else int(step_text)
    if not 1 <= step <= max(high - low, 1):
        raise _refusal(line, field, part, f"has a step outside 1 to {max(high - low, 1)}")
    return range(low, high + 1, step)


def _value(text: str, field: _Field, line: str) -> int:
    is_number = text.isdecimal() and len(text) <= _DIGITS_MAX
    if text not in field.names and not (is_number and field.low <= int(text) <= field.high):
        names = f" or {field.names[0]} to {field.names[-1]}" if field.names else ""
        raise _refusal(line, field, text, f"is not {field.low} to {field.high}{names}")
    return _number(text, field)


def _refusal(line: str, field: _Field, part: str, complaint: str) -> ConfigurationError:
    return ConfigurationError(f"cron line {line!r}: {part!r} in the field {field.name} {complaint}")


def cron_label(line: str) -> str:
    """Turns a checked line into part of an identifier: `*/15 8-18 * * mon` becomes `cron_xby15_8to18_x_x_mon`."""
    return "cron_" + "".join(_LABEL_WORDS.get(sign, sign) for sign in line)


def cron_line_at(minutes: Sequence[int], hours: Sequence[int], weekdays: Sequence[int] = ()) -> str:
    """Writes the shortest line for these minutes and hours.

    Args:
        minutes: 0 to 59, ascending.
        hours: 0 to 23, ascending.
        weekdays: 0 (Sunday) to 6, ascending; none for every day.
    """
    week = _field_text(weekdays, range(7)) if weekdays else "*"
    return f"{_field_text(minutes, range(60))} {_field_text(hours, range(24))} * * {week}"


def _field_text(values: Sequence[int], whole: range) -> str:
    listed = ",".join(map(str, values))
    if len(values) == 1:
        return listed
    step = values[1] - values[0]
    if list(values) == list(whole[::step]) and len(whole) % step == 0:
        return "*" if step == 1 else f"*/{step}"
    if len(values) > 2 and list(values) == list(range(values[0], values[-1] + 1, step)):  # noqa: PLR2004 - two, no rhythm
        return f"{values[0]}-{values[-1]}" + ("" if step == 1 else f"/{step}")
    return listed
