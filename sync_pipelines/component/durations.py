"""Lengths of time and schedules in YAML: `every: 30 minutes`."""

import re
from datetime import timedelta
from typing import Any, Literal, Self

from pydantic import ConfigDict, model_validator

from sync_pipelines.component.places import within
from sync_pipelines.component.templates import Declaration, Templated
from sync_pipelines.engine.intervals import Interval, sync_intervals
from sync_pipelines.errors import ConfigurationError

_LENGTH = re.compile(r"(?:([0-9]{1,9}) +)?(minute|hour|day|week)s?")
_WEEK_DAYS = 7
_TIMES = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}

Unit = Literal["minute", "hour", "day"]


def length_of(text: str) -> tuple[int, Unit]:
    """Reads `30 minutes`, `2 hours`, `day` or `1 week`.

    Raises:
        ConfigurationError: The text is none of them.
    """
    match = _LENGTH.fullmatch(text.strip())
    if match is None:
        raise ConfigurationError(f"{text!r} is no length of time; write it as '30 minutes', '2 hours' or '1 day'")
    number, unit = int(match[1] or 1), match[2]
    if unit == "week":
        return number * _WEEK_DAYS, "day"
    return number, unit  # type: ignore[return-value]  # the pattern allows no other


def duration_of(value: Any) -> Any:
    """Returns the length of time that a text means; anything else, for `SyncJob` to judge, as it is."""
    if not isinstance(value, str):
        return value
    number, unit = length_of(value)
    return number * _TIMES[unit]


class ScheduleDeclaration(Declaration):
    """When a sync runs: every so often, or at the times of a cron line."""

    model_config = ConfigDict(json_schema_extra={"type": ["object", "string"]})

    every: Templated[str | None] = None
    """`30 minutes`, `2 hours`, `1 day` or `1 week`."""
    at: Templated[str | None] = None
    """The time of the day as "HH:MM", for days and weeks; in quotes, or YAML takes it for a number."""
    cron: Templated[str | None] = None
    """A cron line of five fields."""
    timezone: Templated[str | None] = None
    """An IANA name such as `Europe/Berlin`, for days, weeks and cron lines; by default UTC."""

    @model_validator(mode="before")
    @classmethod
    def _accept_cron_line(cls, value: Any) -> Any:
        """Takes a text for a cron line in UTC, as `SyncJob(schedule=...)` does."""
        if isinstance(value, dict) and isinstance(value.get("at"), int):
            raise ValueError('at: write the time of the day in quotes, as in "12:30": YAML takes it for a number')  # noqa: TRY004 - what pydantic collects
        return {"cron": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        if (self.every is None) == (self.cron is None):
            raise ValueError("give `every` or `cron`, one of them")
        return self

    def build(self) -> Interval:
        """Builds what `SyncJob(schedule=...)` takes."""
        zone = {} if self.timezone is None else {"timezone": self.timezone}
        if self.cron is not None:
            if self.at is not None:
                raise ConfigurationError("at: a cron line says the time of the day itself; leave it out", field="at")
            with within("cron"):
                return sync_intervals.cron(self.cron, **zone)
        with within("every"):
            number, unit = length_of(self.every or "")
        if unit == "day":
            return sync_intervals.days(number, **({} if self.at is None else {"at": self.at}), **zone)
        for name in ("at", "timezone"):
            if getattr(self, name) is not None:
                raise ConfigurationError(
                    f"{name}: {self.every!r} is elapsed time and knows no time of the day; leave it out", field=name
                )
        return sync_intervals.minutes(number) if unit == "minute" else sync_intervals.hours(number)
