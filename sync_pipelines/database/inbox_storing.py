"""Stores many deliveries in one transaction, each name of a sender's once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Connection, Row, Table, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from sync_pipelines.database.ledger import storable
from sync_pipelines.errors import RunError

Key = tuple[str, str | None]
"""A job, and what names a delivery at its sender's."""

_ATTEMPTS = 3
_NAMES_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelivery:
    """Describes a delivery that is to be stored.

    Args:
        kind: `upsert`, `delete`, `refetch` or `event`.
        item: The engine's JSON of the item, for an upsert.
        delivery_id: What names it at the sender's, up to some hundred characters; None: it is one of its own.
        action: Of one that is applied already, what became of it.
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


@dataclass(frozen=True, slots=True)
class Stored:
    """Says where a delivery is.

    Args:
        id: Its number in the inbox; of a repeated one that of the first.
        repeated: True if the inbox had it before.
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
    attempts: int = _ATTEMPTS,
) -> list[Stored]:
    """Stores deliveries and gives where each is, in their order.

    Args:
        attempts: How often to try: what another process had stored may be gone when it is looked for.

    Raises:
        RunError: The inbox neither takes nor has a delivery.
    """
    rows = insert(connection, deliveries) if insert is not None else _insert(connection, table, deliveries)
    if len(rows) == len(deliveries):
        return [Stored(row.id) for row in sorted(rows, key=_number)]
    nameless = iter(sorted(row.id for row in rows if row.delivery_id is None))
    new: dict[Key, int] = {(row.job, row.delivery_id): row.id for row in rows if row.delivery_id is not None}
    named = {(each.job, each.delivery_id): each for each in reversed(deliveries) if each.delivery_id is not None}
    known = find_known(connection, table, [key for key in named if key not in new]) | new
    gone = [each for key, each in named.items() if key not in known]
    if gone:
        if attempts == 1:
            raise RunError("the inbox neither takes nor has a delivery, although it was asked several times")
        again = store_deliveries(connection, table, gone, insert, attempts - 1)
        known |= {(each.job, each.delivery_id): stored.id for each, stored in zip(gone, again, strict=True)}
    return [
        Stored(next(nameless)) if each.delivery_id is None else _place((each.job, each.delivery_id), known, new)
        for each in deliveries
    ]


def _number(row: Row[Any]) -> int:
    number: int = row.id
    return number


def _place(key: Key, known: Mapping[Key, int], new: dict[Key, int]) -> Stored:
    """Sorts new deliveries from known ones: the first of equal ones is new, unless the inbox had it before."""
    return Stored(known[key], repeated=new.pop(key, None) is None)


def _insert(connection: Connection, table: Table, deliveries: Sequence[NewDelivery]) -> Sequence[Row[Any]]:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table).on_conflict_do_nothing().returning(table.c.id, table.c.job, table.c.delivery_id)
    return connection.execute(statement, [_row(each) for each in deliveries]).all()


def find_known(connection: Connection, table: Table, keys: Sequence[Key]) -> dict[Key, int]:
    """Returns the numbers of the deliveries with those names, as far as the inbox has them.

    Args:
        keys: Names of jobs, each with the name of a delivery.
    """
    query = select(table.c.job, table.c.delivery_id, table.c.id)
    found: dict[Key, int] = {}
    for start in range(0, len(keys), _NAMES_AT_ONCE):
        part = keys[start : start + _NAMES_AT_ONCE]
        rows = connection.execute(query.where(tuple_(table.c.job, table.c.delivery_id).in_(part)))
        found |= {(row[0], row[1]): row[2] for row in rows}
    return found


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
    }
