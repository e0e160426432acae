"""Applies a plan that is a working table, span by span: each one transaction, noted as done with what became of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from sync_pipelines.errors import RetryableError, TargetError
from sync_pipelines.targets.db_errors import is_cancelled, is_passing
from sync_pipelines.targets.staging.diff_sql import BulkColumns, What
from sync_pipelines.targets.staging.history_sql import SpanRecorder
from sync_pipelines.targets.staging.refused_rows import Suspects
from sync_pipelines.targets.staging.staging_tables import Done, Span, WorkTables

ROWS_IN_SPAN = 50_000


PLAN = "plan"
"""The working table that is applied."""


class SpanApplier:
    """Applies spans of the plan to the table.

    Args:
        work: The working tables.
        table: The table.
        columns: The staged columns.
        plan: The working table that is applied.
        suspects: Finds the rows that the database refuses.
        fence: Called with every transaction that is about to write; raises if this run may not any more.
        verify: True if an earlier attempt may have written something.
        recorder: Notes what is written, record by record.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what it works with
        self,
        work: WorkTables,
        table: sa.Table,
        columns: BulkColumns,
        plan: sa.Table,
        suspects: Suspects,
        fence: Callable[[sa.Connection], object] | None,
        *,
        verify: bool = False,
        recorder: SpanRecorder | None = None,
    ) -> None:
        self._work = work
        self._recorder = recorder
        self._table = table
        self._columns = columns
        self._plan = plan
        self._suspects = suspects
        self._fence = fence
        self._lost_connections = work.lost_connections
        self._is_in_doubt = verify and not work.notes_with_rows

    def require_plan(self) -> None:
        """Makes sure that the plan is still there after the connection was lost: the server may have crashed.

        Raises:
            TargetError: It is gone.
        """
        if self._lost_connections == self._work.lost_connections:
            return
        if not self._work.is_there(PLAN):
            raise TargetError(
                f"{self._work.request.job}: the database has lost the working tables, as it does in a crash. What was "
                "applied is accounted for; run the sync again, or re-execute this run from where it failed."
            )
        self._lost_connections = self._work.lost_connections

    def spans(self) -> list[Span]:
        """The spans, in order."""
        with self._work.begin() as connection:
            return self._work.extent(connection, PLAN).spans(ROWS_IN_SPAN)

    def apply(self, span: Span) -> None:
        """Applies what is not applied yet of a span. Rows that the database refuses are set aside for a look each.

        Raises:
            RetryableError: The database can't be reached, is locked, or broke a deadlock; call again.
        """
        for rest in self._left(span):
            if self._is_in_doubt:  # the first one that is not noted may have been written nevertheless
                self._suspects.set_all_aside(rest)
                self._is_in_doubt = False
            self._apply(rest)

    def apply_clean(self, span: Span) -> bool:
        """Applies what is not applied yet of a span that the database takes; gives False at the first refusal."""
        return all(self._attempt(rest) is None for rest in self._left(span))

    def _left(self, span: Span) -> list[Span]:
        with self._work.begin() as connection:
            done = [each.span for each in self._work.done(connection) if each.part == PLAN]
        self.require_plan()
        return list(span.without(done))

    def _apply(self, span: Span) -> None:
        try:
            error = self._attempt(span)
        except RetryableError as cancelled:
            if not is_cancelled(cancelled) or span.end - span.first <= self._work.smallest_units:
                raise
            for half in span.halves():  # it takes longer than the role's statement_timeout allows
                self._apply(half)
            return
        while error is not None:
            if self._suspects.set_aside(span):
                error = self._attempt(span)  # fewer rows each time
            elif span.end - span.first <= self._work.smallest_units:
                if not self._suspects.set_all_aside(span):
                    raise error  # it is no row of the span that the database refuses
                error = self._attempt(span)
            else:
                for half in span.halves():
                    self._apply(half)
                return

    def _attempt(self, span: Span) -> DBAPIError | None:
        """Applies the span in one transaction; gives the database's error if it refuses."""
        try:
            with self._work.begin() as connection:
                if self._fence is not None:
                    self._fence(connection)
                self._suspects.check_at_once(connection)
                done = Done(PLAN, span, self._write(connection, span))
                if self._work.notes_with_rows:
                    self._work.note_done(connection, done)
        except DBAPIError as error:
            if is_passing(error):
                raise
            return error
        if not self._work.notes_with_rows:
            with self._work.begin() as connection:
                self._work.note_done(connection, done)
        return None

    def _write(self, connection: sa.Connection, span: Span) -> dict[str, int]:
        planned = self._planned(connection, span)
        if self._recorder is not None:
            self._recorder.before(connection, span, planned, self._same_row())
        written = {
            What.UPDATE: self._update(connection, span) if planned.get(What.UPDATE) else 0,
            What.CREATE: self._insert(connection, span) if planned.get(What.CREATE) else 0,
            What.DELETE: self._delete(connection, span) if planned.get(What.DELETE) else 0,
        }
        unchanged = set_aside = 0
        for what, count in planned.items():
            if count != written[what]:  # somebody else has been at the table since the diff
                aside = self._suspects.set_unreached_aside(connection, span, what)
                set_aside += aside
                if what is What.UPDATE:
                    unchanged += count - written[what] - aside
                elif what is What.CREATE:
                    written[what] = count - aside  # a trigger may have put them where the table shows them
        if self._recorder is not None:
            self._recorder.after(connection, span, planned, all_written=not set_aside)
        return {
            "created": written[What.CREATE],
            "updated": written[What.UPDATE],
            "deleted": written[What.DELETE],
            "unchanged": unchanged,
        }

    def _planned(self, connection: sa.Connection, span: Span) -> dict[What, int]:
        within = self._work.within(self._plan, span)
        what = self._plan.c.sp_what
        query: sa.Select[Any] = sa.select(what, sa.func.count()).where(within).group_by(what)
        return {What(row[0]): row[1] for row in connection.execute(query)}

    def _rows(self, span: Span, what: What) -> list[sa.ColumnElement[bool]]:
        return [self._work.within(self._plan, span), self._plan.c.sp_what == int(what)]

    def _same_key(self) -> Iterator[sa.ColumnElement[bool]]:
        for column in self._columns.key:
            yield self._table.c[column.name] == self._plan.c[column.label]

    def _same_row(self) -> list[sa.ColumnElement[bool]]:
        """The local row, by its address where it has one. Its key is checked as well: rows move."""
        same = list(self._same_key())
        if self._work.has_addresses:
            same.insert(0, self._work.address(self._table) == self._plan.c.sp_at)
        return same

    def _update(self, connection: sa.Connection, span: Span) -> int:
        values: dict[str, Any] = {
            column.name: column.written(self._plan.c[column.label]) for column in self._columns.updated
        } | self._columns.ownership.restored()
        statement = sa.update(self._table).values(values).where(*self._same_row(), *self._rows(span, What.UPDATE))
        return connection.execute(statement).rowcount

    def _insert(self, connection: sa.Connection, span: Span) -> int:
        source = self._plan
        staged = [*self._columns.key, *self._columns.values]
        values = {column.name: column.written(source.c[column.label]) for column in staged}
        values |= self._columns.ownership.created(values)
        query = sa.select(*values.values()).where(*self._rows(span, What.CREATE))
        statement = sa.insert(self._table).from_select(list(values), query).execution_options(preserve_rowcount=True)
        return connection.execute(statement).rowcount

    def _delete(self, connection: sa.Connection, span: Span) -> int:
        marked = self._columns.ownership.deleted
        statement: Any = sa.delete(self._table) if marked is None else sa.update(self._table).values(marked)
        statement = statement.where(*self._columns.ownership.may_be_deleted())
        if self._work.has_addresses:
            statement = statement.where(*self._same_row(), *self._rows(span, What.DELETE))
            return connection.execute(statement).rowcount
        keys = [self._table.c[column.name] for column in self._columns.key]
        wanted = sa.select(*(self._plan.c[column.label] for column in self._columns.key)).where(
            *self._rows(span, What.DELETE)
        )
        is_wanted = keys[0].in_(wanted) if len(keys) == 1 else sa.tuple_(*keys).in_(wanted)
        return connection.execute(statement.where(is_wanted)).rowcount
