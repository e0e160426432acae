"""Applies a plan that is a staging table, batch by batch: each is one transaction, noted with what became of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from sync_pipelines.database.faults import suspected
from sync_pipelines.engine.staged_target import Batch
from sync_pipelines.errors import RetryableError, TargetError, WriteRefusedError
from sync_pipelines.targets.db_errors import is_stopped
from sync_pipelines.targets.staging.diff_sql import RowDecision, StagedColumns
from sync_pipelines.targets.staging.history_sql import BatchRecorder
from sync_pipelines.targets.staging.quarantine import Quarantine
from sync_pipelines.targets.staging.staging_tables import Done, StagingTables
from sync_pipelines.targets.table.row_changes import insert_into, update_of
from sync_pipelines.targets.table.transactions import checked_together
from sync_pipelines.targets.table.write_effects import WriteEffects

ROWS_IN_BATCH = 50_000
_PARTS_IN_VAIN = 3

PLAN = "plan"
"""The staging table that is applied."""


class BatchApplier:
    """Applies batches of the plan to the table.

    Args:
        columns: The staged columns.
        plan: The staging table that is applied.
        quarantine: Finds the rows that the database refuses.
        fence: Called with every transaction that is about to write; raises if this run may not any more.
        effects: Sees what the database does by itself when a row is written; None if that is nothing.
        verify: True if an earlier attempt may have written something.
        recorder: Notes what is written, record by record.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what it works with
        self,
        work: StagingTables,
        table: sa.Table,
        columns: StagedColumns,
        plan: sa.Table,
        quarantine: Quarantine,
        fence: Callable[[sa.Connection], object] | None,
        effects: WriteEffects | None,
        *,
        verify: bool = False,
        recorder: BatchRecorder | None = None,
    ) -> None:
        self._work = work
        self._recorder = recorder
        self._table = table
        self._columns = columns
        self._plan = plan
        self._quarantine = quarantine
        self._fence = fence
        self._effects = effects
        self._lost_connections = work.lost_connections
        self._is_uncertain = verify and not work.notes_with_rows
        self._has_written = False
        self._parts_in_vain = 0

    def require_plan(self) -> None:
        """Makes sure that the plan is still there after the connection was lost: the server may have crashed.

        Raises:
            TargetError: It is gone.
        """
        if self._lost_connections == self._work.lost_connections:
            return
        if not self._work.is_there(PLAN):
            raise TargetError(
                f"{self._work.request.job}: the database has lost the staging tables, as it does in a crash. What was "
                "applied is accounted for; run the sync again, or re-execute this run from where it failed."
            )
        self._lost_connections = self._work.lost_connections

    def batches(self) -> list[Batch]:
        """The batches, in order."""
        with self._work.begin() as connection:
            return self._work.extent(connection, PLAN).batches(ROWS_IN_BATCH)

    def apply(self, batch: Batch) -> None:
        """Applies what is not applied yet of a batch. Rows that the database refuses are quarantined for a look each.

        Raises:
            RetryableError: The database can't be reached, is locked, or broke a deadlock; call again.
        """
        for rest in self._left(batch):
            if self._is_uncertain:  # the first one that is not noted may have been written nevertheless
                self._quarantine.quarantine_all(rest)
                self._is_uncertain = False
            self._apply(rest)

    def apply_clean(self, batch: Batch) -> bool:
        """Applies what is not applied yet of a batch that the database takes; gives False at the first refusal."""
        return all(self._attempt(rest) is None for rest in self._left(batch))

    def _left(self, batch: Batch) -> list[Batch]:
        with self._work.begin() as connection:
            done = [each.batch for each in self._work.done(connection) if each.part == PLAN]
        self.require_plan()
        return list(batch.without(done))

    def _apply(self, batch: Batch) -> None:
        try:
            error = self._attempt(batch)
        except RetryableError as stopped:
            if not is_stopped(stopped) or batch.end - batch.first <= self._work.smallest_units:
                raise
            for half in batch.halves():  # it takes longer than the role's statement_timeout allows
                self._apply(half)
            return
        while error is not None:
            if self._quarantine.quarantine_known(batch):
                error = self._attempt(batch)  # fewer rows each time
            elif batch.end - batch.first <= self._work.smallest_units or self._is_in_vain(error):
                self._parts_in_vain += suspected(error) is not None
                if not self._quarantine.quarantine_all(batch):
                    raise error  # it is no row of the batch that the database refuses
                error = self._attempt(batch)
            else:
                for half in batch.halves():
                    self._apply(half)
                return

    def _is_in_vain(self, error: Exception) -> bool:
        """True if a trigger seems to fail for all rows: one by one it shows soon, halving takes long."""
        return self._parts_in_vain >= _PARTS_IN_VAIN and not self._has_written and suspected(error) is not None

    def _attempt(self, batch: Batch) -> DBAPIError | WriteRefusedError | None:
        """Applies the batch in one transaction; gives the database's error if it refuses, or ours if it did more."""
        try:
            with self._work.begin() as connection:
                if self._fence is not None:
                    self._fence(connection)
                with checked_together(connection):
                    done = Done(PLAN, batch, self._write(connection, batch))
                if self._work.notes_with_rows:
                    self._work.note_done(connection, done)
            self._has_written = self._has_written or any(done.counts.values())
        except (DBAPIError, WriteRefusedError) as error:
            return error
        if not self._work.notes_with_rows:
            with self._work.begin() as connection:
                self._work.note_done(connection, done)
        return None

    def _write(self, connection: sa.Connection, batch: Batch) -> dict[str, int]:
        planned = self._planned(connection, batch)
        if self._recorder is not None:
            self._recorder.before(connection, batch, planned, self._same_row())
        written = self._write_items(connection, batch, planned)
        written[RowDecision.DELETE] = self._delete(connection, batch) if planned.get(RowDecision.DELETE) else 0
        unchanged = quarantined = 0
        for what, count in planned.items():
            if count != written[what]:  # somebody else has been at the table since the diff
                found = self._quarantine.quarantine_unwritten(connection, batch, what)
                quarantined += found
                if what is RowDecision.UPDATE:
                    unchanged += count - written[what] - found
                elif what is RowDecision.CREATE:
                    written[what] = count - found  # a trigger may have put them where the table shows them
        if self._recorder is not None:
            self._recorder.after(connection, batch, planned, all_written=not quarantined)
        return {
            "created": written[RowDecision.CREATE],
            "updated": written[RowDecision.UPDATE],
            "deleted": written[RowDecision.DELETE],
            "unchanged": unchanged,
        }

    def _write_items(
        self, connection: sa.Connection, batch: Batch, planned: Mapping[RowDecision, int]
    ) -> dict[RowDecision, int]:
        """Updates and inserts the rows of a batch. Returns how many the database says that it has written.

        Raises:
            WriteRefusedError: It has done more than that, or the rows are not under their keys.
        """
        creates = planned.get(RowDecision.CREATE, 0)
        watched = self._effects.watched(connection, created=creates) if self._effects is not None else nullcontext()
        with watched:
            written = {
                RowDecision.UPDATE: self._update(connection, batch) if planned.get(RowDecision.UPDATE) else 0,
                RowDecision.CREATE: self._insert(connection, batch) if creates else 0,
            }
            lacking = self._quarantine.count_lacking(connection, batch) if self._effects is not None else 0
            if lacking:
                raise WriteRefusedError(f"{lacking:,} rows are not under their keys after they were written")
        return written

    def _planned(self, connection: sa.Connection, batch: Batch) -> dict[RowDecision, int]:
        within = self._work.within(self._plan, batch)
        what = self._plan.c.sp_what
        query: sa.Select[Any] = sa.select(what, sa.func.count()).where(within).group_by(what)
        return {RowDecision(row[0]): row[1] for row in connection.execute(query)}

    def _rows(self, batch: Batch, what: RowDecision) -> list[sa.ColumnElement[bool]]:
        return [self._work.within(self._plan, batch), self._plan.c.sp_what == int(what)]

    def _same_key(self) -> Iterator[sa.ColumnElement[bool]]:
        for column in self._columns.key:
            yield self._table.c[column.name] == self._plan.c[column.label]

    def _same_row(self) -> list[sa.ColumnElement[bool]]:
        """The local row, by its address where it has one. Its key is checked as well: rows move.

        A row that somebody else has made newer than the item since the diff is another one.
        """
        same = list(self._same_key())
        if self._work.has_addresses:
            same.insert(0, self._work.address(self._table) == self._plan.c.sp_at)
        is_older = self._columns.are_older(self._plan, self._table, on_sqlite=self._work.place == "rowid")
        return same if is_older is None else [*same, is_older.is_not(sa.true())]

    def _update(self, connection: sa.Connection, batch: Batch) -> int:
        values: dict[str, Any] = {
            column.name: column.written(self._plan.c[column.label]) for column in self._columns.updated
        } | self._columns.ownership.restored()
        statement = (
            update_of(self._table).values(values).where(*self._same_row(), *self._rows(batch, RowDecision.UPDATE))
        )
        return connection.execute(statement).rowcount

    def _insert(self, connection: sa.Connection, batch: Batch) -> int:
        source = self._plan
        staged = [*self._columns.key, *self._columns.values]
        values = {column.name: column.written(source.c[column.label]) for column in staged}
        values |= self._columns.ownership.created(values)
        query = sa.select(*values.values()).where(*self._rows(batch, RowDecision.CREATE))
        statement = insert_into(self._table).from_select(list(values), query).execution_options(preserve_rowcount=True)
        return connection.execute(statement).rowcount

    def _delete(self, connection: sa.Connection, batch: Batch) -> int:
        marked = self._columns.ownership.deleted
        statement: Any = sa.delete(self._table) if marked is None else update_of(self._table).values(marked)
        statement = statement.where(*self._columns.ownership.may_be_deleted())
        if self._work.has_addresses:
            statement = statement.where(*self._same_row(), *self._rows(batch, RowDecision.DELETE))
            return connection.execute(statement).rowcount
        keys = [self._table.c[column.name] for column in self._columns.key]
        wanted = sa.select(*(self._plan.c[column.label] for column in self._columns.key)).where(
            *self._rows(batch, RowDecision.DELETE)
        )
        is_wanted = keys[0].in_(wanted) if len(keys) == 1 else sa.tuple_(*keys).in_(wanted)
        return connection.execute(statement.where(is_wanted)).rowcount
