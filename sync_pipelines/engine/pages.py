"""Makes pages of items out of whatever `fetch_external` gives."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any

from sync_pipelines.engine.calls import call, iterate
from sync_pipelines.errors import ConfigurationError

PAGE_SIZE = 1_000


def stream_items(fetch_external: Callable[[], Any]) -> Generator[Any]:
    """Calls `fetch_external` and yields one item after the other, whatever shape it answers in.

    It may be plain or `async`, return or yield items or pages (lists, DataFrames) or be an async generator; never more
    than a page is held. Closing this iterator closes the source's generator.

    Raises:
        ConfigurationError: What came back is neither items nor pages.
        Exception: Whatever the source raises, unchanged.
    """
    fetched = call(fetch_external)
    if _is_frame(fetched):
        yield from _frame_rows(fetched)
        return
    with closing(stream_elements(fetched)) as source:
        for element in source:
            yield from _page(element)


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
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch


def _iterator(fetched: Any) -> Iterator[Any]:
    if isinstance(fetched, AsyncIterable):
        return iterate(fetched)
    if isinstance(fetched, (Mapping, str, bytes)) or not isinstance(fetched, Iterable):
        raise ConfigurationError(
            f"got {_shown(fetched)} where a list, a generator or another iterable is expected"
        )
    return iter(fetched)


def _page(element: Any) -> Iterable[Any]:
    if isinstance(element, list) or (isinstance(element, tuple) and not hasattr(element, "_fields")):
        return element
    if _is_frame(element):
        return _frame_rows(element)
    if element is None or isinstance(element, (str, bytes, int, float)):
        raise ConfigurationError(
            f"fetch_external yielded {_shown(element)}; an item is a mapping, a dataclass, a pydantic model or an object"
        )
    return (element,)


def _is_frame(value: Any) -> bool:
    return type(value).__name__ == "DataFrame" and hasattr(value, "itertuples")


def _frame_rows(frame: Any) -> Iterator[dict[str, Any]]:
    """Rows with plain Python values; what pandas uses for a missing value (NaN, NaT, NA) is None."""
    names = [str(name) for name in frame.columns]
    if len(set(names)) != len(names):
        raise ConfigurationError(f"the DataFrame has two columns of the same name among {', '.join(names)}")
    for start in range(0, len(frame), PAGE_SIZE):
        part = frame.iloc[start : start + PAGE_SIZE].astype(object)
        columns = [_plain_column(part.iloc[:, index]) for index in range(len(names))]
        for row in zip(*columns, strict=True):
            yield dict(zip(names, row, strict=True))


def _plain_column(column: Any) -> list[Any]:
    present = column.notna().tolist()
    return [_plain(value) if there else None for value, there in zip(column.tolist(), present, strict=True)]


def _plain(value: Any) -> Any:
    if hasattr(value, "to_pydatetime"):
        return value.to_pydatetime(warn=False)
    if hasattr(value, "to_pytimedelta"):
        return value.to_pytimedelta()
    return value.item() if hasattr(value, "dtype") and hasattr(value, "item") and not value.shape else value


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 80 else text[:79] + '…'}"  # noqa: PLR2004 - a line's worth
