"""Which errors are no fault of the item that was asked for: what is outside does not answer, or a person must act."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sync_pipelines.errors import ConfigurationError, FetchError, ItemError, RetryableError

_PASSING_STATUSES = frozenset({202, 408, 423, 425, 429, 502, 503, 504, *range(520, 528)})
"""Without 500: that may be about the one item that was asked for."""
_PERSONS_STATUSES = frozenset({401, 402, 407, 511})
"""What a server refuses whichever item it is asked for: the credentials, the account, or a proxy's."""
_FORBIDDEN = 403
_LONGEST_CHAIN = 10
_OF_CLIENTS = frozenset(
    {
        "httpx.TransportError",
        "requests.exceptions.ConnectionError",
        "requests.exceptions.Timeout",
        "aiohttp.client_exceptions.ClientConnectionError",
        "urllib.error.URLError",
        "http.client.IncompleteRead",
        "ssl.SSLEOFError",
        "socket.gaierror",
    }
)
"""Errors of HTTP clients, by name: none of them need be installed."""
LIMIT_LEFT = ("x-ratelimit-remaining", "ratelimit-remaining", "x-rate-limit-remaining")
"""Headers that say how much of a rate limit is left, in small letters."""


def is_outage(error: BaseException) -> bool:
    """Returns True if what was asked does not answer now, and may do so later; also if that is what it was raised from.

    `sources.http_statuses.passes` says it of the answers of a source as a whole.
    """
    for current in _chain(error):
        status = _status_of(current)
        if status is not None:
            return status in _PASSING_STATUSES or _names_a_time(current)
        if isinstance(current, (RetryableError, FetchError, ConnectionError, TimeoutError)):
            return True
        if any(f"{each.__module__}.{each.__qualname__}" in _OF_CLIENTS for each in type(current).__mro__):
            return True
        if isinstance(current, BaseExceptionGroup):
            return all(map(is_outage, current.exceptions))
    return False


def needs_person(error: BaseException) -> bool:
    """Returns True if a person must act before anything can succeed; also if that is what it was raised from.

    That is a `ConfigurationError`, or credentials that are refused.
    """
    for current in _chain(error):
        status = _status_of(current)
        if status is not None:
            return status in _PERSONS_STATUSES
        if isinstance(current, ConfigurationError):
            return True
    return False


def is_forbidden(error: BaseException) -> bool:
    """Returns True if a server forbids what was asked for: this item, or all with these credentials."""
    statuses = (status for current in _chain(error) if (status := _status_of(current)) is not None)
    return next(statuses, None) == _FORBIDDEN and not is_outage(error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and what it was raised from; nothing from an item's own error on."""
    current: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if current is None or isinstance(current, ItemError):
            return
        yield current
        current = current.__cause__


def _names_a_time(error: BaseException) -> bool:
    """Returns True if the answer says when to come again, or that nothing is left of a rate limit."""
    headers = getattr(getattr(error, "response", None), "headers", None)
    if not isinstance(headers, Mapping):
        return False
    said = {str(name).lower(): str(value).strip() for name, value in headers.items()}
    return "retry-after" in said or any(said.get(name) == "0" for name in LIMIT_LEFT)


def _status_of(error: BaseException) -> int | None:
    """Returns the status of an answer that a client has made an error of."""
    answer = getattr(error, "response", None)
    for holder, name in ((answer, "status_code"), (error, "status"), (error, "code")):
        status = getattr(holder, name, None)
        if isinstance(status, int):
            return status
    return None
