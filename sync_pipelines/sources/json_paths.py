"""Where something is in an answer: the one reader of all paths that users give to REST sources."""

from __future__ import annotations

import re
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
In a list, a number is a place (`-1` the last), and a relation the URL of that link: `"link.next"` finds it in
`{"link": [{"relation": "next", "url": ...}]}`, and so it does with `rel` and `href`.
"""

MISSING = object()
"""What `look_up` gives where a path leads nowhere."""
_PLACE = re.compile(r"-1|[0-9]{1,9}")
_RELATIONS, _URLS = ("rel", "relation"), ("href", "url", "uri")


def look_up(value: Any, path: Path) -> Any:
    """Follows a path into JSON; gives `MISSING` if it leads nowhere."""
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
    if isinstance(value, list) and _PLACE.fullmatch(name):
        return value[int(name)] if value and int(name) < len(value) else MISSING
    return links_of(value).get(name.lower(), MISSING)


def links_of(value: Any) -> dict[str, Any]:
    """Returns relation -> URL of a list of links such as `[{"rel": "next", "href": ...}]`; of anything else nothing."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        return {}
    links: dict[str, Any] = {}
    for each in value:
        relation = next((each[name] for name in _RELATIONS if isinstance(each.get(name), str)), None)
        url = url_of(each)
        if relation is not None and url is not each:
            links.setdefault(relation.lower(), url)
    return links


def url_of(value: Any) -> Any:
    """Returns the URL of a link that is an object, such as `{"href": ...}`; anything else as it is."""
    names = [name for name in _URLS if name in value] if isinstance(value, dict) else []
    return value[names[0]] if names else value


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
