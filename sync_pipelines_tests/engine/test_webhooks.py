"""The declaration of webhooks: what is wrong is said when it is declared, and never shows a secret."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest

from sync_pipelines.engine.changes import Delete, Ignore, Refetch, Upsert, as_change_event
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.webhook_signatures import BearerToken, HmacSignature, StandardWebhooks, Unsigned, names_of
from sync_pipelines.engine.webhooks import Webhook, WebhookEvent, decode_body, parse_events
from sync_pipelines.errors import ConfigurationError, WebhookRejectedError

AT = datetime(2024, 5, 6, tzinfo=UTC)


def job(**fields: Any) -> SyncJob[Any, Any]:
    given: dict[str, Any] = {"fetch_external": list, "get_external_id": "sku", "find_local": id, "create": id}
    return SyncJob(name="erp-stock", update=print, **{**given, **fields})


def event(body: Any, **fields: Any) -> WebhookEvent:
    return WebhookEvent(body, {}, AT, **fields)


def hmac(**fields: Any) -> HmacSignature:
    return HmacSignature(**{"secrets": "SECRET", "header": "X-Signature", **fields})


@pytest.mark.parametrize(
    "signature",
    [
        StandardWebhooks("SHOP_SECRET"),
        StandardWebhooks(secrets=["SHOP_SECRET", "SHOP_SECRET_2"]),
        HmacSignature.github("GITHUB_SECRET"),
        HmacSignature.shopify(("A", "B")),
        HmacSignature.stripe("STRIPE_SECRET", tolerance_s=60),
        hmac(timestamp_header="X-Time", signed="v0:{timestamp}:{body}", prefix="v0="),
        BearerToken("TOKEN"),
        Unsigned(),
    ],
)
def test_each_scheme_can_be_declared(signature: Any) -> None:
    declared = job(webhook=Webhook(signature=signature))
    assert declared.webhook is not None
    assert declared.webhook.signature is signature
    assert signature.title


@pytest.mark.parametrize(
    ("webhook", "told"),
    [
        ({}, r"webhook: signature: is missing; give StandardWebhooks\(.*Unsigned\(\)"),
        ({"signature": "whsec_abc"}, "signature: a str is none; give"),
        ({"signature": StandardWebhooks("whsec_abc")}, "secrets: give the name of the environment variable"),
        ({"signature": StandardWebhooks([])}, "secrets: give the name"),
        ({"signature": BearerToken(None)}, "secrets: give the name"),  # type: ignore[arg-type]
        ({"signature": hmac(header="X Signature")}, "header: 'X Signature' is no name of a header"),
        ({"signature": hmac(encoding="hexa")}, "encoding: 'hexa' must be 'hex' or 'base64'"),
        ({"signature": hmac(algorithm="md5")}, "algorithm: 'md5' must be one of sha256, sha512, sha1"),
        ({"signature": hmac(prefix=None)}, "prefix: None must be text"),
        ({"signature": hmac(signed="{timestamp}")}, "must have {body} once"),
        ({"signature": hmac(signed="{body}{nonce}")}, "must have {body} once"),
        ({"signature": hmac(signed="{timestamp}{body}")}, "needs {timestamp} exactly if there is a timestamp_header"),
        ({"signature": hmac(timestamp_header="X-Time")}, "needs {timestamp} exactly if"),
        ({"signature": hmac(timestamp_header="")}, "timestamp_header: '' is no name"),
        ({"signature": hmac(timestamp_field="t", signed="{timestamp}{body}")}, "signature_field: is missing"),
        ({"signature": hmac(signature_field="v 1")}, "signature_field: 'v 1' must be a word"),
        ({"signature": hmac(tolerance_s=0)}, "tolerance_s: 0 must be seconds, from 1 to 86400"),
        ({"signature": hmac(delivery_id=7)}, "delivery_id: 7 is neither the name of a header"),
        ({"signature": Unsigned(), "delivery_id": "two words"}, "delivery_id: 'two words' is neither"),
        ({"signature": Unsigned(), "parse": "yes"}, "parse: 'yes' is not a function"),
        ({"signature": Unsigned(), "mode": "later"}, "mode: 'later' must be 'inbox' or 'inline'"),
        ({"signature": Unsigned(), "name": "A/B"}, "name: 'A/B' must be lower case words"),
        ({"signature": Unsigned(), "max_body_bytes": 0}, "max_body_bytes: 0 must be a whole number"),
        ({"signature": Unsigned(), "max_body_bytes": True}, "max_body_bytes: True must be a whole number"),
        ({"signature": Unsigned(), "max_per_s": float("nan")}, "max_per_s: nan must be a number above 0"),
        ({"signature": Unsigned(), "max_per_s": 0}, "max_per_s: 0 must be a number above 0"),
    ],
)
def test_a_wrong_declaration_names_job_field_and_value(webhook: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told.replace("{", r"\{").replace("}", r"\}")) as caught:
        job(webhook=Webhook(**webhook))
    assert str(caught.value).startswith("sync job 'erp-stock': webhook: ")
    assert "whsec_abc" not in str(caught.value)


def test_what_is_no_webhook_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="is no Webhook; write webhook=Webhook"):
        job(webhook="yes")


def test_a_misspelt_field_names_the_right_one() -> None:
    with pytest.raises(ConfigurationError, match="there is no field 'signatur'; did you mean 'signature'"):
        Webhook(signatur=Unsigned())  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match="there is no field 'zzz'; the fields are: signature, parse"):
        Webhook(zzz=1)  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match="keyword arguments only"):
        Webhook(Unsigned())  # type: ignore[misc]


def test_secrets_may_be_one_or_several() -> None:
    assert (names_of("A"), names_of(["A", "B"])) == (("A",), ("A", "B"))


@pytest.mark.parametrize(
    ("given", "change"),
    [
        ({"sku": "A"}, Upsert({"sku": "A"})),
        (Upsert(1), Upsert(1)),
        (Delete("A"), Delete("A")),
        (Refetch("A"), Refetch("A")),
        (Ignore("not ours"), Ignore("not ours")),
        (None, Ignore()),
    ],
)
def test_what_parse_gives_is_a_change(given: Any, change: Any) -> None:
    assert as_change_event(given) == change

    async def parse(_event: WebhookEvent) -> Any:
        return given

    meant = [] if isinstance(change, Ignore) else [change]
    assert parse_events(Webhook(signature=Unsigned(), parse=parse), event({})) == meant
    assert parse_events(Webhook(signature=Unsigned(), parse=lambda _: given), event({})) == meant


class Point(NamedTuple):
    """An item with fields that is a tuple."""

    sku: str


async def several(_event: WebhookEvent) -> Any:
    yield {"sku": "A"}
    yield None
    yield Delete("B", version=7)


@pytest.mark.parametrize(
    "parse",
    [
        lambda _: [{"sku": "A"}, Ignore("not ours"), Delete("B", version=7)],
        lambda _: ({"sku": "A"}, Delete("B", version=7)),
        lambda _: (each for each in ({"sku": "A"}, Delete("B", version=7))),
        lambda _: [[{"sku": "A"}], [], [Delete("B", version=7)]],
        lambda _: {1: {"sku": "A"}, 2: Delete("B", version=7)}.values(),
        several,
    ],
)
def test_parse_may_give_several_changes_in_their_order(parse: Any) -> None:
    found = parse_events(Webhook(signature=Unsigned(), parse=parse), event({}))
    assert found == [Upsert({"sku": "A"}), Delete("B", version=7)]


def test_a_list_may_be_empty_and_a_tuple_with_fields_is_one_item() -> None:
    assert parse_events(Webhook(signature=Unsigned(), parse=lambda _: []), event({})) == []
    assert parse_events(Webhook(signature=Unsigned(), parse=lambda _: Point("A")), event({})) == [Upsert(Point("A"))]


def test_without_parse_the_body_is_the_item() -> None:
    plain = Webhook(signature=Unsigned())
    assert parse_events(plain, event({"sku": "A"})) == [Upsert({"sku": "A"})]
    for body, kind in ((None, "null"), ([], "array"), ("x", "string"), (1.5, "number"), (True, "boolean")):
        with pytest.raises(WebhookRejectedError, match=f"the body is a JSON {kind}; send one object"):
            parse_events(plain, event(body))


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": NaN}', "holds NaN"),
        (b"[-Infinity]", "holds -Infinity"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
        (b'{"a": "\x00"}', "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"9" * 5_000, "can't be read"),
        (b"{} {}", "not JSON"),
    ],
)
def test_what_is_no_json_is_rejected(raw: bytes, told: str) -> None:
    with pytest.raises(WebhookRejectedError, match=told):
        decode_body(raw)


def test_of_equal_names_the_last_counts() -> None:
    assert decode_body(b' {"a": 1, "a": 2} \n') == {"a": 2}
