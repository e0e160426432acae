"""Keeps the inbox: deliveries of single items, waiting to be applied."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Text, and_, delete, func, literal_column, or_, select, update

from sync_pipelines.database.inbox_storing import NewDelivery, Stored, find_repeated, put_again, store_deliveries
from sync_pipelines.database.ledger import Ledger, storable

WAITING = "waiting"
APPLIED = "applied"
FAILED = "failed"
STATES = (WAITING, APPLIED, FAILED)

_AT_ONCE = 1_000
_COUNTED_AT_MOST = 100_000
_IDS_AT_ONCE = 500
_MORE_AT_MOST = 20_000
_INDEXED_CHARS = 200
_ID_BEGINS: ColumnElement[str] = literal_column(f"substr(external_id, 1, {_INDEXED_CHARS})", Text)


@dataclass(frozen=True, slots=True)
class Delivery:
    """Holds one delivered change of an item.

    Args:
        id: Its number in the inbox; a later one is newer, unless it was split off an older one.
        item: The engine's JSON of the item; of what is no upsert see `NewDelivery`.
        kind: `upsert`, `delete`, `refetch`, or `event`: a payload that is yet to be parsed.
        payload: The body of a webhook, unless the item is the same.
        delivery_id: What names it at the sender's.
        next_try_at: When it is to be tried again; None: at once.
        state: `waiting`, `applied` or `failed`.
        action: What became of it, e.g. `updated`.
        came_with: The number of the delivery that it was split off.
    """

    id: int
    item: str | None
    received_at: datetime
    kind: str = "upsert"
    external_id: str | None = None
    payload: str | None = None
    headers: Mapping[str, str] | None = None
    delivery_id: str | None = None
    attempts: int = 0
    next_try_at: datetime | None = None
    state: str = WAITING
    action: str | None = None
    message: str | None = None
    finished_at: datetime | None = None
    job: str = ""
    came_with: int | None = None

    @property
    def place(self) -> int:
        """Returns its place in the order in which deliveries came."""
        return self.came_with if self.came_with is not None else self.id


@dataclass(frozen=True, slots=True)
class Completed:
    """Says what became of one delivery.

    Args:
        external_id: The item's; None if it is as the inbox has it, or not known.
        action: What was done; None if it failed.
        next_try_at: When one that failed is to be tried again; None: not any more.
        is_attempt: False if it was no fault of the delivery, and does not count.
    """

    id: int
    external_id: str | None
    action: str | None
    message: str | None = None
    next_try_at: datetime | None = None
    is_attempt: bool = True


@dataclass(frozen=True, slots=True)
class Depth:
    """Counts what is in the inbox of a sync job.

    Args:
        waiting: How many deliveries wait, 100,000 at most.
        failed: How many have failed, 100,000 at most.
        oldest_waiting_at: When the oldest of those that wait came, None if none waits.
    """

    job: str
    waiting: int
    failed: int
    oldest_waiting_at: datetime | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """Counts what waits of a sync job.

    Args:
        count: How many deliveries, 100,000 at most.
        is_due_at_once: True if some of them have not been tried yet.
        next_try_at: When the first of the others is to be tried again, None if there are no others.
    """

    count: int
    is_due_at_once: bool
    next_try_at: datetime | None

    def is_due(self, now: datetime) -> bool:
        """True if some of it is to be tried by now."""
        return self.is_due_at_once or (self.next_try_at is not None and self.next_try_at <= now)


class Inbox:
    """Keeps the deliveries of all sync jobs."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._table = ledger.tables.inbox

    def store(self, job: str, item: str, at: datetime) -> int:
        """Stores an item durably and gives its number."""
        return self.store_many([NewDelivery(job=job, kind="upsert", item=item, received_at=at)])[0].id

    def store_many(self, deliveries: Sequence[NewDelivery]) -> list[Stored]:
        """Stores deliveries durably, all in one transaction. See `store_deliveries` for those that are repeated.

        Returns:
            The number of each, in their order; of a repeated one that of the first.
        """
        with self._ledger.transaction() as connection:
            return store_deliveries(connection, self._table, deliveries)

    def known(self, delivery: NewDelivery) -> Delivery | None:
        """Returns the delivery that this one repeats: of the same name at the sender's, and the same content."""
        with self._ledger.transaction() as connection:
            number = find_repeated(connection, self._table, delivery)
        return self.show(number) if number is not None else None

    def count(self, job: str, state: str = WAITING) -> int:
        """Returns how many deliveries of the job are in that state."""
        table = self._table
        query = select(func.count()).where(table.c.job == job, table.c.state == state)
        with self._ledger.transaction() as connection:
            return int(connection.scalar(query) or 0)

    def depths(self, jobs: Iterable[str]) -> list[Depth]:
        """Returns how much waits and has failed of each job. Asks no more than a page of its index takes to count."""
        table = self._table
        found = []
        with self._ledger.transaction() as connection:
            for job in jobs:
                counts = {}
                for state in (WAITING, FAILED):
                    some = select(table.c.id).where(table.c.job == job, table.c.state == state).limit(_COUNTED_AT_MOST)
                    counts[state] = int(connection.scalar(select(func.count()).select_from(some.subquery())) or 0)
                first = select(table.c.received_at).where(table.c.job == job, table.c.state == WAITING)
                oldest = connection.scalar(first.order_by(table.c.id).limit(1))
                found.append(Depth(job, counts[WAITING], counts[FAILED], oldest))
        return found

    def next_try(self, job: str) -> Waiting:
        """Returns how much of a job waits, since and until when. Counts no more than a page of its index."""
        table = self._table
        waits = (table.c.job == job, table.c.state == WAITING)
        some = select(table.c.next_try_at).where(*waits).limit(_COUNTED_AT_MOST).subquery()
        first = func.min(some.c.next_try_at, type_=table.c.next_try_at.type)
        at_once = func.count() - func.count(some.c.next_try_at)
        with self._ledger.transaction() as connection:
            count, now, at = connection.execute(select(func.count(), at_once, first).select_from(some)).one()
        return Waiting(count, is_due_at_once=bool(now), next_try_at=at)

    def waiting_by_job(self) -> dict[str, Waiting]:
        """Returns how much waits of each job that has something waiting."""
        with self._ledger.together():
            jobs = self._ledger.jobs_having(self._table, self._table.c.state == WAITING)
            return {job: self.next_try(job) for job in jobs}

    def oldest_waiting(
        self, job: str, limit: int, due_at: datetime | None = None, max_bytes: int | None = None
    ) -> list[Delivery]:
        """Returns the deliveries that have waited longest. They stay waiting until they are completed.

        Args:
            due_at: Only those that are to be tried by then.
            max_bytes: What they may take together; the first one is given whatever it takes.
        """
        table = self._table
        conditions = [table.c.job == job, table.c.state == WAITING]
        if due_at is not None:
            conditions.append(or_(table.c.next_try_at.is_(None), table.c.next_try_at <= due_at))
        if max_bytes is not None:
            with self._ledger.transaction() as connection:
                sizes = self._sizes(connection, conditions, limit)
            conditions.append(table.c.id <= _last_within(sizes, max_bytes, at_least=1))
        return self._select(*conditions, limit=limit, oldest_first=True)

    def newest(self, job: str | None = None, state: str | None = None, limit: int = 20) -> list[Delivery]:
        """Returns the newest deliveries, newest first; of one job or all, in one state or any."""
        table = self._table
        conditions = [] if job is None else [table.c.job == job]
        return self._select(*conditions, *([] if state is None else [table.c.state == state]), limit=limit)

    def show(self, delivery: int) -> Delivery | None:
        """Returns the delivery of that number."""
        return next(iter(self._select(self._table.c.id == delivery, limit=1)), None)

    def _select(self, *conditions: ColumnElement[bool], limit: int, oldest_first: bool = False) -> list[Delivery]:
        key = self._table.c.id
        query = select(self._table).where(*conditions).order_by(key if oldest_first else key.desc()).limit(limit)
        with self._ledger.transaction() as connection:
            return [_delivery(row) for row in connection.execute(query)]

    def waiting_of(self, job: str, external_ids: Sequence[str], after: int, max_bytes: int) -> list[Delivery]:
        """Returns deliveries for these items that wait: all that have been tried, and the next ones; oldest first.

        Args:
            after: The number after which those begin that have not been tried; the older ones are known.
            max_bytes: What those may take together that have not been tried.
        """
        table, found, sizes = self._table, [], []
        texts = [storable(each) or "" for each in external_ids]
        parts = [self._is_for(texts[start : start + _IDS_AT_ONCE]) for start in range(0, len(texts), _IDS_AT_ONCE)]
        waits = (table.c.job == job, table.c.state == WAITING)
        with self._ledger.transaction() as connection:
            for part in parts:
                sizes += self._sizes(connection, [*waits, part, table.c.id > after], _MORE_AT_MOST)
            last = _last_within(sorted(sizes)[:_MORE_AT_MOST], max_bytes)
            wanted = or_(table.c.next_try_at.is_not(None), table.c.id.between(after + 1, last))
            for part in parts:
                found += [_delivery(row) for row in connection.execute(select(table).where(*waits, part, wanted))]
        return sorted(found, key=lambda delivery: delivery.id)

    def _sizes(
        self, connection: Connection, conditions: Iterable[ColumnElement[bool]], limit: int
    ) -> list[tuple[int, int]]:
        """Returns number and size of the oldest deliveries, in bytes (SQLite: characters). Nothing is read for it."""
        table = self._table
        size = func.octet_length if connection.dialect.name == "postgresql" else func.length
        taken = func.coalesce(size(table.c.item), 0) + func.coalesce(size(table.c.payload), 0)
        query = select(table.c.id, taken).where(*conditions).order_by(table.c.id).limit(limit)
        return [(row[0], row[1]) for row in connection.execute(query)]

    def newest_applied(
        self, job: str, external_ids: Sequence[str], since: int, actions: Collection[str] | None = None
    ) -> dict[str, int]:
        """Returns the place of the newest delivery for each of these items that was applied, as far as there is one.

        Args:
            external_ids: Canonical ids.
            since: Only deliveries with a higher place.
            actions: Only those of which one of these became; by default whatever it was.
        """
        table = self._table
        place = func.coalesce(table.c.came_with, table.c.id)
        conditions = [table.c.job == job, table.c.state == APPLIED, place > since]
        if actions is not None:
            conditions.append(table.c.action.in_(list(actions)))
        found: dict[str, int] = {}
        with self._ledger.transaction() as connection:
            for start in range(0, len(external_ids), _IDS_AT_ONCE):
                ids = {storable(each) or "": each for each in external_ids[start : start + _IDS_AT_ONCE]}
                query = select(table.c.external_id, func.max(place)).where(*conditions, self._is_for(list(ids)))
                rows = connection.execute(query.group_by(table.c.external_id))
                found |= {ids[row[0]]: row[1] for row in rows}
        return found

    def split(self, delivery: int, parts: Sequence[NewDelivery]) -> None:
        """Puts parts of a delivery that waits in its place: the first under its number."""
        with self._ledger.transaction() as connection:
            if put_again(connection, self._table, parts[0], number=delivery, state=WAITING):
                store_deliveries(connection, self._table, [replace(each, came_with=delivery) for each in parts[1:]])

    def _is_for(self, external_ids: Sequence[str]) -> ColumnElement[bool]:
        """True of deliveries for these items, by the index."""
        indexed = _ID_BEGINS.in_({each[:_INDEXED_CHARS] for each in external_ids})
        return and_(indexed, self._table.c.external_id.in_(external_ids))

    def complete(self, completed: Iterable[Completed], at: datetime, within: Connection | None = None) -> None:
        """Notes what became of deliveries, all in one transaction.

        Args:
            within: In whose transaction; by default in one of its own.
        """
        groups: dict[Completed, list[int]] = {}
        for each in completed:
            groups.setdefault(replace(each, id=0), []).append(each.id)
        if not groups:
            return
        with nullcontext(within) if within is not None else self._ledger.transaction() as connection:
            for alike, ids in groups.items():
                self._complete(connection, alike, ids, at)

    def _complete(self, connection: Connection, alike: Completed, ids: Sequence[int], at: datetime) -> None:
        """Notes the same of several deliveries: most of a burst are superseded by others."""
        table, again = self._table, alike.next_try_at is not None
        values: dict[str, Any] = {
            "state": APPLIED if alike.action is not None else WAITING if again else FAILED,
            "action": alike.action,
            "message": alike.message,
            "next_try_at": alike.next_try_at,
            "finished_at": None if again else at,
        }
        if alike.external_id is not None:
            values["external_id"] = storable(alike.external_id)
        statement = update(table).values(attempts=table.c.attempts + int(alike.is_attempt), **values)
        for start in range(0, len(ids), _AT_ONCE):
            connection.execute(statement.where(table.c.id.in_(ids[start : start + _AT_ONCE])))

    def completed(self, job: str, limit: int = 100) -> list[Completed]:
        """Returns the deliveries that were completed last, newest first."""
        table = self._table
        found = self._select(table.c.job == job, table.c.state != WAITING, limit=limit)
        return [Completed(each.id, each.external_id, each.action, each.message) for each in found]

    def replay(self, deliveries: Iterable[int], at: datetime, *, is_forced: bool = False) -> list[int]:
        """Has deliveries wait again, with all their attempts.

        Args:
            at: The time. What has come since they came is newer, and is looked for then.
            is_forced: True to have them wait as if they had just come: nothing is newer.

        Returns:
            The numbers of those that there are.
        """
        return self._replay(at, self._table.c.id.in_(list(deliveries)), is_forced=is_forced)

    def replay_failed(self, job: str, at: datetime, *, is_forced: bool = False) -> list[int]:
        """Has all deliveries of the job that failed wait again; gives their numbers. See `replay`."""
        return self._replay(at, self._table.c.job == job, self._table.c.state == FAILED, is_forced=is_forced)

    def _replay(self, at: datetime, *conditions: ColumnElement[bool], is_forced: bool) -> list[int]:
        table = self._table
        again: dict[str, Any] = {"state": WAITING, "attempts": 0, "action": None, "message": None, "finished_at": None}
        again |= {"received_at": at, "next_try_at": None} if is_forced else {"next_try_at": at}
        statement = update(table).where(*conditions).values(again).returning(table.c.id)
        with self._ledger.transaction() as connection:
            return sorted(connection.scalars(statement))

    def drop(self, deliveries: Iterable[int]) -> list[int]:
        """Removes deliveries; gives the numbers of those that there were."""
        table = self._table
        with self._ledger.transaction() as connection:
            return sorted(
                connection.scalars(delete(table).where(table.c.id.in_(list(deliveries))).returning(table.c.id))
            )

    def purge(self, before: datetime) -> bool:
        """Removes a part of the deliveries that were completed before that time. True if there may be more."""
        table = self._table
        old = select(table.c.id).where(table.c.finished_at < before).limit(_AT_ONCE)
        with self._ledger.transaction() as connection:
            return connection.execute(delete(table).where(table.c.id.in_(old))).rowcount == _AT_ONCE


def _last_within(sizes: Iterable[tuple[int, int]], max_bytes: int, at_least: int = 0) -> int:
    """Returns the number of the last delivery that fits, 0 if none does."""
    last = taken = 0
    for count, (number, size) in enumerate(sizes):
        taken += size
        if taken > max_bytes and count >= at_least:
            break
        last = number
    return last


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name
