"""Where something is in an answer: the one reader of all paths that users give to REST sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sync_pipelines.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class AnswerHeader:
    """Stands, where a path is asked for, for a header of the answer: `AnswerHeader("X-Total-Count")`.

    Args:
        name: The header's name; capitals do not matter.
    """

    name: str


Path = str | Sequence[str] | AnswerHeader
"""Where something is in an answer: a name, or names joined by dots, or a list of names, or a header.

In a text a key of exactly that name comes first, so that `"@odata.nextLink"` and `"page.next"` both find what they say.
"""

MISSING = object()
"""What `look_up` gives where a path leads nowhere."""


def look_up(value: Any, path: Path) -> Any:
    """Follows a path into JSON; gives `MISSING` if it leads nowhere. A number leads into a list."""
    if isinstance(path, AnswerHeader):
        return MISSING
    if isinstance(path, str):
        return _look_up_text(value, path)
    for name in path_names(path):
        value = _step(value, name)
        if value is MISSING:
            return MISSING
    return value


def _look_up_text(value: Any, path: str) -> Any:
    """Takes the longest name first that leads on: keys may hold dots themselves."""
    found = _step(value, path)
    end = path.rfind(".")
    while found is MISSING and end > 0:
        inner = _step(value, path[:end])
        if inner is not MISSING:
            found = _look_up_text(inner, path[end + 1 :])
        end = path.rfind(".", 0, end)
    return found


def _step(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return value.get(name, MISSING)
    if isinstance(value, list) and name.isascii() and name.isdigit() and int(name) < len(value):
        return value[int(name)]
    return MISSING


def path_names(path: Path) -> list[str]:
    """Splits a path into its names.

    Raises:
        ConfigurationError: One is empty, or no text.
    """
    if isinstance(path, AnswerHeader):
        path = [path.name]
    names = path.split(".") if isinstance(path, str) else list(path)
    if not all(isinstance(name, str) and name for name in names):
        raise ConfigurationError(f"the path {path!r} has an empty part; write it as 'data.items' or ['data', 'items']")
    return names


def shown_path(path: Path) -> str:
    """Returns a path as messages show it."""
    if isinstance(path, AnswerHeader):
        return f"the header {path.name}"
    return repr(path if isinstance(path, str) else ".".join(path))
