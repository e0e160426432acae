"""What senders really send, by kind: each is stored, answered as declared, or refused with the reason; none is lost."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import time
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from sync_pipelines.engine.changes import Ignore
from sync_pipelines.engine.webhook_signatures import HmacSignature
from sync_pipelines_tests.webhooks.conftest import Client, make_job, receiving

SECRET = "s3cret-of-the-shop"
ZENDESK = HmacSignature(
    secrets="SHOP_SECRET",
    header="X-Zendesk-Webhook-Signature",
    encoding="base64",
    timestamp_header="X-Zendesk-Webhook-Signature-Timestamp",
    signed="{timestamp}{body}",
)
ITEM = {"sku": "Größe-1", "quantity": 7}


def sns(event: Any) -> Any:
    """Of a message of Amazon SNS its item; the address of its confirmation is for a person."""
    if event.body["Type"] == "SubscriptionConfirmation":
        return Ignore("confirm the subscription")
    return json.loads(event.body["Message"])


@pytest.fixture
def client(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("SHOP_SECRET", SECRET)
    jobs = (
        make_job("stripe", HmacSignature.stripe("SHOP_SECRET"), get_external_id="id"),
        make_job("shopify", HmacSignature.shopify("SHOP_SECRET")),
        make_job("zendesk", ZENDESK),
        make_job("sns", parse=sns),
        make_job("stock"),
        make_job("batch", parse=lambda event: [each["data"] for each in event.body]),
    )
    with receiving(sqlite_url, *jobs) as made:
        yield made


def digest(signed: bytes, how: str = "base64") -> str:
    made = hmac.new(SECRET.encode(), signed, hashlib.sha256)
    return made.hexdigest() if how == "hex" else base64.b64encode(made.digest()).decode()


def test_stripes_events_are_stored_once(client: Client) -> None:
    raw = json.dumps({"id": "evt_1", "object": "event", "type": "product.updated", "data": {"object": {}}}).encode()
    stamp = str(int(time.time()))
    mac = digest(f"{stamp}.".encode() + raw, "hex")
    headers = {"Stripe-Signature": f"t={stamp},v1={mac},v0=00", "content-type": "application/json; charset=utf-8"}
    assert [client.post("stripe", raw, headers).status for _ in range(2)] == [202, 200]
    assert client.post("stripe", raw, {**headers, "Stripe-Signature": f"t={stamp},v1=00"}).status == 401
    assert [row.delivery_id for row in client.rows("stripe")] == ["evt_1"]


def test_shopifys_deliveries_are_stored_once(client: Client) -> None:
    raw = json.dumps(ITEM).encode()
    headers = {
        "X-Shopify-Hmac-Sha256": digest(raw),
        "X-Shopify-Topic": "products/update",
        "X-Shopify-Webhook-Id": "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
    }
    assert [client.post("shopify", raw, headers).status for _ in range(2)] == [202, 200]
    assert client.post("shopify", raw + b" ", headers).status == 401
    assert len(client.rows("shopify")) == 1


def test_zendesks_deliveries_are_verified_with_their_time(client: Client) -> None:
    raw, stamp = json.dumps(ITEM).encode(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    headers = {
        "X-Zendesk-Webhook-Signature": digest(stamp.encode() + raw),
        "X-Zendesk-Webhook-Signature-Timestamp": stamp,
    }
    assert client.post("zendesk", raw, headers).status == 202
    old = "2020-01-01T00:00:00Z"
    headers = {
        "X-Zendesk-Webhook-Signature": digest(old.encode() + raw),
        "X-Zendesk-Webhook-Signature-Timestamp": old,
    }
    assert client.post("zendesk", raw, headers).status == 401


def test_amazon_sns_sends_json_as_plain_text(client: Client) -> None:
    text = {"content-type": "text/plain; charset=UTF-8", "x-amz-sns-message-type": "SubscriptionConfirmation"}
    asked = client.post("sns", {"Type": "SubscriptionConfirmation", "SubscribeURL": "https://sns.example/?t=1"}, text)
    assert (asked.status, asked.document) == (200, {"ignored": "confirm the subscription"})
    assert client.post("sns", {"Type": "Notification", "Message": json.dumps(ITEM)}, text).status == 202
    told = client.post("stock", {"Type": "SubscriptionConfirmation"}, text)
    assert (told.status, "no field 'sku'" in told.document["error"]) == (422, True)
    assert [row.external_id for row in client.rows("sns")] == ["Größe-1"]


def test_twilio_sends_a_form_without_json_and_is_told_so(client: Client) -> None:
    form = {"content-type": "application/x-www-form-urlencoded; charset=UTF-8"}
    told = client.post("stock", b"MessageSid=SM1&Body=hello&From=%2B49", form)
    assert (told.status, told.document) == (422, {"error": "the form has no field 'payload' with the JSON"})
    assert client.send("HEAD", "/webhooks/stock").status == 405
    assert client.rows() == []


UTF_8 = json.dumps(ITEM, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("content_type", "raw"),
    [
        ("application/vnd.api+json", UTF_8),
        ("application/cloudevents+json; charset=utf-8", UTF_8),
        ("application/json; charset=latin-1", UTF_8),
        ("application/json; charset=latin-1", UTF_8.decode().encode("latin-1")),
        ("application/json; charset=nonsense", UTF_8),
        ("application/json", b"\xef\xbb\xbf" + UTF_8),
        ("application/json", UTF_8.decode().encode("utf-16")),
        ("application/hal+json;profile=x", UTF_8),
        ("text/plain", UTF_8),
        ("", UTF_8),
    ],
)
def test_json_is_what_it_says_whatever_its_type_and_encoding(client: Client, content_type: str, raw: bytes) -> None:
    assert client.post("stock", raw, {"content-type": content_type}).status == 202
    [row] = client.rows()
    assert row.external_id == "Größe-1"


def test_a_batch_of_cloud_events_is_a_delivery_for_each(client: Client) -> None:
    events = [{"specversion": "1.0", "id": str(number), "data": {"sku": f"A-{number}"}} for number in range(3)]
    taken = client.post("batch", events, {"content-type": "application/cloudevents-batch+json"})
    assert (taken.status, len(taken.document["deliveries"])) == (202, 3)
    told = client.post("stock", events, {"content-type": "application/cloudevents-batch+json"})
    assert (told.status, "the body is a JSON array" in told.document["error"]) == (422, True)


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [("gzip", gzip.compress(UTF_8, mtime=0)), ("deflate", zlib.compress(UTF_8)), ("br, gzip", b"x")],
)
def test_a_compressed_body_is_refused_with_the_reason(client: Client, encoding: str, packed: bytes) -> None:
    for name in ("stock", "shopify"):
        told = client.post(name, packed, {"content-encoding": encoding})
        assert (told.status, told.headers["accept-encoding"]) == (415, "identity")
        assert "without content-encoding" in told.document["error"]
    assert client.post("stock", UTF_8, {"content-encoding": "identity"}).status == 202


@pytest.mark.parametrize(
    ("headers", "raw", "status"),
    [
        ({"content-type": "multipart/form-data; boundary=x"}, b"--x--", 415),
        ({"content-type": "application/xml"}, b"<a/>", 415),
        ({"content-type": "application/x-ndjson"}, b'{"sku":"A"}\n{"sku":"B"}', 415),
        ({"content-type": "application/json"}, b'{"sku":"A"}\n{"sku":"B"}', 422),
        ({"content-type": "application/json"}, b"", 422),
        ({"content-type": "application/json"}, b"null", 422),
        ({"content-type": "application/json"}, b"[]", 422),
        ({"content-type": "application/json"}, b"{}", 422),
    ],
)
def test_what_can_not_be_an_item_is_refused_and_never_answered_with_success(
    client: Client, headers: Mapping[str, str], raw: bytes, status: int
) -> None:
    told = client.post("stock", raw, headers)
    assert (told.status, client.rows()) == (status, [])
    assert told.document["error"]
