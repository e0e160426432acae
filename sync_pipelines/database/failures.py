"""Keeps failures: every item that failed, until it succeeds, vanishes from the source, or is given up."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from typing import Any

from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    column,
    delete,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from sync_pipelines.database.failure_rows import (
    GIVEN_UP,
    OPEN,
    RESOLVED,
    UNRESOLVED,
    UPSERT,
    FailureCount,
    FailureGroup,
    FailureRow,
    Known,
    Retryable,
    Unresolved,
)
from sync_pipelines.database.ledger import Ledger, storable

_AT_ONCE = 500
_UNRESOLVED_AT_ONCE = 20_000
_LONGEST_ID = 200
_LARGEST_PAYLOADS = 8_000_000


class Failures:
    """Keeps the failures of all sync jobs."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._table = ledger.tables.failures

    def transaction(self, within: Connection | None = None) -> AbstractContextManager[Connection]:
        """Opens a transaction, or goes on in the one that is given."""
        return nullcontext(within) if within is not None else self._ledger.transaction()

    def known(self, job: str, keys: Sequence[str], within: Connection) -> dict[str, Known]:
        """Returns what is known of the failures with these keys; nobody else changes it until the transaction ends."""
        table, found = self._table, {}
        columns = [table.c[name] for name in Known.__dataclass_fields__]
        for start in range(0, len(keys), _AT_ONCE):
            wanted = table.c.key.in_(keys[start : start + _AT_ONCE])
            query = select(*columns).where(table.c.job == job, wanted).with_for_update()
            found.update({row.key: Known(**row._mapping) for row in within.execute(query)})  # noqa: SLF001
        return found

    def save(self, rows: Sequence[FailureRow], within: Connection) -> None:
        """Keeps failures, in place of what is known of the same items. A payload that is not given stays as it is."""
        if not rows:
            return
        stored = [_stored(each) for each in rows]
        if within.dialect.name == "sqlite":
            within.execute(self._upsert, stored)
        else:  # as one value: a statement per row, or a value per field, takes several times as long
            within.execute(self._upsert, {"rows": json.dumps(stored, default=datetime.isoformat)})

    @cached_property
    def _upsert(self) -> Any:
        columns = [self._table.c[name] for name in FailureRow.__dataclass_fields__]
        if self._ledger.database.dialect.name == "sqlite":
            return _on_conflict(sqlite.insert(self._table), self._table)
        given = func.json_to_recordset(bindparam("rows", type_=Text).cast(JSON))
        fields = given.table_valued(*(column(each.name, each.type) for each in columns)).render_derived(with_types=True)
        insert = postgresql.insert(self._table).from_select([each.name for each in columns], select(fields))
        return _on_conflict(insert, self._table)

    def unresolved(self, job: str, not_run: str, seen_until: datetime) -> Iterator[list[Unresolved]]:
        """Yields failures that are open or given up and did not fail in a run, in parts.

        Args:
            seen_until: Only such whose payload is known since then, or longer.
        """
        table, after = self._table, ""
        columns = [table.c[name] for name in Unresolved.__dataclass_fields__]
        old = or_(table.c.seen_at.is_(None), table.c.seen_at <= seen_until)
        wanted = (table.c.job == job, table.c.state.in_(UNRESOLVED), table.c.last_run_id != not_run, old)
        while True:
            query = (
                select(*columns).where(*wanted, table.c.key > after).order_by(table.c.key).limit(_UNRESOLVED_AT_ONCE)
            )
            with self._ledger.transaction() as connection:
                part = [Unresolved(*row) for row in connection.execute(query)]
            if not part:
                return
            yield part
            after = part[-1].key

    def resolve(self, job: str, keys: Sequence[str], by: str, at: datetime, within: Connection | None = None) -> int:
        """Resolves failures; returns how many. Their payloads are not kept any longer."""
        table, count = self._table, 0
        values = {"state": RESOLVED, "resolved_at": at, "resolved_by": by, "next_try_at": None, "payload": None}
        with self.transaction(within) as connection:
            for start in range(0, len(keys), _AT_ONCE):
                wanted = table.c.key.in_(keys[start : start + _AT_ONCE])
                over = update(table).where(table.c.job == job, wanted, table.c.state.in_(UNRESOLVED))
                count += connection.execute(over.values(values)).rowcount
        return count

    def reschedule(self, job: str, next_tries: Mapping[str, datetime | None], within: Connection | None = None) -> None:
        """Notes when failures are to be tried again.

        Args:
            next_tries: Key -> when; None for with the next run.
            within: In whose transaction; by default in one of its own.
        """
        groups: dict[datetime | None, list[str]] = {}
        for key, at in next_tries.items():
            groups.setdefault(at, []).append(key)
        table = self._table
        with self.transaction(within) as connection:
            for at, keys in groups.items():
                for start in range(0, len(keys), _AT_ONCE):
                    wanted = (table.c.key.in_(keys[start : start + _AT_ONCE]), table.c.state.in_(UNRESOLVED))
                    connection.execute(update(table).where(table.c.job == job, *wanted).values(next_try_at=at))

    def _retryable(self, job: str, which: Retryable) -> list[ColumnElement[bool]]:
        table = self._table
        has_payload: ColumnElement[bool] = table.c.payload.is_not(None)
        if not which.has_versions:
            is_newest: ColumnElement[bool] = table.c.seen_at.is_not(None)
            if which.uncertain_since is not None:
                is_newest = and_(is_newest, table.c.seen_at >= which.uncertain_since)
            has_payload = and_(has_payload, is_newest)
        can_be = or_(has_payload, table.c.external_id.is_not(None)) if which.by_asking else has_payload
        conditions = [table.c.job == job, table.c.state.in_(which.states), table.c.action == UPSERT, can_be]
        if which.due_at is not None:
            conditions.append(table.c.next_try_at <= which.due_at)
        return conditions

    def retryable(self, job: str, which: Retryable, after: str, limit: int) -> list[FailureRow]:
        """Returns failures that can be tried again, in the order of their keys.

        Args:
            after: Only those with a later key.
            limit: How many at most; fewer if their payloads are large.
        """
        table = self._table
        size = func.coalesce(func.length(table.c.payload), 0)
        wanted = [*self._retryable(job, which), table.c.key > after]
        with self._ledger.transaction() as connection:
            sizes = connection.execute(select(table.c.key, size).where(*wanted).order_by(table.c.key).limit(limit))
            last, taken = "", 0
            for key, length in sizes:
                taken += length
                if last and taken > _LARGEST_PAYLOADS:
                    break
                last = key
        return self._rows(select(table).where(*wanted, table.c.key <= last).order_by(table.c.key))

    def count_retryable(self, job: str, which: Retryable) -> int:
        """Returns how many failures can be tried again."""
        return self._count(*self._retryable(job, which))

    def next_due_at(self, job: str, which: Retryable) -> datetime | None:
        """Returns when the first of these failures is due, None if none is."""
        first = func.min(self._table.c.next_try_at, type_=self._table.c.next_try_at.type)
        with self._ledger.transaction() as connection:
            found: datetime | None = connection.scalar(select(first).where(*self._retryable(job, which)))
        return found

    def jobs_waiting(self) -> list[str]:
        """Returns the jobs with open failures that have a time for their next try."""
        table = self._table
        return self._ledger.jobs_having(table, table.c.state == OPEN, table.c.next_try_at.is_not(None))

    def of_item(self, job: str, *spellings: str) -> FailureRow | None:
        """Returns the failure of an item, by its canonical id or as the source writes it; the first spelling counts."""
        table, newest = self._table, self._table.c.last_failed_at.desc()
        for external_id in spellings:
            found = self._rows(select(table).where(table.c.job == job, table.c.key == key_of_id(external_id)))
            if not found:
                same = select(table).where(table.c.job == job, table.c.source_id == storable(external_id))
                found = self._rows(same.order_by(newest).limit(1))
            if found:
                return found[0]
        return None

    def of_keys(self, job: str, keys: Sequence[str], within: Connection) -> list[FailureRow]:
        """Returns the failures with these keys that are not resolved."""
        table, found = self._table, []
        for start in range(0, len(keys), _AT_ONCE):
            wanted = (table.c.key.in_(keys[start : start + _AT_ONCE]), table.c.state.in_(UNRESOLVED))
            found += [_failure(row) for row in within.execute(select(table).where(table.c.job == job, *wanted))]
        return found

    def newest(self, job: str, states: Sequence[str], limit: int) -> list[FailureRow]:
        """Returns the failures that failed last, newest first."""
        table = self._table
        wanted = (table.c.job == job, table.c.state.in_(states))
        return self._rows(
            select(table).where(*wanted).order_by(table.c.last_failed_at.desc(), table.c.key).limit(limit)
        )

    def count(self, job: str, states: Sequence[str]) -> int:
        """Returns how many failures of the job are in these states."""
        return self._count(self._table.c.job == job, self._table.c.state.in_(states))

    def counts(self) -> list[FailureCount]:
        """Returns how many failures each sync job has that are not resolved, by name; none of those without any."""
        table = self._table
        last = func.max(table.c.last_failed_at, type_=table.c.last_failed_at.type)
        query = select(
            table.c.job,
            func.count().filter(table.c.state == OPEN),
            func.count().filter(table.c.state == GIVEN_UP),
            last,
        )
        query = query.where(table.c.state.in_(UNRESOLVED)).group_by(table.c.job).order_by(table.c.job)
        with self._ledger.transaction() as connection:
            return [FailureCount(*row) for row in connection.execute(query)]

    def groups(self, job: str, states: Sequence[str], limit: int, samples: int) -> list[FailureGroup]:
        """Returns failures by cause, the most frequent first."""
        table = self._table
        wanted = (table.c.job == job, table.c.state.in_(states))
        kind = table.c.first_failed_at.type
        given_up = func.count().filter(table.c.state == GIVEN_UP)
        query = (
            select(
                table.c.fingerprint,
                func.min(table.c.exception_type),
                func.min(table.c.template),
                func.count().label("count"),
                given_up,
                func.min(table.c.first_failed_at, type_=kind),
                func.max(table.c.last_failed_at, type_=kind),
            )
            .where(*wanted)
            .group_by(table.c.fingerprint)
            .order_by(func.count().desc(), table.c.fingerprint)
            .limit(limit)
        )
        with self._ledger.transaction() as connection:
            rows = connection.execute(query).all()
            found = []
            for print_, name, template, count, over, first, last in rows:
                some = select(table.c.external_id).where(*wanted, table.c.fingerprint == print_)
                some = some.where(table.c.external_id.is_not(None)).order_by(table.c.key).limit(samples)
                ids = tuple(connection.scalars(some))
                found.append(FailureGroup(print_, name, template, count, over, ids, first, last))
        return found

    def purge(self, before: datetime) -> int:
        """Removes failures that were resolved before that time; gives how many."""
        table = self._table
        with self._ledger.transaction() as connection:
            return connection.execute(delete(table).where(table.c.resolved_at < before)).rowcount

    def _count(self, *conditions: ColumnElement[bool]) -> int:
        with self._ledger.transaction() as connection:
            return int(connection.scalar(select(func.count()).select_from(self._table).where(*conditions)) or 0)

    def _rows(self, query: Select[Any]) -> list[FailureRow]:
        with self._ledger.transaction() as connection:
            return [_failure(row) for row in connection.execute(query)]


def _on_conflict(insert: Any, table: Table) -> Any:
    """Returns the insert, which takes the place of what is known. What is not given of an item stays as it is."""
    given = insert.excluded
    values = {name: given[name] for name in FailureRow.__dataclass_fields__ if name not in {"job", "key"}}
    for name in ("payload", "payload_hash", "source_id"):
        values[name] = func.coalesce(given[name], table.c[name])
    return insert.on_conflict_do_update(index_elements=["job", "key"], set_=values)


def key_of_id(external_id: str) -> str:
    """Returns the key of a failure by the item's id: of a long one its hash, for no index takes such a text."""
    text = storable(external_id) or ""
    return f"id:{text}" if len(text) <= _LONGEST_ID else f"id:sha256:{hash_of(text)}"


def key_without_id(text: str) -> str:
    """Returns the key of a failure of an item without a readable id, by what the item is."""
    return f"item:{hash_of(text)}"


def hash_of(text: str) -> str:
    """Returns a short text that differs when the given one does."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _stored(failure: FailureRow) -> dict[str, Any]:
    values = {name: getattr(failure, name) for name in FailureRow.__dataclass_fields__}  # `asdict` copies deeply
    return {**values, "external_id": storable(failure.external_id), "source_id": storable(failure.source_id)}


def _failure(row: Row[Any]) -> FailureRow:
    return FailureRow(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name
