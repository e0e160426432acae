"""How a sender proves that a webhook is its own: declarations, with names of secrets but never a secret."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from sync_pipelines.errors import ConfigurationError

Secrets = str | Sequence[str]
"""The name of an environment variable, or several. One variable may hold several secrets of at least 16
characters, separated by white space or commas; any of them is good, so that a sender can change over to the next."""

DeliveryId = str | Callable[[Any], Any]
"""What names a delivery: a header, or a function of the `WebhookEvent`."""

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_FIELD = re.compile(r"[A-Za-z0-9_-]+")
_PLACES = re.compile(r"\{(\w*)\}")
_ENCODINGS = ("hex", "base64")
_ALGORITHMS = ("sha256", "sha512", "sha1")
_MIN_TOLERANCE_S, _MAX_TOLERANCE_S = 1, 86_400


@dataclass(frozen=True)
class StandardWebhooks:
    """The scheme of standardwebhooks.com, which Svix and many others use: `webhook-id`, `-timestamp`, `-signature`.

    The same headers with `svix-` in front are taken as well. A delivery may be five minutes old, or ahead.

    Args:
        secrets: Names of the environment variables that hold the secrets (`whsec_...`); several while one replaces the
            other. A secret is base64, with or without `whsec_` in front, `=` at its end, `-` and `_` for `+` and `/`.
    """

    secrets: Secrets
    title: ClassVar = "Standard Webhooks"
    secret_headers: ClassVar = ("webhook-signature", "svix-signature")

    @property
    def delivery_id(self) -> DeliveryId | None:
        """What names a delivery unless the webhook says otherwise."""
        return _standard_id

    def problems(self) -> list[str]:
        """Lists what is wrong with the declaration."""
        return problems_of_secrets(self.secrets)


@dataclass(frozen=True, kw_only=True)
class HmacSignature:
    """A header holds the HMAC of the body, or of the body with a time. Of several signatures in it one must match.

    `HmacSignature.github(...)`, `.shopify(...)` and `.stripe(...)` fill this in; others are declared:
    `HmacSignature(secrets="SHOP_SECRET", header="X-Signature", timestamp_header="X-Timestamp",
    signed="{timestamp}:{body}")`.

    Args:
        secrets: Names of the environment variables that hold the secrets; several while one replaces the other.
        header: The header with the signature.
        prefix: What stands before the signature, e.g. `"sha256="`.
        signed: What was signed: `{body}`, with `{timestamp}` if the sender signs one.
        timestamp_header: The header with the time: seconds since 1970 (or milli-, micro- or nanoseconds, which are told
            apart by their size), ISO 8601 (UTC, if it has no offset) or the form of HTTP's `Date`.
        timestamp_field: Instead, where the header is a list such as `t=1700000000,v1=5257...`: the time's name in it.
        signature_field: In such a list the name of the signatures, of which there may be several.
        tolerance_s: How old a delivery may be, or how far ahead, in seconds; for signatures with a time.
        delivery_id: The header that names a delivery, or a function of the event.
    """

    secrets: Secrets
    header: str
    encoding: Literal["hex", "base64"] = "hex"
    prefix: str = ""
    signed: str = "{body}"
    timestamp_header: str | None = None
    timestamp_field: str | None = None
    signature_field: str | None = None
    tolerance_s: float = 300
    algorithm: Literal["sha256", "sha512", "sha1"] = "sha256"
    delivery_id: DeliveryId | None = None

    @classmethod
    def github(cls, secrets: Secrets) -> Self:
        """Declares GitHub's scheme: `X-Hub-Signature-256: sha256=...`.

        Source:
            https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
        """
        return cls(secrets=secrets, header="X-Hub-Signature-256", prefix="sha256=", delivery_id="X-GitHub-Delivery")

    @classmethod
    def shopify(cls, secrets: Secrets) -> Self:
        """Declares Shopify's scheme: `X-Shopify-Hmac-Sha256` in base64.

        Source:
            https://shopify.dev/docs/apps/build/webhooks/subscribe/https
        """
        header, delivery_id = "X-Shopify-Hmac-Sha256", "X-Shopify-Webhook-Id"
        return cls(secrets=secrets, header=header, encoding="base64", delivery_id=delivery_id)

    @classmethod
    def stripe(cls, secrets: Secrets, *, tolerance_s: float = 300) -> Self:
        """Declares Stripe's scheme: `Stripe-Signature: t=...,v1=...` over time, dot and body; events have an `id`.

        Source:
            https://docs.stripe.com/webhooks/signatures
        """
        return cls(
            secrets=secrets,
            header="Stripe-Signature",
            signed="{timestamp}.{body}",
            timestamp_field="t",
            signature_field="v1",
            tolerance_s=tolerance_s,
            delivery_id=_stripe_id,
        )

    @property
    def title(self) -> str:
        """The scheme in a word or two."""
        return f"HMAC in {self.header}"

    @property
    def secret_headers(self) -> tuple[str, ...]:
        """Headers that are not kept."""
        return (self.header.lower(),)

    def problems(self) -> list[str]:
        """Lists what is wrong with the declaration."""
        return [
            *problems_of_secrets(self.secrets),
            *self._problems_of_text(),
            *self._problems_of_time(),
            *problems_of_delivery_id(self.delivery_id),
        ]

    def _problems_of_text(self) -> list[str]:
        problems = []
        if not is_header(self.header):
            problems.append(f"header: {self.header!r} is no name of a header")
        if self.encoding not in _ENCODINGS:
            problems.append(f"encoding: {self.encoding!r} must be 'hex' or 'base64'")
        if self.algorithm not in _ALGORITHMS:
            problems.append(f"algorithm: {self.algorithm!r} must be one of {', '.join(_ALGORITHMS)}")
        prefix: object = self.prefix
        if not isinstance(prefix, str):
            problems.append(f"prefix: {prefix!r} must be text, e.g. 'sha256='")
        places = _PLACES.findall(self.signed) if isinstance(self.signed, str) else []
        if sorted(places) not in (["body"], ["body", "timestamp"]):
            problems.append(f"signed: {self.signed!r} must have {{body}} once, and may have {{timestamp}} once")
        return problems

    def _problems_of_time(self) -> list[str]:
        problems = []
        if self.timestamp_header is not None and not is_header(self.timestamp_header):
            problems.append(f"timestamp_header: {self.timestamp_header!r} is no name of a header")
        for name in ("timestamp_field", "signature_field"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and _FIELD.fullmatch(value)):
                problems.append(f"{name}: {value!r} must be a word, such as 't' or 'v1'")
        if self.timestamp_field is not None and self.signature_field is None:
            problems.append(
                "signature_field: is missing; a header with a timestamp_field names its signatures, e.g. 'v1'"
            )
        if self.timestamp_field is not None and self.timestamp_header is not None:
            problems.append("timestamp_field: give it or timestamp_header, not both")
        if ("{timestamp}" in str(self.signed)) != self.has_time:
            problems.append(
                f"signed: {self.signed!r} needs {{timestamp}} exactly if there is a timestamp_header or timestamp_field"
            )
        if not is_number(self.tolerance_s) or not _MIN_TOLERANCE_S <= self.tolerance_s <= _MAX_TOLERANCE_S:
            problems.append(f"tolerance_s: {self.tolerance_s!r} must be seconds, from 1 to {_MAX_TOLERANCE_S}")
        return problems

    @property
    def has_time(self) -> bool:
        """True if the sender signs a time."""
        return self.timestamp_header is not None or self.timestamp_field is not None


@dataclass(frozen=True)
class BearerToken:
    """The sender knows a token: `Authorization: Bearer ...`. It proves who sends, not what.

    Args:
        secrets: Names of the environment variables that hold the tokens; several while one replaces the other.
    """

    secrets: Secrets
    title: ClassVar = "bearer token"
    secret_headers: ClassVar = ("authorization",)
    delivery_id: ClassVar = None

    def problems(self) -> list[str]:
        """Lists what is wrong with the declaration."""
        return problems_of_secrets(self.secrets)


@dataclass(frozen=True)
class Unsigned:
    """Whoever reaches the address may send: for senders that sign nothing, in a network of your own.

    Together with `Refetch` nothing that is sent is believed but the id.
    """

    title: ClassVar = "unsigned"
    secret_headers: ClassVar = ()
    delivery_id: ClassVar = None

    def problems(self) -> list[str]:
        """Lists what is wrong with the declaration."""
        return []


Signature = StandardWebhooks | HmacSignature | BearerToken | Unsigned

SIGNATURES = (StandardWebhooks, HmacSignature, BearerToken, Unsigned)


def names_of(secrets: Secrets) -> tuple[str, ...]:
    """Returns the names of the environment variables, one or several."""
    return (secrets,) if isinstance(secrets, str) else tuple(secrets)


def is_header(value: object) -> bool:
    """Returns True for what may be the name of a header."""
    return isinstance(value, str) and _HEADER.fullmatch(value) is not None


def is_number(value: object) -> bool:
    """Returns True for a number that is no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def problems_of_delivery_id(value: object) -> list[str]:
    """Lists what is wrong with a `delivery_id`."""
    if inspect.iscoroutinefunction(value):
        return ["delivery_id: is async; nobody would wait for it: give a plain function"]
    if value is None or callable(value) or is_header(value):
        return []
    return [f"delivery_id: {value!r} is neither the name of a header nor a function of the event"]


def problems_of_secrets(secrets: object) -> list[str]:
    """Lists what is wrong, without the value: it may be the secret itself."""
    names = (secrets,) if isinstance(secrets, str) else secrets
    if isinstance(names, (list, tuple)) and names and all(map(_is_variable, names)):
        return []
    problem = (
        "secrets: give the name of the environment variable that holds the secret (capital letters, digits and _), "
        "or a list of names; never the secret itself"
    )
    return [problem]


def _is_variable(value: object) -> bool:
    return isinstance(value, str) and _VARIABLE.fullmatch(value) is not None


def _standard_id(event: Any) -> Any:
    headers: Mapping[str, str] = event.headers
    return headers.get("webhook-id") or headers.get("svix-id")


def _stripe_id(event: Any) -> Any:
    return event.body.get("id") if isinstance(event.body, dict) else None


def require_signature(value: object) -> Signature:
    """Returns the signature back.

    Raises:
        ConfigurationError: There is none; the message names the choices.
    """
    if isinstance(value, SIGNATURES):
        return value
    problem = "is missing" if value is None else f"a {type(value).__name__} is none"  # not shown: it may be a secret
    raise ConfigurationError(
        f"signature: {problem}; give StandardWebhooks(...), HmacSignature.github(...), .shopify(...), .stripe(...), "
        "HmacSignature(...), BearerToken(...), or Unsigned() if really nobody signs"
    )
