"""One table, synced in bulk for the time of one phase of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from sync_pipelines.engine.history import HistoryBlock
from sync_pipelines.engine.plan import Action
from sync_pipelines.engine.targets import BulkRequest
from sync_pipelines.targets.staging.apply_sql import SpanApplier
from sync_pipelines.targets.staging.diff_sql import What
from sync_pipelines.targets.staging.history_sql import Recorded, SpanRecorder
from sync_pipelines.targets.staging.parallel_apply import (
    FROM_SPANS,
    Helping,
    NothingAside,
    PostgresHelp,
    SpanHelper,
    is_order_free,
)
from sync_pipelines.targets.staging.postgres import PostgresWork, has_recorded_in_schema
from sync_pipelines.targets.staging.refused_rows import Suspects
from sync_pipelines.targets.staging.sqlite import has_recorded_in_file
from sync_pipelines.targets.staging.staged_comparison import ACTIONS, BulkComparison
from sync_pipelines.targets.staging.staging_tables import Span, WorkTables
from sync_pipelines.targets.staging.table_parts import BulkTarget


class BulkTable(BulkComparison):
    """The working tables beside one table, and what is done with them.

    Args:
        target: The opened table.
        request: The run.
    """

    def __init__(self, target: BulkTarget, request: BulkRequest) -> None:
        super().__init__(target, request)
        self._helper: SpanHelper | None = None

    def spans(self, *, verify: bool = False, first_load: bool = False) -> list[Span]:
        """The spans of the plan, in order.

        Args:
            verify: True if an earlier attempt may have written something.
            first_load: True if the table had no rows when it was compared.
        """
        planner, table = self.planner, self._target.reflected.table

        def make_applier(work: WorkTables, make_suspects: type[Suspects]) -> tuple[SpanApplier, Suspects]:
            suspects = make_suspects(work, table, self.columns, planner.constraints, planner.plan)
            fence, recorder = self._target.fence, None
            if self._request.recorded_at is not None:
                recorder = SpanRecorder(work, table, self.columns, planner.plan, self._id_of, first_load=first_load)
            parts = (work, table, self.columns, planner.plan, suspects, fence)
            return SpanApplier(*parts, verify=verify, recorder=recorder), suspects

        if self._request.recorded_at is not None:
            self._recorded.make()
        self._applier, self._suspects = make_applier(self.work, Suspects)
        spans = self._applier.spans()
        self._end_help()
        if len(spans) >= FROM_SPANS and self._may_have_help():
            self._helper = SpanHelper(spans, lambda: self._open_help(make_applier))
        return spans

    def _may_have_help(self) -> bool:
        if not (self.work.outlives_session and self.work.has_addresses):
            return False
        with self.work.begin() as connection:
            return is_order_free(
                connection,
                self._target.reflected.table,
                self._target.key,
                [*self._target.key, *(self._written or ()), *self.ownership.names],
            )

    def _open_help(self, make_applier: Callable[[WorkTables, type[Suspects]], tuple[SpanApplier, Suspects]]) -> Helping:
        work = PostgresWork(self._target.database, self._request, temporary=False, has_addresses=True)
        return PostgresHelp(work, make_applier(work, NothingAside)[0])

    def _end_help(self) -> None:
        if self._helper is not None:
            helper, self._helper = self._helper, None
            helper.stop()

    def apply(self, span: Span) -> None:
        """Applies a span, or what is left of it.

        Raises:
            RetryableError: The database can't be reached, is locked, or broke a deadlock; call again.
        """
        if self._helper is not None:
            self._helper.leave(span)
        self._applier.apply(span)

    def late(self, skip: int) -> list[tuple[int | None, Action, str]]:
        """Rows to be written by themselves: position (None for a delete), action and external id.

        Args:
            skip: How many have been given; a limited number comes at a time, and none when there are no more.
        """
        with self.work.begin() as connection:
            rows = self._suspects.late(connection, skip)
        self._applier.require_plan()
        return [(position, ACTIONS[What(what)], self._id_of(key)) for position, what, key in rows]

    @cached_property
    def _recorded(self) -> Recorded:
        return Recorded(self.work)

    def has_recorded(self) -> bool:
        """True if runs that died may have left something that is not in the ledger yet; asks little if not."""
        database, request = self._target.database, self._request
        on_sqlite = database.dialect.name == "sqlite"
        if not (has_recorded_in_file(request) if on_sqlite else has_recorded_in_schema(database, request)):
            return False
        self._work = self._work or self._open_work()
        return self._work is not None and (on_sqlite or self._work.outlives_session)

    def recorded(self, limit: int) -> list[HistoryBlock]:
        """What has been written, record by record, and is not known to be in the ledger yet: that of dead runs too.

        Args:
            limit: How many blocks at most.
        """
        return self._recorded.waiting(limit) if self._request.recorded_at is not None else []

    def forget_recorded(self, ids: Sequence[str]) -> None:
        """Forgets what is in the ledger by now."""
        self._recorded.forget(ids)

    def end_recorded(self) -> None:
        """Removes what held it, if all is in the ledger, or nobody wants it there any more."""
        with self.work.begin() as connection:
            self._recorded.drop(connection, only_empty=self._request.recorded_at is not None)

    def drop(self) -> None:
        """Removes the working tables of this run."""
        self._end_help()
        self.work.drop("stage", "diffs", "plan", "twice", "aside")
        with self.work.begin() as connection:
            self.work.forget_done(connection)
        self.end_recorded()

    def close(self) -> None:
        """Gives back what was held."""
        self._end_help()
        if self._work is not None:
            self._work.close()
