"""Work beside the caller's: in order, bounded, with the first error raised where it belongs, and no thread left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from sync_pipelines.engine.read_ahead import Background, ahead


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def broken(value: Any) -> None:
    raise OSError(f"no room for {value}")


class TestBackground:
    def test_works_on_every_value_in_order_in_a_thread_of_its_own(self) -> None:
        done: list[tuple[int, bool]] = []
        with Background(
            lambda value: done.append((value, threading.current_thread() is threading.main_thread()))
        ) as it:
            for value in range(50):
                it.put(value)
            it.finish()
            assert done == [(value, False) for value in range(50)]

    def test_no_more_than_so_many_values_wait(self) -> None:
        go, begun = threading.Event(), threading.Event()

        def work(_value: int) -> None:
            begun.set()
            go.wait(5)

        with Background(work, waiting=1) as it:
            it.put(1)
            begun.wait(5)
            it.put(2)
            blocked = threading.Thread(target=it.put, args=(3,))
            blocked.start()
            blocked.join(0.05)
            assert blocked.is_alive()
            go.set()
            blocked.join(5)
            assert not blocked.is_alive()
            it.finish()

    def test_the_first_error_is_raised_where_the_values_come_from_and_the_rest_is_dropped(self) -> None:
        given: list[int] = []

        def hand_over() -> None:
            with Background(broken) as it:
                for value in range(100):
                    it.put(value)
                    given.append(value)

        with pytest.raises(OSError, match="no room for 0"):
            hand_over()
        assert len(given) < 100

    def test_an_error_of_the_last_value_is_raised_at_the_end(self) -> None:
        with Background(broken) as it:
            it.put("last")
            with pytest.raises(OSError, match="no room for last"):
                it.finish()

    def test_a_block_that_fails_ends_the_thread_and_keeps_its_own_error(self) -> None:
        done: list[int] = []

        def fail() -> None:
            with Background(done.append) as it:
                it.put(1)
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            fail()

    def test_finishing_twice_is_no_harm(self) -> None:
        done: list[int] = []
        with Background(done.append) as it:
            it.put(1)
            it.finish()
            it.finish()
        assert done == [1]


class TestAhead:
    def test_gives_the_values_in_order(self) -> None:
        assert list(ahead(range(100))) == list(range(100))
        assert list(ahead([])) == []

    def test_raises_the_source_s_error_after_its_values(self) -> None:
        def source() -> Iterator[int]:
            yield 1
            yield 2
            raise ConnectionError("hung up")

        got: list[int] = []
        with pytest.raises(ConnectionError, match="hung up"):
            got.extend(ahead(source()))
        taken = ahead(source())
        assert [next(taken), next(taken)] == [1, 2]
        with pytest.raises(ConnectionError):
            next(taken)

    def test_makes_no_more_than_it_should_ahead(self) -> None:
        made: list[int] = []

        def source() -> Iterator[int]:
            for value in range(100):
                made.append(value)
                yield value

        with closing(ahead(source(), waiting=2)) as values:
            assert next(values) == 0
        assert len(made) <= 5

    def test_closing_early_ends_the_thread_and_the_source(self) -> None:
        closed: list[bool] = []

        def source() -> Iterator[int]:
            try:
                yield from range(1_000_000)
            finally:
                closed.append(True)

        given = source()
        values = ahead(given)
        assert next(values) == 0
        values.close()
        given.close()
        assert closed == [True]

    def test_a_consumer_that_fails_ends_the_thread(self) -> None:
        def fail() -> None:
            with closing(ahead(range(1_000_000))) as values:
                raise KeyError(next(values))

        with pytest.raises(KeyError):
            fail()
