"""Turns what came over the wire into what is stored."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from typing import Any

from sync_pipelines.database.inbox_storing import NewDelivery
from sync_pipelines.engine.changes import ChangeEvent, Delete, Ignore, Refetch, Upsert, as_change_event
from sync_pipelines.engine.codec import encode
from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.engine.external_ids import checked_external_id
from sync_pipelines.engine.one_item import OneItem
from sync_pipelines.engine.places import note_place
from sync_pipelines.engine.redaction import SENSITIVE_NAMES, described, exception_type, message_of
from sync_pipelines.engine.webhooks import Webhook, WebhookEvent, body_as_item
from sync_pipelines.errors import ConfigurationError, ItemError, WebhookRejectedError
from sync_pipelines.webhooks.error_log import log_problem

_KEPT = re.compile(r"content-type|(webhook|svix)-(id|timestamp)|x-[a-z0-9-]+")
_SECRET = re.compile(
    rf"{SENSITIVE_NAMES}|signature|hmac|auth|cookie|key|passw|session|forwarded|real-ip|client-ip|cert|csrf"
)
_MAX_HEADERS = 30
_MAX_HEADER_CHARS = 1_000
_MAX_NAME_CHARS = 200
_MAX_ID_BYTES = 1_000  # what is looked up by an index must fit into it


def headers_of(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by name in lower case; the values of one that came several times are joined."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in raw:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def kept_headers(headers: Mapping[str, str], secret: frozenset[str] = frozenset()) -> dict[str, str]:
    """Selects the headers that the inbox keeps and `parse` gets: no signature, no token, no cookie."""
    kept = [(name, value) for name, value in headers.items() if _is_kept(name) and name not in secret]
    return {name: value[:_MAX_HEADER_CHARS] for name, value in kept[:_MAX_HEADERS]}


@lru_cache(maxsize=1_000)
def _is_kept(name: str) -> bool:
    return _KEPT.fullmatch(name) is not None and _SECRET.search(name) is None


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a delivery is taken for.

    Args:
        change: What it means; None if that is yet to be found out.
        delivery: What is to be stored; None for an ignored one.
    """

    change: ChangeEvent | None
    delivery: NewDelivery | None


class Interpreter:
    """Finds out what the events of one webhook mean."""

    def __init__(self, job: AnyJob) -> None:
        assert job.webhook is not None  # noqa: S101 - for the type checker
        self._job = job
        self._webhook: Webhook = job.webhook
        self._secret = frozenset(self._webhook.signature.secret_headers if self._webhook.signature is not None else ())
        self._reported: set[str] = set()

    def event(self, body: Any, headers: Mapping[str, str], received_at: datetime) -> WebhookEvent:
        """Builds the event, with the sender's id for it."""
        kept = kept_headers(headers, self._secret)
        nameless = WebhookEvent(body, kept, received_at)
        by = self._webhook.names_deliveries_by
        if isinstance(by, str):
            name: Any = headers.get(by.lower())
        else:
            name = self._guarded(by, nameless) if by is not None else None
        delivery_id = delivery_name(name)
        return nameless if delivery_id is None else WebhookEvent(body, kept, received_at, delivery_id)

    def _guarded(self, function: Callable[[WebhookEvent], Any], event: WebhookEvent) -> Any:
        with OneItem(partial(self._report_once, "delivery_id", "such a delivery counts as one of its own")):
            return function(event)
        return None

    async def meaning(self, event: WebhookEvent, text: str) -> Meaning:
        """Decides what the event means.

        Raises:
            WebhookRejectedError: It is not valid.
        """
        if self._webhook.parse is None:
            return await self._of_item(event)
        report = partial(self._report_once, "parse", "such deliveries wait, to be parsed again")
        with OneItem(report, lets_through=WebhookRejectedError):
            try:
                value = self._webhook.parse(event)
                value = await value if inspect.isawaitable(value) else value
            except Exception as error:
                note_place(error, "parse")
                raise
            return await self._of_change(as_change_event(value), event, text)
        return Meaning(None, self._new("event", event, payload=text))  # the sender has done its part

    async def _of_item(self, event: WebhookEvent) -> Meaning:
        try:
            return await self._of_change(body_as_item(event), event, None)
        except WebhookRejectedError:
            raise
        except RecursionError as error:
            raise WebhookRejectedError("the body is nested too deeply") from error
        except Exception as error:
            reason = message_of(error) if isinstance(error, ItemError) else described(error)
            raise WebhookRejectedError(reason) from error

    async def _of_change(self, change: ChangeEvent, event: WebhookEvent, payload: str | None) -> Meaning:
        if isinstance(change, Ignore):
            return Meaning(change, None)
        if isinstance(change, Upsert):
            value = self._job.identify(change.item)
            external_id = _storable_id(await value if inspect.isawaitable(value) else value)
            item = encode(change.item)
            return Meaning(change, self._new("upsert", event, external_id=external_id, item=item, payload=payload))
        if isinstance(change, Refetch) and self._job.fetch_one is None:
            raise ConfigurationError(f"sync job {self._job.name!r}: Refetch needs a fetch_one; give the job one")
        kind = "delete" if isinstance(change, Delete) else "refetch"
        external_id = _storable_id(change.external_id)
        return Meaning(type(change)(external_id), self._new(kind, event, external_id=external_id, payload=payload))

    def _new(self, kind: str, event: WebhookEvent, **fields: str | None) -> NewDelivery:
        return NewDelivery(
            job=self._job.name,
            kind=kind,
            received_at=event.received_at,
            headers=event.headers,
            delivery_id=event.delivery_id,
            **fields,
        )

    def _report_once(self, what: str, consequence: str, error: Exception) -> None:
        """Logs a problem once: a sender may repeat what goes wrong a thousand times a minute."""
        key = f"{what} {exception_type(error)}"
        if key not in self._reported:
            self._reported.add(key)
            log_problem(f"{self._job.name}: {what} of the webhook failed ({consequence})", error)


def delivery_name(value: Any) -> str | None:
    """Returns what names a delivery as text that any database can keep and index; None if nothing does."""
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        return None
    name = str(value).strip() if not isinstance(value, int) or abs(value) < 10**_MAX_NAME_CHARS else hex(value)
    if not name:
        return None
    if len(name) <= _MAX_NAME_CHARS and name.isprintable():
        return name
    return "sha256:" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _storable_id(value: Any) -> str:
    external_id = checked_external_id(value)
    try:
        size = len(external_id.encode())
    except UnicodeEncodeError as error:
        raise ItemError(f"the external id is not Unicode: {external_id[:_MAX_NAME_CHARS]!a}") from error
    if size > _MAX_ID_BYTES:
        raise ItemError(f"the external id has {size:,} bytes; {_MAX_ID_BYTES:,} are allowed")
    return external_id
