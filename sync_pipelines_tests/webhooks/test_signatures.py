"""Signatures: checked against the senders' own libraries, and against everything that is no signature."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import standardwebhooks
import stripe
import svix
from hypothesis import given
from hypothesis import strategies as st

from sync_pipelines.engine.webhook_signatures import BearerToken, HmacSignature, StandardWebhooks, Unsigned
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.webhooks.signatures import Verify, verifier_of

WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(b"another secret of 24 byt").decode()
BODY = b'{"sku":"A","name":"Gr\xc3\xb6\xc3\x9fe"}'
NOW_S = 1_700_000_000.0
SCHEMES = {
    "standard": StandardWebhooks("SECRET"),
    "github": HmacSignature.github("SECRET"),
    "shopify": HmacSignature.shopify("SECRET"),
    "stripe": HmacSignature.stripe("SECRET"),
    "time": HmacSignature(secrets="SECRET", header="X-Sig", timestamp_header="X-Time", signed="{timestamp}:{body}"),
    "bearer": BearerToken("SECRET"),
}


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", WHSEC)


def verifier(scheme: Any, at_s: float | None = None) -> Verify:
    return verifier_of(scheme, "erp-stock", (lambda: at_s) if at_s is not None else time.time)


def mac(secret: str, signed: bytes, algorithm: Any = hashlib.sha256) -> bytes:
    return hmac.new(secret.encode(), signed, algorithm).digest()


def standard_headers(sign: Any, brand: str = "webhook", age_s: float = 0) -> dict[str, str]:
    moment = datetime.now(UTC) - timedelta(seconds=age_s)
    signature = sign("msg_1", moment, BODY.decode())
    stamp = str(int(moment.timestamp()))
    return {f"{brand}-id": "msg_1", f"{brand}-timestamp": stamp, f"{brand}-signature": signature}


class TestStandardWebhooks:
    @pytest.mark.parametrize("library", [standardwebhooks.Webhook, svix.Webhook])
    @pytest.mark.parametrize("brand", ["webhook", "svix"])
    def test_what_the_libraries_sign_is_accepted(self, library: Any, brand: str) -> None:
        headers = standard_headers(library(WHSEC).sign, brand)
        verify = verifier(SCHEMES["standard"])
        assert verify(headers, BODY)
        assert not verify(headers, BODY + b" ")
        assert not verify({**headers, f"{brand}-id": "msg_2"}, BODY)
        assert not verify({**headers, f"{brand}-timestamp": str(int(time.time()) - 1)}, BODY)
        assert not verify(standard_headers(library(OTHER).sign, brand), BODY)

    @pytest.mark.parametrize("garbage", ["x", "v1", "v1,a,b", "v1,=", "v1a,b", " "])
    def test_a_signature_that_is_none_does_not_hide_the_one_that_matches(self, garbage: str) -> None:
        headers = standard_headers(standardwebhooks.Webhook(WHSEC).sign)
        both = {**headers, "webhook-signature": f"{garbage} {headers['webhook-signature']}"}
        assert verifier(SCHEMES["standard"])(both, BODY)

    def test_several_signatures_may_stand_in_the_header(self) -> None:
        headers = standard_headers(standardwebhooks.Webhook(WHSEC).sign)
        wrong = standard_headers(standardwebhooks.Webhook(OTHER).sign)["webhook-signature"]
        both = {**headers, "webhook-signature": f"v2,xyz {wrong} {headers['webhook-signature']}"}
        assert verifier(SCHEMES["standard"])(both, BODY)

    @pytest.mark.parametrize(("age_s", "accepted"), [(0, True), (240, True), (-240, True), (400, False), (-400, False)])
    def test_what_is_old_or_ahead_is_refused(self, age_s: float, *, accepted: bool) -> None:
        headers = standard_headers(standardwebhooks.Webhook(WHSEC).sign, age_s=age_s)
        assert verifier(SCHEMES["standard"])(headers, BODY) is accepted

    @pytest.mark.parametrize(
        "garbage", ["", "v1", "v1,a,b", "v1,x", " ", "v1,", ",", "v1,\xff", "v1," + "A" * 100_000, "v1,=="]
    )
    def test_what_the_library_lets_out_is_no_error_of_ours(self, garbage: str) -> None:
        headers = {**standard_headers(standardwebhooks.Webhook(WHSEC).sign), "webhook-signature": garbage}
        assert not verifier(SCHEMES["standard"])(headers, BODY)

    @pytest.mark.parametrize("stamp", ["", "nan", "inf", "1e400", "-1", "9" * 400, "now", "\xb2"])
    def test_a_time_that_is_none_is_refused(self, stamp: str) -> None:
        headers = {**standard_headers(standardwebhooks.Webhook(WHSEC).sign), "webhook-timestamp": stamp}
        assert not verifier(SCHEMES["standard"])(headers, BODY)

    def test_a_body_that_is_no_text_is_refused(self) -> None:
        assert not verifier(SCHEMES["standard"])(standard_headers(standardwebhooks.Webhook(WHSEC).sign), b"\xff")


class TestHmac:
    def test_githubs_documented_example(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The values of their page on validating webhook deliveries."""
        signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        monkeypatch.setenv("SECRET", "It's a Secret to Everybody")
        assert verifier(SCHEMES["github"])({"x-hub-signature-256": signature}, b"Hello, World!")
        assert not verifier(SCHEMES["github"])({"x-hub-signature-256": signature}, b"Hello, World?")
        assert not verifier(SCHEMES["github"])({"x-hub-signature-256": signature[7:]}, b"Hello, World!")

    def test_shopify_signs_in_base64(self) -> None:
        verify = verifier(SCHEMES["shopify"])
        signature = base64.b64encode(mac(WHSEC, BODY)).decode()
        assert verify({"x-shopify-hmac-sha256": signature}, BODY)
        assert not verify({"x-shopify-hmac-sha256": mac(WHSEC, BODY).hex()}, BODY)
        assert not verify({"x-shopify-hmac-sha256": signature[:-4]}, BODY)

    def test_what_stripes_library_signs_is_accepted_and_the_other_way_round(self) -> None:
        stamp = int(time.time())
        signature = stripe.WebhookSignature._compute_signature(f"{stamp}.{BODY.decode()}", WHSEC)
        header = f"t={stamp},v1={signature},v0=abc"
        verify = verifier(SCHEMES["stripe"])
        assert verify({"stripe-signature": header}, BODY)
        assert stripe.WebhookSignature.verify_header(BODY.decode(), header, WHSEC, tolerance=300)
        assert verify({"stripe-signature": f"t={stamp}, v1={'0' * 64}, v1={signature}"}, BODY)
        for wrong in (
            f"v1={signature}", f"t={stamp}", f"t={stamp},t={stamp},v1={signature}", f"t={stamp + 1},v1={signature}",
            f"t={stamp},v0={signature}", f"t={stamp},v1={signature[:-1]}", f"t=,v1={signature}", "=,=,=",
        ):  # fmt: skip
            assert not verify({"stripe-signature": wrong}, BODY), wrong

    @pytest.mark.parametrize("unit", [1, 1_000])
    @pytest.mark.parametrize(
        ("age_s", "accepted"), [(0, True), (300, True), (-300, True), (301, False), (-301, False), (1e9, False)]
    )
    def test_the_tolerance_holds_in_both_directions(self, age_s: float, *, accepted: bool, unit: int) -> None:
        stamp = str(int((NOW_S - age_s) * unit))
        headers = {"x-time": stamp, "x-sig": mac(WHSEC, stamp.encode() + b":" + BODY).hex()}
        assert verifier(SCHEMES["time"], NOW_S)(headers, BODY) is accepted

    def test_other_algorithms_prefixes_and_capital_letters(self) -> None:
        scheme = HmacSignature(secrets="SECRET", header="X-Sig", prefix="sha512=", algorithm="sha512")
        assert verifier(scheme)({"x-sig": "sha512=" + mac(WHSEC, BODY, hashlib.sha512).hex().upper()}, BODY)

    @pytest.mark.parametrize("between", [",", ", ", " ", "  ,"])
    @pytest.mark.parametrize("prefix", ["", "sha256="])
    def test_of_several_signatures_in_a_header_one_that_matches_is_enough(self, between: str, prefix: str) -> None:
        """While the sender changes its secret over; and a header that came twice is the same."""
        verify = verifier(HmacSignature(secrets="SECRET", header="X-Sig", prefix=prefix))
        good, wrong = (prefix + mac(secret, BODY).hex() for secret in (WHSEC, OTHER))
        for several in ([good, wrong], [wrong, good], [good, good], ["garbage", good], [good, ""]):
            assert verify({"x-sig": between.join(several)}, BODY), several
        for several in ([wrong, wrong], [wrong, good[:-2]], [prefix + good, wrong]):
            expected = prefix == "" and several[0] == good
            assert verify({"x-sig": between.join(several)}, BODY) is expected, several

    @pytest.mark.parametrize("between", [",", ", ", " "])
    def test_so_it_is_in_base64_with_a_prefix_that_has_a_space_and_in_lists_with_semicolons(self, between: str) -> None:
        good, wrong = (base64.b64encode(mac(secret, BODY)).decode() for secret in (WHSEC, OTHER))
        assert verifier(SCHEMES["shopify"])({"x-shopify-hmac-sha256": f"{wrong}{between}{good}"}, BODY)
        assert not verifier(SCHEMES["shopify"])({"x-shopify-hmac-sha256": f"{wrong}{between}{wrong}"}, BODY)
        spaced = verifier(HmacSignature(secrets="SECRET", header="X-Sig", prefix="HMAC ", encoding="base64"))
        assert spaced({"x-sig": f"HMAC {good}"}, BODY)
        assert spaced({"x-sig": f"HMAC {wrong}, HMAC {good}"}, BODY)
        stamp = str(int(NOW_S))
        scheme = HmacSignature(
            secrets="SECRET", header="X-Sig", timestamp_field="ts", signature_field="h1", signed="{timestamp}:{body}"
        )
        signature = mac(WHSEC, stamp.encode() + b":" + BODY).hex()
        for several in (f"h1={'0' * 64};h1={signature}", f"h1={'0' * 64} h1={signature}", f"h1={signature} {'0' * 64}"):
            assert verifier(scheme, NOW_S)({"x-sig": f"ts={stamp};{several}"}, BODY), several

    @pytest.mark.parametrize(
        "stamp",
        [
            "2023-11-14T22:13:20Z",
            "2023-11-14T22:13:20.123456789Z",
            "2023-11-15T00:13:20+02:00",
            "2023-11-14 22:13:20",
            "20231114T221320Z",
            "Tue, 14 Nov 2023 22:13:20 GMT",
            "1700000000",
            "1700000000.25",
            "1700000000000",
            "1700000000000000",
            "1700000000000000000",
        ],
    )
    def test_a_signed_time_is_understood_however_it_is_written(self, stamp: str) -> None:
        headers = {"x-time": stamp, "x-sig": mac(WHSEC, stamp.encode() + b":" + BODY).hex()}
        assert verifier(SCHEMES["time"], NOW_S)(headers, BODY)
        assert not verifier(SCHEMES["time"], NOW_S + 302)(headers, BODY)
        assert not verifier(SCHEMES["time"], NOW_S - 302)(headers, BODY)

    @pytest.mark.parametrize(
        "stamp", ["", "yesterday", "1e9", "-1700000000", "nan", "2023-11-14", "22:13:20", "9" * 30]
    )
    def test_what_is_no_time_of_now_is_refused(self, stamp: str) -> None:
        headers = {"x-time": stamp, "x-sig": mac(WHSEC, stamp.encode() + b":" + BODY).hex()}
        assert not verifier(SCHEMES["time"], NOW_S)(headers, BODY)


class TestBearer:
    def test_only_the_token_opens(self) -> None:
        verify = verifier(SCHEMES["bearer"])
        assert verify({"authorization": f"Bearer {WHSEC}"}, b"")
        assert verify({"authorization": f"bearer  {WHSEC} "}, b"")
        for wrong in ("", "Bearer", "Bearer ", WHSEC, f"Basic {WHSEC}", f"Bearer {WHSEC}x", "Bearer \xe4\xf6"):
            assert not verify({"authorization": wrong}, b"")


class TestSecrets:
    @pytest.mark.parametrize("together", [f"{OTHER} {WHSEC}", f" {OTHER},\n{WHSEC}\n"])
    def test_several_secrets_are_good_at_once(self, monkeypatch: pytest.MonkeyPatch, together: str) -> None:
        """While a sender changes over from one to the next."""
        monkeypatch.setenv("SECRET", together)
        monkeypatch.setenv("THIRD", "third")  # alone, a secret may be short
        sign = [standardwebhooks.Webhook(each).sign for each in (WHSEC, OTHER)]
        assert all(verifier(SCHEMES["standard"])(standard_headers(each), BODY) for each in sign)
        scheme = HmacSignature.github(["SECRET", "THIRD"])
        for key in (WHSEC, OTHER, "third"):
            assert verifier(scheme)({"x-hub-signature-256": f"sha256={mac(key, BODY).hex()}"}, BODY)
        assert not verifier(scheme)({"x-hub-signature-256": f"sha256={mac('fourth', BODY).hex()}"}, BODY)

    def test_the_words_of_a_pass_phrase_are_no_keys(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SECRET", "It's a Secret to Everybody")
        verify = verifier(SCHEMES["github"])
        for word in ("a", "Secret", "Everybody"):
            assert not verify({"x-hub-signature-256": f"sha256={mac(word, BODY).hex()}"}, BODY)

    def test_half_of_a_secret_with_a_comma_opens_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        secret = "abcdefghijklmnop,qrstuvwxyz0123456789"
        monkeypatch.setenv("SECRET", secret)
        verify = verifier(SCHEMES["github"])
        assert verify({"x-hub-signature-256": f"sha256={mac(secret, BODY).hex()}"}, BODY)
        for half in secret.split(","):
            assert not verify({"x-hub-signature-256": f"sha256={mac(half, BODY).hex()}"}, BODY)

    @pytest.mark.parametrize("scheme", list(SCHEMES))
    @pytest.mark.parametrize("held", [None, "", " , \n"])
    def test_a_missing_secret_names_job_and_variable(
        self, monkeypatch: pytest.MonkeyPatch, scheme: str, held: str | None
    ) -> None:
        monkeypatch.delenv("SECRET")
        if held is not None:
            monkeypatch.setenv("SECRET", held)
        with pytest.raises(ConfigurationError, match=r"variable SECRET .*sync job 'erp-stock'"):
            verifier(SCHEMES[scheme])

    @pytest.mark.parametrize("length", range(24, 65, 5))
    @pytest.mark.parametrize("prefix", ["whsec_", ""])
    def test_a_secret_of_standard_webhooks_has_24_to_64_bytes_with_or_without_padding(
        self, monkeypatch: pytest.MonkeyPatch, length: int, prefix: str
    ) -> None:
        padded = prefix + base64.b64encode(bytes(range(100, 100 + length))).decode()
        headers = standard_headers(standardwebhooks.Webhook(padded).sign)
        for held in (padded, padded.rstrip("="), f"{padded} {OTHER}", f"{OTHER},{padded}\n"):
            monkeypatch.setenv("SECRET", held)
            assert verifier(SCHEMES["standard"])(headers, BODY), held
        monkeypatch.setenv("SECRET", OTHER)
        assert not verifier(SCHEMES["standard"])(headers, BODY)

    @pytest.mark.parametrize("padding", ["", "AA==", "AAA="])
    def test_a_secret_in_the_alphabet_of_addresses_is_read_by_it_and_as_the_library_reads_it(
        self, monkeypatch: pytest.MonkeyPatch, padding: str
    ) -> None:
        """The library in Python leaves out `-` and `_`, and so do senders that use it."""
        held = "whsec_" + "ab-_cd" * 8 + padding
        monkeypatch.setenv("SECRET", held)
        decoded = base64.urlsafe_b64decode(held.removeprefix("whsec_"))
        verify = verifier(SCHEMES["standard"])
        for key in (decoded, held):
            assert verify(standard_headers(standardwebhooks.Webhook(key).sign), BODY)
        assert not verify(standard_headers(standardwebhooks.Webhook(OTHER).sign), BODY)

    def test_a_secret_that_is_none_of_the_scheme_is_not_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SECRET", "whsec_not*base64")
        with pytest.raises(ConfigurationError, match=r"variable SECRET .*'erp-stock' holds no secret") as caught:
            verifier(SCHEMES["standard"])
        assert "base64*" not in str(caught.value)
        assert "not*" not in str(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)

    def test_nobody_asks_for_the_secret_of_an_unsigned_one(self) -> None:
        assert verifier(Unsigned())({}, b"anything")


headers_of_any_kind = st.text(st.characters(max_codepoint=255), max_size=80) | st.sampled_from(
    ["t=1,v1=00", "sha256=", "v1,", "sha256=" + "0" * 64, "Bearer x", "v1," + "A" * 44, "t=1700000000,v1=" + "0" * 64]
)


@pytest.mark.parametrize("name", SCHEMES)
def test_no_header_and_no_body_makes_an_error_or_opens(name: str) -> None:
    scheme = SCHEMES[name]
    verify = verifier(scheme)
    names = [
        *scheme.secret_headers, "webhook-id", "webhook-timestamp", "svix-id", "svix-timestamp", "x-time",
    ]  # fmt: skip

    @given(st.dictionaries(st.sampled_from(names), headers_of_any_kind), st.binary(max_size=50))
    def look(headers: dict[str, str], body: bytes) -> None:
        assert verify(headers, body) is False

    look()


def test_the_repr_of_a_verifier_has_no_secret() -> None:
    assert all(WHSEC[6:] not in repr(verifier(scheme)) for scheme in SCHEMES.values())
    assert json.dumps(str(SCHEMES))
