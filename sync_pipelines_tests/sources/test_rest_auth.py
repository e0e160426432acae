"""Who a REST source says is asking, and that its secrets stay secret."""

import base64
import logging
import pickle
import traceback
from typing import Any

import httpx
import pytest
import stamina
from pydantic import SecretStr

from sync_pipelines.errors import ConfigurationError, RetryableError
from sync_pipelines.settings.secrets import check_secret, read_secret
from sync_pipelines.sources.rest import RestSource
from sync_pipelines.sources.rest_auth import ApiKeyAuth, BasicAuth, BearerAuth
from sync_pipelines.sources.rest_oauth import OAuthClientCredentials
from sync_pipelines.sources.rest_paging import LinkHeaderPaging
from sync_pipelines.sources.rest_redaction import Secrets

SECRET = "p+ss w/rd&7"  # travels in several forms
PLAIN = "0123-abcd-secret"
SKUS = [f"A-{number}" for number in range(1, 8)]
KINDS = {
    "bearer": (BearerAuth("SHOP_SECRET"), {"authorization": f"Bearer {SECRET}"}),
    "basic": (
        BasicAuth("me", "SHOP_SECRET"),
        {"authorization": f"Basic {base64.b64encode(f'me:{SECRET}'.encode()).decode()}"},
    ),
    "header": (ApiKeyAuth("SHOP_SECRET"), {"x-api-key": SECRET}),
    "own header": (ApiKeyAuth("SHOP_SECRET", header="X-Shop"), {"x-shop": SECRET}),
    "parameter": (ApiKeyAuth("SHOP_SECRET", parameter="k"), {"k": SECRET}),
}


@pytest.fixture(autouse=True)
def _no_waiting():
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture(autouse=True)
def _secret(monkeypatch):
    monkeypatch.setenv("SHOP_SECRET", SECRET)


def skus(source: RestSource) -> list[str]:
    return [item["sku"] for page in source() for item in page]


def forms(secret: str) -> set[str]:
    pair = base64.b64encode(f"me:{secret}".encode()).decode()
    return {
        secret,
        pair,
        str(httpx.QueryParams({"k": secret}))[2:],
        str(httpx.URL("http://a", params={"k": secret}))[11:],
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_page_is_asked_for_with_the_credentials(rest_server, kind):
    auth, wanted = KINDS[kind]
    source = RestSource(rest_server.url("secured", wanted=wanted), auth=auth, paging=LinkHeaderPaging())
    assert skus(source) == SKUS


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_credentials_are_an_error_after_one_question(rest_server, kind):
    auth, _ = KINDS[kind]
    with pytest.raises(ConfigurationError, match="401 Unauthorized; check auth="):
        skus(RestSource(rest_server.url("secured", wanted={"authorization": "other"}), auth=auth))
    assert len(rest_server.seen()) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [200, 401, 403, 503])
def test_secrets_appear_in_no_error_and_no_log(rest_server, kind, status, caplog):
    """The server echoes all that it gets, in its errors as in its links; the HTTP client logs every URL and header."""
    caplog.set_level(logging.DEBUG)
    auth, wanted = KINDS[kind]
    wanted = wanted if status == 200 else {"authorization": "other"}
    source = RestSource(rest_server.url("secured", wanted=wanted, status=status), auth=auth, paging=LinkHeaderPaging())
    shown = repr(source) + repr(auth)
    if status == 200:
        skus(source)
    else:
        with pytest.raises((ConfigurationError, RetryableError)) as caught:
            skus(source)
        shown += "".join(traceback.format_exception(caught.value))
    # The address holds what the server is to want, so it is not looked at.
    shown = (shown + caplog.text).replace(str(httpx.URL(source.url)), "")
    assert not [form for form in forms(SECRET) if form in shown]
    assert "HTTP Request: GET" in caplog.text


def test_log_filters_are_taken_away_again(rest_server):
    before = list(logging.getLogger("httpx").filters)
    pages = RestSource(rest_server.url("refuse", status=200, times=0), auth=BearerAuth("SHOP_SECRET"))()
    next(pages)
    assert logging.getLogger("httpx").filters != before
    pages.close()
    assert logging.getLogger("httpx").filters == before


def test_secrets_are_read_when_a_fetch_starts_and_at_every_fetch_anew(rest_server, monkeypatch):
    monkeypatch.delenv("SHOP_SECRET")
    source = RestSource(rest_server.url("secured", wanted={"x-api-key": "new"}), auth=ApiKeyAuth("SHOP_SECRET"))
    pages = source()
    with pytest.raises(
        ConfigurationError, match=r"environment variable SHOP_SECRET is not set.*ApiKeyAuth\(key=\.\.\.\)"
    ):
        next(pages)
    assert rest_server.seen() == []
    monkeypatch.setenv("SHOP_SECRET", "new\n")
    assert skus(source) == SKUS[:3]


def test_secret_may_be_given_itself(rest_server):
    source = RestSource(rest_server.url("secured", wanted={"x-api-key": PLAIN}), auth=ApiKeyAuth(SecretStr(PLAIN)))
    assert skus(source) == SKUS[:3]
    assert PLAIN not in repr(source.auth)


@pytest.mark.parametrize("given", [PLAIN, "", "hunter22", None, 7, "Bearer X"])
def test_secret_in_place_of_the_name_of_its_variable_is_refused_without_showing_it(given: Any) -> None:
    for make in (
        BearerAuth,
        ApiKeyAuth,
        lambda it: BasicAuth("me", it),
        lambda it: OAuthClientCredentials("http://a", "me", it),
    ):
        with pytest.raises(ConfigurationError, match="name of an environment variable") as caught:
            make(given)
        assert not given or str(given) not in str(caught.value)


def test_line_breaks_at_the_end_of_a_secret_do_not_belong_to_it(monkeypatch):
    monkeypatch.setenv("SHOP_SECRET", " two words \r\n")
    assert read_secret("SHOP_SECRET", "X").get_secret_value() == " two words "
    for empty in ("", "\n"):
        monkeypatch.setenv("SHOP_SECRET", empty)
        with pytest.raises(ConfigurationError, match="SHOP_SECRET is not set or empty; X needs it"):
            read_secret("SHOP_SECRET", "X")
    with pytest.raises(ConfigurationError, match="X: the secret is empty"):
        read_secret(SecretStr(""), "X")
    check_secret("_A9", "X")


@pytest.mark.parametrize("value", ["hunter\n22", "hünter22", "hunter\x0022"])
def test_secret_that_no_header_can_carry_is_refused_without_showing_it(value):
    for auth in (BearerAuth(SecretStr(value)), ApiKeyAuth(SecretStr(value))):
        with pytest.raises(ConfigurationError, match="no header can carry") as caught:
            skus(RestSource("http://api.test/", auth=auth))
        assert "22" not in "".join(traceback.format_exception(caught.value)).replace("22}", "")


def test_other_mistakes_of_credentials_are_said_at_once():
    for make, said in (
        (lambda: BasicAuth("a:b", "X"), "colon"),
        (lambda: ApiKeyAuth("X", header="a b"), "header"),
        (lambda: OAuthClientCredentials("nowhere", "me", "X"), "token_url"),
        (lambda: OAuthClientCredentials("http://me:x@a", "me", "X"), "token_url"),
        (lambda: OAuthClientCredentials("http://a", "me", "X", secret_place="query"), "secret_place"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigurationError, match=said):
            make()


def test_declared_credentials_survive_pickling():
    for auth, _ in KINDS.values():
        assert pickle.loads(pickle.dumps(auth)) == auth


def test_longer_secrets_are_redacted_first():
    secrets = Secrets()
    secrets.add("abc", "abcdef")
    assert secrets.excerpt("xabcdefx abc") == "x***x ***"
    assert secrets.shown(httpx.URL("http://u:p@a/b?x=1&access_token=zz#y")) == "http://a/b?x=1&access_token=***"


def oauth(server: Any, *, token: dict[str, Any] | None = None, **options: Any) -> OAuthClientCredentials:
    return OAuthClientCredentials(server.url("token", **(token or {})), "me:1", "SHOP_SECRET", **options)


def asked(server: Any, behaviour: str) -> list[dict[str, Any]]:
    return [each for each in server.seen() if each["behaviour"] == behaviour]


def test_client_credentials_fetch_one_token_for_all_pages(rest_server):
    source = RestSource(rest_server.url("tokened", good=[1]), auth=oauth(rest_server), paging=LinkHeaderPaging())
    assert skus(source) == SKUS
    (question,) = asked(rest_server, "token")
    assert question["body"] == {"grant_type": "client_credentials"}
    # RFC 6749, 2.3.1: both are form-encoded before they become a Basic login.
    login = base64.b64decode(question["headers"]["authorization"].removeprefix("Basic ")).decode()
    assert login == "me%3A1:p%2Bss+w%2Frd%267"
    assert question["headers"]["content-type"] == "application/x-www-form-urlencoded"


def test_client_credentials_may_travel_in_the_body_with_scopes_and_more(rest_server):
    auth = oauth(rest_server, secret_place="body", scope=["read", "list"], parameters={"audience": "shop"})
    skus(RestSource(rest_server.url("tokened", good=[1]), auth=auth))
    (question,) = asked(rest_server, "token")
    assert question["body"] == {
        "grant_type": "client_credentials",
        "scope": "read list",
        "audience": "shop",
        "client_id": "me:1",
        "client_secret": SECRET,
    }
    assert "authorization" not in question["headers"]


def test_token_that_is_refused_half_way_is_renewed_once(rest_server):
    source = RestSource(
        rest_server.url("tokened", good=[1], revoke_after=1), auth=oauth(rest_server), paging=LinkHeaderPaging()
    )
    assert skus(source) == SKUS
    assert len(asked(rest_server, "token")) == 2


def test_token_that_expires_is_renewed_before_it_is_refused(rest_server, monkeypatch):
    now = 1000.0
    monkeypatch.setattr("sync_pipelines.sources.rest_oauth.time.monotonic", lambda: now)
    auth = oauth(rest_server, token={"also": {"expires_in": "100"}})
    pages = RestSource(rest_server.url("tokened", good=[1, 2]), auth=auth, paging=LinkHeaderPaging())()
    next(pages)
    now += 89
    next(pages)
    assert len(asked(rest_server, "token")) == 1
    now += 2
    next(pages)
    assert len(asked(rest_server, "token")) == 2
    assert asked(rest_server, "tokened")[-1]["headers"]["authorization"].startswith("Bearer t2-")


@pytest.mark.parametrize(
    "also", [{}, {"expires_in": None}, {"expires_in": 0}, {"token_type": "BEARER"}, {"scope": "less"}]
)
def test_token_without_a_lifetime_is_used_until_it_is_refused(rest_server, also):
    auth = oauth(rest_server, token={"also": also}, scope="read")
    assert skus(RestSource(rest_server.url("tokened", good=[1]), auth=auth, paging=LinkHeaderPaging())) == SKUS
    assert len(asked(rest_server, "token")) == 1


def test_token_that_is_refused_although_new_is_an_error_without_a_circle(rest_server):
    with pytest.raises(ConfigurationError, match="401"):
        skus(RestSource(rest_server.url("tokened", good=[]), auth=oauth(rest_server)))
    assert (len(asked(rest_server, "token")), len(asked(rest_server, "tokened"))) == (1, 1)


def test_token_server_in_passing_trouble_is_asked_again(rest_server):
    auth = oauth(rest_server, token={"fail_times": 2})
    assert skus(RestSource(rest_server.url("tokened", good=[1]), auth=auth)) == SKUS[:3]


def test_token_server_that_hangs_is_given_up_after_the_time_limit(rest_server):
    auth = oauth(rest_server, token={"hang": True})
    with pytest.raises(RetryableError, match=r"within 0\.2 s"):
        skus(RestSource(rest_server.url("tokened", good=[1]), auth=auth, timeout_s=0.2, attempts=2))


@pytest.mark.parametrize(
    ("says", "status", "said"),
    [
        ({"error": "invalid_client", "error_description": "unknown client"}, 401, "invalid_client.*unknown client"),
        ({"error": "invalid_scope"}, 400, "invalid_scope"),
        ({"hello": "there"}, 200, "Missing access token"),
        ({"access_token": "x", "expires_in": "soon"}, 200, "expires_in must be an int"),
        ({"access_token": ["x"]}, 200, "access_token is none"),
        ({"access_token": "a\nb"}, 200, "access_token is none"),
        ({"access_token": ""}, 200, "access_token is none"),
    ],
)
def test_token_server_that_gives_none_is_an_error_that_names_it_and_the_client(rest_server, says, status, said, caplog):
    caplog.set_level(logging.DEBUG)
    auth = oauth(rest_server, token={"says": says, "status": status}, secret_place="body")
    with pytest.raises(
        ConfigurationError, match=rf"http://127.*gave no token to client 'me:1' \({status}.*{said}"
    ) as caught:
        skus(RestSource(rest_server.url("tokened", good=[1]), auth=auth))
    assert len(rest_server.seen()) == 1
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert not [form for form in forms(SECRET) if form in shown]


@pytest.mark.parametrize(("behaviour", "options"), [("raw", {"body": "PGI+"}), ("redirect", {}), ("link_header", {})])
def test_token_url_that_is_none_is_a_clear_error(rest_server, behaviour, options):
    auth = OAuthClientCredentials(rest_server.url(behaviour, **options), "me", "SHOP_SECRET")
    with pytest.raises(ConfigurationError, match=r"gave no token.*check token_url"):
        skus(RestSource(rest_server.url("tokened", good=[1]), auth=auth))


def test_given_tokens_appear_in_no_error_and_no_log(rest_server, caplog):
    caplog.set_level(logging.DEBUG)
    source = RestSource(rest_server.url("secured", wanted={"x": "y"}), auth=oauth(rest_server))
    with pytest.raises(ConfigurationError, match="who are you") as caught:
        skus(source)
    assert asked(rest_server, "secured")[0]["headers"]["authorization"] == f"Bearer t1-{rest_server.run}"
    assert f"t1-{rest_server.run}" not in "".join(traceback.format_exception(caught.value)) + caplog.text
