"""SQLAlchemy types that hand values to the driver as they are: what to write was decided before (`columns`).

SQLAlchemy's own types would add casts that change the comparison (`citext` against VARCHAR, CHAR against VARCHAR), warn
about Decimals on SQLite, and fail a whole batch on one unreadable value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from sqlalchemy import BindParameter, Dialect, Numeric, Text, case, cast, func, type_coerce
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import TypeDecorator, TypeEngine, UserDefinedType

from sync_pipelines.targets.types.json_values import dump_json, load_json
from sync_pipelines.targets.types.values import INT64_MAX, INT64_MIN, is_int64

Processor = Callable[[Any], Any]


class AsGiven(UserDefinedType[Any]):
    """Hands over the Python value; PostgreSQL takes the column's type for text."""

    cache_ok = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.cache_ok = True  # SQLAlchemy looks for it in each class itself

    def get_col_spec(self, **_options: Any) -> str:
        """Raises: these types write to tables that exist, and none is made with them."""
        raise NotImplementedError


class Written(AsGiven):
    """Writes what `_written` makes of a value."""

    def bind_processor(self, dialect: Dialect) -> Processor:
        """Returns `_written`."""
        del dialect
        return self._written

    @staticmethod
    def _written(value: Any) -> Any:
        raise NotImplementedError


class AsText(Written):
    """Writes the text of a value: UUIDs, which not every driver adapts."""

    @staticmethod
    def _written(value: Any) -> Any:
        return None if value is None else str(value)


class SinglePrecision(Written):
    """Writes floats of single precision as text: as a double, 0.1 would equal no `real` of the database."""

    @staticmethod
    def _written(value: Any) -> Any:
        return None if value is None else repr(value)


class DatabaseText(AsGiven):
    """Reads a column as the text that the database writes for it.

    Types that are unknown here are, and those of which the database has values that Python has not: a driver would fail
    all rows because of one `infinity`.
    """

    def column_expression(self, colexpr: ColumnElement[Any]) -> ColumnElement[Any]:
        """Selects the column's text."""
        return cast(colexpr, Text)


class Money(AsGiven):
    """Writes and reads amounts of money as numbers, whatever signs the database writes with them."""

    def bind_expression(self, bindvalue: BindParameter[Any]) -> ColumnElement[Any]:
        """Makes money of the bound number."""
        return cast(cast(bindvalue, Numeric), NamedType("money"))

    def column_expression(self, colexpr: ColumnElement[Any]) -> ColumnElement[Any]:
        """Selects the number."""
        return type_coerce(cast(colexpr, Numeric), AsGiven())


class Readable(TypeDecorator[Any]):
    """Reads a value that a type of SQLAlchemy or the application fails on as the driver gives it."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: TypeEngine[Any]) -> None:
        super().__init__()
        self.impl = self.impl_instance = kind  # type: ignore[assignment]  # one of each column
        self.cache_ok = not isinstance(kind, TypeDecorator) or bool(kind.cache_ok)

    def result_processor(self, dialect: Dialect, coltype: Any) -> Processor | None:
        """Gives the type's own way of reading, which can't fail."""
        process = self.impl_instance.dialect_impl(dialect).result_processor(dialect, coltype)
        return None if process is None else _guarded(process)


def _guarded(process: Processor) -> Processor:
    def read(value: Any) -> Any:
        try:
            return process(value)
        except Exception:  # noqa: BLE001 - whatever the application's type raises; the value is overwritten
            return value

    return read


class JsonText(AsGiven):
    """Writes and reads JSON as text."""

    def bind_processor(self, dialect: Dialect) -> Processor:
        """Gives the function that makes JSON text of a value; SQLite gets single numbers as numbers."""
        # SQLite makes numbers of such text anyway, large ones with loss.
        lone_numbers = dialect.name == "sqlite"

        def process(value: Any) -> Any:
            if value is None:
                return None
            if lone_numbers and isinstance(value, int | float) and not isinstance(value, bool):
                return value if INT64_MIN <= value <= INT64_MAX else float(value)
            return dump_json(value)

        return process

    def result_processor(self, dialect: Dialect, coltype: object) -> Processor:
        """Gives the function that parses JSON text; text that is none stays text."""
        del dialect, coltype
        return _parsed


class ExactJson(AsGiven):
    """Reads JSON with all digits of its numbers."""

    def result_processor(self, dialect: Dialect, coltype: object) -> Processor:
        """Gives the function that parses JSON text."""
        del dialect, coltype
        return lambda text: None if text is None else load_json(text)


class PostgresJson(JsonText):
    """Reads as text what drivers would parse, each in its own way."""

    def column_expression(self, colexpr: ColumnElement[Any]) -> ColumnElement[Any]:
        """Selects the column's text."""
        return type_coerce(cast(colexpr, Text), JsonText())


class PostgresArray(TypeDecorator[Any]):
    """Reads an array as JSON: its elements as the database writes them, those included that Python has no value for."""

    impl = ARRAY
    cache_ok = True

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Selects the array as one JSON array."""
        return type_coerce(_array_as_json(column), ExactJson())


class PostgresJsonArray(Written):
    """Arrays of JSON, whose lists are not to be taken for dimensions of the array."""

    @staticmethod
    def _written(value: Any) -> Any:
        return None if value is None else array_literal(value, dump_json)

    def column_expression(self, colexpr: ColumnElement[Any]) -> ColumnElement[Any]:
        """Selects the array as one JSON array."""
        return type_coerce(_array_as_json(colexpr), JsonText())


def _array_as_json(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Selects an array as JSON; as a text one that does not begin at 1, which no item's list is written as."""
    begins_elsewhere = func.array_dims(column, type_=Text()).op("!~", is_comparison=True)(r"^(\[1:\d+\])*$")
    return cast(case((begins_elsewhere, func.to_jsonb(cast(column, Text))), else_=func.to_jsonb(column)), Text)


def array_literal(parts: Iterable[Any], text_of: Processor) -> str:
    """Writes a list as PostgreSQL reads an array of one dimension; None is NULL."""
    return f"{{{','.join(_quoted(part, text_of) for part in parts)}}}"


def _quoted(part: Any, text_of: Processor) -> str:
    if part is None:
        return "NULL"
    escaped = text_of(part).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return load_json(value)
    except ValueError:
        return value


class SqliteNumber(Written):
    """Writes decimals as SQLite keeps them: whole numbers of 64 bits exactly, others as floats."""

    @staticmethod
    def _written(value: Any) -> Any:
        if not isinstance(value, Decimal):
            return value
        return int(value) if is_int64(value) else float(value)


class SqliteTime(Written):
    """Writes dates and times as the text that SQLAlchemy writes, so that an application reads them."""

    @staticmethod
    def _written(value: Any) -> Any:
        if isinstance(value, datetime):
            return value.replace(tzinfo=None).isoformat(" ", "microseconds")
        if isinstance(value, time):
            return value.replace(tzinfo=None).isoformat("microseconds")
        return value.isoformat() if isinstance(value, date) else value


class NamedType(AsGiven):
    """A database type known by its name only, as `format_type` writes it, to cast to."""

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_options: Any) -> str:
        """Returns the name, as it stands in a CAST."""
        return self.name
