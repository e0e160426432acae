"""Several changes of one delivery: each is kept as a delivery of its own, and so has an outcome of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from sync_pipelines.database.inbox_storing import NewDelivery
from sync_pipelines.engine.stored_changes import EVENT, StoredChange


def parts_of(whole: NewDelivery, changes: Sequence[StoredChange | None]) -> list[NewDelivery]:
    """Returns a delivery for each of the several changes that a whole one carries, in their order.

    The first one has the sender's name and the body, the others have names made of both, so that each of them is known
    when the whole is sent again.

    Args:
        whole: The delivery as an event.
        changes: What it carries; None for one that can't be kept by itself: it is parsed again later, with the body.
    """
    return [_part(whole, number, change) for number, change in enumerate(changes)]


def _part(whole: NewDelivery, number: int, change: StoredChange | None) -> NewDelivery:
    change = change or StoredChange(EVENT, None, str(number))
    payload = whole.payload if number == 0 or change.kind == EVENT else None
    return replace(
        whole,
        kind=change.kind,
        external_id=change.external_id,
        item=change.item,
        payload=payload,
        delivery_id=_name(whole, number),
        is_part=True,
    )


def _name(whole: NewDelivery, number: int) -> str | None:
    if number == 0 or whole.delivery_id is None:
        return whole.delivery_id
    digest = hashlib.sha256((whole.payload or "").encode("utf-8", "surrogatepass")).hexdigest()
    return f"{whole.delivery_id} [{number + 1}] {digest[:16]}"
