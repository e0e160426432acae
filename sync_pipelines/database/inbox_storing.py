"""Storing many deliveries in one transaction, each name of a sender's once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, insert, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from sync_pipelines.database.ledger import storable
from sync_pipelines.errors import RunError

Key = tuple[str, str | None]
"""A job, and what names a delivery at its sender's."""

_ATTEMPTS = 3
_NAMES_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelivery:
    """A delivery that is to be stored.

    Args:
        job: The sync job's name.
        kind: `upsert`, `delete`, `refetch` or `event`.
        received_at: When it came, aware.
        external_id: As far as it is known.
        item: The engine's JSON of the item, for an upsert.
        payload: The body of a webhook.
        headers: Of a webhook.
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
    """Where a delivery is.

    Args:
        id: Its number in the inbox; of a repeated one that of the first.
        repeated: True if the inbox had it before.
    """

    id: int
    repeated: bool = False


def store_deliveries(connection: Connection, table: Table, deliveries: Sequence[NewDelivery]) -> list[Stored]:
    """Stores deliveries and gives where each is, in their order."""
    nameless = [each for each in deliveries if each.delivery_id is None]
    named = [each for each in deliveries if each.delivery_id is not None]
    ids = iter(_insert_nameless(connection, table, nameless) if nameless else ())
    known = _Known(connection, table, named) if named else None
    return [
        Stored(next(ids)) if each.delivery_id is None or known is None else known.place(each) for each in deliveries
    ]


def _insert_nameless(connection: Connection, table: Table, deliveries: Sequence[NewDelivery]) -> Sequence[int]:
    statement = insert(table).returning(table.c.id, sort_by_parameter_order=True)
    return connection.scalars(statement, [_row(each) for each in deliveries]).all()


def find_known(connection: Connection, table: Table, keys: Sequence[Key]) -> dict[Key, int]:
    """The numbers of the deliveries with those names, as far as the inbox has them.

    Args:
        connection: To the ledger.
        table: The inbox.
        keys: Names of jobs, each with the name of a delivery.
    """
    query = select(table.c.job, table.c.delivery_id, table.c.id)
    found: dict[Key, int] = {}
    for start in range(0, len(keys), _NAMES_AT_ONCE):
        part = keys[start : start + _NAMES_AT_ONCE]
        rows = connection.execute(query.where(tuple_(table.c.job, table.c.delivery_id).in_(part)))
        found |= {(row[0], row[1]): row[2] for row in rows}
    return found


class _Known:
    """The deliveries that have a name, each stored now or before."""

    def __init__(self, connection: Connection, table: Table, deliveries: Sequence[NewDelivery]) -> None:
        self._connection = connection
        self._table = table
        self._new: dict[Key, int] = {}
        self._ids: dict[Key, int] = {}
        left: dict[Key, NewDelivery] = {}
        for each in deliveries:  # in the order in which they came; of equal ones the first
            left.setdefault((each.job, each.delivery_id), each)
        for _ in range(_ATTEMPTS):  # one that another process had may be gone when it is looked for
            self._store(list(left.values()))
            left = {key: each for key, each in left.items() if key not in self._ids}
            if not left:
                return
        raise RunError("the inbox neither takes nor has a delivery, although it was asked several times")

    def _store(self, deliveries: Sequence[NewDelivery]) -> None:
        table = self._table
        dialect = postgresql if self._connection.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(table).on_conflict_do_nothing()
        rows = [_row(each) for each in deliveries]
        found = self._connection.execute(statement.returning(table.c.job, table.c.delivery_id, table.c.id), rows)
        self._new |= {(row[0], row[1]): row[2] for row in found}
        self._ids |= self._new
        left = [key for each in deliveries if (key := (each.job, each.delivery_id)) not in self._ids]
        self._ids |= find_known(self._connection, table, left)

    def place(self, delivery: NewDelivery) -> Stored:
        """Where that delivery is. The first of equal ones is new, unless the inbox had it before."""
        key = (delivery.job, delivery.delivery_id)
        return Stored(self._ids[key], repeated=self._new.pop(key, None) is None)


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
