"""Retries calls that raised `RetryableError`, with backoff."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import stamina

from sync_pipelines.engine.calls import call, call_own
from sync_pipelines.engine.redaction import message_of
from sync_pipelines.errors import RetryableError
from sync_pipelines.runner.calls.rate_limit import RateLimit

T = TypeVar("T")

ATTEMPTS = 4
_FIRST_WAIT_S = 0.2
_JITTER_S = 1.0
_LONGEST_WAIT_S = 30.0
_LOG = logging.getLogger("sync_pipelines.retries")


def retrying(attempt: Callable[[], T], pace: RateLimit | None = None) -> T:
    """Calls a function; on `RetryableError` waits (as long as the error says, else ever longer) and calls it again.

    The loop is not stamina's, because that one sleeps where nobody can wake it: here a wait that an error asks for is
    kept by all who share the pace, and every wait ends when the run does.

    Args:
        pace: Says when a call may begin, and how to wait; by default at once, and asleep.

    Raises:
        RetryableError: The fourth attempt failed as well.
    """
    for number in range(1, ATTEMPTS):
        if pace is not None:
            pace.wait_for_turn()
        try:
            return attempt()
        except RetryableError as error:
            pace = pace or RateLimit()  # not before: this is called for every item, and nearly always once
            wait_s = _wait_s(error, number)
            _LOG.info("attempt %d of %d, the next in %.1f s: %s", number, ATTEMPTS, wait_s, message_of(error))
            asked_for = error.retry_after_s is not None
        if asked_for:
            pace.pause(wait_s)
        else:
            pace.sleep(wait_s)
    if pace is not None:
        pace.wait_for_turn()
    return attempt()


def call_again(
    function: Callable[..., Any], *arguments: Any, what: str | None = None, pace: RateLimit | None = None
) -> Any:
    """Calls a function of the user, or a method of a target; on `RetryableError` again, as `retrying` does.

    Whatever of a job may read or write is called by this, so that one outage of a moment is told nobody.

    Args:
        what: What a function of the user is called in its declaration, for errors to say; None of other functions.
        pace: Says when a call may begin, and how to wait; by default at once, and asleep.
    """
    once = partial(call, function) if what is None else partial(call_own, what, function)
    return retrying(partial(once, *arguments), pace)


def _wait_s(error: RetryableError, number: int) -> float:
    """Returns the seconds to wait after the attempt of that number, which starts at 1."""
    if stamina.is_testing():  # one switch for all waits, those of the sources too
        return 0.0
    if error.retry_after_s is not None:
        return min(max(error.retry_after_s, 0.0), _LONGEST_WAIT_S)
    jitter_s = random.uniform(0, _JITTER_S)  # noqa: S311 - keeps workers apart, and no secret
    return min(_FIRST_WAIT_S * 2.0 ** (number - 1) + jitter_s, _LONGEST_WAIT_S)
