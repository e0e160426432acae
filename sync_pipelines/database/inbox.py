"""The inbox: single items that wait to be applied."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, insert, select, update

from sync_pipelines.database.ledger import Ledger, storable

WAITING = "waiting"
APPLIED = "applied"
FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One item that waits.

    Args:
        id: Its number in the inbox; a later one is newer.
        item: The engine's JSON of the item.
        received_at: When it was stored, aware.
    """

    id: int
    item: str
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of one delivery. `action` is None for one that failed; then `message` says why."""

    id: int
    external_id: str | None
    action: str | None
    message: str | None = None


class Inbox:
    """The deliveries of all sync jobs.

    Args:
        ledger: The ledger that has them.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._table = ledger.tables.inbox

    def store(self, job: str, item: str, at: datetime) -> int:
        """Stores an item durably and gives its number."""
        row = {"job": job, "item": item, "received_at": at, "state": WAITING, "attempts": 0}
        with self._ledger.transaction() as connection:
            key = connection.execute(insert(self._table).values(row)).inserted_primary_key
        return int(key[0]) if key else 0

    def count(self, job: str, state: str = WAITING) -> int:
        """How many deliveries of the job are in that state."""
        table = self._table
        query = select(func.count()).where(table.c.job == job, table.c.state == state)
        with self._ledger.transaction() as connection:
            return int(connection.scalar(query) or 0)

    def oldest_waiting(self, job: str, limit: int) -> list[Delivery]:
        """The deliveries that have waited longest. They stay waiting until they are settled."""
        table = self._table
        query = select(table).where(table.c.job == job, table.c.state == WAITING).order_by(table.c.id).limit(limit)
        with self._ledger.transaction() as connection:
            return [Delivery(row.id, row.item, row.received_at) for row in connection.execute(query)]

    def settle(self, settled: Iterable[Settled], at: datetime) -> None:
        """Notes what became of deliveries, all in one transaction."""
        table = self._table
        with self._ledger.transaction() as connection:
            for each in settled:
                connection.execute(
                    update(table)
                    .where(table.c.id == each.id)
                    .values(
                        state=FAILED if each.action is None else APPLIED,
                        attempts=table.c.attempts + 1,
                        external_id=storable(each.external_id),
                        action=each.action,
                        message=each.message,
                        finished_at=at,
                    )
                )

    def settled(self, job: str, limit: int = 100) -> list[Settled]:
        """The deliveries that were settled last, newest first."""
        table = self._table
        query = (
            select(table).where(table.c.job == job, table.c.state != WAITING).order_by(table.c.id.desc()).limit(limit)
        )
        with self._ledger.transaction() as connection:
            return [Settled(row.id, row.external_id, row.action, row.message) for row in connection.execute(query)]
