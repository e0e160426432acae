"""How a REST source gets from one page to the next. Pure: URLs and answers in, the next URL or the end out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol

import httpx

from sync_pipelines.errors import ConfigurationError, RetryableError
from sync_pipelines.sources.http_statuses import may_mean_past_the_end
from sync_pipelines.sources.json_paths import MISSING, AnswerHeader, Path, look_up, shown_path, url_of
from sync_pipelines.sources.stated_numbers import at_most, whole_number

Statuses = int | Collection[int] | None


@dataclass(frozen=True, slots=True)
class Answer:
    """One page as it came.

    Args:
        url: Where it came from, after redirects.
        shown_url: The same for people, without secrets.
        links: Relation -> URL of the Link header.
        headers: The answer's headers, their names in small letters.
        says_more: True if it has no items, says that pages follow, and is to be believed.
        widest: The most items that a page had so far.
    """

    url: httpx.URL
    shown_url: str
    body: Any
    count: int
    links: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    says_more: bool = False
    widest: int = 0

    def find(self, path: Path) -> Any:
        """Returns what is at the path in the answer; None if nothing is."""
        value = self.look_up(path)
        return None if value is MISSING else value

    def look_up(self, path: Path) -> Any:
        """Returns what is at the path in the answer; `MISSING` if nothing is."""
        if isinstance(path, AnswerHeader):
            return self.headers.get(path.name.lower(), MISSING)
        return look_up(self.body, path)

    def find_number(self, path: Path) -> int:
        """Returns the whole number at the path, or in an object such as `{"value": 10}` there."""
        value = self.look_up(path)
        value = value["value"] if isinstance(value, dict) and "value" in value else value
        number = whole_number(value)
        if number is None:
            largest = at_most(value)
            meant = "" if largest is None else f", and {value!r} may mean {largest} or not"
            raise self.wrong(path, value, f"a whole number{meant}")
        return number

    def find_bool(self, path: Path) -> bool:
        """Returns the truth value at the path."""
        value = self.look_up(path)
        if isinstance(path, AnswerHeader) and isinstance(value, str):
            value = {"true": True, "false": False}.get(value.lower(), value)
        if type(value) is not bool:
            raise self.wrong(path, value, "true or false")
        return value

    def wrong(self, path: Path, value: Any, expected: str) -> ConfigurationError:
        """Builds the error of something else at a path."""
        has = "nothing" if value is MISSING else "null" if value is None else f"a {type(value).__name__}"
        return ConfigurationError(f"{self.shown_url}: the answer has {has} {place_of(path)} instead of {expected}")


def place_of(path: Path) -> str:
    """Returns a path as a place: "at 'data.items'"."""
    return f"{'in' if isinstance(path, AnswerHeader) else 'at'} {shown_path(path)}" if path else "at the top"


@dataclass(frozen=True, slots=True)
class End:
    """Says that no page follows, and what says so.

    Args:
        stated_by: What in the answer states it, e.g. `"'next' is null"`.
        missing: Where an answer names the next page, if there was nothing: on the first page a path that is wrong looks
            the same.
        came_empty: True if the end is a page without items, or a refusal of it.
    """

    stated_by: str
    missing: str = ""
    came_empty: bool = False


class Paging(Protocol):
    """What `RestSource(paging=...)` takes. URLs that `next` gives may be relative to the answer's.

    The two methods are enough. What else a kind knows of its pages it may say by attributes, those of `PagingTraits`.
    """

    def first(self, url: httpx.URL) -> httpx.URL:
        """Returns the URL of the first page."""

    def next(self, url: httpx.URL, answer: Answer) -> httpx.URL | str | End | None:
        """Returns the URL of the page after the one asked for with `url`, or after the last what says that it is."""


@dataclass(frozen=True, slots=True)
class PagingTraits:
    """Says what a kind of paging knows of its pages, besides how to get from one to the next.

    Args:
        total_path: Where the answer says how many items there are in all.
        pages_path: Where the answer says how many pages there are.
        more_path: Where the answer says whether there are more.
        end_status: The statuses of a page past the end.
        takes_end_status: True if a person can say what those are.
        size: How many items a page is asked for, None if that is left to the server.
        empty_page_ends: True if an empty page is the end whatever stands beside it.
        may_shift: True if items that come or go while pages are read shift the later pages.
        is_single: True if all items are in one answer.
    """

    total_path: Path | None = None
    pages_path: Path | None = None
    more_path: Path | None = None
    end_status: Statuses = None
    takes_end_status: bool = False
    size: int | None = None
    empty_page_ends: bool = True
    may_shift: bool = False
    is_single: bool = False


def traits_of(paging: Paging) -> PagingTraits:
    """Reads them from the attributes that a kind of paging has."""
    known = {each.name: getattr(paging, each.name) for each in fields(PagingTraits) if hasattr(paging, each.name)}
    return PagingTraits(**{"takes_end_status": "end_status" in known, **known})


class _FromUrl:
    """Asks for the first page with the URL as it is."""

    __slots__ = ()

    def first(self, url: httpx.URL) -> httpx.URL:
        """Returns the URL as it is."""
        return url


@dataclass(frozen=True, slots=True)
class NoPaging(_FromUrl):
    """All items are in one answer."""

    is_single: ClassVar = True

    def next(self, url: httpx.URL, answer: Answer) -> End:  # noqa: ARG002 - the protocol's form
        """Returns that there is no next page."""
        return End("all items are in one answer, as declared")


@dataclass(frozen=True, slots=True)
class PageNumberPaging:
    """Numbered pages: `?page=1`, `?page=2`, ... until a page is empty, or until the answer says that it is the last.

    Servers that filter after paging give empty pages in the middle: an empty page that names a next one is not the end.

    Items that come or go while pages are read shift all later ones, so that some come twice or never; where the server
    offers a cursor as well, prefer that.

    Args:
        parameter: The query parameter with the page's number.
        first_page: The number of the first page.
        size_parameter: The query parameter with the number of items in a page, if `size` is given.
        size: How many items to ask for in a page; by default as many as the server likes.
        pages_path: Where the answer says how many pages there are.
        more_path: Where the answer says whether there are more pages: true or false.
        end_status: The status, or statuses, with which the server answers a page past the end, such as 404; by default
            that is an error. The first page is never past the end.
        empty_page_ends: True if an empty page is the end though it names a next one, as servers do that name one at
            each.
    """

    parameter: str = "page"
    first_page: int = 1
    size_parameter: str = "per_page"
    size: int | None = None
    pages_path: Path | None = None
    more_path: Path | None = None
    end_status: Statuses = None
    empty_page_ends: bool = False
    may_shift: ClassVar = True

    def __post_init__(self) -> None:
        end_statuses(self.end_status)

    def first(self, url: httpx.URL) -> httpx.URL:
        """Asks for the first page."""
        if self.size is not None:
            url = url.copy_set_param(self.size_parameter, self.size)
        return url.copy_set_param(self.parameter, self.first_page)

    def next(self, url: httpx.URL, answer: Answer) -> httpx.URL | End:
        """Asks for the page with the next number. A short page is not the end: servers may give less than asked for."""
        number = int(url.params[self.parameter])
        end: End | None = None
        if self.pages_path is not None:
            pages = answer.find_number(self.pages_path)
            if number - self.first_page + 1 >= pages:
                end = End(f"{pages:,} pages {place_of(self.pages_path)}")
        elif self.more_path is not None:
            end = _no_more(answer, self.more_path)
        elif not answer.count and (self.empty_page_ends or not answer.says_more):
            end = End(f"page {number} is empty", came_empty=True)
        return end or url.copy_set_param(self.parameter, number + 1)


@dataclass(frozen=True, slots=True)
class OffsetPaging:
    """Offset and limit: `?offset=0&limit=100`, until a page is empty, or until the answer says that it is the last.

    The offset grows by the items that came, not by the limit, since servers cap the limit silently. See
    `PageNumberPaging` about items that come or go.

    Args:
        limit: How many items to ask for in a page.
        parameter: The query parameter with the offset.
        limit_parameter: The query parameter with the limit.
        total_path: Where the answer says how many items there are in all. An empty page before that many is an error.
        more_path: Where the answer says whether there are more items: true or false.
        end_status: As in `PageNumberPaging`.
        empty_page_ends: As in `PageNumberPaging`. After an empty page that is not the end the offset grows by the most
            items that a page had.
    """

    limit: int = 100
    parameter: str = "offset"
    limit_parameter: str = "limit"
    total_path: Path | None = None
    more_path: Path | None = None
    end_status: Statuses = None
    empty_page_ends: bool = False
    may_shift: ClassVar = True

    def __post_init__(self) -> None:
        end_statuses(self.end_status)

    def first(self, url: httpx.URL) -> httpx.URL:
        """Asks from the first item on."""
        return url.copy_set_param(self.limit_parameter, self.limit).copy_set_param(self.parameter, 0)

    def next(self, url: httpx.URL, answer: Answer) -> httpx.URL | End:
        """Asks from the first item on that has not come."""
        offset = int(url.params[self.parameter]) + (answer.count or answer.widest)
        end: End | None = None
        if self.more_path is not None:
            end = _no_more(answer, self.more_path)
            if end is None and not (answer.count or answer.widest):
                raise _contradiction(answer, self.more_path, "but has no items")
        elif not answer.count and (self.empty_page_ends or not answer.says_more or not answer.widest):
            end = End(f"the page at {self.parameter} {offset - answer.widest:,} is empty", came_empty=True)
        elif self.total_path is not None:
            total = answer.find_number(self.total_path)
            end = End(f"{total:,} items {place_of(self.total_path)}") if offset >= total else None
        return end or url.copy_set_param(self.parameter, offset)


@dataclass(frozen=True, slots=True)
class CursorPaging(_FromUrl):
    """Each answer holds a cursor for the next: `?cursor=...`, until it holds none (missing, null, false or empty).

    Servers leave the cursor out at the end, so a misspelt path looks like a single page: the run tells of it.

    Args:
        path: Where the answer holds the cursor, e.g. `"meta.next_cursor"`, or `AnswerHeader("X-Continuation")`;
            `"data.-1.id"` is the `id` of the last item.
        parameter: The query parameter that takes it.
        more_path: Where the answer says whether there are more pages, for servers that give a cursor at the end too.
    """

    path: Path
    parameter: str = "cursor"
    more_path: Path | None = None

    def next(self, url: httpx.URL, answer: Answer) -> httpx.URL | End:
        """Asks with the cursor of the answer."""
        end = _no_more(answer, self.more_path) if self.more_path is not None else None
        if end is not None:
            return end
        cursor = answer.look_up(self.path)
        end = _nothing_at(self.path, cursor)
        if end is not None and self.more_path is not None:
            raise _contradiction(answer, self.more_path, f"but has no cursor {place_of(self.path)}")
        if end is not None:
            return end
        if type(cursor) not in (str, int):
            raise answer.wrong(self.path, cursor, "a cursor")
        return url.copy_set_param(self.parameter, cursor)


@dataclass(frozen=True, slots=True)
class NextUrlPaging(_FromUrl):
    """Each answer holds the URL of the next page, until it holds none (missing, null, false or empty).

    Servers leave it out at the end, so a misspelt path looks like a single page: the run tells of it.

    Args:
        path: Where the answer holds the URL, e.g. `"links.next"` or `"@odata.nextLink"`; it may be relative. A key of
            exactly that name comes first. A list of names says it without dots, `AnswerHeader("X-Next")` in a header.
            An object with `href` or `url` is a link, and in a list of links the relation names one: `"link.next"`.
    """

    path: Path = "next"

    def next(self, url: httpx.URL, answer: Answer) -> str | End:  # noqa: ARG002 - the protocol's form
        """Returns the URL in the answer."""
        next_url = url_of(answer.look_up(self.path))
        end = _nothing_at(self.path, next_url)
        if end is not None:
            return end
        if not isinstance(next_url, str):
            raise answer.wrong(self.path, next_url, "a URL")
        return next_url


@dataclass(frozen=True, slots=True)
class LinkHeaderPaging(_FromUrl):
    """The header `Link: <...>; rel="next"` holds the URL of the next page, until it does not.

    Source:
        RFC 8288, section 3; `rel` may hold several relations, and capitals do not matter.
    """

    def next(self, url: httpx.URL, answer: Answer) -> str | End:  # noqa: ARG002 - the protocol's form
        """Returns the URL in the header."""
        if "next" in answer.links:
            return answer.links["next"]
        missing = "" if answer.links else "in the header Link"
        return End("the header Link names no next page", missing)


def end_statuses(declared: Statuses) -> frozenset[int]:
    """Returns the statuses that mean the end, as a set.

    Raises:
        ConfigurationError: One means something else: a login, a limit, a failure of the server.
    """
    statuses = (() if declared is None else (declared,)) if isinstance(declared, int | None) else declared
    for status in statuses:
        if type(status) is not int or not may_mean_past_the_end(status):
            raise ConfigurationError(
                f"end_status={declared!r}: {status!r} does not say that a page is past the end; give what the server "
                "answers then, such as 404, 400 or 416"
            )
    return frozenset(statuses)


def _no_more(answer: Answer, more_path: Path) -> End | None:
    return None if answer.find_bool(more_path) else End(f"{shown_path(more_path)} is false")


def _nothing_at(path: Path, value: Any) -> End | None:
    """Returns the end that an answer states by naming no next page, None if it names one."""
    if value is MISSING:
        return End(f"the last page has nothing {place_of(path)}", missing=place_of(path))
    if value is None or value is False or value == "":
        return End(f"{shown_path(path)} is {'null' if value is None else 'false' if value is False else 'empty'}")
    return None


def _contradiction(answer: Answer, more_path: Path, but: str) -> RetryableError:
    return RetryableError(f"{answer.shown_url}: the answer says that there are more ({place_of(more_path)}), {but}")
