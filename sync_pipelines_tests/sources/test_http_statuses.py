"""Whose fault a refusal is, row by row, and against a server: what passes is asked again, the rest says what to do."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
import stamina

from sync_pipelines.errors import ConfigurationError, RetryableError
from sync_pipelines.sources.http_statuses import (
    is_good,
    may_mean_past_the_end,
    passes,
    retry_after_s,
    what_to_check,
)
from sync_pipelines.sources.rest import RestSource

ALL = [f"A-{number}" for number in range(1, 8)]


@pytest.fixture(autouse=True)
def _no_waiting():
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


def answer(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize("status", [202, 408, 423, 425, 429, 500, 501, 502, 503, 504, 507, 520, 529, 599])
def test_status_that_passes_is_nobodys_task(status):
    assert passes(answer(status))
    assert not is_good(answer(status))
    assert what_to_check(status) == ""


@pytest.mark.parametrize("status", [206, 400, 401, 402, 403, 404, 405, 406, 407, 410, 416, 451, 511])
def test_status_that_stays_says_what_a_person_is_to_check(status):
    assert not passes(answer(status))
    assert not is_good(answer(status))
    assert what_to_check(status)


@pytest.mark.parametrize("status", [409, 411, 415, 418, 422, 431, 499, 300, 304])
def test_any_other_refusal_stays(status):
    assert not passes(answer(status))
    assert not is_good(answer(status))


@pytest.mark.parametrize("status", [200, 201, 203, 226])
def test_answer_is_good(status):
    assert is_good(answer(status))
    assert not passes(answer(status))


@pytest.mark.parametrize("status", [400, 403, 404, 413, 429, 503])
def test_refusal_that_names_a_time_to_come_back_passes(status):
    assert passes(answer(status, retry_after="7"))
    assert retry_after_s(answer(status, retry_after="7")) == 7


@pytest.mark.parametrize("name", ["x-ratelimit", "ratelimit", "X-Rate-Limit"])
@pytest.mark.parametrize("status", [403, 429, 503])
def test_rate_limit_of_which_nothing_is_left_passes_when_it_says(name, status):
    soon = datetime.now(UTC) + timedelta(seconds=100)
    for until in ("100", f"{soon.timestamp():.0f}", f"{soon.timestamp() * 1000:.0f}", format_datetime(soon), f"{soon}"):
        limited = httpx.Response(status, headers={f"{name}-Remaining": "0", f"{name}-Reset": until})
        assert passes(limited)
        assert retry_after_s(limited) == pytest.approx(100, abs=3)


@pytest.mark.parametrize("until", ["", "soon", "-1", "nan", "inf", "1e300", "9" * 400])
def test_nonsense_about_the_end_of_a_limit_is_ignored(until):
    limited = answer(403, x_ratelimit_remaining="0", x_ratelimit_reset=until)
    assert passes(limited)
    assert retry_after_s(limited) is None


def test_credentials_that_may_not_read_are_no_rate_limit():
    assert not passes(answer(403, x_ratelimit_remaining="4999", x_ratelimit_reset="100"))
    assert not passes(answer(404, x_ratelimit_remaining="0", x_ratelimit_reset="100"))


def test_some_statuses_can_not_mean_that_a_page_is_past_the_end():
    allowed = [status for status in range(100, 600) if may_mean_past_the_end(status)]
    assert {204, 400, 404, 410, 416, 422} < set(allowed)
    assert not {200, 206, 302, 401, 403, 407, 408, 423, 425, 429, 500, 503} & set(allowed)


@pytest.mark.parametrize("headers", [{"retry_after": "0"}, {"x_ratelimit_remaining": "0", "x_ratelimit_reset": "0"}])
def test_403_of_a_rate_limit_waits_and_tries_again(rest_server, headers: dict[str, Any]) -> None:
    source = RestSource(rest_server.url("refuse", status=403, times=2, headers=headers))
    assert [item["sku"] for page in source() for item in page] == ALL
    assert len(rest_server.seen()) == 3


def test_403_with_retry_after_waits_as_long_as_it_says(rest_server) -> None:
    source = RestSource(rest_server.url("refuse", status=403, times=1, retry_after="1"))
    started = time.monotonic()
    with stamina.set_testing(False):
        assert [item["sku"] for page in source() for item in page] == ALL
    assert 0.95 <= time.monotonic() - started < 5


def test_403_without_a_limit_is_given_up_at_once(rest_server) -> None:
    with pytest.raises(ConfigurationError, match="check what these credentials may read"):
        list(RestSource(rest_server.url("refuse", status=403))())
    assert len(rest_server.seen()) == 1


@pytest.mark.parametrize(
    "body", ['[{"sku": "A-1"}, {"sk', "[", '[{"sku": "Gr', '[{"n": 1.', '[{"a": tru', '[{"a": "\\u00']
)
def test_answer_that_is_cut_off_is_asked_for_again(rest_server, body: str) -> None:
    source = RestSource(rest_server.url("cut", body=body, times=2))
    assert [item["sku"] for page in source() for item in page] == ALL
    assert len(rest_server.seen()) == 3


def test_answer_that_is_always_cut_off_may_work_later(rest_server) -> None:
    source = RestSource(rest_server.url("cut", body='[{"sku": "A-1"}, '), attempts=2)
    with pytest.raises(RetryableError, match=r"broke off in the middle of its answer, after 17 bytes.*tried 2 times"):
        list(source())


@pytest.mark.parametrize("body", ["<html>", "[1,]", "[}", '{"a" 1}', "[1] 2", '["\\x"]'])
def test_answer_that_is_no_json_is_not_asked_for_again(rest_server, body: str) -> None:
    with pytest.raises(ConfigurationError, match="no JSON"):
        list(RestSource(rest_server.url("cut", body=body))())
    assert len(rest_server.seen()) == 1
