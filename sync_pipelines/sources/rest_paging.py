"""How a REST source gets from one page to the next. Pure: URLs and answers in, the next URL out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from sync_pipelines.errors import ConfigurationError

Path = str | Sequence[str]
"""Where something is in a JSON answer: names joined by dots, or a list of names if a name holds a dot."""

_MISSING = object()


@dataclass(frozen=True, slots=True)
class Answer:
    """One page as it came.

    Args:
        url: Where it came from, after redirects.
        shown_url: The same for people, without secrets.
        links: Relation -> URL of the Link header; a relation may be several words.
    """

    url: httpx.URL
    shown_url: str
    body: Any
    count: int
    links: dict[str, str] = field(default_factory=dict)

    def find(self, path: Path) -> Any:
        """Returns what is at the path in the body; None if nothing is."""
        value = look_up(self.body, path)
        return None if value is _MISSING else value

    def find_number(self, path: Path) -> int:
        """Returns the whole number at the path."""
        value = look_up(self.body, path)
        if isinstance(value, str) and value.isascii() and value.isdigit():
            return int(value)
        if type(value) is not int:
            raise self.wrong(path, value, "a whole number")
        return value

    def find_bool(self, path: Path) -> bool:
        """Returns the truth value at the path."""
        value = look_up(self.body, path)
        if type(value) is not bool:
            raise self.wrong(path, value, "true or false")
        return value

    def wrong(self, path: Path, value: Any, expected: str) -> ConfigurationError:
        """Builds the error of something else at a path."""
        has = "nothing" if value is _MISSING else "null" if value is None else f"a {type(value).__name__}"
        shown_path = path if isinstance(path, str) else ".".join(path)
        place = f"at {shown_path!r}" if path else "at the top"
        return ConfigurationError(f"{self.shown_url}: the answer has {has} {place} instead of {expected}")


class Paging(Protocol):
    """What `RestSource(paging=...)` takes. URLs that `next` gives may be relative to the answer's."""

    def first(self, url: httpx.URL) -> httpx.URL:
        """Returns the URL of the first page."""

    def next(self, url: httpx.URL, answer: Answer) -> httpx.URL | str | None:
        """Returns the URL of the page after the one asked for with `url`, or None after the last."""


class _FromUrl:
    """Asks for the first page with the URL as it is."""

    __slots__ = ()

    def first(self, url: httpx.URL) -> httpx.URL:
        """Returns the URL as it is."""
        return url


@dataclass(frozen=True, slots=True)
class NoPaging(_FromUrl):
    """All items are in one answer."""

    def next(self, url: httpx.URL, answer: Answer) -> None:
        """Returns None: there is no next page."""


@dataclass(frozen=True, slots=True)
class PageNumberPaging:
    """Numbered pages: `?page=1`, `?page=2`, ... until a page is empty, or until the answer says that it is the last.

    Items that come or go while pages are read shift all later ones, so that some come twice or never; where the server
    offers a cursor as well, prefer that.

    Args:
        parameter: The query parameter with the page's number.
        first_page: The number of the first page.
        size_parameter: The query parameter with the number of items in a page, if `size` is given.
        size: How many items to ask for in a page; by default as many as the server likes.
        pages_path: Where the answer says how many pages there are.
        more_path: Where the answer says whether there are more pages: true or false.
    """

    parameter: str = "page"
    first_page: int = 1
    size_parameter: str = "per_page"
    size: int | None = None
    pages_path: Path | None = None
    more_path: Path | None = None

    def first(self, url: httpx.URL) -> httpx.URL:
        """Asks for the first page."""
        if self.size is not None:
            url = url.copy_set_param(self.size_parameter, self.size)
        return url.copy_set_param(self.parameter, self.first_page)

    def next(self, url: httpx.URL, answer: Answer) -> httpx.URL | None:
        """Asks for the page with the next number. A short page is not the end: servers may give less than asked for."""
        number = int(url.params[self.parameter])
        if self.pages_path is not None:
            is_last = number - self.first_page + 1 >= answer.find_number(self.pages_path)
        elif self.more_path is not None:
            is_last = not answer.find_bool(self.more_path)
        else:
            is_last = not answer.count
        return None if is_last else url.copy_set_param(self.parameter, number + 1)


@dataclass(frozen=True, slots=True)
class OffsetPaging:
    """Offset and limit: `?offset=0&limit=100`, until a page is empty, or until the answer says that it is the last.

    The offset grows by the items that came, not by the limit, since servers cap the limit silently. See
    `PageNumberPaging` about items that come or go.

    Args:
        limit: How many items to ask for in a page.
        parameter: The query parameter with the offset.
        limit_parameter: The query parameter with the limit.
        total_path: Where the answer says how many items there are in all.
        more_path: Where the answer says whether there are more items: true or false.
    """

    limit: int = 100
    parameter: str = "offset"
    limit_parameter: str = "limit"
    total_path: Path | None = None
    more_path: Path | None = None

    def first(self, url: httpx.URL) -> httpx.URL:
        """Asks from the first item on."""
        return url.copy_set_param(self.limit_parameter, self.limit).copy_set_param(self.parameter, 0)

    def next(self, url: httpx.URL, answer: Answer) -> httpx.URL | None:
        """Asks from the first item on that has not come."""
        offset = int(url.params[self.parameter]) + answer.count
        is_last = not answer.count
        if self.more_path is not None:
            is_last = not answer.find_bool(self.more_path)
        elif self.total_path is not None and answer.count:
            is_last = offset >= answer.find_number(self.total_path)
        return None if is_last else url.copy_set_param(self.parameter, offset)


@dataclass(frozen=True, slots=True)
class CursorPaging(_FromUrl):
    """Each answer holds a cursor for the next: `?cursor=...`, until it holds none (missing, null or empty).

    Servers leave the cursor out at the end, so a misspelt path looks like a single page; try the source once by hand.

    Args:
        path: Where the answer holds the cursor, e.g. `"meta.next_cursor"`.
        parameter: The query parameter that takes it.
        more_path: Where the answer says whether there are more pages, for servers that give a cursor at the end too.
    """

    path: Path
    parameter: str = "cursor"
    more_path: Path | None = None

    def next(self, url: httpx.URL, answer: Answer) -> httpx.URL | None:
        """Asks with the cursor of the answer."""
        if self.more_path is not None and not answer.find_bool(self.more_path):
            return None
        cursor = answer.find(self.path)
        if cursor is None or cursor == "":
            return None
        if type(cursor) not in (str, int):
            raise answer.wrong(self.path, cursor, "a cursor")
        return url.copy_set_param(self.parameter, cursor)


@dataclass(frozen=True, slots=True)
class NextUrlPaging(_FromUrl):
    """Each answer holds the URL of the next page, until it holds none (missing, null or empty).

    Args:
        path: Where the answer holds the URL, e.g. `"links.next"`; it may be relative.
    """

    path: Path = "next"

    def next(self, url: httpx.URL, answer: Answer) -> str | None:  # noqa: ARG002 - the protocol's form
        """Returns the URL in the answer."""
        next_url = answer.find(self.path)
        if next_url is None or next_url == "":
            return None
        if not isinstance(next_url, str):
            raise answer.wrong(self.path, next_url, "a URL")
        return next_url


@dataclass(frozen=True, slots=True)
class LinkHeaderPaging(_FromUrl):
    """The header `Link: <...>; rel="next"` holds the URL of the next page, until it does not.

    Source:
        RFC 8288, section 3; `rel` may hold several relations, and capitals do not matter.
    """

    def next(self, url: httpx.URL, answer: Answer) -> str | None:  # noqa: ARG002 - the protocol's form
        """Returns the URL in the header."""
        return next((link for relation, link in answer.links.items() if "next" in relation.lower().split()), None)


def look_up(value: Any, path: Path) -> Any:
    """Follows a path into JSON; gives a mark that is nothing else if it leads nowhere. A number leads into a list."""
    for name in path_names(path):
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isascii() and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return _MISSING
    return value


def path_names(path: Path) -> list[str]:
    """Splits a path into its names.

    Raises:
        ConfigurationError: One is empty, or no text.
    """
    names = path.split(".") if isinstance(path, str) else list(path)
    if not all(isinstance(name, str) and name for name in names):
        raise ConfigurationError(f"the path {path!r} has an empty part; write it as 'data.items' or ['data', 'items']")
    return names
