"""Which errors say that something outside does not answer: they are no fault of the item that was asked for."""

from __future__ import annotations

from sync_pipelines.errors import FetchError, RetryableError

_PASSING_STATUSES = frozenset({408, 425, 429, 502, 503, 504})
_OF_CLIENTS = frozenset(
    {
        "httpx.TransportError",
        "requests.exceptions.ConnectionError",
        "requests.exceptions.Timeout",
        "aiohttp.client_exceptions.ClientConnectionError",
        "urllib.error.URLError",
        "socket.gaierror",
    }
)
"""Errors of HTTP clients, by name: none of them need be installed."""


def is_outage(error: BaseException) -> bool:
    """Returns True if what was asked does not answer now, and may do so later."""
    status = _status_of(error)
    if status is not None:
        return status in _PASSING_STATUSES
    if isinstance(error, (RetryableError, FetchError, ConnectionError, TimeoutError)):
        return True
    return any(f"{each.__module__}.{each.__qualname__}" in _OF_CLIENTS for each in type(error).__mro__)


def _status_of(error: BaseException) -> int | None:
    """Returns the status of an answer that a client has made an error of."""
    answer = getattr(error, "response", None)
    for holder, name in ((answer, "status_code"), (error, "status"), (error, "code")):
        status = getattr(holder, name, None)
        if isinstance(status, int):
            return status
    return None
