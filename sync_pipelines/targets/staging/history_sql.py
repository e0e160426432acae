"""Notes what spans write, with old and new values, in their own transactions: a working table has it for the ledger.

PostgreSQL writes the values of the usual types as JSON itself; all others, and all of SQLite's, go through the codecs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from sync_pipelines.engine.codec import encodable, encode
from sync_pipelines.engine.history import HistoryBlock, blocks_of, history_line, json_of_id, without
from sync_pipelines.engine.plan import Outcome
from sync_pipelines.targets.staging.diff_sql import BulkColumns, What
from sync_pipelines.targets.staging.json_text import NULL, id_text, json_text, literal
from sync_pipelines.targets.staging.staged_columns import StagedColumn
from sync_pipelines.targets.staging.staging_tables import RECORDED, Span, WorkTables, lasting_name
from sync_pipelines.targets.types.codec import ColumnCodec

_ROWS_AT_ONCE = 2_000
_OUTCOMES = {What.CREATE: Outcome.CREATED, What.UPDATE: Outcome.UPDATED, What.DELETE: Outcome.DELETED}
_TAG = "$"

Pair = tuple[sa.ColumnElement[Any] | None, sa.ColumnElement[Any] | None]
"""A column's old and new value; None where there is none."""


class Recorded:
    """What has been written and is not in the ledger yet, by whatever run of the sync.

    Unlike other working tables it is no cache: the table is an ordinary one, and stays until it is empty.

    Args:
        work: The working tables.
    """

    def __init__(self, work: WorkTables) -> None:
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


class SpanRecorder:
    """Notes what one span after the other writes.

    Args:
        work: The working tables.
        table: The table.
        columns: The staged columns.
        plan: The working table that is applied.
        id_of: Gives the external id of a key as the database gives it.
        first_load: True if the table was empty: of a record that was created then the fact is kept, not the fields.
    """

    def __init__(  # noqa: PLR0913 - what it works with
        self,
        work: WorkTables,
        table: sa.Table,
        columns: BulkColumns,
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
        names = [each.name for each in (*columns.key, *columns.values)]
        self._tagged = _TAG in {*names, *columns.ownership.names}
        self._before: list[str] = []

    def before(
        self,
        connection: sa.Connection,
        span: Span,
        planned: Mapping[What, int],
        same_row: Sequence[sa.ColumnElement[bool]],
    ) -> None:
        """Notes what updates and deletes are about to replace.

        Args:
            connection: In the transaction that is about to write.
            span: The span.
            planned: How many rows are to be updated and deleted in it.
            same_row: The condition that a local row is the one that is meant.
        """
        self._before = []
        if not self._on_postgresql:
            _lock(connection)
        for what in (What.UPDATE, What.DELETE):
            if planned.get(what):
                self._before += self._note(connection, span, what, same_row)

    def after(self, connection: sa.Connection, span: Span, planned: Mapping[What, int], *, all_written: bool) -> None:
        """Notes what was created; takes back what was noted of rows that were not written after all.

        Args:
            connection: In the transaction that has written.
            span: The span.
            planned: How many rows were to be created in it.
            all_written: False if rows were set aside.
        """
        if not all_written and self._before:
            self._recorded.keep_only(connection, self._before, self._left(connection, span))
        if planned.get(What.CREATE):
            self._note(connection, span, What.CREATE, ())

    def _note(
        self, connection: sa.Connection, span: Span, what: What, same_row: Sequence[sa.ColumnElement[bool]]
    ) -> list[str]:
        lines = self._lines(connection, span, what, same_row)
        return self._recorded.add(connection, blocks_of(lines, self._work.request.run_id, self._now()))

    def _now(self) -> datetime:
        clock = self._work.request.recorded_at
        assert clock is not None  # noqa: S101 - nothing is recorded without; tells mypy
        return clock()

    def _left(self, connection: sa.Connection, span: Span) -> set[str]:
        """The ids of the rows of the span that are still in the plan, as JSON: the others were set aside."""
        ids, read_id = self._id_columns()
        query = sa.select(*ids).select_from(self._plan).where(self._work.within(self._plan, span))
        return {read_id(row) for row in _streamed(connection, query)}

    def _id_columns(self) -> tuple[list[sa.ColumnElement[Any]], Callable[[Sequence[Any]], str]]:
        """What to select for the external id, and how to read it as JSON."""
        key = self._columns.key
        text = id_text(key[0], self._plan.c[key[0].label]) if self._on_postgresql and len(key) == 1 else None
        if text is not None:
            return [text], lambda row: str(row[0])
        return self._columns.key_values(self._plan, self._table), lambda row: json_of_id(self._id_of(row[: len(key)]))

    def _lines(
        self, connection: sa.Connection, span: Span, what: What, same_row: Sequence[sa.ColumnElement[bool]]
    ) -> Iterator[str]:
        ids, read_id = self._id_columns()
        quick, slow = self._fields(what)
        values = [each for _, pair in slow for each in pair if each is not None]
        source = self._plan if what is What.CREATE else sa.join(self._plan, self._table, sa.and_(*same_row))
        query = sa.select(*ids, quick, *values).select_from(source)
        query = query.where(self._work.within(self._plan, span), self._plan.c.sp_what == int(what))
        if what is What.DELETE:
            query = query.where(*self._columns.ownership.may_be_deleted())
        place, outcome, bare = len(ids), _OUTCOMES[what], self._has_no_fields(what)
        for row in _streamed(connection, query):
            pieces = row[place]
            if slow:
                pieces += "".join(self._slow_pieces(slow, iter(row[place + 1 :])))
            yield history_line(read_id(row), outcome, "" if bare else self._object(pieces))

    def _has_no_fields(self, what: What) -> bool:
        return what is What.CREATE and self._first_load

    def _object(self, pieces: str) -> str:
        return f'{{"$":"dict","v":[{pieces[1:]}]}}' if self._tagged else f"{{{pieces[1:]}}}"

    def _fields(self, what: What) -> tuple[sa.ColumnElement[str], list[tuple[ColumnCodec, Pair]]]:
        """What the database writes of the fields itself, and the columns whose values go through their codecs."""
        quick: sa.ColumnElement[str] = literal("")
        if self._has_no_fields(what):
            return quick, []
        slow = self._own_fields(what)
        columns = self._columns.updated if what is What.UPDATE else [*self._columns.key, *self._columns.values]
        if what is What.DELETE and self._columns.ownership.deleted is not None:
            columns = []  # all but the mark stays
        for column in columns:
            piece = self._quick_piece(column, what) if self._on_postgresql else None
            if piece is None:
                slow.append((column.codec, self._pair(column, what)))
            else:
                quick += piece
        return quick, slow

    def _own_fields(self, what: What) -> list[tuple[ColumnCodec, Pair]]:
        """What is written of the columns that are no item's: the mark of deleted rows, and the scope of new ones."""
        ownership = self._columns.ownership
        staged = [each.name for each in (*self._columns.key, *self._columns.values)]
        written = {What.CREATE: ownership.created(staged), What.UPDATE: ownership.restored()}.get(what)
        fields: list[tuple[ColumnCodec, Pair]] = []
        for number, (name, new) in enumerate(((ownership.deleted or {}) if written is None else written).items()):
            local = self._table.c[name]
            old = None if what is What.CREATE else local.label(f"old_own{number}")
            fields.append((ownership.codec(name), (old, sa.type_coerce(new, local.type).label(f"new_own{number}"))))
        return fields

    def _quick_piece(self, column: StagedColumn, what: What) -> sa.ColumnElement[str] | None:
        staged, local = self._plan.c[column.label], self._table.c[column.name]
        old = NULL if what is What.CREATE else json_text(column, local)
        new = NULL if what is What.DELETE else json_text(column, staged)
        if old is None or new is None:
            return None
        begin, end = self._around(column.name)
        piece = literal(begin) + old + literal(",") + new + literal(end)
        if what is not What.UPDATE:
            return piece
        return sa.case((column.differs(staged, local), piece), else_=literal(""))

    def _around(self, name: str) -> tuple[str, str]:
        return (f",[{json_of_id(name)},[", "]]") if self._tagged else (f",{json_of_id(name)}:[", "]")

    def _pair(self, column: StagedColumn, what: What) -> Pair:
        local = self._table.c[column.name]
        staged = sa.type_coerce(self._plan.c[column.label], local.type).label(f"new_{column.label}")
        return (
            None if what is What.CREATE else local.label(f"old_{column.label}"),
            None if what is What.DELETE else staged,
        )

    def _slow_pieces(self, slow: Sequence[tuple[ColumnCodec, Pair]], values: Iterator[Any]) -> Iterator[str]:
        for codec, pair in slow:
            old, new = (None if each is None else codec.from_database(next(values)) for each in pair)
            if pair[0] is not None and pair[1] is not None and codec.same(old, new):
                continue
            begin, end = self._around(codec.name)
            yield f"{begin}{encode(encodable(old))},{encode(encodable(new))}{end}"


def _lock(connection: sa.Connection) -> None:
    """Lets nobody write to the SQLite file between the look at the old values and the write."""
    raw: Any = connection.connection.driver_connection
    if not raw.in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _streamed(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[Any]:
    yield from connection.execute(query, execution_options={"yield_per": _ROWS_AT_ONCE})
