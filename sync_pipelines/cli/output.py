"""How commands show things: tables on a terminal, plain aligned lines elsewhere, or one JSON document."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TextIO

_STYLES = {
    "clean": "green",
    "ok": "green",
    "partial": "yellow",
    "unfinished": "yellow",
    "planned": "cyan",
    "open": "cyan",
    "expired": "yellow",
    "guarded": "magenta",
    "failed": "red",
    "problem": "red",
}
_GAP = "  "


@dataclass(slots=True)
class Results:
    """Where results go, and whether something has been written there."""

    stream: TextIO
    has_begun: bool = False


_results: ContextVar[Results | None] = ContextVar("_results", default=None)


@contextmanager
def keep_stdout_for_results() -> Iterator[Results]:
    """Lets only this module write to stdout; what others print goes to stderr."""
    results = Results(sys.stdout)
    token = _results.set(results)
    try:
        with redirect_stdout(sys.stderr):
            yield results
    finally:
        _results.reset(token)


def is_terminal() -> bool:
    """Returns True if a person reads the result as it comes."""
    return result_stream().isatty()


def result_stream() -> TextIO:
    """Returns where a command that writes a long result writes it, piece by piece."""
    results = _results.get()
    return results.stream if results is not None else sys.stdout


def _stdout() -> TextIO:
    results = _results.get()
    if results is not None:
        results.has_begun = True
    return result_stream()


def show_json(document: Mapping[str, Any]) -> None:
    """Writes the one document of a command."""
    _stdout().write(json.dumps(document, indent=2, default=_as_json) + "\n")


def _as_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return dict(value) if isinstance(value, Mapping) else str(value)


def show_line(text: str) -> None:
    """Writes a line for the reader of stdout."""
    _stdout().write(one_line(text) + "\n")


def remark(text: str) -> None:
    """Writes a line beside the result: to stderr."""
    sys.stderr.write(one_line(text) + "\n")


def show_table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Collection[str] = ()) -> None:
    """Writes a table; the columns whose titles are in `numbers` are aligned to the right."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    if is_terminal():
        _show_rich(titles, cells, numbers)
        return
    widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
    for row in [list(titles), *cells]:
        aligned = [
            cell.rjust(width) if title in numbers else cell.ljust(width)
            for title, cell, width in zip(titles, row, widths, strict=True)
        ]
        _stdout().write(_GAP.join(aligned).rstrip() + "\n")


def show_facts(facts: Mapping[str, str]) -> None:
    """Writes names and values, one pair a line; empty values are left out."""
    shown = {name: one_line(value) for name, value in facts.items() if value}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        _stdout().write(f"{name.ljust(width)}{_GAP}{_coloured(value)}\n")


def one_line(text: str) -> str:
    """Puts the text on one line, without what would steer a terminal."""
    return "".join(letter if letter.isprintable() else "�" for letter in " ".join(text.split()))


def _show_rich(titles: Sequence[str], cells: Sequence[Sequence[str]], numbers: Collection[str]) -> None:
    from rich import box  # noqa: PLC0415 - a terminal alone needs it, and it is slow to import
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    columns = [column for column in zip(titles, *cells, strict=True) if any(column[1:])]  # an empty one takes room
    console = Console(file=_stdout())
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    widths = column_widths(columns, console.width - len(_GAP) * (len(columns) - 1))
    for (title, *_), width in zip(columns, widths, strict=True):
        justify: Literal["right", "left"] = "right" if title in numbers else "left"
        table.add_column(title, justify=justify, overflow="fold", width=width)
    for row in zip(*(column[1:] for column in columns), strict=True):
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    console.print(table)


def column_widths(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """Decides how wide columns are: no word is broken and few cells need many lines, as far as there is room.

    Args:
        columns: The cells of each column, title included.
        room: How many letters fit beside each other.
    """
    whole = [max(map(len, column)) for column in columns]
    widths = [max((len(word) for cell in column for word in cell.split()), default=1) for column in columns]
    while sum(widths) > max(room, len(widths)):
        widths[widths.index(max(widths))] -= 1
    while sum(widths) < min(room, sum(whole)):
        lines = [needed / width for needed, width in zip(whole, widths, strict=True)]
        widths[lines.index(max(lines))] += 1
    return widths


def _coloured(value: str) -> str:
    if value not in _STYLES or not is_terminal():
        return value
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(file=_stdout())
    with console.capture() as captured:
        console.print(Text(value, style=_STYLES[value]), end="")
    return captured.get()
