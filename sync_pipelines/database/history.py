"""Keeps what happened to each record: what was written of it, and what else the ledger knows of it.

What was written one by one is a row of its own; what was written in bulk lies in blocks (`engine.history`). Failures
and deliveries are not kept twice: they are read from the runs' errors and the inbox.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, Text, delete, insert, literal_column, select
from sqlalchemy.dialects import postgresql, sqlite

from sync_pipelines.database.ledger import Ledger, storable
from sync_pipelines.database.versions import record_key

_ROWS_AT_ONCE = 1_000
_BLOCKS_AT_ONCE = 50
_INDEXED_CHARS = 200


@dataclass(frozen=True, slots=True)
class Written:
    """Holds what was written of one record.

    Args:
        action: `created`, `updated` or `deleted`.
        changes: The engine's JSON: field -> old and new value; None if they are not known.
    """

    external_id: str
    action: str
    changes: str | None


@dataclass(frozen=True, slots=True)
class BlockRow:
    """Holds what was written of some records in bulk. Times are aware.

    Args:
        first: Lower bound of its records, as `engine.history.bound_of` has it.
        last: Upper bound of its records.
    """

    id: str
    run_id: str
    at: datetime
    first: str
    last: str
    count: int
    lines: bytes
    via: str = ""


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """Holds one event of a record, as the ledger has it. Times are aware."""

    at: datetime
    kind: str
    external_id: str
    run_id: str | None = None
    via: str | None = None
    changes: str | None = None
    message: str | None = None
    delivery: int | None = None
    delivery_id: str | None = None
    state: str | None = None
    action: str | None = None


@dataclass(frozen=True, slots=True)
class Writer:
    """Names who has written.

    Args:
        run_id: The run; None for single items that are applied at once.
        via: The kind of the run, or `single`.
    """

    job: str
    run_id: str | None
    via: str


class History:
    """Keeps what happened to the records of all sync jobs."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._rows, self._blocks = ledger.tables.history, ledger.tables.history_blocks

    def keep(self, writer: Writer, written: Iterable[Written], at: datetime, within: Connection | None = None) -> None:
        """Keeps what was written, record by record.

        Args:
            within: In whose transaction; by default in one of its own.
        """
        shared = {"job": writer.job, "run_id": writer.run_id, "via": writer.via, "at": at}
        stream = iter(written)
        first = next(stream, None)
        if first is None:
            return
        with nullcontext(within) if within is not None else self._ledger.transaction() as connection:
            part = [first, *islice(stream, _ROWS_AT_ONCE - 1)]
            while part:
                connection.execute(insert(self._rows), [shared | _row(each) for each in part])
                part = list(islice(stream, _ROWS_AT_ONCE))

    def keep_blocks(self, job: str, via: str, blocks: Sequence[BlockRow]) -> None:
        """Keeps what was written in bulk. A block that the ledger has already is not kept twice."""
        if not blocks:
            return
        on_sqlite = self._ledger.database.dialect.name == "sqlite"
        statement = (sqlite if on_sqlite else postgresql).insert(self._blocks).on_conflict_do_nothing()
        rows = [
            {
                "id": each.id,
                "job": job,
                "run_id": each.run_id,
                "via": via,
                "at": each.at,
                "first_id": each.first,
                "last_id": each.last,
                "records": each.count,
                "lines": each.lines,
            }
            for each in blocks
        ]
        with self._ledger.transaction() as connection:
            connection.execute(statement, rows)

    def written(self, job: str, external_id: str, limit: int) -> list[HistoryRow]:
        """Returns what was written of a record one by one, newest first."""
        table = self._rows
        query = select(table).where(table.c.job == job, table.c.external_id == record_key(external_id))
        with self._ledger.transaction() as connection:
            rows = connection.execute(query.order_by(table.c.id.desc()).limit(limit)).all()
        return [HistoryRow(row.at, row.action, external_id, row.run_id, row.via, row.changes) for row in rows]

    def blocks_around(self, job: str, bound: str) -> Iterator[BlockRow]:
        """Yields the blocks of a job whose bounds enclose this one, newest first."""
        table = self._blocks
        among = select(table.c.id, table.c.at).where(table.c.job == job)
        among = among.where(table.c.first_id <= bound, table.c.last_id >= bound)
        with self._ledger.transaction() as connection:
            # sorted here: asked for the order, a database may walk through all blocks of the job by their time
            newest = sorted(connection.execute(among).all(), key=lambda row: row.at, reverse=True)
        ids = [row.id for row in newest]
        for start in range(0, len(ids), _BLOCKS_AT_ONCE):
            query = select(table).where(table.c.id.in_(ids[start : start + _BLOCKS_AT_ONCE]))
            with self._ledger.transaction() as connection:
                rows = connection.execute(query.order_by(table.c.at.desc(), table.c.id)).all()
            for row in rows:
                yield BlockRow(row.id, row.run_id, row.at, row.first_id, row.last_id, row.records, row.lines, row.via)

    def failures(self, job: str, external_ids: Sequence[str], limit: int) -> list[HistoryRow]:
        """Returns when a record could not be written, newest first; by any of its ids."""
        errors, runs = self._ledger.tables.run_errors, self._ledger.tables.runs
        query = (
            select(errors.c.external_id, errors.c.message, errors.c.exception_type, errors.c.run_id)
            .add_columns(runs.c.kind, runs.c.started_at, runs.c.completed_at)
            .join(runs, runs.c.id == errors.c.run_id)
            .where(*self._is_of(errors, external_ids), runs.c.job == job)
            .order_by(runs.c.started_at.desc())
        )
        with self._ledger.transaction() as connection:
            rows = connection.execute(query.limit(limit)).all()
        return [
            HistoryRow(
                at=row.completed_at or row.started_at,
                kind="failed",
                external_id=row.external_id,
                run_id=row.run_id,
                via=row.kind,
                message=f"{row.exception_type}: {row.message}",
            )
            for row in rows
        ]

    def deliveries(self, job: str, external_ids: Sequence[str], limit: int) -> list[HistoryRow]:
        """Returns the deliveries about a record, newest first; by any of its ids."""
        inbox = self._ledger.tables.inbox
        query = select(inbox).where(inbox.c.job == job, *self._is_of(inbox, external_ids))
        with self._ledger.transaction() as connection:
            rows = connection.execute(query.order_by(inbox.c.id.desc()).limit(limit)).all()
        return [
            HistoryRow(
                at=row.received_at,
                kind="webhook",
                external_id=row.external_id,
                message=row.message,
                delivery=row.id,
                delivery_id=row.delivery_id,
                state=row.state,
                action=row.action,
            )
            for row in rows
        ]

    def _is_of(self, table: Table, external_ids: Sequence[str]) -> list[ColumnElement[bool]]:
        texts = {storable(each) or "" for each in external_ids}
        conditions: list[ColumnElement[bool]] = [table.c.external_id.in_(texts)]
        if self._ledger.database.dialect.name == "postgresql":
            beginning = literal_column(f"substr({table.name}.external_id, 1, {_INDEXED_CHARS})", Text)
            conditions.append(beginning.in_({each[:_INDEXED_CHARS] for each in texts}))
        return conditions

    def purge(self, job: str, before: datetime) -> bool:
        """Forgets a part of what was written before that time of the records of a job. True if there may be more."""
        with self._ledger.together():
            return max(self._purge(table, job, before) for table in (self._rows, self._blocks)) == _ROWS_AT_ONCE

    def _purge(self, table: Table, job: str, before: datetime) -> int:
        old = select(table.c.id).where(table.c.job == job, table.c.at < before).order_by(table.c.at)
        with self._ledger.transaction() as connection:
            return connection.execute(delete(table).where(table.c.id.in_(old.limit(_ROWS_AT_ONCE)))).rowcount


def _row(written: Written) -> dict[str, Any]:
    return {
        "external_id": record_key(written.external_id),
        "action": written.action,
        "changes": written.changes,
    }
