"""Tries again what raised `RetryableError`, with backoff."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeVar

import stamina

from sync_pipelines.engine.redaction import message_of
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
        last = error
    try:
        for again in stamina.retry_context(
            on=_backoff, attempts=ATTEMPTS, timeout=None, wait_initial=_FIRST_WAIT_S, wait_max=_LONGEST_WAIT_S
        ):
            with again:
                # the first attempt is the one above, made outside because this context costs more than most attempts
                return _attempt(attempt) if again.num > 1 else _raise(_Again(last))
    except _Again as given_up:
        raise given_up.error from None
    raise AssertionError("unreachable: the loop returns or raises")


def _attempt(attempt: Callable[[], T]) -> T:
    try:
        return attempt()
    except RetryableError as error:
        raise _Again(error) from None


def _raise(error: Exception) -> NoReturn:
    raise error


class _Again(Exception):  # noqa: N818 - no error but a sign to the loop, whose log shows it
    """What the loop may log: the error's text without secrets."""

    def __init__(self, error: RetryableError) -> None:
        super().__init__(message_of(error))
        self.error = error


def _backoff(error: Exception) -> bool | float:
    if not isinstance(error, _Again):
        return False
    retry_after_s = error.error.retry_after_s
    return True if retry_after_s is None else min(max(retry_after_s, 0.0), _LONGEST_WAIT_S)
