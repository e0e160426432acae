"""One table beside its staging tables: what is fetched is loaded, compared, planned and written there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cached_property, partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from sync_pipelines.engine.history import HistoryBlock
from sync_pipelines.engine.plan import Action, EntryRow
from sync_pipelines.engine.results import Counts
from sync_pipelines.engine.staged_target import Batch, QuarantinedRow, StagedPlan, StagingRequest, Unstaged
from sync_pipelines.errors import RetryableError
from sync_pipelines.snapshots.snapshot import SnapshotPage
from sync_pipelines.targets.staging.apply_sql import BatchApplier
from sync_pipelines.targets.staging.blanks import BlankCounter
from sync_pipelines.targets.staging.constraints import read_constraints
from sync_pipelines.targets.staging.diff_sql import Planner, RowDecision, StagedColumns
from sync_pipelines.targets.staging.eligibility import fingerprint, why_not
from sync_pipelines.targets.staging.history_sql import BatchRecorder, Recorded
from sync_pipelines.targets.staging.load import StageLoader
from sync_pipelines.targets.staging.owned_rows import Ownership
from sync_pipelines.targets.staging.parallel_apply import (
    FROM_BATCHES,
    BatchHelper,
    Helping,
    NoQuarantine,
    PostgresHelp,
    is_order_free,
)
from sync_pipelines.targets.staging.plan_export import PlanExport
from sync_pipelines.targets.staging.postgres import PostgresStaging, has_recorded_in_schema, temporary_or_not
from sync_pipelines.targets.staging.quarantine import Quarantine
from sync_pipelines.targets.staging.rewritten import count_columns, sample_columns
from sync_pipelines.targets.staging.spare_deletes import Sparing
from sync_pipelines.targets.staging.sqlite import SqliteStaging, has_recorded_in_file
from sync_pipelines.targets.staging.staged_columns import staged_key, staged_value
from sync_pipelines.targets.staging.staging_tables import FAILED, SKIPPED, SLOW, StagingTables
from sync_pipelines.targets.staging.table_parts import TableParts
from sync_pipelines.targets.types.sqlalchemy_types import NamedType

_KEPT = timedelta(days=7)
ACTIONS = {RowDecision.CREATE: Action.CREATE, RowDecision.UPDATE: Action.UPDATE, RowDecision.DELETE: Action.DELETE}


class StagedTable:
    """Stages what is fetched beside one table, for the time of one phase of a run.

    Args:
        target: The opened table.
    """

    def __init__(self, target: TableParts, request: StagingRequest) -> None:
        self._target = target
        self._request = request
        self._work: StagingTables | None = None
        self._written: tuple[str, ...] | None = None
        self._loader: StageLoader | None = None
        self._is_empty = False
        self._helper: BatchHelper | None = None
        self.recovered = 0
        """How many records an earlier attempt of the run had written when its plan was given up."""

    @property
    def needs_items(self) -> bool:
        """True if loading needs the items themselves, because a function reads them."""
        return self._target.reader.needs_items

    def begin(self, page: SnapshotPage, items: Sequence[Any] | None) -> str | None:
        """Begins with the first page and an empty staging table. Says why this table can't be staged, or None."""
        reason = self._open(self._target.reader.names(page, items))
        if reason is None:
            before = self.applied()
            self._make_stage()
            self.recovered += before.created + before.updated
        return reason

    def resume(self, plan: StagedPlan) -> bool:
        """Opens the staging tables again. Says whether they still hold the plan, all of it."""
        return self._open(plan.written) is None and self._is_there()

    def _open(self, written: Sequence[str]) -> str | None:
        """Opens the staging tables. Says why this table can't be staged, or None.

        Args:
            written: The columns that are written; key columns among them are not staged twice.
        """
        self._written = tuple(name for name in written if name not in self._target.key)
        self.__dict__.pop("columns", None)
        self.__dict__.pop("planner", None)
        reason = why_not(self._target, self._request, self._written, self.ownership)
        if reason is None:
            self._work = self._work or self._open_work()
            reason = None if self._work else "the role may make neither a schema nor temporary tables"
        return reason

    def fingerprint(self, written: Sequence[str]) -> str:
        """The table and the declaration in short: a plan that was made for others must not be applied."""
        return fingerprint(self._target, written, self.ownership)

    @cached_property
    def ownership(self) -> Ownership:
        """What is known of the columns that are no item's."""
        target = self._target
        return Ownership(target.reflected, target.database.dialect, target.mark, target.scope)

    def _open_work(self) -> StagingTables | None:
        database = self._target.database
        if database.dialect.name == "sqlite":
            return SqliteStaging(database, self._request)
        temporary = temporary_or_not(database, self._request)
        if temporary is None:
            return None
        work = PostgresStaging(
            database, self._request, temporary=temporary, has_addresses=self._target.reflected.has_addresses
        )
        try:
            work.drop_leftovers(_KEPT)
        except BaseException:  # nobody else will give its connection back
            work.close()
            raise
        return work

    @property
    def work(self) -> StagingTables:
        """The staging tables."""
        assert self._work is not None, "begin() comes first"  # noqa: S101 - tells mypy; a defect of the caller
        return self._work

    @cached_property
    def columns(self) -> StagedColumns:
        """The staged columns."""
        reflected, dialect = self._target.reflected, self._target.database.dialect.name
        values = [
            staged_value(reflected.codecs[name], number, dialect, is_loose=name in reflected.case_insensitive)
            for number, name in enumerate(self._written or ())
        ]
        updated = [each for each in values if each.name not in self._target.create_only]
        compare, field = self._target.compare, self._request.version
        version = self._target.reader.column_of(field) if field is not None else None
        return StagedColumns(
            key=[staged_key(reflected.codecs[name], number, dialect) for number, name in enumerate(self._target.key)],
            values=values,
            compared=[each for each in updated if compare is None or each.name in compare],
            updated=updated,
            version=next((each for each in updated if each.name == version), None),
            ownership=self.ownership,
        )

    def _make_stage(self) -> None:
        table, columns = self._target.reflected.table, self.columns
        own = [
            sa.cast(sa.null(), NamedType("bigint")).label("sp_n"),
            sa.cast(sa.null(), NamedType("smallint")).label("sp_route"),
        ]
        # taken from the table, the keys have its collations, so that its index can be used
        keys = [
            sa.cast(sa.type_coerce(table.c[each.name], NamedType(each.type_name)), NamedType(each.type_name)).label(
                each.label
            )
            for each in columns.key
        ]
        values = [sa.cast(sa.null(), NamedType(each.type_name)).label(each.label) for each in columns.values]
        self.work.forget_attempt()
        with self.work.begin() as connection:
            self.work.make_stage(connection, sa.select(*own, *keys, *values).select_from(table))
            self.work.forget_done(connection)
        dialect, key_of_id = self._target.database.dialect, self._target.key_of_id
        self._loader = StageLoader(self.work, dialect, columns.key, columns.values, key_of_id, columns.version)

    def load(
        self, page: SnapshotPage, items: Sequence[Any] | None, skipped: Sequence[bool | None] | None
    ) -> list[Unstaged]:
        """Loads a page. Gives the items that have no key there."""
        assert self._loader is not None, "begin() comes first"  # noqa: S101 - tells mypy
        return self._loader.load(page, self._target.reader, items, skipped)

    def finish_loading(self) -> None:
        """Waits until all is loaded."""
        look_up = self._request.deletes or self._loader is None or not self._loader.keys_seen.are_distinct
        self.work.finish_loading([column.label for column in self.columns.key], look_up=look_up)

    def why_not_ranked(self) -> str | None:
        """Why the database can't tell which of several items with one key counts; None if it can, or need not."""
        loader = self._loader
        if loader is None or not loader.has_uncertain_versions or loader.keys_seen.are_distinct:
            return None
        return "of items that may have one id only a look at each can tell the version"

    @cached_property
    def planner(self) -> Planner:
        """Compares staging table and table."""
        staged = {each.name for each in (*self.columns.key, *self.columns.values) if not each.cast_to}
        reflected, key = self._target.reflected, self._target.key
        constraints = read_constraints(self._target.database, reflected.table, key, staged, reflected.unique_keys)
        return Planner(self.work, reflected.table, self.columns, constraints)

    def take_duplicates(self, keep: Callable[[Iterator[tuple[str, int, int]]], None]) -> int:
        """Tells which items are replaced by later ones, and takes them out. Gives how many there are.

        Args:
            keep: Gets external id, position and kept position of each.
        """
        if self._loader is not None and self._loader.keys_seen.are_distinct:
            return 0
        with self.work.begin() as connection:
            count = self.planner.find_duplicates(connection)
            if count:
                rows = self.planner.duplicates(connection)
                keep((self._id_of(key), position, kept) for position, kept, key in rows)
                self.planner.remove_duplicates(connection)
        return count

    def _id_of(self, key: Sequence[Any]) -> str:
        codecs = [self._target.reflected.codecs[name] for name in self._target.key]
        return self._target.id_of_key([codec.from_database(value) for codec, value in zip(codecs, key, strict=True)])

    def compare(self, *, deletes: bool, veto: bool) -> StagedPlan:
        """Compares, and notes what differs; `make_plan` comes next.

        Args:
            deletes: True to look for records that no item is for.
            veto: True if the job itself decides whether a found record that differs is updated.
        """
        planner = self.planner
        with self.work.begin() as connection:
            empty = self._is_empty = planner.is_empty(connection)
            found = planner.compare(connection, deletes=deletes and not empty, empty=empty, veto=veto)
        routes = {route: found.get(int(RowDecision.ROUTE) + route, 0) for route in (SLOW, FAILED, SKIPPED)}
        return StagedPlan(
            unchanged=found.get(RowDecision.UNCHANGED, 0),
            skipped=routes[SKIPPED],
            stale=found.get(RowDecision.STALE, 0),
            creates=found.get(RowDecision.CREATE, 0),
            updates=found.get(RowDecision.UPDATE, 0),
            deletes=found.get(RowDecision.DELETE, 0),
            one_by_one=routes[SLOW] + routes[FAILED] + found.get(RowDecision.QUARANTINED, 0),
            written=self._written or (),
            temporary=not self.work.outlives_session,
            fingerprint=self.fingerprint(self._written or ()),
            first_load=empty,
        )

    def spare(self, due: Callable[[Sequence[str]], Collection[str]]) -> int:
        """Takes records that are not due out of those that `compare` found no item for. Gives how many.

        Args:
            due: Called with external ids, some thousands at a time; gives those that are to be deleted.
        """
        return Sparing(self.work, self.planner, self._target.reflected.profile, self._id_of).keep_only(due)

    def existing(self) -> int:
        """How many local records there are that items can mean and a sync may delete."""
        with self.work.begin() as connection:
            return self.planner.count_existing(connection)

    @property
    def _blanks(self) -> BlankCounter:
        return BlankCounter(self.work, self.planner, self._target.reflected.table, self._target.database.dialect.name)

    def count_lost(self) -> dict[str, int]:
        """Of how many records the updates found would leave nothing in a column, by column."""
        return self._blanks.lost()

    def count_had(self, names: Collection[str]) -> dict[str, int]:
        """How many of the records that were compared here have something in these columns."""
        return self._blanks.had(names)

    def columns_written(self, limit: int, *, counted: bool) -> tuple[dict[str, int], dict[str, dict[str, str]]]:
        """On how many records the updates found by `compare` change each column, and what a few of them are to hold.

        Args:
            limit: How many of the records, those with the first keys.
            counted: False to leave out the numbers, which need a look at all updates.
        """
        table = self._target.reflected.table
        with self.work.begin() as connection:
            counts = count_columns(connection, self.planner, table) if counted else {}
            return counts, sample_columns(connection, self.planner, table, self._id_of, limit)

    def make_plan(self, *, without: Collection[Action] = ()) -> None:
        """Leaves what is to be written in staging tables.

        Args:
            without: Actions that are not to be carried out, though `compare` found them.
        """
        withheld = [what for what, action in ACTIONS.items() if action in without]
        with self.work.begin() as connection:
            self.planner.make_plan(connection, empty=self._is_empty, without=withheld)
            self.work.analyze(connection, "plan")
            self.planner.make_quarantine(connection)

    def export(self, actions: Collection[Action]) -> Iterator[list[EntryRow]]:
        """What `compare` found as lines of a plan: creates and updates as they were fetched, then deletes.

        Args:
            actions: Those that are wanted.
        """
        wanted = [what for what, action in ACTIONS.items() if action in actions]
        export = PlanExport(self.work, self._target, self.planner, self._id_of)
        yield from export.rows(wanted, empty=self._is_empty)

    def positions(self) -> Iterator[int]:
        """Places in the fetch of the items to be looked at one by one, ascending.

        No transaction is open while the caller works on them, which may take long.
        """
        return self._in_turns(partial(self.planner.positions, routes=(SLOW, FAILED)))

    def _in_turns(self, read: Callable[..., list[int]]) -> Iterator[int]:
        found = [-1]
        while found:
            with self.work.begin() as connection:
                found = read(connection, after=found[-1])
            yield from found

    def _is_there(self) -> bool:
        """True if the plan is still in the staging tables, all of it: the table of rows quarantined is made last.

        A plan has no rows if all that is to be written is looked at singly.
        """
        has_rows = self.work.is_there("stage") or self.work.is_there("plan")
        return has_rows and self.work.is_there("quarantine", has_rows=False)

    def applied(self) -> Counts:
        """What has been applied of this run, by whatever process."""
        with self.work.begin() as connection:
            return sum((Counts(**done.counts) for done in self.work.done(connection)), Counts())

    def batches(self, *, verify: bool = False, first_load: bool = False) -> list[Batch]:
        """The batches of the plan, in order.

        Args:
            verify: True if an earlier attempt may have written something.
            first_load: True if the table had no rows when it was compared.
        """
        planner, table = self.planner, self._target.reflected.table

        def make_applier(work: StagingTables, make_quarantine: type[Quarantine]) -> tuple[BatchApplier, Quarantine]:
            quarantine = make_quarantine(work, table, self.columns, planner.constraints, planner.plan)
            fence, recorder = self._target.fence, None
            if self._request.recorded_at is not None:
                recorder = BatchRecorder(work, table, self.columns, planner.plan, self._id_of, first_load=first_load)
            parts = (work, table, self.columns, planner.plan, quarantine, fence)
            return BatchApplier(*parts, self._target.effects, verify=verify, recorder=recorder), quarantine

        if self._request.recorded_at is not None:
            self._recorded.make()
        self._applier, self._quarantine = make_applier(self.work, Quarantine)
        if self._target.deletes_singly:
            self._quarantine.quarantine_deletes()
        batches = self._applier.batches()
        self._end_help()
        if len(batches) >= FROM_BATCHES and self._may_have_help():
            self._helper = BatchHelper(batches, lambda: self._open_help(make_applier))
        return batches

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

    def _open_help(
        self, make_applier: Callable[[StagingTables, type[Quarantine]], tuple[BatchApplier, Quarantine]]
    ) -> Helping:
        work = PostgresStaging(self._target.database, self._request, temporary=False, has_addresses=True)
        return PostgresHelp(work, make_applier(work, NoQuarantine)[0])

    def _end_help(self) -> None:
        if self._helper is not None:
            helper, self._helper = self._helper, None
            helper.stop()

    def apply(self, batch: Batch) -> None:
        """Applies a batch, or what is left of it.

        Raises:
            RetryableError: The database can't be reached, is locked, or broke a deadlock; call again.
        """
        if self._helper is not None:
            self._helper.leave(batch)
        self._applier.apply(batch)

    def quarantined(self, skip: int) -> list[QuarantinedRow]:
        """Rows to be written by themselves.

        Args:
            skip: How many have been given; a limited number comes at a time, and none when there are no more.
        """
        with self.work.begin() as connection:
            rows = self._quarantine.rows(connection, skip)
        self._applier.require_plan()
        return [QuarantinedRow(position, ACTIONS[RowDecision(what)], self._id_of(key)) for position, what, key in rows]

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
        """Removes the staging tables of this run."""
        self._end_help()
        # "aside" is what the version before called the quarantine
        self.work.drop("stage", "diffs", "plan", "twice", "quarantine", "export", "aside")
        with self.work.begin() as connection:
            self.work.forget_done(connection)
        if not self._request.is_dry:
            self.end_recorded()

    def close(self) -> None:
        """Gives back what was held."""
        self._end_help()
        if self._work is None:
            return
        try:
            if self._request.is_dry:
                with suppress(DBAPIError, RetryableError):  # whatever ended the run is told, not this
                    self.drop()
        finally:
            self._work.close()
