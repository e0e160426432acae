"""Coalesces several deliveries for one item into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sync_pipelines.database.inbox import Delivery
from sync_pipelines.engine.changes import ChangeEvent, Delete, Refetch, Upsert
from sync_pipelines.engine.versions import Version, newer_of, supersedes


@dataclass(frozen=True, slots=True)
class Incoming:
    """Holds a delivery as it was read.

    Args:
        event: The change that it carries; None if it can't be read.
        external_id: Canonical id of the item, as far as it is known.
        version: The item's, for an upsert of a job with `get_version`; or that of a delete which says its own.
        several: The changes, if it carries more than one; then it is to be split.
        is_overtaken: True if a later delivery for the item has been applied, and no version tells which is newer.
    """

    position: int
    delivery: Delivery
    event: ChangeEvent | None = None
    external_id: str | None = None
    version: Version | None = None
    error: Exception | None = None
    several: Sequence[ChangeEvent] = ()
    is_overtaken: bool = False

    @property
    def may_be_overtaken(self) -> bool:
        """False if a later delivery for the item would have found it: waiting, by the id as the target's key has it."""
        delivery = self.delivery
        has_waited = not delivery.attempts and delivery.next_try_at is None  # one that has failed was sent again
        was_known = delivery.external_id == self.external_id and has_waited
        return isinstance(self.event, (Upsert, Delete)) and not was_known


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

    The state that supersedes all others is kept: an item, or a delete with a version. A delete without one counts
    unless a state that came after it supersedes those before it. Where that can't tell which is the newer state, the
    source is asked, if it can be.

    Args:
        group: Deliveries that could be read, in the order in which they came.
        unsure_until: What came until then may be older than what a full sync has applied meanwhile.
    """
    deletes = [each for each in group if isinstance(each.event, Delete) and each.version is None]
    notifications = [each for each in group if isinstance(each.event, Refetch)]
    states = [each for each in group if isinstance(each.event, Upsert) or each.version is not None]
    kept = notifications[-1] if notifications else _newest(states) if states else deletes[-1]
    if not notifications and deletes and kept.position < deletes[-1].position:
        kept = deletes[-1]
    assert kept.event is not None  # noqa: S101 - tells mypy; only what could be read is in the group
    coalesced = Coalesced(kept, kept.event, [each for each in group if each is not kept])
    if notifications or (can_ask and not _is_sure(kept, states, deletes, unsure_until)):
        return coalesced.to_be_asked()
    return coalesced


def _is_sure(
    kept: Incoming, states: Sequence[Incoming], deletes: Sequence[Incoming], unsure_until: datetime | None
) -> bool:
    """True if it certainly is the newest state."""
    if kept.is_overtaken or (states and deletes):
        return False
    if kept.version is not None:
        return not any(each.version == kept.version and each.event != kept.event for each in states)
    return unsure_until is None or kept.delivery.received_at > unsure_until


def _newest(states: Sequence[Incoming]) -> Incoming:
    newest = states[0]
    for each in states[1:]:
        if supersedes(each.version, newest.version):
            newest = each
    return newest


def _source_id(incoming: Incoming) -> str:
    """Returns the id as the source wrote it, which it may know better than the canonical one."""
    if isinstance(incoming.event, (Delete, Refetch)):
        return incoming.event.external_id
    return incoming.delivery.external_id or incoming.external_id or ""
