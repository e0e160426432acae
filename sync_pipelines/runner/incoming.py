"""What deliveries mean: each read into a change of one item, and of several for one item the newest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sync_pipelines.database.inbox import Delivery
from sync_pipelines.engine.calls import resolve
from sync_pipelines.engine.codec import decode, encode
from sync_pipelines.engine.declaration import SyncJob, checked_external_id
from sync_pipelines.engine.versions import Version
from sync_pipelines.engine.webhooks import (
    Change,
    Delete,
    Ignore,
    Refetch,
    Upsert,
    WebhookEvent,
    decode_body,
    parse_event,
)
from sync_pipelines.errors import ItemError
from sync_pipelines.runner.version_guard import version_of


@dataclass(frozen=True, slots=True)
class Incoming:
    """A delivery as it was read.

    Args:
        position: Its place in the batch.
        delivery: As the inbox has it.
        change: What it says; None if it can't be read.
        external_id: Canonical id of the item, as far as it is known.
        version: The item's, for an upsert of a job with `get_version`.
        error: Why it can't be read.
    """

    position: int
    delivery: Delivery
    change: Change | None = None
    external_id: str | None = None
    version: Version | None = None
    error: Exception | None = None


def read_delivery(
    job: SyncJob[Any, Any], canonical: Callable[[str], str], position: int, delivery: Delivery
) -> Incoming:
    """Reads a delivery; what is wrong with it is its own error.

    Args:
        job: The sync job.
        canonical: External id -> the same as the target's key gives it back.
        position: Place of the delivery in the batch.
        delivery: As the inbox has it.
    """
    external_id: str | None = delivery.external_id
    try:
        change = _change(job, delivery)
        if isinstance(change, Ignore):
            return Incoming(position, delivery, change)
        if isinstance(change, Upsert):
            external_id = canonical(checked_external_id(resolve(job.identify(change.item))))
            version = version_of(job, change.item) if job.get_version is not None else None
            return Incoming(position, delivery, change, external_id, version)
        external_id = canonical(checked_external_id(change.external_id))
        return Incoming(position, delivery, change, external_id)
    except Exception as error:  # noqa: BLE001 - one bad delivery never stops the others
        return Incoming(position, delivery, external_id=external_id, error=error)


def _change(job: SyncJob[Any, Any], delivery: Delivery) -> Change:
    if delivery.kind == "event":
        return _parsed(job, delivery)
    if delivery.kind == "upsert":
        return Upsert(decode(delivery.item or ""))
    kinds: dict[str, type[Delete | Refetch]] = {"delete": Delete, "refetch": Refetch}
    if delivery.kind not in kinds:
        raise ItemError(f"a delivery of the kind {delivery.kind!r} comes from a newer version of sync_pipelines")
    return kinds[delivery.kind](delivery.external_id or "")


def _parsed(job: SyncJob[Any, Any], delivery: Delivery) -> Change:
    if job.webhook is None:
        raise ItemError("the job has no webhook any more whose parse could read the delivery")
    body = decode_body((delivery.payload or "").encode("utf-8", "surrogatepass"))
    event = WebhookEvent(body, dict(delivery.headers or {}), delivery.received_at, delivery.delivery_id)
    change = parse_event(job.webhook, event)
    return Upsert(decode(encode(change.item))) if isinstance(change, Upsert) else change


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be done for one item.

    Args:
        winner: The delivery that it is done for.
        change: What is to be done.
        losers: The deliveries that it makes up for.
    """

    winner: Incoming
    change: Change
    losers: Sequence[Incoming] = ()


def choose(group: Sequence[Incoming], *, can_refetch: bool, unsure_until: datetime | None) -> Choice:
    """Chooses among the deliveries for one item.

    The highest version wins, without versions the one that came last. Where that can't tell which is the newer state,
    the source is asked, if it can be.

    Args:
        group: Deliveries that could be read, in the order in which they came.
        can_refetch: True if the job has a `fetch_one`.
        unsure_until: What came until then may be older than what a full sync has applied meanwhile.
    """
    last = group[-1]
    upserts = [each for each in group if isinstance(each.change, Upsert)]
    thin = [each for each in group if isinstance(each.change, Refetch)]
    if thin:
        winner, is_sure = thin[-1], False
    elif isinstance(last.change, Delete):
        winner, is_sure = last, not upserts
    else:
        winner = _newest(upserts)
        is_sure = winner.version is not None and not _is_contested(winner, upserts)
        if winner.version is None:
            is_sure = unsure_until is None or winner.delivery.received_at > unsure_until
    assert winner.change is not None  # noqa: S101 - tells mypy; only what could be read is in the group
    losers = [each for each in group if each is not winner]
    if thin or (can_refetch and not is_sure):
        return Choice(winner, Refetch(_asked_id(winner)), losers)
    return Choice(winner, winner.change, losers)


def _newest(upserts: Sequence[Incoming]) -> Incoming:
    newest = upserts[0]
    for each in upserts[1:]:
        if each.version is None or newest.version is None or not each.version.is_older_than(newest.version):
            newest = each
    return newest


def _is_contested(winner: Incoming, upserts: Sequence[Incoming]) -> bool:
    """True if another delivery says something else of the same version."""
    return any(each.version == winner.version and each.change != winner.change for each in upserts)


def _asked_id(incoming: Incoming) -> str:
    """The id as the source wrote it, which it may know better than the canonical one."""
    if isinstance(incoming.change, (Delete, Refetch)):
        return incoming.change.external_id
    return incoming.delivery.external_id or incoming.external_id or ""
