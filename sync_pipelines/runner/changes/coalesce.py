"""What deliveries mean: each read into a change of one item, and of several for one item the newest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sync_pipelines.database.inbox import Delivery
from sync_pipelines.engine.calls import resolve
from sync_pipelines.engine.changes import ChangeEvent, Delete, Ignore, Refetch, Upsert
from sync_pipelines.engine.codec import decode, encode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.external_ids import checked_external_id
from sync_pipelines.engine.versions import Version, newer_of
from sync_pipelines.engine.webhooks import WebhookEvent, decode_body, parse_event
from sync_pipelines.errors import ItemError
from sync_pipelines.runner.decide.stale_check import version_of


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
        is_overtaken: True if a later delivery for the item has been applied, and no version tells which is newer.
    """

    position: int
    delivery: Delivery
    change: ChangeEvent | None = None
    external_id: str | None = None
    version: Version | None = None
    error: Exception | None = None
    is_overtaken: bool = False

    @property
    def may_be_overtaken(self) -> bool:
        """False if a later delivery for the item would have found it: waiting, by the id as the target's key has it."""
        was_known = self.delivery.external_id == self.external_id and not self.delivery.attempts
        return isinstance(self.change, (Upsert, Delete)) and not was_known


def read_delivery(job: SyncJob[Any, Any], canonical: Callable[[str], str], delivery: Delivery) -> Incoming:
    """Reads a delivery; what is wrong with it is its own error. Its place is yet to be given.

    Args:
        job: The sync job.
        canonical: External id -> the same as the target's key gives it back.
        delivery: As the inbox has it.
    """
    external_id: str | None = None
    try:
        change = _change(job, delivery)
        if isinstance(change, Ignore):
            return Incoming(0, delivery, change)
        if isinstance(change, Upsert):
            external_id = canonical(checked_external_id(resolve(job.identify(change.item))))
            version = version_of(job, change.item) if job.get_version is not None else None
            return Incoming(0, delivery, change, external_id, version)
        external_id = canonical(checked_external_id(change.external_id))
        return Incoming(0, delivery, change, external_id)
    except Exception as error:  # noqa: BLE001 - one bad delivery never stops the others
        known = external_id if external_id is not None else _canonical_if_known(canonical, delivery)
        return Incoming(0, delivery, external_id=known, error=error)


def _canonical_if_known(canonical: Callable[[str], str], delivery: Delivery) -> str | None:
    """The canonical id, by which other deliveries for the item are found; as it was stored if it does not convert."""
    if delivery.external_id is None:
        return None
    try:
        return canonical(delivery.external_id)
    except Exception:  # noqa: BLE001 - its error is told when the delivery is read
        return delivery.external_id


def in_their_order(read: Iterable[Incoming]) -> list[Incoming]:
    """Deliveries in the order in which they came, each with its place."""
    in_order = sorted(read, key=lambda each: each.delivery.id)
    return [replace(each, position=place) for place, each in enumerate(in_order)]


def _change(job: SyncJob[Any, Any], delivery: Delivery) -> ChangeEvent:
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
    change: ChangeEvent
    losers: Sequence[Incoming] = ()

    def asked_for(self) -> Choice:
        """The same, decided by what the source says the item is now."""
        return replace(self, change=Refetch(_asked_id(self.winner)))

    @property
    def passed_over_delete(self) -> Incoming | None:
        """The last delete that an item which came after it makes up for, unless it is too old to do so."""
        if not isinstance(self.winner.change, Upsert) or self.change is not self.winner.change:
            return None
        return next((each for each in reversed(self.losers) if isinstance(each.change, Delete)), None)

    @property
    def newest_version(self) -> Version | None:
        """The highest version that any of its deliveries has."""
        newest: Version | None = None
        for each in (*self.losers, self.winner):
            newest = newer_of(newest, each.version)
        return newest


def choose(group: Sequence[Incoming], *, can_refetch: bool, unsure_until: datetime | None) -> Choice:
    """Chooses among the deliveries for one item.

    The highest version wins, without versions the one that came last. A delete, which has no version, counts unless an
    item that came after it is newer than those before it. Where that can't tell which is the newer state, the source is
    asked, if it can be.

    Args:
        group: Deliveries that could be read, in the order in which they came.
        can_refetch: True if the job has a `fetch_one`.
        unsure_until: What came until then may be older than what a full sync has applied meanwhile.
    """
    upserts = [each for each in group if isinstance(each.change, Upsert)]
    deletes = [each for each in group if isinstance(each.change, Delete)]
    thin = [each for each in group if isinstance(each.change, Refetch)]
    winner = thin[-1] if thin else _newest(upserts) if upserts else deletes[-1]
    if not thin and deletes and winner.position < deletes[-1].position:
        winner = deletes[-1]
    assert winner.change is not None  # noqa: S101 - tells mypy; only what could be read is in the group
    losers = [each for each in group if each is not winner]
    if thin or (can_refetch and not _is_sure(winner, upserts, deletes, unsure_until)):
        return Choice(winner, winner.change, losers).asked_for()
    return Choice(winner, winner.change, losers)


def _is_sure(
    winner: Incoming, upserts: Sequence[Incoming], deletes: Sequence[Incoming], unsure_until: datetime | None
) -> bool:
    """True if the winner is the newest state beyond doubt."""
    if winner.is_overtaken or (upserts and deletes):
        return False
    if winner.version is not None:
        return not _is_contested(winner, upserts)
    return unsure_until is None or winner.delivery.received_at > unsure_until


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
