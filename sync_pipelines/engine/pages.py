"""Makes pages of items out of whatever `fetch_external` gives."""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Iterator, KeysView, Mapping, ValuesView
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from typing import Any
from uuid import UUID

from sync_pipelines.engine.calls import call, iterate
from sync_pipelines.errors import ConfigurationError

PAGE_SIZE = 1_000
_LONGEST_PAGE_S = 5.0
_PLAIN = frozenset({str, int, float, bool, type(None), Decimal, datetime, date, bytes, UUID})

_PAGES = (list, deque, Iterator, KeysView, ValuesView)

RowsOfFrame = Callable[[Any], Iterable[Any]]


def stream_pages(
    fetch_external: Callable[[], Any],
    rows_of_frame: RowsOfFrame,
    size: Callable[[], int],
    elapsed_s: Callable[[], float] = time.monotonic,
) -> Generator[list[Any]]:
    """Calls `fetch_external` and yields lists of items, whatever shape it answers in.

    It may be plain or `async`, return or yield items or pages (lists, DataFrames) or be an async generator; never more
    than a page of its own and one of ours are in memory. Closing this iterator closes the source's generator.

    A source that is slow gets a page every few seconds, however few items it has given; one that breaks off gets its
    last items out before its error is raised.

    Args:
        rows_of_frame: Makes items of a pandas DataFrame, which this room does not know.
        size: Says how many items a page has at most.
        elapsed_s: A clock that only goes forward, in seconds.

    Raises:
        ConfigurationError: What came back is neither items nor pages.
    """
    page: list[Any] = []
    until_s = elapsed_s() + _LONGEST_PAGE_S
    with closing(_stretches(fetch_external, rows_of_frame)) as stretches:
        try:
            for stretch in stretches:
                rest = iter(stretch)
                page.extend(map(_own, stretch) if type(stretch) is tuple else islice(rest, size() - len(page)))
                while len(page) >= size():
                    yield page
                    page = list(islice(rest, size())) if type(stretch) is not tuple else []
                if page and elapsed_s() >= until_s:
                    yield page
                    page = []
                until_s = until_s if page else elapsed_s() + _LONGEST_PAGE_S
        except GeneratorExit:
            raise
        except Exception:
            if page:
                yield page
            raise
    if page:
        yield page


def _own(item: Any) -> Any:
    """Copies an item that came by itself: the source may fill the same object anew for the next one."""
    if type(item) is dict:
        if _PLAIN.issuperset(map(type, item.values())):
            return item.copy()
        return {name: value if type(value) in _PLAIN else _copied(value) for name, value in item.items()}
    return _copied(item)


def _copied(value: Any) -> Any:
    """Copies all of it; what can't be copied stands for itself."""
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001 - an object of whatever kind; the snapshot says so if it can't keep it
        return value


def _stretches(fetch_external: Callable[[], Any], rows_of_frame: RowsOfFrame) -> Generator[Iterable[Any]]:
    """Yields what the source gives: a page as it is, a single item as a tuple of one."""
    fetched = call(fetch_external)
    if _is_frame(fetched):
        yield rows_of_frame(fetched)
        return
    with closing(stream_elements(fetched)) as source:
        for element in source:
            yield rows_of_frame(element) if _is_frame(element) else _page(element)


def stream_elements(elements: Any) -> Generator[Any]:
    """Yields the elements of a plain or async iterable from plain code; closing this closes it.

    Raises:
        ConfigurationError: It is neither, or a mapping or a text.
    """
    source = _iterator(elements)
    try:
        yield from source
    finally:
        close = getattr(source, "close", None)
        if close is not None:
            close()


def batches(items: Iterable[Any], size: int = PAGE_SIZE) -> Iterator[list[Any]]:
    """Cuts a stream into lists of at most `size`."""
    stream = iter(items)
    while batch := list(islice(stream, size)):
        yield batch


def _iterator(fetched: Any) -> Iterator[Any]:
    if isinstance(fetched, AsyncIterable):
        return iterate(fetched)
    if isinstance(fetched, (Mapping, str, bytes)) or not isinstance(fetched, Iterable):
        raise ConfigurationError(f"got {_shown(fetched)} where a list, a generator or another iterable is expected")
    return iter(fetched)


def _page(element: Any) -> Iterable[Any]:
    if isinstance(element, _PAGES) or (isinstance(element, tuple) and not hasattr(element, "_fields")):
        return element
    if element is None or isinstance(element, (str, bytes, int, float)):
        raise ConfigurationError(
            f"fetch_external yielded {_shown(element)}; an item is a dict, a dataclass or a pydantic model"
        )
    return (element,)


def _is_frame(value: Any) -> bool:
    return hasattr(value, "itertuples") and any(kind.__name__ == "DataFrame" for kind in type(value).__mro__)


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 80 else text[:79] + '…'}"  # noqa: PLR2004 - a line's worth
