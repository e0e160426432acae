"""Reads deliveries: what change of which item each one is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from sync_pipelines.database.faults import TargetStateError
from sync_pipelines.database.inbox import Delivery
from sync_pipelines.database.inbox_storing import NewDelivery
from sync_pipelines.engine.changes import ChangeEvent, Delete, Ignore, Refetch, Upsert
from sync_pipelines.engine.codec import decode, encode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.external_ids import checked_external_id, external_id_of
from sync_pipelines.engine.one_item import OneItem
from sync_pipelines.engine.stored_changes import EVENT, StoredChange, change_of, stored_change
from sync_pipelines.engine.webhooks import WebhookEvent, decode_body, parse_events
from sync_pipelines.errors import ItemError
from sync_pipelines.runner.calls.target_driver import TargetDriver
from sync_pipelines.runner.changes.coalesce import Incoming
from sync_pipelines.runner.decide.stale_check import version_of_change
from sync_pipelines.webhooks.parts import parts_of


def read_delivery(job: SyncJob[Any, Any], driver: TargetDriver, delivery: Delivery) -> Incoming:
    """Reads a delivery; what is wrong with it is its own error. Its place is yet to be given."""
    read = Incoming(0, delivery)
    errors: list[Exception] = []
    with OneItem(errors.append, lets_through=TargetStateError):
        changes = changes_in(job, delivery)
        if not changes:
            return replace(read, event=Ignore())
        if len(changes) > 1:
            return replace(read, several=changes)  # see `parts_in`
        change = _as_stored(changes[0])
        read = replace(read, external_id=driver.canonical_id(given_id(job, change)))
        return replace(read, event=change, version=version_of_change(job, change))
    if read.external_id is None and delivery.external_id is not None:  # other deliveries for the item are found by it
        read = replace(read, external_id=delivery.external_id)
        with suppress(Exception):  # it is kept as it was stored
            read = replace(read, external_id=driver.canonical_id(delivery.external_id))
    return replace(read, error=errors[0])


def in_their_order(read: Iterable[Incoming]) -> list[Incoming]:
    """Returns deliveries in the order in which they came, each with its place."""
    in_order = sorted(read, key=lambda each: (each.delivery.place, each.delivery.id))
    return [replace(each, position=place) for place, each in enumerate(in_order)]


def given_id(job: SyncJob[Any, Any], change: ChangeEvent) -> str:
    """Returns the external id that a change is for, as the sender writes it."""
    if isinstance(change, (Delete, Refetch)):
        return checked_external_id(change.external_id)
    assert isinstance(change, Upsert)  # noqa: S101 - tells mypy; nobody asks for that of what is ignored
    return external_id_of(job, change.item)


def changes_in(job: SyncJob[Any, Any], delivery: Delivery) -> Sequence[ChangeEvent]:
    """Returns the changes that a delivery carries: one, or of an event those that `parse` finds in it now."""
    if delivery.kind != EVENT:
        return [change_of(delivery.kind, delivery.external_id, delivery.item)]
    if job.webhook is None:
        raise ItemError("the job has no webhook any more whose parse could read the delivery")
    body = decode_body(delivery.payload or "")
    event = WebhookEvent(body, dict(delivery.headers or {}), delivery.received_at, delivery.delivery_id)
    found = parse_events(job.webhook, event)
    return found if delivery.item is None else found[int(delivery.item) :][:1]


def parts_in(job: SyncJob[Any, Any], read: Incoming, now: datetime) -> list[NewDelivery]:
    """Returns a delivery for each change of an event that could not be parsed when it came, and carries several."""
    kept: list[StoredChange | None] = []
    for change in read.several:
        kept.append(None)
        with suppress(Exception):  # it is parsed again when it is its turn, and its error is told
            kept[-1] = stored_change(job, change, given_id(job, change))
    delivery = read.delivery
    whole = NewDelivery(
        job=delivery.job,
        kind=EVENT,
        received_at=delivery.received_at,
        payload=delivery.payload,
        headers=delivery.headers,
        delivery_id=delivery.delivery_id,
        next_try_at=now,
    )
    return parts_of(whole, kept)


def _as_stored(change: ChangeEvent) -> ChangeEvent:
    """Returns a change as if it had been stored and read: what a run would hand to the functions."""
    return Upsert(decode(encode(change.item))) if isinstance(change, Upsert) else change
