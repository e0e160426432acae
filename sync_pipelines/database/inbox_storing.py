"""Stores many deliveries in one transaction, each that a sender names once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Any, Protocol

from sqlalchemy import Connection, Row, Table, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from sync_pipelines.database.ledger import storable
from sync_pipelines.errors import RunError

Key = tuple[str, str | None]
"""A job, and what names a delivery at its sender's."""

_ATTEMPTS = 4
_NAMES_AT_ONCE = 50
_UPSERT, _EVENT = "upsert", "event"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelivery:
    """Describes a delivery that is to be stored.

    Args:
        kind: `upsert`, `delete`, `refetch` or `event`.
        item: The engine's JSON of the item, for an upsert; of a delete its version; of an event the place of the one
            change that is meant of those it carries.
        delivery_id: What names it at the sender's, up to some hundred characters; None: it is one of its own.
        action: Of one that is applied already, what became of it.
        is_part: True if it is one of several changes that came together.
        came_with: The number of the delivery that it was split off later; it has that one's place in the order.
        next_try_at: When it is to be tried; None: at once.
    """

    job: str
    kind: str
    received_at: datetime
    external_id: str | None = None
    item: str | None = None
    payload: str | None = None
    headers: Mapping[str, str] | None = None
    delivery_id: str | None = None
    action: str | None = None
    is_part: bool = False
    came_with: int | None = None
    next_try_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """Says where a delivery is.

    Args:
        id: Its number in the inbox; of a repeated one that of the first.
        repeated: True if the inbox had it before, and nothing is to be done for it.
    """

    id: int
    repeated: bool = False


class Insert(Protocol):
    """Inserts deliveries in their order; one whose name the job knows is left out."""

    def __call__(self, connection: Connection, deliveries: Sequence[NewDelivery]) -> Sequence[Row[Any]]:
        """Gives `id`, `job` and `delivery_id` of those that were inserted."""


def store_deliveries(
    connection: Connection,
    table: Table,
    deliveries: Sequence[NewDelivery],
    insert: Insert | None = None,
    *,
    attempts: int = _ATTEMPTS,
) -> list[Stored]:
    """Stores deliveries and gives where each is, in their order.

    One that repeats another, by name and content, is not stored again; if the first one has failed, it waits once more,
    as it is now. One that has only its name in common with another is stored under a name of its own.

    Args:
        attempts: How often to try: what another process had stored may be gone when it is looked for.

    Raises:
        RunError: The inbox neither takes nor has a delivery.
    """
    if not deliveries:
        return []
    rows = insert(connection, deliveries) if insert is not None else _insert(connection, table, deliveries)
    if len(rows) == len(deliveries):
        return [Stored(row.id) for row in sorted(rows, key=_number)]
    nameless = iter(sorted(row.id for row in rows if row.delivery_id is None))
    new: dict[Key, int] = {(row.job, row.delivery_id): row.id for row in rows if row.delivery_id is not None}
    found: dict[int, Stored] = {}
    for place, each in enumerate(deliveries):  # of those with one name the first is the new one
        number = next(nameless) if each.delivery_id is None else new.pop(_key(each), None)
        if number is not None:
            found[place] = Stored(number)
    known = find_known(connection, table, [_key(each) for place, each in enumerate(deliveries) if place not in found])
    left: dict[int, NewDelivery] = {}
    for place, each in enumerate(deliveries):
        if place in found:
            continue
        before = known.get(_key(each))
        if before is not None and before.is_same(each):
            found[place] = _repeated(connection, table, before, each)
        else:
            left[place] = each if before is None else _renamed(each)
    if left:
        if attempts == 1:
            raise RunError("the inbox neither takes nor has a delivery, although it was asked several times")
        again = store_deliveries(connection, table, list(left.values()), insert, attempts=attempts - 1)
        found |= dict(zip(left, again, strict=True))
    return [found[place] for place in range(len(deliveries))]


def _number(row: Row[Any]) -> int:
    number: int = row.id
    return number


def _key(delivery: NewDelivery) -> Key:
    return delivery.job, delivery.delivery_id


def _insert(connection: Connection, table: Table, deliveries: Sequence[NewDelivery]) -> Sequence[Row[Any]]:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table).on_conflict_do_nothing().returning(table.c.id, table.c.job, table.c.delivery_id)
    return connection.execute(statement, [_row(each) for each in deliveries]).all()


@dataclass(frozen=True, slots=True)
class Known:
    """Holds what the inbox has of a delivery, to compare others of its name with."""

    id: int
    kind: str
    external_id: str | None
    item: str | None
    payload: str | None
    state: str
    attempts: int

    def is_same(self, given: NewDelivery) -> bool:
        """True if the sender sends the same once more: the same body, or the same item.

        The item alone is enough, because a sender may count in the body how often it has tried; but not of one that
        came with others.
        """
        has_bodies = self.payload is not None and given.payload is not None
        if has_bodies and self.payload == given.payload:
            return True
        if self.kind == given.kind == _UPSERT and not (has_bodies and given.is_part):
            return self.item == given.item
        if has_bodies:
            return False
        is_alike = self.kind == given.kind and self.item == given.item
        return _EVENT in (self.kind, given.kind) or (is_alike and self.external_id == storable(given.external_id))

    @property
    def may_wait_again(self) -> bool:
        """True if it has failed so far: what made it fail may be mended."""
        return self.state == "failed" or (self.state == "waiting" and self.attempts > 0)


def find_known(connection: Connection, table: Table, keys: Sequence[Key]) -> dict[Key, Known]:
    """Returns the deliveries with those names, as far as the inbox has them.

    Args:
        keys: Names of jobs, each with the name of a delivery.
    """
    columns = [table.c[name] for name in Known.__dataclass_fields__]
    query = select(table.c.job, table.c.delivery_id, *columns)
    wanted, found = list(dict.fromkeys(keys)), {}
    for start in range(0, len(wanted), _NAMES_AT_ONCE):
        part = wanted[start : start + _NAMES_AT_ONCE]
        for row in connection.execute(query.where(tuple_(table.c.job, table.c.delivery_id).in_(part))):
            found[row[0], row[1]] = Known(*row[2:])
    return found


def find_repeated(connection: Connection, table: Table, delivery: NewDelivery) -> int | None:
    """Returns the number of the delivery that this one repeats, None if there is none."""
    for each in (delivery, _renamed(delivery)) if delivery.delivery_id is not None else ():
        known = find_known(connection, table, [_key(each)]).get(_key(each))
        if known is not None and known.is_same(each):
            return known.id
    return None


def _repeated(connection: Connection, table: Table, known: Known, given: NewDelivery) -> Stored:
    again = replace(given, next_try_at=given.received_at if given.action is None else None)
    waits_again = known.may_wait_again and put_again(connection, table, again, number=known.id, state=known.state)
    return Stored(known.id, repeated=not waits_again or known.state == "waiting")


def put_again(connection: Connection, table: Table, given: NewDelivery, *, number: int, state: str) -> bool:
    """Puts a delivery in the place of one that has not been applied. It is as old as that one.

    Args:
        given: With a `next_try_at`, if it is to wait: what has come in the meantime is newer, and is looked for then.
        number: Of that one.
        state: What its state must still be.

    Returns:
        False if its state is another one by now.
    """
    left = {"job", "delivery_id", "received_at", "came_with"}
    values = {name: value for name, value in _row(given).items() if name not in left}
    statement = update(table).where(table.c.id == number, table.c.state == state)
    return connection.execute(statement.values(**values, message=None)).rowcount == 1


def _renamed(delivery: NewDelivery) -> NewDelivery:
    """Returns a delivery under a name made of the sender's and the content."""
    told = [delivery.kind, delivery.external_id, delivery.item] if delivery.payload is None else [delivery.payload]
    digest = sha256("\0".join(each or "" for each in told).encode("utf-8", "surrogatepass")).hexdigest()
    return replace(delivery, delivery_id=f"{delivery.delivery_id} {digest[:32]}")


def _row(delivery: NewDelivery) -> dict[str, Any]:
    finished = delivery.action is not None
    return {
        "job": delivery.job,
        "kind": delivery.kind,
        "external_id": storable(delivery.external_id),
        "item": delivery.item,
        "payload": delivery.payload,
        "headers": dict(delivery.headers) if delivery.headers is not None else None,
        "delivery_id": delivery.delivery_id,
        "received_at": delivery.received_at,
        "state": "applied" if finished else "waiting",
        "attempts": 1 if finished else 0,
        "action": delivery.action,
        "finished_at": delivery.received_at if finished else None,
        "came_with": delivery.came_with,
        "next_try_at": delivery.next_try_at,
    }
