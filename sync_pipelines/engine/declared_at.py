"""Finds the file and line in which something is declared."""

from __future__ import annotations

import os
import sys
from typing import Any, NamedTuple


class Place(NamedTuple):
    """A line of a file of Python."""

    file: str
    line: int


_BETWEEN = ("dataclasses", "typing")
"""Modules whose functions may stand between a declaration and what it declares."""


def note_place(declared: Any, place: Place | None) -> None:
    """Notes where a job is declared, whatever made it out of that: a file of YAML, or another declaration."""
    object.__setattr__(declared, "_declared_at", place)


def caller_outside(module: str) -> Place | None:
    """Returns where code outside of that module called into it; None if it is in no file, as in a console."""
    frame = sys._getframe(1)  # noqa: SLF001 - the stack as `inspect` reads it would take a thousand times as long
    while frame.f_globals.get("__name__") in (module, *_BETWEEN, __name__):
        if frame.f_back is None:
            return None
        frame = frame.f_back
    file = frame.f_code.co_filename
    return None if file.startswith("<") else Place(os.path.abspath(file), frame.f_lineno)  # noqa: PTH100 - in a microsecond
