"""The REST source when the server limits, fails, hangs, drops connections, redirects, or sends us elsewhere."""

import socket
import time
from contextlib import closing

import httpx
import pytest
import stamina
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from sync_pipelines.errors import ConfigurationError, RetryableError
from sync_pipelines.sources.rest import RestSource
from sync_pipelines.sources.rest_auth import BearerAuth
from sync_pipelines.sources.rest_paging import CursorPaging, LinkHeaderPaging, NextUrlPaging
from sync_pipelines.sources.rest_urls import within_server

ALL = [f"A-{number}" for number in range(1, 8)]


@pytest.fixture(autouse=True)
def _no_waiting():
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture
def waits():
    """What stamina waits for; the waits are real."""
    found: list[RetryDetails] = []
    with stamina.set_testing(False):
        set_on_retry_hooks([found.append])
        try:
            yield found
        finally:
            set_on_retry_hooks(None)


def skus(source: RestSource) -> list[str]:
    return [item["sku"] for page in source() for item in page]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504, 599])
def test_passing_refusal_is_asked_again(rest_server, status):
    assert skus(RestSource(rest_server.url("refuse", status=status, times=4))) == ALL
    assert len(rest_server.seen()) == 5


@pytest.mark.parametrize("status", [429, 500, 503])
def test_lasting_refusal_ends_as_retryable_after_all_attempts(rest_server, status):
    source = RestSource(rest_server.url("refuse", status=status), attempts=3)
    with pytest.raises(RetryableError, match=rf"http://127.* answered {status} .*\(tried 3 times\)"):
        skus(source)
    assert len(rest_server.seen()) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 422, 451, 499])
def test_other_refusals_are_not_asked_again_and_tell_what_the_server_said(rest_server, status):
    source = RestSource(rest_server.url("refuse", status=status, says={"error": "no\nsuch shop"}))
    with pytest.raises(ConfigurationError, match=rf"refuses: {status}.*it said: .*such shop"):
        skus(source)
    assert len(rest_server.seen()) == 1


def test_each_page_has_all_attempts_to_itself(rest_server):
    pages = iter(range(9))
    troubles = iter([503, 503, 200] * 3)

    def handle(_: httpx.Request) -> httpx.Response:
        status = next(troubles)
        if status != 200:
            return httpx.Response(status)
        number = next(pages)
        return httpx.Response(200, json={"items": [{"sku": str(number)}], "next": number + 1 if number < 2 else None})

    transport = httpx.MockTransport(handle)
    source = RestSource(
        "http://api.test/", items_path="items", paging=CursorPaging("next"), transport=transport, attempts=3
    )
    assert skus(source) == ["0", "1", "2"]


@pytest.mark.parametrize(("status", "after", "least"), [(429, "1", 0.95), (503, "date", 0.3)])
def test_server_that_names_a_time_is_asked_again_after_it(rest_server, waits, status, after, least):
    started = time.monotonic()
    assert skus(RestSource(rest_server.url("refuse", status=status, times=1, retry_after=after))) == ALL
    assert least <= time.monotonic() - started < 5
    assert least <= waits[0].wait_for <= 1.5


def test_waits_grow_and_are_capped(rest_server, waits):
    source = RestSource(rest_server.url("refuse", status=500, times=3), longest_wait_s=0.02)
    assert skus(source) == ALL
    assert [details.wait_for <= 0.02 for details in waits] == [True] * 3


def test_server_that_asks_for_an_hour_is_left_at_once(rest_server):
    with pytest.raises(RetryableError, match=r"429.*tried once") as caught:
        skus(RestSource(rest_server.url("refuse", status=429, retry_after="3600")))
    assert caught.value.retry_after_s == 3600
    assert len(rest_server.seen()) == 1


@pytest.mark.parametrize("header", ["soon", "-1", " ", "1.5"])
def test_nonsense_in_retry_after_is_ignored(rest_server, header):
    with pytest.raises(RetryableError) as caught:
        skus(RestSource(rest_server.url("refuse", status=503, retry_after=header)))
    assert caught.value.retry_after_s is None


def test_server_that_hangs_is_given_up_after_the_time_limit_and_asked_again(rest_server):
    assert skus(RestSource(rest_server.url("hang", times=1), timeout_s=0.3)) == ALL
    assert len(rest_server.seen()) == 2


def test_server_that_hangs_for_ever_ends_as_retryable(rest_server):
    with pytest.raises(RetryableError, match=r"did not answer within 0\.2 s \(ReadTimeout\) \(tried 2 times\)"):
        skus(RestSource(rest_server.url("hang"), timeout_s=0.2, attempts=2))


@pytest.mark.parametrize("where", ["before", "mid-body", "mid-chunk"])
def test_connection_that_drops_before_the_end_of_the_answer_is_tried_again(rest_server, where):
    assert skus(RestSource(rest_server.url("drop", where=where, times=2))) == ALL
    assert len(rest_server.seen()) == 3


@pytest.mark.parametrize("where", ["before", "mid-body", "mid-chunk"])
def test_connection_that_always_drops_ends_as_retryable(rest_server, where):
    with pytest.raises(RetryableError, match=r"did not answer: RemoteProtocolError: .*tried 2 times"):
        skus(RestSource(rest_server.url("drop", where=where), attempts=2))


def test_nobody_listening_is_retryable():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(RetryableError, match="ConnectError"):
        skus(RestSource(f"http://127.0.0.1:{port}", attempts=2))


def test_proxy_in_the_environment_is_not_used_for_this_machine(rest_server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert skus(RestSource(rest_server.url("refuse", status=200, times=0))) == ALL


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_within_the_server_is_followed_with_credentials(rest_server, monkeypatch, status):
    monkeypatch.setenv("SHOP_TOKEN", "hunter22")
    assert skus(RestSource(rest_server.url("redirect", status=status), auth=BearerAuth("SHOP_TOKEN"))) == ALL
    assert [asked["headers"]["authorization"] for asked in rest_server.seen()] == ["Bearer hunter22"] * 2


def test_redirects_in_a_circle_end_in_an_error(rest_server):
    url = rest_server.url("redirect", to="?again=1")
    with pytest.raises(ConfigurationError, match="redirects more than 5 times"):
        skus(RestSource(url))
    assert len(rest_server.seen()) == 6


@pytest.mark.parametrize(
    "to", ["https://login.example.com/?next=x", "//login.example.com/", "ftp://127.0.0.1/", "http://["]
)
def test_redirect_to_another_server_is_not_followed(rest_server, to):
    with pytest.raises(ConfigurationError, match=r"the redirect of http://127.*\(302\) (leads to|is no URL)"):
        skus(RestSource(rest_server.url("redirect", to=to)))
    assert len(rest_server.seen()) == 1


@pytest.mark.parametrize("elsewhere", ["another port", "another name"])
@pytest.mark.parametrize("told_by", ["body", "header"])
def test_next_page_on_another_server_is_not_asked(rest_server, monkeypatch, elsewhere, told_by):
    """The other server would get the credentials: it never sees a request."""
    monkeypatch.setenv("SHOP_TOKEN", "hunter22")
    options = {"port": rest_server.other_port} if elsewhere == "another port" else {"host": "localhost"}
    url = rest_server.url("next_url" if told_by == "body" else "link_header", **options)
    paging, path = (NextUrlPaging(), "results") if told_by == "body" else (LinkHeaderPaging(), None)
    source = RestSource(url, items_path=path, paging=paging, auth=BearerAuth("SHOP_TOKEN"))
    with pytest.raises(ConfigurationError, match=r"the next page of .* leads to http://.*another server.*credentials"):
        skus(source)
    assert [asked["port"] for asked in rest_server.seen()] == [rest_server.port]


@pytest.mark.parametrize(
    ("server", "reference", "found"),
    [
        ("https://a.example/x", "?page=2", "https://a.example/x?page=2"),
        ("https://a.example/x", "/y#top", "https://a.example/y"),
        ("https://a.example/x", "https://a.example:443/y", "https://a.example/y"),
        ("https://a.example/x", "https://u:p@a.example/y", "https://a.example/y"),
        ("https://a.example/x", "http://a.example/y", "https://a.example/y"),
        ("http://a.example/x", "https://a.example/y", "https://a.example/y"),
        ("https://a.example/x", "http://a.example:8080/y", None),
        ("https://a.example:8443/x", "http://a.example/y", None),
        ("https://a.example/x", "https://b.a.example/y", None),
        ("https://a.example/x", "https://a.example.evil.example/y", None),
        ("https://a.example/x", "//b.example/y", None),
        ("https://a.example/x", "https://a.example@b.example/y", None),
        ("https://a.example/x", "file:///etc/passwd", None),
    ],
)
def test_only_urls_of_the_same_server_are_asked_and_never_less_safely(server, reference, found):
    url = within_server(httpx.URL(server), httpx.URL(server), reference)
    assert (None if url is None else str(url)) == found


@pytest.mark.parametrize("ending", ["exhausted", "broken off", "raising"])
def test_connections_are_closed_however_a_fetch_ends(ending):
    class Transport(httpx.MockTransport):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    status = 404 if ending == "raising" else 200
    transport = Transport(lambda _: httpx.Response(status, json=[{"sku": "1"}]))
    with closing(RestSource("http://api.test/", transport=transport)()) as pages:
        if ending == "raising":
            with pytest.raises(ConfigurationError):
                next(pages)
        else:
            (next if ending == "broken off" else list)(pages)
    assert transport.closed == 1
