"""Items out of whatever `fetch_external` gives."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import pandas as pd
import pydantic
import pytest

from sync_pipelines.engine.pages import batches, stream_pages
from sync_pipelines.errors import ConfigurationError

A, B, C = {"sku": "A"}, {"sku": "B"}, {"sku": "C"}
FRAME = pd.DataFrame([A, B])


def rows_of_frame(frame: Any) -> Iterator[Any]:
    return iter(frame.to_dict("records"))


def stream_items(fetch: Callable[[], Any], rows: Callable[[Any], Iterator[Any]]) -> Iterator[Any]:
    """One item after the other, out of the smallest pages."""
    with closing(stream_pages(fetch, rows, lambda: 1)) as pages:
        for page in pages:
            yield from page


def items(fetch: Callable[[], Any]) -> list[Any]:
    return list(stream_items(fetch, rows_of_frame))


def returning(value: Any) -> Callable[[], Any]:
    return lambda: value


def async_returning(value: Any) -> Callable[[], Any]:
    async def fetch() -> Any:
        await asyncio.sleep(0)
        return value

    return fetch


def yielding(*values: Any) -> Callable[[], Any]:
    def fetch() -> Iterator[Any]:
        yield from values

    return fetch


def async_yielding(*values: Any) -> Callable[[], Any]:
    async def fetch() -> AsyncIterator[Any]:
        for value in values:
            await asyncio.sleep(0)
            yield value

    return fetch


def async_returning_a_generator(*values: Any) -> Callable[[], Any]:
    async def fetch() -> Any:
        return async_yielding(*values)()

    return fetch


@pytest.mark.parametrize(
    "fetch",
    [
        returning([A, B, C]),
        returning((A, B, C)),
        returning(deque([A, B, C])),
        returning(iter([A, B, C])),
        returning([[A, B], [C]]),
        returning([[A], [], (B, C), []]),
        returning({"x": A, "y": B, "z": C}.values()),
        returning([FRAME, [C]]),
        returning([A, [B, C]]),
        yielding(A, B, C),
        yielding([A, B], [C]),
        yielding(FRAME, pd.DataFrame(), pd.DataFrame([C])),
        async_returning([A, B, C]),
        async_returning([[A, B], [C]]),
        async_returning(iter([A, B, C])),
        async_returning([FRAME, C]),
        async_yielding(A, B, C),
        async_yielding([A, B], [C]),
        async_yielding(FRAME, C),
        async_returning_a_generator(A, [B, C]),
    ],
)
def test_items_and_pages_of_every_shape_give_the_same_items(fetch: Callable[[], Any]) -> None:
    assert items(fetch) == [A, B, C]


@pytest.mark.parametrize("fetch", [returning(FRAME), async_returning(FRAME), yielding(FRAME), async_yielding(FRAME)])
def test_a_frame_is_a_page_of_rows(fetch: Callable[[], Any]) -> None:
    assert items(fetch) == [A, B]


@pytest.mark.parametrize(
    "fetch", [returning([]), returning(pd.DataFrame()), yielding(), async_yielding(), yielding([], [])]
)
def test_no_items_are_no_items(fetch: Callable[[], Any]) -> None:
    assert items(fetch) == []


class Pair(NamedTuple):
    sku: str
    stock: int


@dataclass
class Data:
    sku: str


class Model(pydantic.BaseModel):
    sku: str


@pytest.mark.parametrize("item", [Pair("A", 1), Data("A"), Model(sku="A"), SimpleNamespace(sku="A"), {"sku": "A"}])
def test_an_item_may_be_of_any_kind_and_is_no_page(item: Any) -> None:
    """A named tuple can be iterated over, and so can a pydantic model; both are items."""
    assert items(returning([item, item])) == [item, item]
    assert items(yielding([item], item)) == [item, item]


@pytest.mark.parametrize(
    ("fetch", "told"),
    [
        (returning(None), "got NoneType None where a list"),
        (returning({"sku": "A"}), "got dict .*where a list"),
        (returning("A,B"), "got str 'A,B' where a list"),
        (returning(b"A"), "got bytes"),
        (returning(5), "got int 5"),
        (returning(returning([A])), "got function"),
        (async_returning(None), "got NoneType None"),
        (yielding("A"), "yielded str 'A'; an item is a dict"),
        (yielding(None), "yielded NoneType None"),
        (yielding(7), "yielded int 7"),
        (async_yielding("A"), "yielded str 'A'"),
    ],
)
def test_a_wrong_shape_says_what_came_and_what_is_wanted(fetch: Callable[[], Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        items(fetch)


def test_a_wrong_shape_is_shown_at_a_bearable_length() -> None:
    with pytest.raises(ConfigurationError) as caught:
        items(returning("x" * 100_000))
    assert len(str(caught.value)) < 300


def test_what_came_before_a_source_broke_off_arrives_first() -> None:
    def fetch() -> Iterator[Any]:
        yield [A, B]
        yield C
        raise ConnectionError("gone")

    arrived: list[Any] = []
    with pytest.raises(ConnectionError, match="gone"):  # noqa: PT012 - what arrives before the raise is the point
        for item in stream_items(fetch, rows_of_frame):
            arrived.append(item)  # noqa: PERF402 - extend would lose what arrived
    assert arrived == [A, B, C]


def test_a_source_that_fails_at_once_raises_its_own_error() -> None:
    def fetch() -> Any:
        raise ConnectionError("no route")

    with pytest.raises(ConnectionError, match="no route"):
        items(fetch)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("paged", [False, True])
def test_closing_half_way_closes_the_source(asynchronous: bool, paged: bool) -> None:  # noqa: FBT001 - parametrised
    closed: list[str] = []

    def plain() -> Iterator[Any]:
        try:
            for _ in range(10_000):
                yield [A, B] if paged else A
        finally:
            closed.append("closed")

    async def other() -> AsyncGenerator[Any]:
        try:
            for _ in range(10_000):
                yield [A, B] if paged else A
        finally:
            closed.append("closed")

    stream = stream_items(other if asynchronous else plain, rows_of_frame)
    assert next(stream) == A
    stream.close()
    assert closed == ["closed"]


def test_a_stream_is_taken_one_page_at_a_time() -> None:
    """Nothing is asked of the source before the page at hand is used up."""
    asked = 0

    def fetch() -> Iterator[list[Any]]:
        nonlocal asked
        for _ in range(100):
            asked += 1
            yield [A, B]

    stream = stream_items(fetch, rows_of_frame)
    next(stream)
    next(stream)
    assert asked == 1
    next(stream)
    assert asked == 2
    stream.close()


def test_batches_are_full_but_the_last() -> None:
    assert list(batches(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batches([], 3)) == []


class TestReusedObjects:
    """A source may fill one and the same object anew for each item."""

    def pages(self, source: Any) -> list[Any]:
        return [item for page in stream_pages(source, rows_of_frame, lambda: 100) for item in page]

    def test_one_dict_and_what_is_in_it(self) -> None:
        def source() -> Iterator[Any]:
            item: dict[str, Any] = {"inner": {}}
            for number in range(5):
                item["sku"], item["inner"]["n"] = number, number
                yield item

        assert self.pages(source) == [{"sku": number, "inner": {"n": number}} for number in range(5)]

    def test_one_object_of_another_class(self) -> None:
        def source() -> Iterator[Any]:
            item = OrderedDict(sku=0)
            thing = SimpleNamespace(sku=0)
            for number in range(5):
                item["sku"] = thing.sku = number
                yield item
                yield thing

        found = self.pages(source)
        assert [each["sku"] for each in found[::2]] == [each.sku for each in found[1::2]] == list(range(5))
