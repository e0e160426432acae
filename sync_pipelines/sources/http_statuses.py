"""Whose fault is a refusal? One table: for each HTTP status whether it passes, or what a person is to look at.

Whoever asks a web server (REST sources, their token servers, Tryton) asks here what an answer means.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import httpx

from sync_pipelines.engine.outages import LIMIT_LEFT

PASSES = ""
"""In the table: the same request may well succeed later."""
_CHECK: dict[int, str] = {
    HTTPStatus.ACCEPTED: PASSES,  # taken, and not done: RFC 9110, 15.3.3
    HTTPStatus.PARTIAL_CONTENT: "nobody asked for a part; check the url, and proxies before the server",
    HTTPStatus.BAD_REQUEST: "check parameters=... and the url",
    HTTPStatus.UNAUTHORIZED: "check auth=... and its secret",
    HTTPStatus.PAYMENT_REQUIRED: "check the account's plan and its limits",
    HTTPStatus.FORBIDDEN: "check what these credentials may read",
    HTTPStatus.NOT_FOUND: "check the url",
    HTTPStatus.METHOD_NOT_ALLOWED: "check the url: it is not one that can be read",
    HTTPStatus.NOT_ACCEPTABLE: "check headers=...: the server has no such form of the answer",
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: "check the proxy's credentials in the environment",
    HTTPStatus.REQUEST_TIMEOUT: PASSES,
    HTTPStatus.GONE: "check the url: the server says that it is gone for good",
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: "check paging=...: it asks for more than there is",
    HTTPStatus.LOCKED: PASSES,
    HTTPStatus.TOO_EARLY: PASSES,
    HTTPStatus.TOO_MANY_REQUESTS: PASSES,
    HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS: "check with whoever runs the server",
    HTTPStatus.NETWORK_AUTHENTICATION_REQUIRED: "check the network: it wants a login before it lets anything through",
}
"""What does not stand here passes from 500 on, and is for a person below."""

_RESET = ("x-ratelimit-reset", "ratelimit-reset", "x-rate-limit-reset")
_LIMITED = (HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_MOMENT_FROM_S = 1e9
"""Larger numbers in a header that says when a limit ends are moments, smaller ones are seconds from now."""
_IN_MS_FROM = 1e11


def passes(response: httpx.Response, status: int | None = None) -> bool:
    """Returns True if the same request may well succeed later, by its status or by what else the server says.

    Args:
        status: What the body gives as the status, where that of the response says nothing.

    A refusal that names a time to come back passes, whatever its status; so does a 403 that says that nothing is left
    of a rate limit, as GitHub's.

    Source:
        RFC 9110, sections 10.2.3 and 15.5.14, on `Retry-After`.
    """
    status = response.status_code if status is None else status
    if status >= HTTPStatus.BAD_REQUEST and (retry_after_s(response) is not None or _is_used_up(response)):
        return True
    advice = _CHECK.get(status)
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR if advice is None else advice == PASSES


def is_good(response: httpx.Response) -> bool:
    """Returns True for an answer that holds what was asked for."""
    return response.is_success and response.status_code not in _CHECK


def what_to_check(status: int) -> str:
    """Returns what a person is to look at after such a refusal; empty where nothing can be said."""
    return _CHECK.get(status, "")


def may_mean_past_the_end(status: int) -> bool:
    """Returns True for a status with which a server may answer a page past the end, and that means nothing else."""
    others = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED)
    is_refusal = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in others
    return status == HTTPStatus.NO_CONTENT or (is_refusal and _CHECK.get(status) != PASSES)


def retry_after_s(response: httpx.Response) -> float | None:
    """Reads for how long the server wants to be left alone, in seconds; None if it does not say, or says nonsense.

    That is the header `Retry-After`, a number or a date, or else the end of a rate limit of which nothing is left.

    Source:
        RFC 9110, section 10.2.3.
    """
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    named = _seconds_until(lambda: parsedate_to_datetime(value))
    if named is None and _is_used_up(response):
        return next(filter(None, (_reset_s(response.headers.get(name, "").strip()) for name in _RESET)), None)
    return named


def _is_used_up(response: httpx.Response) -> bool:
    """True if the server says that nothing is left of a rate limit, with a status that it may mean by it."""
    if response.status_code not in _LIMITED:
        return False
    return any(response.headers.get(name, "").strip() == "0" for name in LIMIT_LEFT)


def _reset_s(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return _seconds_until(lambda: parsedate_to_datetime(value)) or _seconds_until(
            lambda: datetime.fromisoformat(value)
        )
    if not math.isfinite(number) or number < 0:
        return None
    if number < _MOMENT_FROM_S:
        return number
    number = number / 1000 if number > _IN_MS_FROM else number
    return _seconds_until(lambda: datetime.fromtimestamp(number, UTC))


def _seconds_until(moment: Callable[[], datetime]) -> float | None:
    try:
        at = moment()
    except (ValueError, OverflowError, OSError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
