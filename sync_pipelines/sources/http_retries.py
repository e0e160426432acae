"""Asks a web server again after a while, with time limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import stamina

from sync_pipelines.errors import RetryableError

T = TypeVar("T")

_FIRST_WAIT_S = 0.5


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait and how often to try.

    Args:
        timeout_s: Seconds to wait for a connection, and for each piece of an answer.
        attempts: How often a request is tried in all; 1 means no retry.
        longest_wait_s: Seconds to wait at most between two attempts; if the server asks for more, the error goes to the
            caller at once.
    """

    timeout_s: float
    attempts: int
    longest_wait_s: float

    def retrying(self, attempt: Callable[[], T]) -> T:
        """Calls the function; on `RetryableError` waits (as long as the error says, else ever longer) and calls again.

        Raises:
            RetryableError: The last attempt failed as well; the message says how many there were.
        """
        made = 0
        try:
            for again in stamina.retry_context(
                on=self.backoff,
                attempts=self.attempts,
                timeout=None,
                wait_initial=_FIRST_WAIT_S,
                wait_max=self.longest_wait_s,
            ):
                with again:
                    made += 1
                    return attempt()
        except RetryableError as error:
            times = "once" if made == 1 else f"{made} times"
            raise RetryableError(f"{error} (tried {times})", retry_after_s=error.retry_after_s) from error.__cause__
        raise AssertionError("unreachable: the loop returns or raises")

    def backoff(self, error: Exception) -> bool | float:
        """Tells the retry library whether to go on, and for how long to wait if the server named a time."""
        if not isinstance(error, RetryableError):
            return False
        if error.retry_after_s is None:
            return True
        return error.retry_after_s if error.retry_after_s <= self.longest_wait_s else False


def open_client(patience: Patience, transport: httpx.BaseTransport | None, **options: Any) -> httpx.Client:
    """Opens an HTTP client with these time limits; a transport replaces the network, for tests."""
    # A company's proxy, which httpx finds in the environment, is of no use on the way to this same machine.
    direct: dict[str, httpx.BaseTransport | None] = {"all://127.0.0.1": None, "all://localhost": None}
    on_network = transport is None
    mounts = direct if on_network else None
    return httpx.Client(timeout=patience.timeout_s, transport=transport, trust_env=on_network, mounts=mounts, **options)
