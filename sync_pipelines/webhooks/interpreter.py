"""Turns what came over the wire into what is stored."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, TypeGuard

from sync_pipelines.database.inbox_storing import NewDelivery
from sync_pipelines.engine.calls import call_own
from sync_pipelines.engine.changes import ChangeEvent, Delete, Ignore, Refetch, Upsert, as_change_events
from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.engine.external_ids import checked_external_id
from sync_pipelines.engine.one_item import OneItem
from sync_pipelines.engine.places import note_place, place_of
from sync_pipelines.engine.redaction import SENSITIVE_NAMES, described, exception_type, message_of
from sync_pipelines.engine.stored_changes import EVENT, StoredChange, stored_change
from sync_pipelines.engine.webhooks import Webhook, WebhookEvent, body_as_item
from sync_pipelines.errors import ItemError, WebhookRejectedError
from sync_pipelines.webhooks.error_log import log_problem
from sync_pipelines.webhooks.parts import parts_of

_KEPT = re.compile(r"content-type|(webhook|svix)-(id|timestamp)|(x|ce)-[a-z0-9-]+")
_SECRET = re.compile(
    rf"{SENSITIVE_NAMES}|signature|hmac|auth|cookie|key|passw|session|forwarded|real-ip|client-ip|cert|csrf"
)
_MAX_HEADERS = 30
_MAX_HEADER_CHARS = 1_000
_MAX_NAME_CHARS = 200
_UNREAD = StoredChange(EVENT, None)
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
class Part:
    """Holds one change of a delivery.

    Args:
        change: What it means; None if that is yet to be found out.
        delivery: What is to be stored.
    """

    change: ChangeEvent | None
    delivery: NewDelivery


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a delivery is taken for.

    Args:
        parts: Its changes; none of an ignored one.
        reason: Why it is ignored.
    """

    parts: Sequence[Part]
    reason: str = ""


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
            return call_own("delivery_id", function, event)
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
                changes = await _awaited(self._webhook.parse(event))
                events = as_change_events([each async for each in changes] if _is_async(changes) else changes)
            except Exception as error:
                note_place(error, "parse")
                raise
            meant = [each for each in events if not isinstance(each, Ignore)]
            if len(meant) == 1:
                change, stored = await self._stored(meant[0])
                return Meaning([Part(change, self._new(event, stored, text))])
            return await self._of_several(self._new(event, _UNREAD, text), meant, _reason(events))
        return Meaning([Part(None, self._new(event, _UNREAD, text))])  # the sender has done its part

    async def _of_several(self, whole: NewDelivery, changes: Sequence[ChangeEvent], reason: str) -> Meaning:
        """Takes each change for itself: one that is no good does not stop the others."""
        read: list[tuple[ChangeEvent | None, StoredChange | None]] = []
        for change in changes:
            found: tuple[ChangeEvent | None, StoredChange | None] = (None, None)
            with OneItem(partial(self._report_once, "parse", "such changes wait, to be parsed again")):
                found = await self._stored(change)
            read.append(found)
        parts = parts_of(whole, [stored for _, stored in read])
        return Meaning([Part(change, part) for (change, _), part in zip(read, parts, strict=True)], reason)

    async def _of_item(self, event: WebhookEvent) -> Meaning:
        try:
            change, stored = await self._stored(body_as_item(event))
        except WebhookRejectedError:
            raise
        except RecursionError as error:
            raise WebhookRejectedError("the body is nested too deeply") from error
        except Exception as error:
            reason = message_of(error) if isinstance(error, ItemError) else described(error)
            raise WebhookRejectedError(reason) from error
        return Meaning([Part(change, self._new(event, stored, None))])

    async def _stored(self, change: ChangeEvent) -> tuple[ChangeEvent, StoredChange]:
        """Returns a change with the id that it is for, and as it is kept."""
        if isinstance(change, Upsert):
            external_id = _storable_id(await self._identified(change.item))
            return change, stored_change(self._job, change, external_id)
        assert isinstance(change, (Delete, Refetch))  # noqa: S101 - for the type checker; nothing else is meant
        external_id = _storable_id(change.external_id)
        return replace(change, external_id=external_id), stored_change(self._job, change, external_id)

    async def _identified(self, item: Any) -> Any:
        try:
            return await _awaited(self._job.identify(item))
        except Exception as error:
            note_place(error, "get_external_id")
            raise

    def _new(self, event: WebhookEvent, change: StoredChange, payload: str | None) -> NewDelivery:
        return NewDelivery(
            job=self._job.name,
            kind=change.kind,
            received_at=event.received_at,
            external_id=change.external_id,
            item=change.item,
            payload=payload,
            headers=event.headers,
            delivery_id=event.delivery_id,
        )

    def _report_once(self, what: str, consequence: str, error: Exception) -> None:
        """Logs a problem once: a sender may repeat what goes wrong a thousand times a minute."""
        place = place_of(error)
        key = f"{what} {exception_type(error)} {place.where if place is not None else ''}"
        if key not in self._reported:
            self._reported.add(key)
            log_problem(f"{self._job.name}: {what} of the webhook failed ({consequence})", error)


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def _is_async(value: Any) -> TypeGuard[AsyncIterator[Any]]:
    return isinstance(value, AsyncIterator)


def _reason(events: Sequence[ChangeEvent]) -> str:
    """Returns the first reason why something is ignored."""
    return next((each.reason for each in events if isinstance(each, Ignore) and each.reason), "")


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
