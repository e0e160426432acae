"""Several records at one time: how many, in which order, and how it ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from sync_pipelines.engine.calls import StoppedError, call
from sync_pipelines.errors import LeaseLostError, TargetError
from sync_pipelines.runner.calls.workers import Workers

PATIENCE_S = 30.0
"""A test that would hang fails after so long instead; none waits for it otherwise."""
asked_by: ContextVar[str] = ContextVar("asked_by", default="nobody")


class InFlight:
    """Counts how many are inside at one time."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


def worker_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("worker ")]


def test_one_at_a_time_is_the_callers_own_thread() -> None:
    seen: list[int] = []

    Workers(1).each(lambda _: seen.append(threading.get_ident()), range(3))
    Workers(8).each(lambda _: seen.append(threading.get_ident()), range(3), one_by_one=True)
    Workers(8).each(lambda _: seen.append(threading.get_ident()), range(1))

    assert set(seen) == {threading.get_ident()}


def test_as_many_as_are_allowed_work_at_one_time_and_no_more() -> None:
    """The barrier opens only when four are inside at once."""
    barrier, inside = threading.Barrier(4), InFlight()

    def work(_: int) -> None:
        with inside:
            barrier.wait(PATIENCE_S)

    Workers(4).each(work, range(40))

    assert inside.most == 4
    assert worker_threads() == []


def test_async_functions_run_at_one_time_on_one_loop() -> None:
    barrier, loops = asyncio.Barrier(4), []

    async def meet() -> None:
        loops.append(id(asyncio.get_running_loop()))
        async with asyncio.timeout(PATIENCE_S):
            await barrier.wait()

    Workers(4).each(lambda _: call(meet), range(12))

    assert (len(loops), len(set(loops))) == (12, 1)


def test_the_things_are_begun_in_their_order() -> None:
    begun: list[int] = []
    lock = threading.Lock()

    class Things(list[int]):
        def __iter__(self) -> Any:
            for each in super().__iter__():
                with lock:
                    begun.append(each)
                yield each

    done: list[int] = []
    Workers(3).each(done.append, Things(range(50)))

    assert begun == list(range(50))
    assert sorted(done) == begun


def test_workers_see_the_callers_context_variables() -> None:
    seen: list[str] = []

    async def ask() -> None:
        seen.append(asked_by.get())

    asked_by.set("the caller")
    Workers(2).each(lambda _: (seen.append(asked_by.get()), call(ask)), range(4))

    assert seen == ["the caller"] * 8


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3), LeaseLostError("lost")])
def test_what_one_raises_ends_the_work_of_all(error: BaseException) -> None:
    """The others finish what they are at and begin nothing new; all are gone when the error is raised."""
    begun, together, raised = [], threading.Barrier(3), threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        together.wait(PATIENCE_S)
        if number == 1:
            raised.set()
            raise error
        raised.wait(PATIENCE_S)
        with pytest.raises(StoppedError):
            workers.sleep(PATIENCE_S)
        raise StoppedError

    workers = Workers(3)
    with pytest.raises(type(error)) as caught:
        workers.each(work, range(1_000))

    assert caught.value is error
    assert sorted(begun) == [0, 1, 2]
    assert worker_threads() == []
    workers.sleep(0)  # the next piece of work may wait again


def test_async_calls_under_way_are_cancelled_when_the_work_ends() -> None:
    ready, cancelled = threading.Event(), threading.Event()

    async def never_ends() -> None:
        ready.set()
        try:
            await asyncio.sleep(PATIENCE_S)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def work(number: int) -> None:
        if number == 0:
            call(never_ends)
        assert ready.wait(PATIENCE_S)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Workers(2).each(work, range(2))

    assert cancelled.wait(PATIENCE_S)


def test_async_calls_under_way_are_finished_when_the_target_is_down() -> None:
    """What they write is to be accounted for."""
    ends: list[str] = []
    ready, raised = threading.Event(), threading.Event()

    async def takes_a_while() -> None:
        ready.set()
        while not raised.is_set():  # noqa: ASYNC110 - what another thread sets
            await asyncio.sleep(0)
        ends.append("written")

    def work(number: int) -> None:
        if number == 0:
            call(takes_a_while)
            return
        assert ready.wait(PATIENCE_S)
        raised.set()
        raise TargetError("down")

    with pytest.raises(TargetError):
        Workers(2).each(work, range(2))

    assert ends == ["written"]


def test_an_interrupt_of_the_caller_ends_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C arrives in the main thread, which waits for the workers."""
    inside = threading.Barrier(3)
    join = threading.Thread.join
    interrupts = [KeyboardInterrupt()]

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        if thread.name.startswith("worker ") and interrupts:
            inside.wait(PATIENCE_S)
            raise interrupts.pop()
        join(thread, timeout)

    def work(_: int) -> None:
        inside.wait(PATIENCE_S)
        workers.sleep(PATIENCE_S)

    workers = Workers(2)
    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        workers.each(work, range(100))

    assert worker_threads() == []


def test_threads_that_cannot_be_started_end_those_that_were(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    workers = Workers(3)
    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        workers.each(lambda _: workers.sleep(PATIENCE_S), range(3))

    assert worker_threads() == []


def test_an_async_function_may_work_with_several_in_its_turn() -> None:
    """It blocks its own loop meanwhile, so that the workers' calls must run on a deeper one."""

    async def add_one(number: int) -> int:
        await asyncio.sleep(0)
        return number + 1

    async def outer(numbers: range) -> int:
        sums: list[int] = []
        work: Callable[[int], object] = lambda number: sums.append(call(add_one, number))  # noqa: E731
        Workers(3).each(work, numbers)
        return sum(sums)

    totals: list[int] = []
    Workers(2).each(lambda each: totals.append(call(outer, range(each))), [3, 4, 5])

    assert sorted(totals) == [6, 10, 15]
