"""Versions of items: numbers or moments that say which of two states of one item is the newer one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Self

from sync_pipelines.errors import ItemError

_NUMBER, _MOMENT = "n", "t"
_LONGEST = 90


@dataclass(frozen=True, slots=True)
class Version:
    """Which state of an item it is: a number, or a moment in UTC."""

    value: Decimal | datetime

    @classmethod
    def of(cls, raw: Any) -> Self:
        """Makes a version of what `get_version` gives: a number, an aware datetime, or a text of either.

        Raises:
            ItemError: It is missing, or neither a number nor an aware moment.
        """
        if hasattr(raw, "to_pydatetime"):
            raw = raw.to_pydatetime()  # a Timestamp of pandas
        value = _read(raw) if isinstance(raw, str) else raw
        if isinstance(value, datetime):
            if value.tzinfo is None:
                raise ItemError(f"the version {raw!r} has no time zone; give an aware moment")
            try:
                return cls(value.astimezone(UTC))
            except OverflowError as error:
                raise ItemError(f"the version {raw!r} is in no year that can be kept") from error
        if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
            number = Decimal(str(value)) if isinstance(value, float) else Decimal(value)
            if number.is_finite():
                return cls(_short(number))
        raise ItemError(f"the version {_shown(raw)} is neither a number nor an aware moment")

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Reads what `text` wrote."""
        kind, _, value = text.partition(":")
        return cls(Decimal(value) if kind == _NUMBER else datetime.fromisoformat(value))

    @property
    def text(self) -> str:
        """Returns a text to keep."""
        if isinstance(self.value, datetime):
            return f"{_MOMENT}:{self.value.isoformat()}"
        return f"{_NUMBER}:{self.value}"

    def is_older_than(self, other: Version | None) -> bool:
        """Returns True if it is older. Between a number and a time, left by another declaration, neither is older."""
        if other is None or isinstance(self.value, datetime) != isinstance(other.value, datetime):
            return False
        return bool(self.value < other.value)  # type: ignore[operator]  # both are of one kind


def supersedes(version: Version | None, before: Version | None) -> bool:
    """Returns True if, of two states of one item, the one that came later counts: if it is not older.

    Nothing else decides which of several items of one id counts; but where a database compares,
    `targets.staging.diff_sql.Planner.find_duplicates` decides the same. None stands for no version, or none that can
    be read.
    """
    return before is None or (version is not None and not version.is_older_than(before))


def newer_of(first: Version | None, second: Version | None) -> Version | None:
    """Returns the newer one of two, the second if neither is."""
    return first if first is not None and (second is None or second.is_older_than(first)) else second


def _read(text: str) -> Any:
    try:
        return Decimal(text)
    except InvalidOperation:
        pass
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        return text


def _short(number: Decimal) -> Decimal:
    """Returns the number, if the ledger can keep it."""
    if len(str(number)) > _LONGEST:
        raise ItemError(f"the version {_shown(number)} has too many digits; {_LONGEST} characters can be kept")
    return number


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"  # noqa: PLR2004 - a line's worth
