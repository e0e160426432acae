"""Verifies that a delivery is its sender's. Whatever stands in its headers, the answer is yes or no."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from standardwebhooks.webhooks import EmptyWebhookSecretError, WebhookVerificationError
from standardwebhooks.webhooks import Webhook as StandardWebhook

from sync_pipelines.engine.webhook_signatures import HmacSignature, Signature, StandardWebhooks, Unsigned, names_of
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.settings.secrets import read_secret

Headers = Mapping[str, str]
"""Names in lower case. The values of one that came several times are joined with commas."""
Verify = Callable[[Headers, bytes], bool]
Clock = Callable[[], float]

_SEPARATORS = re.compile(r"[\s,]+")
_BETWEEN_SECRETS = re.compile(r"\s*,?\s+")
_SHORTEST_OF_SEVERAL = 16
_COMMAS = re.compile(r"\s*,\s*")
_NUMBER = re.compile(r"[0-9]{1,19}(\.[0-9]{1,9})?")
_MILLISECONDS_FROM = 100_000_000_000
_MAX_SIGNATURES = 50
_URL_SAFE = frozenset("-_")
_STANDARD = ("id", "timestamp", "signature")


def verifier_of(signature: Signature, job: str, clock: Clock = time.time) -> Verify:
    """Reads the secrets and gives what verifies a delivery: `verify(headers, body)`.

    Args:
        clock: Gives the time in seconds since 1970.
    """
    if isinstance(signature, Unsigned):
        return lambda _headers, _body: True
    secrets = read_secrets(names_of(signature.secrets), job)
    if isinstance(signature, StandardWebhooks):
        return _Standard(secrets, job)
    if isinstance(signature, HmacSignature):
        return _Hmac(signature, [secret for _, secret in secrets], clock)
    return _Bearer([secret for _, secret in secrets])


def read_secrets(names: Sequence[str], job: str) -> list[tuple[str, str]]:
    """Reads the secrets with the variables that hold them.

    Raises:
        ConfigurationError: A variable is not set, or holds none.
    """
    read = []
    for name in names:
        value = read_secret(name, f"the webhook of sync job {job!r}").get_secret_value()
        secrets = _secrets_in(value)
        if not secrets:
            raise ConfigurationError(f"the environment variable {name} of the webhook of sync job {job!r} is empty")
        read += [(name, secret) for secret in secrets]
    return read


def _secrets_in(value: str) -> list[str]:
    """Splits one value into its secrets. One with short parts is a single secret: no word of a pass phrase is a key."""
    # not at a comma alone: a password may have one, and half of it must open nothing
    parts = [part for part in _BETWEEN_SECRETS.split(value) if part]
    if len(parts) > 1 and min(map(len, parts)) < _SHORTEST_OF_SEVERAL:
        return [value]
    return parts


class _Standard:
    """Standard Webhooks, through their own library."""

    def __init__(self, secrets: Sequence[tuple[str, str]], job: str) -> None:
        self._keys = [
            key
            for name, secret in secrets
            for each in secret.split(",")
            if each
            for key in _standard_keys(name, each, job)
        ]

    def __call__(self, headers: Headers, body: bytes) -> bool:
        brand = "webhook" if "webhook-id" in headers else "svix"
        received = {f"webhook-{part}": headers.get(f"{brand}-{part}", "") for part in _STANDARD}
        signatures = received["webhook-signature"].split()[
            :_MAX_SIGNATURES
        ]  # of several, one that is none is no matter
        each_alone = [received | {"webhook-signature": signature} for signature in signatures]
        return any(_verifies(key, body, alone) for key in self._keys for alone in each_alone)


def _verifies(key: StandardWebhook, body: bytes, headers: dict[str, str]) -> bool:
    try:
        key.verify(body, headers, json_parse=False)
    except (WebhookVerificationError, ValueError, TypeError, ArithmeticError):
        return False  # of garbage in headers the library lets out what it meets
    return True


def _standard_keys(name: str, secret: str, job: str) -> list[StandardWebhook]:
    """Returns the key, or of a secret with `-` or `_` two: senders that use the library in Python leave those out."""
    text = secret.removeprefix("whsec_").rstrip("=")
    try:
        keys = [StandardWebhook(_from_base64(text))]
    except (ValueError, EmptyWebhookSecretError):
        keys = []  # the cause is not shown: it may hold the secret
    if not keys:
        raise ConfigurationError(
            f"the environment variable {name} of the webhook of sync job {job!r} holds no secret of Standard Webhooks; "
            "those are base64, mostly with whsec_ in front"
        )
    if not _URL_SAFE.isdisjoint(text):
        with suppress(ValueError, EmptyWebhookSecretError):
            keys.append(StandardWebhook(secret))
    return keys


def _from_base64(text: str) -> bytes:
    """Decodes base64 of either alphabet, with or without padding.

    Raises:
        ValueError: It is none.
    """
    bare = text.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)


class _Hmac:
    def __init__(self, scheme: HmacSignature, secrets: Sequence[str], clock: Clock) -> None:
        self._scheme = scheme
        self._digest = getattr(hashlib, scheme.algorithm)
        self._keys = [secret.encode() for secret in secrets]
        self._before, _, self._after = scheme.signed.partition("{body}")
        self._clock = clock

    def __call__(self, headers: Headers, body: bytes) -> bool:
        value = headers.get(self._scheme.header.lower(), "")
        moment, texts = self._parts(headers, value)
        if moment is None or not self._is_timely(moment):
            return False
        received = [signature for text in texts if (signature := self._decoded(text)) is not None]
        if not received:
            return False
        signed = self._signed(moment, body)
        expected = [hmac.new(key, signed, self._digest).digest() for key in self._keys]
        return any(hmac.compare_digest(mine, theirs) for mine in expected for theirs in received)

    def _parts(self, headers: Headers, value: str) -> tuple[str | None, list[str]]:
        """Returns the time ("" for a scheme without one, None if it is missing) and the signatures."""
        scheme, fields = self._scheme, _fields(value)
        texts = _signatures_in(value)
        if scheme.signature_field is not None:
            told = " ".join(fields.get(scheme.signature_field, []))
            texts = [part.removeprefix(f"{scheme.signature_field}=") for part in told.split()][:_MAX_SIGNATURES]
        if scheme.timestamp_header is not None:
            return headers.get(scheme.timestamp_header.lower()), texts
        if scheme.timestamp_field is not None:
            moments = fields.get(scheme.timestamp_field, [])
            return moments[0] if len(moments) == 1 else None, texts
        return "", texts

    def _is_timely(self, moment: str) -> bool:
        if not self._scheme.has_time:
            return True
        at_s = _seconds(moment)
        return at_s is not None and abs(self._clock() - at_s) <= self._scheme.tolerance_s

    def _decoded(self, text: str) -> bytes | None:
        prefix = self._scheme.prefix
        if not text.startswith(prefix):
            return None
        text = text[len(prefix) :]
        try:
            return bytes.fromhex(text) if self._scheme.encoding == "hex" else _from_base64(text)
        except ValueError:
            return None

    def _signed(self, moment: str, body: bytes) -> bytes:
        before, after = (part.replace("{timestamp}", moment).encode() for part in (self._before, self._after))
        return before + body + after


def _signatures_in(header: str) -> list[str]:
    """Returns what may be a signature in a header: all of it, or parts of it, of which a sender may give several."""
    parts = [header, *_COMMAS.split(header), *_SEPARATORS.split(header)]  # a prefix may have a space
    return list(dict.fromkeys(part.strip() for part in parts))[:_MAX_SIGNATURES]


def _fields(header: str) -> dict[str, list[str]]:
    """Parses `t=1,v1=a,v1=b`, or the same with semicolons, to its values by name."""
    fields: dict[str, list[str]] = {}
    for part in re.split("[,;]", header):
        name, _, value = part.strip().partition("=")
        fields.setdefault(name, []).append(value)
    return fields


def _seconds(moment: str) -> float | None:
    """Returns a time in seconds since 1970: of a number by its size, of ISO 8601, of the form of HTTP dates."""
    if _NUMBER.fullmatch(moment):
        number = float(moment)
        while number >= _MILLISECONDS_FROM:
            number /= 1000
        return number
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        with suppress(ValueError, OverflowError, TypeError, IndexError):
            found = read(moment)
            return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
    return None


class _Bearer:
    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = [token.encode() for token in tokens]

    def __call__(self, headers: Headers, _body: bytes) -> bool:
        scheme, _, received = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        text = received.strip().encode("latin-1", "replace")
        return any(hmac.compare_digest(token, text) for token in self._tokens)
