"""The rate limit and the pause that everybody keeps, by a clock of the test."""

from __future__ import annotations

import threading

import pytest

from sync_pipelines.errors import RetryableError
from sync_pipelines.runner.calls.backoff import ATTEMPTS, retrying
from sync_pipelines.runner.calls.rate_limit import RateLimit


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept_s: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(round(seconds, 6))
        self.now_s += seconds

    def elapsed_s(self) -> float:
        return self.now_s


@pytest.fixture
def time() -> Time:
    return Time()


def pace_of(time: Time, max_calls_per_s: float | None = None) -> RateLimit:
    return RateLimit(max_calls_per_s, time.sleep, time.elapsed_s)


def test_without_a_limit_nobody_waits(time: Time) -> None:
    pace = pace_of(time)
    for _ in range(100):
        pace.wait_for_turn()
    assert time.slept_s == []


def test_calls_are_spread_evenly(time: Time) -> None:
    pace = pace_of(time, 4)
    for _ in range(5):
        pace.wait_for_turn()
    assert time.slept_s == [0.25] * 4


def test_time_in_which_nobody_called_is_not_saved_up_for_a_burst(time: Time) -> None:
    pace = pace_of(time, 4)
    pace.wait_for_turn()
    time.now_s += 60
    for _ in range(3):
        pace.wait_for_turn()
    assert time.slept_s == [0.25, 0.25]


def test_a_slow_call_is_not_made_to_wait_once_more(time: Time) -> None:
    pace = pace_of(time, 4)
    pace.wait_for_turn()
    time.now_s += 0.2
    pace.wait_for_turn()
    assert time.slept_s == [0.05]


def test_a_pause_holds_back_everybody_and_then_the_limit_goes_on(time: Time) -> None:
    pace = pace_of(time, 2)
    pace.wait_for_turn()
    pace.pause(7)
    pace.pause(3)  # a shorter one ends no longer one
    pace.wait_for_turn()
    pace.wait_for_turn()
    assert time.slept_s == [7, 0.5]


def test_a_pause_that_begins_while_somebody_waits_holds_back_that_one_too(time: Time) -> None:
    begins = [5.0]

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        if begins:
            pace.pause(begins.pop())

    pace = RateLimit(2, sleep, time.elapsed_s)
    pace.wait_for_turn()
    pace.wait_for_turn()
    assert time.slept_s == [0.5, 5]


def test_many_threads_keep_one_limit(time: Time) -> None:
    """Whoever comes gets a turn of its own: forty calls at ten a second take just under four seconds."""
    turns_s: list[float] = []
    lock = threading.Lock()

    def sleep(seconds: float) -> None:
        with lock:
            turns_s.append(round(seconds, 6))

    pace = RateLimit(10, sleep, time.elapsed_s)  # the clock stands still, each thread is told when its turn is
    threads = [threading.Thread(target=lambda: [pace.wait_for_turn() for _ in range(5)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(turns_s) == [round(0.1 * number, 6) for number in range(1, 40)]


def test_attempts_count_for_the_limit(time: Time) -> None:
    attempts: list[float] = []

    def attempt() -> str:
        attempts.append(time.now_s)
        if len(attempts) < 3:
            raise RetryableError("busy", retry_after_s=0)
        return "done"

    assert retrying(attempt, pace_of(time, 2)) == "done"
    assert attempts == [100.0, 100.5, 101.0]


def test_what_one_call_is_told_to_wait_holds_back_the_next(time: Time) -> None:
    pace, answers = pace_of(time), iter([RetryableError("429", retry_after_s=12), None])

    def attempt() -> float:
        if (error := next(answers)) is not None:
            pace.pause(0)
            raise error
        return time.now_s

    assert retrying(attempt, pace) == 112.0
    other = pace_of(time)
    with pytest.raises(RetryableError):
        retrying(lambda: _raise(RetryableError("429", retry_after_s=1_000_000)), other)
    assert time.now_s == 112.0 + 30.0 * (ATTEMPTS - 1), "the longest wait is 30 s, whatever is asked for"


def test_without_a_named_time_only_the_caller_waits_ever_longer(time: Time) -> None:
    pace = pace_of(time)
    with pytest.raises(RetryableError):
        retrying(lambda: _raise(RetryableError("busy")), pace)
    first, second, third = time.slept_s
    assert 0.2 <= first <= 1.2
    assert 0.4 <= second <= 1.4
    assert 0.8 <= third <= 1.8
    assert pace._paused_until_s == 100.0


def _raise(error: Exception) -> None:
    raise error
