"""Values of a query of which Python can't hold some: `infinity`, a year 10000, text in a column of dates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sync_pipelines.errors import ItemError
from sync_pipelines.sources.pages import Page

_ABOUT_A_VALUE = (ValueError, TypeError, ArithmeticError, LookupError)
_OF_PSYCOPG = ("date", "time", "timetz", "timestamp", "timestamptz", "interval", "json", "jsonb")
_OF_PSYCOPG2 = {"date": 1082, "time": 1083, "timetz": 1266, "timestamp": 1114, "timestamptz": 1184, "interval": 1186}
_INFINITE = frozenset({"infinity", "-infinity"})
"""psycopg2 makes the last day and the first of them, without a word."""


@dataclass(frozen=True, slots=True)
class _Unheld:
    """Stands for a value that could not be read."""

    shown: str
    kind: str
    error: Exception

    def named(self, row: int, name: str) -> ItemError:
        """Returns the error of the item that has it."""
        why = f"{type(self.error).__name__}: {self.error}"
        return ItemError(
            f"sql_query: row {row:,}: {name} is {self.shown} ({self.kind}), which Python does not hold ({why})"
        )


class ValueGuard:
    """Keeps a value that can't be read from ending the query: it becomes an `ItemError` in its item.

    It is heard before a statement is sent: `event.listen(connection, "before_cursor_execute", guard.prepare)`. What it
    changes belongs to that one cursor; the statement must not be kept in a cache with it.
    """

    def __init__(self) -> None:
        self._has_unheld = False
        self._rows = 0

    def prepare(self, connection: Any, cursor: Any, *sent: Any) -> None:
        """Lets the cursor, and the types of SQLAlchemy, read values through the guard."""
        _statement, _parameters, context, _executemany = sent
        driver = connection.dialect.driver
        if driver == "psycopg":
            self._guard_psycopg(cursor)
        elif driver == "psycopg2":
            self._guard_psycopg2(cursor)
        processor_of = context.get_result_processor
        context.get_result_processor = lambda kind, *column: self._guarded(processor_of(kind, *column), str(kind))

    def page(self, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Page:
        """Makes dicts of rows, in the order in which they come."""
        page = [dict(zip(names, row, strict=True)) for row in rows]
        if self._has_unheld:  # else there is nothing to look for
            for place, item in enumerate(page, self._rows + 1):
                item.update({name: each.named(place, name) for name, value in item.items() for each in _unheld(value)})
        self._rows += len(page)
        return page

    def _read(self, read: Callable[[Any], Any], kind: str, value: Any) -> Any:
        try:
            return read(value)
        except Exception as error:
            if not isinstance(error, _ABOUT_A_VALUE) and type(error).__name__ != "DataError":
                raise
            self._has_unheld = True
            if isinstance(value, bytes | bytearray | memoryview):
                value = bytes(value).decode(errors="replace")
            return _Unheld(repr(value)[:60], kind, error)

    def _guarded(self, process: Callable[[Any], Any] | None, kind: str) -> Callable[[Any], Any] | None:
        return None if process is None else partial(self._read, process, kind)

    def _guard_psycopg(self, cursor: Any) -> None:
        from psycopg.adapt import Loader  # noqa: PLC0415 - whoever reads SQLite should not wait for it

        guard = self

        def guarded(kind: str, known: type[Any]) -> type[Loader]:
            class Guarded(Loader):
                format = known.format

                def __init__(self, oid: int, context: Any = None) -> None:
                    super().__init__(oid, context)
                    self.load = partial(guard._read, known(oid, context).load, kind)  # type: ignore[method-assign]

                def load(self, data: Any) -> Any:
                    raise NotImplementedError  # each has its own

            return Guarded

        for kind in _OF_PSYCOPG:
            oid = cursor.adapters.types[kind].oid
            for form in (0, 1):
                known = cursor.adapters.get_loader(oid, form)
                if known is not None:
                    cursor.adapters.register_loader(oid, guarded(kind, known))

    def _guard_psycopg2(self, cursor: Any) -> None:
        from psycopg2.extensions import new_type, register_type, string_types  # noqa: PLC0415 - as above

        def read(known: Any, kind: str, value: str | None, cursor: Any) -> Any:
            if value in _INFINITE:
                self._has_unheld = True
                return _Unheld(repr(value), kind, ValueError("it has no end"))
            return self._read(lambda text: known(text, cursor), kind, value)

        for kind, oid in _OF_PSYCOPG2.items():
            register_type(new_type((oid,), kind, partial(read, string_types[oid], kind)), cursor)


def _unheld(value: Any) -> list[_Unheld]:
    """Returns what could not be read in a value, the first of it."""
    if isinstance(value, _Unheld):
        return [value]
    inner: Sequence[Any] = value if isinstance(value, list | tuple) else ()
    if hasattr(value, "lower_inc"):  # a range
        inner = (value.lower, value.upper)
    return next((found for each in inner if (found := _unheld(each))), [])
