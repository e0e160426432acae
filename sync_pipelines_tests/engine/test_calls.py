"""Plain and `async` functions called alike, from plain code and from inside a running event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Generator
from typing import Any

import anyio
import pytest

from sync_pipelines.engine.calls import call, iterate, resolve


async def add(left: int, right: int) -> int:
    await asyncio.sleep(0)
    return left + right


def test_a_plain_and_an_async_function_are_called_alike() -> None:
    assert call(lambda left, right: left + right, 1, 2) == 3
    assert call(add, 1, 2) == 3
    assert resolve(5) == 5
    assert resolve(add(2, 3)) == 5


def test_an_object_that_can_be_awaited_is_waited_for() -> None:
    class Later:
        def __await__(self) -> Generator[Any, None, str]:
            return (yield from asyncio.sleep(0, "now").__await__())

    assert resolve(Later()) == "now"


def test_the_exception_of_an_async_function_comes_through_as_it_is() -> None:
    async def fail() -> None:
        raise KeyError("sku")

    with pytest.raises(KeyError, match="sku"):
        call(fail)


def test_plain_functions_run_in_the_callers_thread() -> None:
    assert call(threading.get_ident) == threading.get_ident()


def test_all_async_calls_share_one_event_loop() -> None:
    """A client that belongs to a loop keeps working from one call to the next, and in iterations."""

    async def loop() -> int:
        return id(asyncio.get_running_loop())

    async def loops() -> AsyncGenerator[int]:
        yield id(asyncio.get_running_loop())

    async def from_a_handler() -> int:
        return int(call(loop))

    seen = {call(loop), call(loop), *iterate(loops()), asyncio.run(from_a_handler())}
    assert len(seen) == 1


def test_calls_work_inside_a_running_event_loop() -> None:
    async def handler() -> tuple[int, list[int]]:
        async def numbers() -> AsyncGenerator[int]:
            yield 1
            await asyncio.sleep(0)
            yield 2

        return call(add, 1, 2), list(iterate(numbers()))

    assert asyncio.run(handler()) == (3, [1, 2])
    assert anyio.run(handler) == (3, [1, 2])


def test_an_async_generator_is_iterated_to_its_end() -> None:
    async def numbers() -> AsyncGenerator[int]:
        for number in range(1_234):
            yield number

    assert list(iterate(numbers())) == list(range(1_234))


def test_what_came_before_an_async_generator_broke_off_arrives_first() -> None:
    async def numbers() -> AsyncGenerator[int]:
        yield 1
        yield 2
        raise ConnectionError("gone")

    arrived: list[int] = []
    with pytest.raises(ConnectionError, match="gone"):  # noqa: PT012 - what arrives before the raise is the point
        for number in iterate(numbers()):
            arrived.append(number)  # noqa: PERF402 - extend would lose what arrived
    assert arrived == [1, 2]


def test_closing_half_way_closes_the_async_generator_before_it_returns() -> None:
    """Its `finally` has run when `close` comes back, even if it has to wait for something."""
    closed: list[str] = []

    async def numbers() -> AsyncGenerator[int]:
        try:
            for number in range(100_000):
                yield number
        finally:
            await asyncio.sleep(0.02)
            closed.append("closed")

    values = iterate(numbers())
    assert next(values) == 0
    values.close()  # type: ignore[attr-defined]
    assert closed == ["closed"]


def test_closing_ends_an_async_generator_that_waits_for_something() -> None:
    ended: list[str] = []

    async def numbers() -> AsyncGenerator[list[int]]:
        try:
            yield [1]
            await asyncio.sleep(600)
        finally:
            ended.append("ended")

    values = iterate(numbers())
    assert next(values) == [1]
    values.close()  # type: ignore[attr-defined]
    assert ended == ["ended"]


def test_an_async_generator_may_hold_a_task_group() -> None:
    """The whole iteration runs in one task; cancel scopes break if they are entered and left in different ones."""

    async def numbers() -> AsyncGenerator[int]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(add(1, 1))
            yield 1
            yield await task
        with anyio.CancelScope():
            yield 3

    assert list(iterate(numbers())) == [1, 2, 3]


@pytest.mark.parametrize("kind", ["list", "tuple", "frame"])
def test_pages_are_not_collected_before_they_are_handed_on(kind: str) -> None:
    """A page may be large: the source is at most two pages ahead, whatever the pages are."""
    import pandas as pd

    page: Any = {"list": [0], "tuple": (0,), "frame": pd.DataFrame({"a": [0]})}[kind]
    made = 0

    async def pages() -> AsyncGenerator[Any]:
        nonlocal made
        for _ in range(50):
            made += 1
            yield page

    furthest = 0
    for number, _ in enumerate(iterate(pages())):
        furthest = max(furthest, made - number)
    assert made == 50
    assert furthest <= 4


def test_an_async_iterable_need_not_be_a_generator() -> None:
    class Countdown:
        def __init__(self) -> None:
            self.left = 3

        def __aiter__(self) -> Countdown:
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    assert list(iterate(Countdown())) == [2, 1, 0]


def test_several_threads_may_call_at_once() -> None:
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(call(add, 1, 1))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [2] * 8


def test_an_async_function_may_itself_run_a_sync() -> None:
    """An `async` hook that calls `run_sync` for another job comes back here on the loop's own thread."""

    async def outer() -> int:
        return int(call(add, 1, 2))

    def through_awaitable() -> Awaitable[int]:
        return outer()

    assert call(through_awaitable) == 3


def test_a_forked_process_has_a_loop_of_its_own() -> None:
    assert call(add, 1, 1) == 2
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, str(call(add, 20, 22)).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 10) == b"42"
    os.close(reading)
    os.close(writing)
