"""SQLAlchemy types that hand values to drivers of MySQL and MariaDB in one way, whatever the driver makes of them."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any

from sqlalchemy import BindParameter, cast, literal_column
from sqlalchemy.dialects.mysql import DECIMAL
from sqlalchemy.sql.elements import ColumnElement

from sync_pipelines.targets.types.sqlalchemy_types import AsGiven, Written

_MICROSECOND = timedelta(microseconds=1)
_DIGITS = 65


class SingleFloat(AsGiven):
    """Reads floats of single precision in full: as text they have six digits only."""

    def column_expression(self, colexpr: ColumnElement[Any]) -> ColumnElement[Any]:
        """Selects the column as a double."""
        double: ColumnElement[Any] = colexpr.op("+")(literal_column("0e0"))
        return double


class FineDecimal(Written):
    """Writes decimals with so many places that Python writes some of them with an exponent, which makes them floats."""

    def __init__(self, scale: int) -> None:
        self.scale = scale

    @staticmethod
    def _written(value: Any) -> Any:
        return None if value is None else format(value, "f")

    def bind_expression(self, bindvalue: BindParameter[Any]) -> ColumnElement[Any]:
        """Casts the text, to as many digits as there can be."""
        return cast(bindvalue, DECIMAL(_DIGITS, self.scale))


class Moment(Written):
    """Writes moments without their zone: that of the session is UTC."""

    @staticmethod
    def _written(value: Any) -> Any:
        if isinstance(value, datetime) and value.tzinfo is not None:
            return value.astimezone(UTC).replace(tzinfo=None)
        return value


class Duration(Written):
    """Writes durations as text: drivers get negative ones wrong."""

    @staticmethod
    def _written(value: Any) -> Any:
        if isinstance(value, time):
            return value.isoformat("microseconds")
        if not isinstance(value, timedelta):
            return value
        sign, microseconds = ("-", -(value // _MICROSECOND)) if value < timedelta(0) else ("", value // _MICROSECOND)
        seconds, microseconds = divmod(microseconds, 1_000_000)
        return f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{microseconds:06}"
