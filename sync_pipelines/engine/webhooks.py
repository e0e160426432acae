"""`Webhook`: what a sender reports about one item, and what that means for the local records."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, Self

from sync_pipelines.engine.calls import call, iterate
from sync_pipelines.engine.changes import ChangeEvent, Ignore, Upsert, as_change_events
from sync_pipelines.engine.json_text import json_text, parse_json
from sync_pipelines.engine.keyword_fields import check_field_names
from sync_pipelines.engine.places import note_place
from sync_pipelines.engine.webhook_handshakes import Handshake
from sync_pipelines.engine.webhook_signatures import (
    DeliveryId,
    Signature,
    is_number,
    names_of,
    problems_of_delivery_id,
    require_signature,
)
from sync_pipelines.errors import ConfigurationError, WebhookRejectedError

_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
_MAX_BODY_BYTES = 100_000_000
_MODES = ("inbox", "inline")


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """What a sender sent.

    Args:
        body: The decoded JSON; numbers with a point or an exponent are `Decimal`, as a `RestSource` gives them.
        headers: Names in lower case. Those that the inbox keeps: `content-type`, `webhook-...` and `x-...`, without
            signatures, tokens and cookies.
        received_at: When it came, aware.
        delivery_id: What names the delivery, None if nothing does.
    """

    body: Any
    headers: Mapping[str, str]
    received_at: datetime
    delivery_id: str | None = None


Parse = Callable[[WebhookEvent], Any | Awaitable[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Webhook:
    """How a sender reports that an item has changed: `POST /webhooks/{name}` of `sync-pipelines webhooks serve`.

    Args:
        signature: How the sender proves that it is the sender: `StandardWebhooks(...)`, `HmacSignature(...)`,
            `BearerToken(...)` or `Unsigned()`.
        parse: `parse(event)` gives `Upsert(item)`, `Delete(external_id)`, `Refetch(external_id)` or `Ignore(reason)`;
            a bare item is an upsert, None is ignored. A list (tuple, generator) of them is several changes, each with
            an outcome of its own. Plain or `async`, and quick, because the receiver waits for it. It may raise
            `WebhookRejectedError`; if it raises anything else, the delivery is kept and parsed again later. Without it
            the whole body is the item.
        delivery_id: The header that names the delivery, or a function of the event; a repeated one is stored once.
            By default that of the signature's scheme; without any, every request is a delivery of its own.
        mode: `"inbox"` stores and answers at once; `"inline"` answers when the item is applied.
        max_body_bytes: Larger bodies are refused.
        max_per_s: Deliveries a second, above which the sender is asked to wait; as many may come at once. None: no
            limit. It holds for each process.
        name: The last part of the path; by default the job's name.
        handshakes: What the sender asks when the webhook is set up, one or several: `Handshake.slack()`, say.
        bare_answers: True for a sender that wants every delivery that is taken answered with status 200 and no body, as
            Xero does.
    """

    signature: Signature | None = None
    parse: Parse | None = None
    delivery_id: DeliveryId | None = None
    mode: Literal["inbox", "inline"] = "inbox"
    max_body_bytes: int = 1_000_000
    max_per_s: float | None = None
    name: str | None = None
    handshakes: Handshake | Sequence[Handshake] = ()
    bare_answers: bool = False

    if not TYPE_CHECKING:

        def __new__(cls, *args: object, **values: object) -> Self:
            """Turns a misspelt field into an error that names it."""
            check_field_names(cls, "webhook", args, values)
            return super().__new__(cls)

    @property
    def names_deliveries_by(self) -> DeliveryId | None:
        """The header or function that names a delivery."""
        return self.delivery_id if self.delivery_id is not None else require_signature(self.signature).delivery_id

    @property
    def all_handshakes(self) -> tuple[Handshake, ...]:
        """The handshakes, one or several."""
        return (self.handshakes,) if isinstance(self.handshakes, Handshake) else tuple(self.handshakes)

    @property
    def secret_names(self) -> tuple[str, ...]:
        """The environment variables that hold its secrets and tokens."""
        holders = (self.signature, *self.all_handshakes)
        given = [getattr(holder, "secrets", None) for holder in holders]
        return tuple(name for secrets in given if secrets is not None for name in names_of(secrets))


def check_webhook(webhook: object) -> Webhook:
    """Checks a declaration.

    Raises:
        ConfigurationError: Something is wrong; the message names the field.
    """
    if not isinstance(webhook, Webhook):
        raise ConfigurationError(f"{webhook!r} is no Webhook; write webhook=Webhook(signature=...)")
    signature = require_signature(webhook.signature)
    problems = [f"signature: {problem}" for problem in signature.problems()] + [
        *_problems_of_meaning(webhook),
        *_problems_of_limits(webhook),
        *_problems_of_handshakes(webhook),
    ]
    if problems:
        raise ConfigurationError(problems[0])
    return webhook


def parse_events(webhook: Webhook, event: WebhookEvent) -> list[ChangeEvent]:
    """Decides what an event means: the changes that it tells of, in their order, without those that are ignored."""
    if webhook.parse is None:
        return [body_as_item(event)]
    try:
        value = call(webhook.parse, event)
        changes = as_change_events(iterate(value) if isinstance(value, AsyncIterator) else value)
    except Exception as error:
        note_place(error, "parse")
        raise
    return [each for each in changes if not isinstance(each, Ignore)]


def body_as_item(event: WebhookEvent) -> ChangeEvent:
    """Decides what an event without a `parse` means.

    Raises:
        WebhookRejectedError: The body is no object.
    """
    if not isinstance(event.body, dict):
        raise WebhookRejectedError(f"the body is a JSON {_json_kind(event.body)}; send one object with the item")
    return Upsert(event.body)


def body_text(raw: bytes, charset: str | None = None) -> str:
    """Returns the text of a body, which the inbox keeps where its meaning is yet to be found out.

    Raises:
        WebhookRejectedError: It is in no known encoding; the message says where.
    """
    try:
        return json_text(raw, charset)
    except ValueError as error:
        raise WebhookRejectedError(f"the body is not JSON: {error}") from error


def decode_body(body: str | bytes) -> Any:
    """Decodes JSON as every source does. Of equal names the last counts.

    Raises:
        WebhookRejectedError: It is something else; the message says where.
    """
    try:
        return parse_json(body)
    except ValueError as error:
        raise WebhookRejectedError(f"the body is not JSON: {error}") from error


def _json_kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {bool: "boolean", int: "number", float: "number", Decimal: "number", str: "string", list: "array"}
    return kinds.get(type(value), "value")


def _problems_of_meaning(webhook: Webhook) -> list[str]:
    problems = []
    parse: object = webhook.parse
    if parse is not None and not callable(parse):
        problems.append(f"parse: {parse!r} is not a function")
    problems += problems_of_delivery_id(webhook.delivery_id)
    if webhook.mode not in _MODES:
        problems.append(f"mode: {webhook.mode!r} must be 'inbox' or 'inline'")
    name: object = webhook.name
    if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
        problems.append(f"name: {name!r} must be lower case words and digits joined by '-', '_' or '.'")
    return problems


def _problems_of_handshakes(webhook: Webhook) -> list[str]:
    given: object = webhook.handshakes
    if not isinstance(given, (Handshake, list, tuple)) or not all(
        isinstance(each, Handshake) for each in webhook.all_handshakes
    ):
        return [f"handshakes: {given!r} must be Handshake(...), such as Handshake.slack(), or a list of them"]
    return [f"handshakes: {problem}" for each in webhook.all_handshakes for problem in each.problems()]


def _problems_of_limits(webhook: Webhook) -> list[str]:
    problems = []
    size: object = webhook.max_body_bytes
    rate: Any = webhook.max_per_s
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= _MAX_BODY_BYTES:
        problems.append(f"max_body_bytes: {size!r} must be a whole number from 1 to {_MAX_BODY_BYTES}")
    if rate is not None and not (is_number(rate) and 0 < rate < math.inf):
        problems.append(f"max_per_s: {rate!r} must be a number above 0, or None for no limit")
    return problems
