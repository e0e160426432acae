"""Handshakes: what a sender asks at the start is answered as declared, and opens no way past a signature."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import pytest

from sync_pipelines.engine.webhook_handshakes import Handshake
from sync_pipelines.engine.webhook_signatures import BearerToken, HmacSignature
from sync_pipelines.engine.webhooks import Webhook
from sync_pipelines.errors import ConfigurationError
from sync_pipelines_tests.webhooks.conftest import Client, Reply, make_job, receiving

SECRET = "s3cret-of-the-shop"
FORM = {"content-type": "application/x-www-form-urlencoded; charset=UTF-8"}
SLACK = HmacSignature(
    secrets="SHOP_SECRET",
    header="X-Slack-Signature",
    prefix="v0=",
    timestamp_header="X-Slack-Request-Timestamp",
    signed="v0:{timestamp}:{body}",
)
SIGNED = HmacSignature(secrets="SHOP_SECRET", header="X-Sig", encoding="base64")
XERO = HmacSignature(secrets="SHOP_SECRET", header="x-xero-signature", encoding="base64")


def hooks() -> Iterator[Any]:
    """A webhook for each sender; the deliveries of all are signed."""
    yield make_job("woocommerce", SIGNED, handshakes=Handshake.woocommerce())
    yield make_job("slack", SLACK, handshakes=Handshake.slack())
    yield make_job("graph", SIGNED, handshakes=[Handshake.microsoft_graph()])
    yield make_job("facebook", SIGNED, handshakes=Handshake.meta("META_TOKEN"))
    yield make_job("grid", BearerToken("SHOP_SECRET"), handshakes=[Handshake.event_grid(), Handshake.cloud_events()])
    yield make_job("dropbox", SIGNED, handshakes=Handshake.dropbox())
    yield make_job("asana", SIGNED, handshakes=Handshake.asana())
    yield make_job("okta", SIGNED, handshakes=Handshake.okta())
    yield make_job("trello", SIGNED, handshakes=Handshake.trello())
    yield make_job("xero", XERO, parse=lambda event: event.body["events"], bare_answers=True)
    yield make_job("github", HmacSignature.github("SHOP_SECRET"), handshakes=Handshake.github())
    yield make_job("none", SIGNED)


@pytest.fixture
def client(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("SHOP_SECRET", SECRET)
    monkeypatch.setenv("META_TOKEN", "agreed-on")
    with receiving(sqlite_url, *hooks()) as made:
        yield made


def ask(client: Client, method: str, name: str, query: Mapping[str, str] | None = None, **headers: str) -> Reply:
    pairs = [(key.replace("_", "-").encode(), value.encode()) for key, value in headers.items()]
    return client.send(method, f"/webhooks/{name}", pairs, query_string=urlencode(query or {}).encode())


def signature(raw: bytes, secret: str = SECRET) -> str:
    return base64.b64encode(hmac.new(secret.encode(), raw, hashlib.sha256).digest()).decode()


def test_woocommerce_pings_unsigned_and_is_answered_with_200(client: Client) -> None:
    assert client.post("woocommerce", b"webhook_id=42", FORM).status == 200
    for other in (b"webhook_id=42&sku=A", b"sku=A", b"webhook_id", b'{"sku":"A"}', b""):
        assert client.post("woocommerce", other, FORM).status == 401, other
    raw = b'{"sku":"A"}'
    assert client.post("woocommerce", raw, {"X-Sig": signature(raw)}).status == 202
    assert len(client.rows("woocommerce")) == 1


def test_slacks_challenge_is_answered_only_if_it_is_signed(client: Client) -> None:
    raw = json.dumps({"type": "url_verification", "challenge": "3eZbrw1aB", "token": "x"}).encode()
    stamp = str(int(time.time()))
    mac = hmac.new(SECRET.encode(), f"v0:{stamp}:".encode() + raw, hashlib.sha256).hexdigest()
    reply = client.post("slack", raw, {"X-Slack-Signature": f"v0={mac}", "X-Slack-Request-Timestamp": stamp})
    assert (reply.status, reply.body, reply.headers["content-type"]) == (200, b"3eZbrw1aB", "text/plain; charset=utf-8")
    assert client.post("slack", raw, {"X-Slack-Signature": "v0=00", "X-Slack-Request-Timestamp": stamp}).status == 401
    assert client.rows("slack") == []


def test_microsoft_graph_gets_its_validation_token_back_as_text(client: Client) -> None:
    token = "Validation: Testing client application reachability for subscription Request-Id: 1+1 <b>"
    reply = ask(client, "POST", "graph", {"validationToken": token}, content_type="text/plain")
    assert (reply.status, reply.body.decode()) == (200, token)
    assert (reply.headers["content-type"], reply.headers["x-content-type-options"]) == (
        "text/plain; charset=utf-8",
        "nosniff",
    )


def test_metas_challenge_needs_the_token_that_was_agreed_on(client: Client) -> None:
    query = {"hub.mode": "subscribe", "hub.challenge": "1158201444", "hub.verify_token": "agreed-on"}
    reply = ask(client, "GET", "facebook", query)
    assert (reply.status, reply.body) == (200, b"1158201444")
    for wrong in ({"hub.verify_token": "guessed"}, {"hub.verify_token": ""}):
        refused = ask(client, "GET", "facebook", {**query, **wrong})
        assert (refused.status, b"1158201444" in refused.body) == (403, False)
    assert ask(client, "GET", "facebook", {**query, "hub.mode": "other"}).status == 400


def test_event_grid_gets_its_code_back_and_cloud_events_their_permission(client: Client) -> None:
    body = [
        {"id": "1", "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent", "data": {"validationCode": "C-1"}}
    ]
    reply = client.post("grid", body, {"aeg-event-type": "SubscriptionValidation"})
    assert (reply.status, reply.document) == (200, {"validationResponse": "C-1"})
    assert client.post("grid", body, {"aeg-event-type": "Notification"}).status == 401
    assert client.post("grid", [{"data": {}}], {"aeg-event-type": "SubscriptionValidation"}).status == 400
    granted = ask(client, "OPTIONS", "grid", WebHook_Request_Origin="eventgrid.azure.net", WebHook_Request_Rate="120")
    assert (granted.status, granted.body) == (200, b"")
    told = {name: granted.headers[name] for name in ("webhook-allowed-origin", "webhook-allowed-rate", "allow")}
    assert told == {
        "webhook-allowed-origin": "eventgrid.azure.net", "webhook-allowed-rate": "120", "allow": "POST"
    }  # fmt: skip
    assert "webhook-allowed-rate" not in ask(client, "OPTIONS", "grid", WebHook_Request_Origin="a.example").headers
    assert ask(client, "OPTIONS", "grid").status == 400


def test_dropbox_asana_okta_and_trello_get_what_they_ask_for(client: Client) -> None:
    reply = ask(client, "GET", "dropbox", {"challenge": "abc"})
    assert (reply.status, reply.body, reply.headers["x-content-type-options"]) == (200, b"abc", "nosniff")
    reply = ask(client, "POST", "asana", X_Hook_Secret="b537207f20cbfa02357cf448134da559")
    assert (reply.status, reply.headers["x-hook-secret"]) == (200, "b537207f20cbfa02357cf448134da559")
    reply = ask(client, "GET", "okta", X_Okta_Verification_Challenge="v-1")
    assert (reply.status, reply.document) == (200, {"verification": "v-1"})
    reply = ask(client, "HEAD", "trello")
    assert (reply.status, reply.body) == (200, b"")


def test_githubs_ping_is_answered_if_it_is_signed_and_its_deliveries_are_stored(client: Client) -> None:
    raw = b'{"zen":"Keep it logically awesome.","hook_id":1,"hook":{"type":"Repository"}}'
    signed = {"X-Hub-Signature-256": f"sha256={hmac.new(SECRET.encode(), raw, hashlib.sha256).hexdigest()}"}
    pinged = client.post("github", raw, {**signed, "X-GitHub-Event": "ping", "X-GitHub-Delivery": "d-1"})
    assert (pinged.status, pinged.body, client.rows("github")) == (200, b"", [])
    assert client.post("github", raw, {"X-GitHub-Event": "ping", "X-Hub-Signature-256": "sha256=00"}).status == 401
    raw = b'{"sku":"A"}'
    signed = {"X-Hub-Signature-256": f"sha256={hmac.new(SECRET.encode(), raw, hashlib.sha256).hexdigest()}"}
    assert client.post("github", raw, {**signed, "X-GitHub-Event": "push", "X-GitHub-Delivery": "d-2"}).status == 202


def test_xeros_intent_to_receive_is_200_without_a_body_or_401(client: Client) -> None:
    raw = b'{"events":[],"firstEventSequence":0,"lastEventSequence":0,"entropy":"S0m3r4Nd0mt3xt"}'
    good = client.post("xero", raw, {"x-xero-signature": signature(raw)})
    assert (good.status, good.body) == (200, b"")
    assert client.post("xero", raw, {"x-xero-signature": signature(raw, "other")}).status == 401
    raw = b'{"events":[{"sku":"A"},{"sku":"B"}]}'
    taken = client.post("xero", raw, {"x-xero-signature": signature(raw)})
    assert (taken.status, taken.body) == (200, b"")
    assert [row.external_id for row in client.rows("xero")] == ["A", "B"]


def test_a_webhook_allows_the_methods_of_its_handshakes_and_no_others(client: Client) -> None:
    for name, method, allowed in (
        ("none", "GET", "POST"), ("facebook", "PUT", "GET, POST"), ("grid", "GET", "OPTIONS, POST"),
        ("trello", "OPTIONS", "HEAD, POST"),
    ):  # fmt: skip
        reply = ask(client, method, name)
        assert (reply.status, reply.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize("value", ["", "x" * 5_000, "a\r\nset-cookie: b", "\x00"])
def test_what_can_not_be_sent_back_is_refused(client: Client, value: str) -> None:
    reply = ask(client, "GET", "dropbox", {"challenge": value})
    assert (reply.status, "set-cookie" in reply.headers) == (400, False)
    assert ask(client, "GET", "dropbox", {"challenge": "Größe"}).body.decode() == "Größe"
    assert client.send("POST", "/webhooks/asana", [(b"x-hook-secret", "Größe".encode())]).status == 400


def test_nothing_that_answers_a_handshake_stores_a_delivery(client: Client) -> None:
    """Whatever else such a request carries."""
    item = {"sku": "A", "type": "url_verification", "challenge": "c"}
    for name, headers in (
        ("asana", {"X-Hook-Secret": "s"}), ("grid", {"aeg-event-type": "SubscriptionValidation"}), ("slack", {}),
        ("woocommerce", FORM), ("graph", {}), ("facebook", {}), ("dropbox", {}), ("trello", {}), ("okta", {}),
    ):  # fmt: skip
        client.post(name, item, headers, query_string=b"validationToken=t&challenge=c")
        client.send("GET", f"/webhooks/{name}", [], [json.dumps(item).encode()], query_string=b"challenge=c")
        client.send("HEAD", f"/webhooks/{name}", [], [json.dumps(item).encode()])
        assert client.rows(name) == [], name


def test_one_of_ones_own_is_declared_by_its_places(sqlite_url: str) -> None:
    own = Handshake(
        method="POST",
        when={"body:kind": "hello", "header:X-Hello": None},
        echo="body:data.0.code",
        answer=lambda code: {"code": code[::-1]},
        headers={"X-Hello": "header:X-Hello"},
    )
    with receiving(sqlite_url, make_job(handshakes=own)) as client:
        body = {"sku": "A", "kind": "hello", "data": [{"code": 123}]}
        reply = client.post("stock", body, {"X-Hello": "you"})
        assert (reply.status, reply.document, reply.headers["x-hello"]) == (200, {"code": "321"}, "you")
        assert client.rows() == []
        assert [client.post("stock", each, {"X-Hello": "you"}).status for each in ({"sku": "A"}, [])] == [202, 422]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("slack", "handshakes: 'slack' must be Handshake"),
        ([Handshake.slack(), None], "must be Handshake"),
        (Handshake(method="PUT"), "method: 'PUT' must be one of POST, GET, HEAD, OPTIONS"),  # type: ignore[arg-type]
        (Handshake(method="POST"), "when: is missing; without it every delivery would be answered"),
        (Handshake(method="GET", when={"challenge": None}), "when: 'challenge' is no place in a request"),
        (Handshake(method="GET", echo="cookie:a"), "echo: 'cookie:a' is no place in a request"),
        (Handshake(method="GET", headers={"X": "y"}), "headers: 'y' is no place in a request"),
        (Handshake(method="GET", headers={"a b": "query:y"}), "headers: 'a b' is no name of a header"),
        (Handshake(method="GET", answer=str), "answer: give a function of the value of `echo`, and echo"),
        (Handshake(method="GET", secrets="TOKEN"), "secret_in: secrets and the place of the token belong together"),
        (Handshake.meta("my secret itself"), "secrets: give the name of the environment variable"),
    ],
)
def test_a_wrong_declaration_is_refused_by_name(given: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as caught:
        make_job(handshakes=given)
    assert "my secret itself" not in str(caught.value)


def test_a_webhook_has_one_handshake_or_several() -> None:
    assert Webhook(handshakes=Handshake.slack()).all_handshakes == (Handshake.slack(),)
    assert Webhook(handshakes=[Handshake.slack(), Handshake.okta()]).all_handshakes[1] == Handshake.okta()
    assert Webhook().all_handshakes == ()
