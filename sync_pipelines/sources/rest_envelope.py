"""What an answer says of its pages beside the items, in the words that interfaces use for it.

A declaration may name none of it, or the wrong place. So nothing here decides where the next page is; it only keeps an
end from being believed that the answer itself speaks against.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from sync_pipelines.sources.json_paths import Path, links_of, path_names
from sync_pipelines.sources.rest_paging import Answer
from sync_pipelines.sources.stated_numbers import at_most, whole_number

_ABOUT_PAGES = re.compile(
    r"meta(data)?|page(info|r)?|pag(ing|ination)|info|links|results?(info|set)?|listinfo|responsemeta(data)?"
)
_TOTALS = re.compile(
    r"(x|xwp|odata)?(total(count|items|results|records|elements|entries|objects|rows|hits|size)?|count)|numfound|"
    r"(record|result|item)count"
)
_NEXT = re.compile(
    r"(x|odata)?next(page|url|uri|link|href|pageurl|pagelink|pagetoken|cursor|token|marker|recordsurl|offset|id)?|"
    r"continu(e|ation)(token)?|lastevaluatedkey|scrollid"
)
_PAGES = re.compile(r"(x|xwp)?((total|last|num|numberof)pages?|pages?(count|total)|totalpagecount|pages)")
_THINGS = "(results|items|data|records|pages|entries|rows)?"
_MORE = re.compile(rf"more{_THINGS}|(has|is)more{_THINGS}|hasnext(page)?|istruncated")
_RANGE = re.compile(r"\s*[a-z]+\s+[0-9*-]+\s*/\s*([0-9]{1,18})\s*", re.IGNORECASE)
_LAST = re.compile(r"last|islast(page)?|(is)?done|endofstream")
_EARLIER = re.compile(r"\b(self|first|last|prev|previous|current|start)\b")
_PARTIAL = re.compile(r"incompleteresults|(is)?partial(results)?|truncated|timedout")
_OTHER = re.compile(r"[^a-z]")
_SHARDS = "shards"
_GOOD = re.compile(r"(is)?(success(ful|fully)?|succeeded|ok)")
_STATUS = re.compile(r"(response|result|api)?(status|stat|result|outcome)(text)?")
_BAD_STATUS = frozenset({"error", "errors", "err", "fail", "failed", "failure", "ko", "nok", "notok", "exception"})
_CODE = re.compile(r"(http|response|result|error|api)?(status)?code|(http|response)?status")
_ERRORS = re.compile(r"(is|has)?errors?|errormessages?|fault|exceptions?")
_NOT = frozenset({"false", "0", "no", "n"})
_NO_ERROR = frozenset({*_NOT, "", "none", "null", "ok", "success"})
_REFUSALS = range(400, 600)
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
        if not isinstance(inner, list) or (len(path) == 1 and _ERRORS.fullmatch(plain)):
            yield Said(f"at {'.'.join(path)!r}", plain, inner, is_about_pages)
        elif plain not in way[-1:]:
            for relation, url in links_of(inner).items():
                yield Said(f"at {'.'.join((*path, relation))!r}", _plain(relation), url, is_about_pages)
        if isinstance(inner, dict) and len(path) < _DEEPEST:
            is_known = _ABOUT_PAGES.fullmatch(plain) is not None or plain in way
            yield from _walk(inner, way, path, is_about_pages=is_about_pages and is_known)


def totals(said: Sequence[Said]) -> dict[str, int]:
    """Returns what may be the number of all items, by where it stands. One that is only a bound is none."""
    return _numbers(said, _TOTALS, whole_number)


def unread_totals(said: Sequence[Said]) -> dict[str, int]:
    """Returns what may be the number of all items, and has two meanings, such as "1,200": the larger one."""
    return _numbers(said, _TOTALS, at_most)


def least_totals(said: Sequence[Said]) -> dict[str, int]:
    """Returns how many items there are at least, which is what Elasticsearch says beyond the 10,000 that it counts."""
    bounds = [each for each in said if isinstance(each.value, dict) and each.value.get("relation") == "gte"]
    found = {each.place: whole_number(each.value.get("value")) for each in bounds if _is(_TOTALS, each)}
    return {place: number for place, number in found.items() if number is not None}


def numbers_of_pages(said: Sequence[Said]) -> dict[str, int]:
    """Returns what may be the number of all pages, by where it stands."""
    return _numbers(said, _PAGES, whole_number)


def is_surely_of_pages(place: str) -> bool:
    """True if a number of pages is called so that it can be none of the items in a page."""
    return any(word in place.lower() for word in ("total", "last", "num"))


def _numbers(said: Sequence[Said], names: re.Pattern[str], read: Callable[[Any], int | None]) -> dict[str, int]:
    found = [each for each in said if each.is_about_pages and _is(names, each)]
    numbers = {each.place: read(_counted(each.value)) for each in found}
    return {place: number for place, number in numbers.items() if number is not None}


def _counted(value: Any) -> Any:
    """Takes the number out of an object such as `{"value": 10, "relation": "eq"}`."""
    is_exact = isinstance(value, dict) and value.get("relation", "eq") == "eq"
    return value.get("value") if is_exact else value


def why_partial(said: Sequence[Said]) -> Iterator[str]:
    """Yields what says that a page lacks items."""
    for each in filter(_is_about_pages, said):
        failed = each.value.get("failed") if each.name == _SHARDS and isinstance(each.value, dict) else None
        if (_is(_PARTIAL, each) and each.value is True) or whole_number(failed):
            yield f"there is {_shown(failed or each.value)} {each.place}"


def why_refused(said: Sequence[Said], answer: Answer) -> Iterator[str]:
    """Yields what says that the server could not answer, whatever the status: `success: false`, `errors: [...]`."""
    asked = {value.lower() for _, value in answer.url.params.multi_items()}
    for each in filter(_is_about_pages, said):
        text = str(each.value).lower()
        is_bad_status = text in _BAD_STATUS and text not in asked  # or else it repeats a filter
        if (
            (_is(_GOOD, each) and text in _NOT)
            or (_is(_STATUS, each) and (is_bad_status or each.value is False))
            or (_is(_CODE, each) and whole_number(each.value) in _REFUSALS)
            or (_is(_ERRORS, each) and _is_error(each.value))
        ):
            yield f"there is {_shown(each.value)} {each.place}"


def refusal_codes(body: Any) -> Iterator[int]:
    """Yields the HTTP statuses that an answer gives in its body for what went wrong."""
    for name, value in body.items() if isinstance(body, dict) else ():
        first = value[0] if isinstance(value, list) and value else value
        number = whole_number(first)
        if number is not None and number in _REFUSALS and _CODE.fullmatch(_plain(name)):
            yield number
        yield from refusal_codes(first)


def _is_error(value: Any) -> bool:
    """True for what is an error at a place of errors; `{"code": 0, "message": "OK"}` is none."""
    if isinstance(value, dict):
        codes = [str(inner).lower() for name, inner in value.items() if _plain(name) == "code"]
        return any(map(_is_error, value.values())) and not any(code in {*_NO_ERROR, "200"} for code in codes)
    return any(map(_is_error, value)) if isinstance(value, list) else str(value).lower() not in _NO_ERROR


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
        is_next = _is(_NEXT, each) or (each.name == "offset" and isinstance(value, str) and not value.isdigit())
        is_named = bool(value) and (anywhere or each.is_about_pages) and is_next
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
    if isinstance(value, bool) or (isinstance(value, str) and value.lower() in _BAD_STATUS | _NOT):
        return repr(value).lower()
    return "a list" if isinstance(value, list) else "a value"


def _plain(name: Any) -> str:
    return _OTHER.sub("", str(name).lower())
