"""The columns of a command: one list gives both the rows of its table and its JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from sync_pipelines.cli.formats import local_time, short_id
from sync_pipelines.cli.output import is_terminal, remark, show_json, show_table

Row = TypeVar("Row")


def shown(value: Any) -> str:
    """Writes a value as a cell: times in the machine's time zone, nothing for None."""
    if value is None:
        return ""
    return local_time(value) if isinstance(value, datetime) else str(value)


def shown_id(value: str | None) -> str:
    """Writes an id as a cell: on a terminal only its beginning, which commands take as well."""
    return short_id(value) if is_terminal() else value or ""


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """One column.

    Args:
        key: Its name in JSON, None for one that only the table has.
        title: Its title in the table, None for one that only JSON has.
        value: Reads its value from a row; by default the attribute `key`.
        cell: Writes that value for people.
        is_number: True to align it to the right.
    """

    key: str | None
    title: str | None = None
    value: Callable[[Row], Any] | None = None
    cell: Callable[[Any], str] = shown
    is_number: bool = False

    def of(self, row: Row) -> Any:
        """Returns the value of a row."""
        return self.value(row) if self.value is not None else getattr(row, self.key or "")


def document(columns: Iterable[Column[Row]], row: Row) -> dict[str, Any]:
    """Returns a row as JSON has it."""
    return {column.key: column.of(row) for column in columns if column.key is not None}


def show_rows(columns: Iterable[Column[Row]], rows: Sequence[Row]) -> None:
    """Writes rows as a table."""
    shown_columns = {column.title: column for column in columns if column.title is not None}
    cells = [[column.cell(column.of(row)) for column in shown_columns.values()] for row in rows]
    numbers = {title for title, column in shown_columns.items() if column.is_number}
    show_table(list(shown_columns), cells, numbers=numbers)


def show_list(name: str, columns: Sequence[Column[Row]], rows: Sequence[Row], *, if_none: str, as_json: bool) -> None:
    """Writes rows as a table, or in JSON under a name; without a row, the table's reader is told so."""
    if as_json:
        show_json({name: [document(columns, row) for row in rows]})
    elif rows:
        show_rows(columns, rows)
    else:
        remark(if_none)
