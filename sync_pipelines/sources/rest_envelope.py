"""What an answer says of its pages beside the items, in the words that interfaces use for it.

A declaration may name none of it, or the wrong place. So nothing here decides where the next page is; it only keeps an
end from being believed that the answer itself speaks against.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from sync_pipelines.sources.json_paths import Path, path_names
from sync_pipelines.sources.rest_paging import Answer, whole_number

_ABOUT_PAGES = re.compile(
    r"meta(data)?|page(info|r)?|pag(ing|ination)|info|links|results?(info|set)?|listinfo|responsemeta(data)?"
)
_TOTALS = re.compile(
    r"(x|xwp|odata)?(total(count|items|results|records|elements|entries|objects|rows|hits|size)?|count)|numfound|"
    r"(record|result|item)count"
)
_NEXT = re.compile(
    r"(x|odata)?next(page|url|uri|link|href|pageurl|pagelink|pagetoken|cursor|token|marker|recordsurl|offset|id)?|"
    r"continu(e|ation)(token)?"
)
_PAGES = re.compile(r"(x|xwp)?((total|last|num|numberof)pages?|pages?(count|total)|totalpagecount|pages)")
_THINGS = "(results|items|data|records|pages|entries|rows)?"
_MORE = re.compile(rf"more{_THINGS}|(has|is)more{_THINGS}|hasnext(page)?|istruncated")
_RANGE = re.compile(r"\s*[a-z]+\s+[0-9*-]+\s*/\s*([0-9]{1,18})\s*", re.IGNORECASE)
_LAST = re.compile(r"last|islast(page)?|(is)?done|endofstream")
_EARLIER = re.compile(r"\b(self|first|last|prev|previous|current|start)\b")
_PARTIAL = re.compile(r"incompleteresults|(is)?partial(results)?|truncated|timedout")
_OTHER = re.compile(r"[^a-z]")
_ERRORS = "errors"
_DEEPEST = 4


@dataclass(frozen=True, slots=True)
class Said:
    """Holds one thing that stands beside the items.

    Args:
        place: Where it stands, for messages.
        name: Its name in small letters, without punctuation.
        is_about_pages: False where it stands in something that is not known to be about pages.
    """

    place: str
    name: str
    value: Any
    is_about_pages: bool = True


def said_beside(answer: Answer, items_path: Path) -> list[Said]:
    """Returns what stands beside the items: at the top, on the way to them, in `meta` and the like, and in headers."""
    way = [_plain(name) for name in path_names(items_path)]
    headers = (Said(f"in the header {name}", _plain(name), value) for name, value in answer.headers.items())
    known = [each for each in headers if any(_is(names, each) for names in (_TOTALS, _NEXT, _PAGES))]
    whole = _RANGE.fullmatch(answer.headers.get("content-range", ""))  # of the items, as in "items 0-99/1234"
    known += [Said("in the header content-range", "total", whole.group(1))] if whole is not None else []
    return [*_walk(answer.body, way), *known]


def _walk(value: Any, way: list[str], above: tuple[str, ...] = (), *, is_about_pages: bool = True) -> Iterator[Said]:
    for name, inner in value.items() if isinstance(value, dict) else ():
        plain, path = _plain(name), (*above, str(name))
        if not isinstance(inner, list) or path == (_ERRORS,):
            yield Said(f"at {'.'.join(path)!r}", plain, inner, is_about_pages)
        if isinstance(inner, dict) and len(path) < _DEEPEST:
            is_known = _ABOUT_PAGES.fullmatch(plain) is not None or plain in way
            yield from _walk(inner, way, path, is_about_pages=is_about_pages and is_known)


def totals(said: Sequence[Said]) -> dict[str, int]:
    """Returns what may be the number of all items, by where it stands."""
    return _numbers(said, _TOTALS)


def numbers_of_pages(said: Sequence[Said]) -> dict[str, int]:
    """Returns what may be the number of all pages, by where it stands."""
    return _numbers(said, _PAGES)


def is_surely_of_pages(place: str) -> bool:
    """True if a number of pages is called so that it can be none of the items in a page."""
    return any(word in place.lower() for word in ("total", "last", "num"))


def _numbers(said: Sequence[Said], names: re.Pattern[str]) -> dict[str, int]:
    found = filter(_is_about_pages, said)
    numbers = {each.place: whole_number(each.value) for each in found if _is(names, each)}
    return {place: number for place, number in numbers.items() if number is not None}


def why_partial(said: Sequence[Said]) -> Iterator[str]:
    """Yields what says that a page lacks items."""
    for each in filter(_is_about_pages, said):
        if (_is(_PARTIAL, each) and each.value is True) or (each.place == f"at {_ERRORS!r}" and each.value):
            yield f"there is {_shown(each.value)} {each.place}"


def why_more(said: Sequence[Said]) -> Iterator[str]:
    """Yields what says that pages follow, true or false."""
    for each in filter(_is_about_pages, said):
        is_true, is_false = (str(each.value).lower() in words for words in (("true", "1"), ("false", "0")))
        if (_is(_MORE, each) and is_true) or (_is(_LAST, each) and is_false):
            yield f"there is {_shown(each.value)} {each.place}"


def next_pages(said: Sequence[Said], answer: Answer, *, anywhere: bool) -> Iterator[str]:
    """Yields where the answer seems to name a next page.

    Args:
        anywhere: True to look at more than what is known to be about pages, and at URLs of whatever name.
    """
    if "next" in answer.links:
        yield 'the header Link has rel="next"'
    for each in said:
        value = any(each.value.values()) if isinstance(each.value, dict) else each.value
        is_named = bool(value) and (anywhere or each.is_about_pages) and _is(_NEXT, each)
        if is_named or (anywhere and _is_other_page(each, answer.url)):
            yield f"there is {_shown(each.value)} {each.place}"


def _is_other_page(said: Said, url: httpx.URL) -> bool:
    """True for a URL that differs from that of the answer in its query only, and is not named after an earlier page."""
    if not isinstance(said.value, str) or "?" not in said.value or _EARLIER.search(said.place):
        return False
    try:
        other = url.join(said.value)
    except (httpx.InvalidURL, ValueError):
        return False
    return (other.host, other.path) == (url.host, url.path) and other.params != url.params


def _is_about_pages(said: Said) -> bool:
    return said.is_about_pages


def _is(names: re.Pattern[str], said: Said) -> bool:
    return names.fullmatch(said.name) is not None


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "a value" if not isinstance(value, list) else "a list"


def _plain(name: Any) -> str:
    return _OTHER.sub("", str(name).lower())
