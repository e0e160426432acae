"""Notes what batches write, with old and new values, in their own transactions, until it is moved to the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from sync_pipelines.engine.history import HistoryBlock, blocks_of, history_line, json_of_id, without
from sync_pipelines.engine.plan import Outcome
from sync_pipelines.engine.staged_target import Batch
from sync_pipelines.targets.staging.diff_sql import RowDecision, StagedColumns
from sync_pipelines.targets.staging.field_changes import ChangesText, changed_fields
from sync_pipelines.targets.staging.json_text import id_text
from sync_pipelines.targets.staging.staging_tables import RECORDED, StagingTables, lasting_name

_ROWS_AT_ONCE = 2_000
_OUTCOMES = {
    RowDecision.CREATE: Outcome.CREATED,
    RowDecision.UPDATE: Outcome.UPDATED,
    RowDecision.DELETE: Outcome.DELETED,
}


class Recorded:
    """What has been written and is not in the ledger yet, by whatever run of the sync.

    Unlike other staging tables it is no cache: the table is an ordinary one, and stays until it is empty.
    """

    def __init__(self, work: StagingTables) -> None:
        self._work = work
        on_sqlite = work.place == "rowid"
        self._table = sa.Table(
            lasting_name(work.request, RECORDED),
            sa.MetaData(schema=work.lasting_schema),
            sa.Column("id", sa.String(32), primary_key=True),
            sa.Column("run_id", sa.String(36), nullable=False),
            sa.Column("at", sa.Text, nullable=False),
            sa.Column("first", sa.Text, nullable=False),
            sa.Column("last", sa.Text, nullable=False),
            sa.Column("count", sa.Integer, nullable=False),
            sa.Column("lines", sa.LargeBinary, nullable=False),
            prefixes=[] if on_sqlite or work.outlives_session else ["TEMPORARY"],
        )

    def make(self) -> None:
        """Makes the table if it is not there."""
        with self._work.begin() as connection:
            self._table.create(connection, checkfirst=True)

    def add(self, connection: sa.Connection, blocks: Iterator[HistoryBlock]) -> list[str]:
        """Adds blocks, in the transaction that writes what they say; gives their ids."""
        ids: list[str] = []
        for block in blocks:
            connection.execute(sa.insert(self._table), asdict(block) | {"at": block.at.isoformat()})
            ids.append(block.id)
        return ids

    def keep_only(self, connection: sa.Connection, ids: Sequence[str], written: set[str]) -> None:
        """Leaves in these blocks only the lines of those records."""
        for each in ids:
            mine = self._table.c.id == each
            [block] = [_block(row) for row in connection.execute(sa.select(self._table).where(mine))]
            connection.execute(sa.delete(self._table).where(mine))
            self.add(connection, without(block, written))

    def waiting(self, limit: int) -> list[HistoryBlock]:
        """Blocks that are not in the ledger yet."""
        with self._work.begin() as connection:
            if not self._exists(connection):
                return []
            query = sa.select(self._table).order_by(self._table.c.at, self._table.c.id).limit(limit)
            return [_block(row) for row in connection.execute(query)]

    def forget(self, ids: Sequence[str]) -> None:
        """Forgets blocks that are in the ledger."""
        with self._work.begin() as connection:
            connection.execute(sa.delete(self._table).where(self._table.c.id.in_(ids)))

    def drop(self, connection: sa.Connection, *, only_empty: bool) -> None:
        """Removes the table, if need be only when all is in the ledger."""
        if not self._exists(connection):
            return
        if not only_empty or connection.execute(sa.select(self._table.c.id).limit(1)).first() is None:
            self._table.drop(connection)

    def _exists(self, connection: sa.Connection) -> bool:
        return sa.inspect(connection).has_table(self._table.name, schema=self._table.schema)


def _block(row: Any) -> HistoryBlock:
    return HistoryBlock(**{**row._mapping, "at": datetime.fromisoformat(row.at), "lines": bytes(row.lines)})  # noqa: SLF001


class BatchRecorder:
    """Notes what one batch after the other writes.

    Args:
        columns: The staged columns.
        plan: The staging table that is applied.
        id_of: Gives the external id of a key as the database gives it.
        first_load: True if the table was empty: of a record that was created then the fact is kept, not the fields.
    """

    def __init__(  # noqa: PLR0913 - what it works with
        self,
        work: StagingTables,
        table: sa.Table,
        columns: StagedColumns,
        plan: sa.Table,
        id_of: Callable[[Sequence[Any]], str],
        *,
        first_load: bool = False,
    ) -> None:
        self._work = work
        self._table = table
        self._columns = columns
        self._plan = plan
        self._id_of = id_of
        self._first_load = first_load
        self._recorded = Recorded(work)
        self._on_postgresql = work.place == "ctid"
        self._before: list[str] = []

    def before(
        self,
        connection: sa.Connection,
        batch: Batch,
        planned: Mapping[RowDecision, int],
        same_row: Sequence[sa.ColumnElement[bool]],
    ) -> None:
        """Notes what updates and deletes are about to replace.

        Args:
            connection: In the transaction that is about to write.
            planned: How many rows are to be updated and deleted in it.
            same_row: The condition that a local row is the one that is meant.
        """
        self._before = []
        if not self._on_postgresql:
            _lock(connection)
        for what in (RowDecision.UPDATE, RowDecision.DELETE):
            if planned.get(what):
                self._before += self._note(connection, batch, what, same_row)

    def after(
        self, connection: sa.Connection, batch: Batch, planned: Mapping[RowDecision, int], *, all_written: bool
    ) -> None:
        """Notes what was created; takes back what was noted of rows that were not written after all.

        Args:
            connection: In the transaction that has written.
            planned: How many rows were to be created in it.
            all_written: False if rows were quarantined.
        """
        if not all_written and self._before:
            self._recorded.keep_only(connection, self._before, self._left(connection, batch))
        if planned.get(RowDecision.CREATE):
            self._note(connection, batch, RowDecision.CREATE, ())

    def _note(
        self, connection: sa.Connection, batch: Batch, what: RowDecision, same_row: Sequence[sa.ColumnElement[bool]]
    ) -> list[str]:
        lines = self._lines(connection, batch, what, same_row)
        return self._recorded.add(connection, blocks_of(lines, self._work.request.run_id, self._now()))

    def _now(self) -> datetime:
        clock = self._work.request.recorded_at
        assert clock is not None  # noqa: S101 - nothing is recorded without; tells mypy
        return clock()

    def _left(self, connection: sa.Connection, batch: Batch) -> set[str]:
        """The ids of the rows of the batch that are still in the plan, as JSON: the others were quarantined."""
        ids, read_id = self._id_columns()
        query = sa.select(*ids).select_from(self._plan).where(self._work.within(self._plan, batch))
        return {read_id(row) for row in _streamed(connection, query)}

    def _id_columns(self) -> tuple[list[sa.ColumnElement[Any]], Callable[[Sequence[Any]], str]]:
        """What to select for the external id, and how to read it as JSON."""
        key = self._columns.key
        text = id_text(key[0].codec, self._plan.c[key[0].label]) if self._on_postgresql and len(key) == 1 else None
        if text is not None:
            return [text], lambda row: str(row[0])
        return self._columns.key_values(self._plan, self._table), lambda row: json_of_id(self._id_of(row[: len(key)]))

    def _lines(
        self, connection: sa.Connection, batch: Batch, what: RowDecision, same_row: Sequence[sa.ColumnElement[bool]]
    ) -> Iterator[str]:
        ids, read_id = self._id_columns()
        is_bare = what is RowDecision.CREATE and self._first_load
        fields = [] if is_bare else changed_fields(what, self._plan, self._table, self._columns)
        changes = ChangesText(fields, by_database=self._on_postgresql)
        source = self._plan if what is RowDecision.CREATE else sa.join(self._plan, self._table, sa.and_(*same_row))
        query = sa.select(*ids, *changes.columns).select_from(source)
        query = query.where(self._work.within(self._plan, batch), self._plan.c.sp_what == int(what))
        if what is RowDecision.DELETE:
            query = query.where(*self._columns.ownership.may_be_deleted())
        place, outcome = len(ids), _OUTCOMES[what]
        for row in _streamed(connection, query):
            yield history_line(read_id(row), outcome, "" if is_bare else changes.read(row[place:]))


def _lock(connection: sa.Connection) -> None:
    """Lets nobody write to the SQLite file between the look at the old values and the write."""
    raw: Any = connection.connection.driver_connection
    if not raw.in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _streamed(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[Any]:
    yield from connection.execute(query, execution_options={"yield_per": _ROWS_AT_ONCE})
