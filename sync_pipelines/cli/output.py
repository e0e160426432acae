"""How commands show things: tables on a terminal, plain aligned lines elsewhere, or one JSON document."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from typing import Any, TextIO

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
_results: ContextVar[TextIO | None] = ContextVar("_results", default=None)


@contextmanager
def keep_stdout_for_results() -> Iterator[None]:
    """Lets only this module write to stdout; what others print goes to stderr."""
    token = _results.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _results.reset(token)


def is_terminal() -> bool:
    """True if a person reads the result as it comes."""
    return _stdout().isatty()


def result_stream() -> TextIO:
    """Where a command that writes a long result writes it, piece by piece."""
    return _stdout()


def _stdout() -> TextIO:
    return _results.get() or sys.stdout


def show_json(document: Mapping[str, Any]) -> None:
    """Writes the one document of a command."""
    _stdout().write(json.dumps(document, indent=2, default=str) + "\n")


def show_line(text: str) -> None:
    """Writes a line for the reader of stdout."""
    _stdout().write(one_line(text) + "\n")


def remark(text: str) -> None:
    """Writes a line beside the result: to stderr."""
    sys.stderr.write(one_line(text) + "\n")


def show_table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Collection[str] = ()) -> None:
    """Writes a table.

    Args:
        titles: The columns' titles.
        rows: The cells of each row.
        numbers: Titles of the columns that are aligned to the right.
    """
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
    """The text on one line, without what would steer a terminal."""
    return "".join(each if each.isprintable() else "�" for each in " ".join(text.split()))


def _show_rich(titles: Sequence[str], cells: Sequence[Sequence[str]], numbers: Collection[str]) -> None:
    from rich import box  # noqa: PLC0415 - a terminal alone needs it, and it is slow to import
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        table.add_column(title, justify="right" if title in numbers else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console(file=_stdout()).print(table)


def _coloured(value: str) -> str:
    if value not in _STYLES or not is_terminal():
        return value
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(file=_stdout())
    with console.capture() as captured:
        console.print(Text(value, style=_STYLES[value]), end="")
    return captured.get()
