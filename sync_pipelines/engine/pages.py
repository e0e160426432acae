"""Makes pages of items out of whatever `fetch_external` gives."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Iterator, KeysView, Mapping, ValuesView
from contextlib import closing
from itertools import islice
from typing import Any

from sync_pipelines.engine.calls import call, iterate
from sync_pipelines.errors import ConfigurationError

PAGE_SIZE = 1_000

_PAGES = (list, deque, Iterator, KeysView, ValuesView)

RowsOfFrame = Callable[[Any], Iterable[Any]]


def stream_items(fetch_external: Callable[[], Any], rows_of_frame: RowsOfFrame) -> Generator[Any]:
    """Calls `fetch_external` and yields one item after the other, whatever shape it answers in.

    It may be plain or `async`, return or yield items or pages (lists, DataFrames) or be an async generator; never more
    than a page is held. Closing this iterator closes the source's generator.

    Args:
        fetch_external: The job's function.
        rows_of_frame: Makes items of a pandas DataFrame, which this room does not know.

    Raises:
        ConfigurationError: What came back is neither items nor pages.
        Exception: Whatever the source raises, unchanged.
    """
    fetched = call(fetch_external)
    if _is_frame(fetched):
        yield from rows_of_frame(fetched)
        return
    with closing(stream_elements(fetched)) as source:
        for element in source:
            yield from rows_of_frame(element) if _is_frame(element) else _page(element)


def stream_elements(given: Any) -> Generator[Any]:
    """Yields the elements of a plain or async iterable from plain code; closing this closes it.

    Raises:
        ConfigurationError: It is neither, or a mapping or a text.
    """
    source = _iterator(given)
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
