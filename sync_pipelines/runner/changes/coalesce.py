"""Reads deliveries into events of items, and coalesces several for one item into one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sync_pipelines.database.faults import TargetStateError
from sync_pipelines.database.inbox import Delivery
from sync_pipelines.engine.changes import ChangeEvent, Delete, Ignore, Refetch, Upsert
from sync_pipelines.engine.codec import decode, encode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.external_ids import checked_external_id, external_id_of
from sync_pipelines.engine.one_item import OneItem
from sync_pipelines.engine.versions import Version, newer_of, supersedes
from sync_pipelines.engine.webhooks import WebhookEvent, decode_body, parse_event
from sync_pipelines.errors import ItemError
from sync_pipelines.runner.calls.target_driver import TargetDriver
from sync_pipelines.runner.decide.stale_check import version_of


@dataclass(frozen=True, slots=True)
class Incoming:
    """Holds a delivery as it was read.

    Args:
        event: The event that it carries; None if it can't be read.
        external_id: Canonical id of the item, as far as it is known.
        version: The item's, for an upsert of a job with `get_version`.
        is_overtaken: True if a later delivery for the item has been applied, and no version tells which is newer.
    """

    position: int
    delivery: Delivery
    event: ChangeEvent | None = None
    external_id: str | None = None
    version: Version | None = None
    error: Exception | None = None
    is_overtaken: bool = False

    @property
    def may_be_overtaken(self) -> bool:
        """False if a later delivery for the item would have found it: waiting, by the id as the target's key has it."""
        was_known = self.delivery.external_id == self.external_id and not self.delivery.attempts
        return isinstance(self.event, (Upsert, Delete)) and not was_known


def read_delivery(job: SyncJob[Any, Any], driver: TargetDriver, delivery: Delivery) -> Incoming:
    """Reads a delivery; what is wrong with it is its own error. Its place is yet to be given."""
    read = Incoming(0, delivery)
    errors: list[Exception] = []
    with OneItem(errors.append, lets_through=TargetStateError):
        event = _event(job, delivery)
        if isinstance(event, Ignore):
            return replace(read, event=event)
        given = external_id_of(job, event.item) if isinstance(event, Upsert) else checked_external_id(event.external_id)
        read = replace(read, external_id=driver.canonical_id(given))
        if isinstance(event, Upsert) and job.get_version is not None:
            read = replace(read, version=version_of(job, event.item))
        return replace(read, event=event)
    if read.external_id is None and delivery.external_id is not None:  # other deliveries for the item are found by it
        read = replace(read, external_id=delivery.external_id)
        with suppress(Exception):  # it is kept as it was stored
            read = replace(read, external_id=driver.canonical_id(delivery.external_id))
    return replace(read, error=errors[0])


def in_their_order(read: Iterable[Incoming]) -> list[Incoming]:
    """Returns deliveries in the order in which they came, each with its place."""
    in_order = sorted(read, key=lambda each: each.delivery.id)
    return [replace(each, position=place) for place, each in enumerate(in_order)]


def _event(job: SyncJob[Any, Any], delivery: Delivery) -> ChangeEvent:
    if delivery.kind == "event":
        return _parsed(job, delivery)
    if delivery.kind == "upsert":
        return Upsert(decode(delivery.item or ""))
    kinds: dict[str, type[Delete | Refetch]] = {"delete": Delete, "refetch": Refetch}
    if delivery.kind not in kinds:
        raise ItemError(f"a delivery of the kind {delivery.kind!r} comes from a newer version of sync_pipelines")
    return kinds[delivery.kind](delivery.external_id or "")


def _parsed(job: SyncJob[Any, Any], delivery: Delivery) -> ChangeEvent:
    if job.webhook is None:
        raise ItemError("the job has no webhook any more whose parse could read the delivery")
    body = decode_body(delivery.payload or "")
    event = WebhookEvent(body, dict(delivery.headers or {}), delivery.received_at, delivery.delivery_id)
    change = parse_event(job.webhook, event)
    return Upsert(decode(encode(change.item))) if isinstance(change, Upsert) else change


@dataclass(frozen=True, slots=True)
class Coalesced:
    """Holds what is to be done for one item.

    Args:
        kept: The delivery that it is done for.
        superseded: The deliveries that it makes up for.
    """

    kept: Incoming
    event: ChangeEvent
    superseded: Sequence[Incoming] = ()

    def to_be_asked(self) -> Coalesced:
        """Returns the same, decided by what the source says the item is now."""
        return replace(self, event=Refetch(_source_id(self.kept)))

    @property
    def passed_over_delete(self) -> Incoming | None:
        """Returns the last delete that an item which came after it makes up for, unless it is too old to do so."""
        if not isinstance(self.kept.event, Upsert) or self.event is not self.kept.event:
            return None
        return next((each for each in reversed(self.superseded) if isinstance(each.event, Delete)), None)

    @property
    def newest_version(self) -> Version | None:
        """Returns the highest version that any of its deliveries has."""
        newest: Version | None = None
        for each in (*self.superseded, self.kept):
            newest = newer_of(newest, each.version)
        return newest


def coalesce(group: Sequence[Incoming], *, can_ask: bool, unsure_until: datetime | None) -> Coalesced:
    """Coalesces the deliveries for one item.

    The item that supersedes all others is kept. A delete, which has no version, counts unless an item that came after
    it supersedes those before it. Where that can't tell which is the newer state, the source is asked, if it can be.

    Args:
        group: Deliveries that could be read, in the order in which they came.
        unsure_until: What came until then may be older than what a full sync has applied meanwhile.
    """
    upserts = [each for each in group if isinstance(each.event, Upsert)]
    deletes = [each for each in group if isinstance(each.event, Delete)]
    notifications = [each for each in group if isinstance(each.event, Refetch)]
    kept = notifications[-1] if notifications else _newest(upserts) if upserts else deletes[-1]
    if not notifications and deletes and kept.position < deletes[-1].position:
        kept = deletes[-1]
    assert kept.event is not None  # noqa: S101 - tells mypy; only what could be read is in the group
    coalesced = Coalesced(kept, kept.event, [each for each in group if each is not kept])
    if notifications or (can_ask and not _is_sure(kept, upserts, deletes, unsure_until)):
        return coalesced.to_be_asked()
    return coalesced


def _is_sure(
    kept: Incoming, upserts: Sequence[Incoming], deletes: Sequence[Incoming], unsure_until: datetime | None
) -> bool:
    """True if it certainly is the newest state."""
    if kept.is_overtaken or (upserts and deletes):
        return False
    if kept.version is not None:
        return not any(each.version == kept.version and each.event != kept.event for each in upserts)
    return unsure_until is None or kept.delivery.received_at > unsure_until


def _newest(upserts: Sequence[Incoming]) -> Incoming:
    newest = upserts[0]
    for each in upserts[1:]:
        if supersedes(each.version, newest.version):
            newest = each
    return newest


def _source_id(incoming: Incoming) -> str:
    """Returns the id as the source wrote it, which it may know better than the canonical one."""
    if isinstance(incoming.event, (Delete, Refetch)):
        return incoming.event.external_id
    return incoming.delivery.external_id or incoming.external_id or ""
