"""Tries again what raised `RetryableError`, with backoff."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import stamina

from sync_pipelines.errors import RetryableError

T = TypeVar("T")

ATTEMPTS = 4
_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 30.0


def retrying(attempt: Callable[[], T]) -> T:
    """Calls the function; on `RetryableError` waits (as long as the error says, else ever longer) and calls it again.

    Raises:
        RetryableError: The fourth attempt failed as well.
        Exception: Whatever else the function raises, at once.
    """
    try:
        return attempt()
    except RetryableError as error:
        first = error
    for again in stamina.retry_context(
        on=_backoff, attempts=ATTEMPTS, timeout=None, wait_initial=_FIRST_WAIT_S, wait_max=_LONGEST_WAIT_S
    ):
        with again:
            if again.num == 1:  # the attempt above, made outside because this context costs more than most attempts
                raise first
            return attempt()
    raise AssertionError("unreachable: the loop returns or raises")


def _backoff(error: Exception) -> bool | float:
    if not isinstance(error, RetryableError):
        return False
    return True if error.retry_after_s is None else min(error.retry_after_s, _LONGEST_WAIT_S)
