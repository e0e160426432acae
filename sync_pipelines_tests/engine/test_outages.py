"""Which errors of any client say that something outside does not answer."""

from __future__ import annotations

import httpx
import pytest

from sync_pipelines.engine.outages import is_outage
from sync_pipelines.errors import ItemError


def answered(status: int, **headers: str) -> httpx.HTTPStatusError:
    response = httpx.Response(status, headers={name.replace("_", "-"): value for name, value in headers.items()})
    return httpx.HTTPStatusError("no", request=httpx.Request("GET", "http://erp.test"), response=response)


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        answered(503),
        answered(423),
        answered(403, retry_after="30"),
        answered(403, x_ratelimit_remaining="0"),
        ConnectionRefusedError(),
        raised_from(RuntimeError("the SDK failed"), ConnectionResetError()),
        ExceptionGroup("all", [ConnectionError()]),
    ],
)
def test_what_does_not_answer_is_an_outage(error: Exception) -> None:
    assert is_outage(error)


@pytest.mark.parametrize(
    "error",
    [
        answered(404),
        answered(500),
        answered(403, x_ratelimit_remaining="7"),
        ValueError("no"),
        raised_from(ItemError("no such colour"), ConnectionError()),
        ExceptionGroup("some", [ConnectionError(), ValueError()]),
    ],
)
def test_what_answers_is_none(error: Exception) -> None:
    assert not is_outage(error)
