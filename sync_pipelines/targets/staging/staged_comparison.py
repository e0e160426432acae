"""One table beside its stage: what is fetched is loaded, compared, and planned in working tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import timedelta
from functools import cached_property, partial
from typing import Any

import sqlalchemy as sa

from sync_pipelines.engine.plan import Action
from sync_pipelines.engine.results import Counts
from sync_pipelines.engine.targets import BulkRequest
from sync_pipelines.snapshots.snapshot import SnapshotPage
from sync_pipelines.targets.staging.constraints import read_constraints
from sync_pipelines.targets.staging.delete_delay import Sparing
from sync_pipelines.targets.staging.diff_sql import BulkColumns, Planner, What
from sync_pipelines.targets.staging.eligibility import made_for, why_not
from sync_pipelines.targets.staging.load import StageLoader, Unstaged
from sync_pipelines.targets.staging.owned_rows import Ownership
from sync_pipelines.targets.staging.postgres import PostgresWork, temporary_or_not
from sync_pipelines.targets.staging.sqlite import SqliteWork
from sync_pipelines.targets.staging.staged_columns import staged_key, staged_value
from sync_pipelines.targets.staging.staging_tables import FAILED, SKIPPED, SLOW, WorkTables
from sync_pipelines.targets.staging.table_parts import BulkPlan, BulkTarget
from sync_pipelines.targets.types.sqlalchemy_types import NamedType

_KEPT = timedelta(days=7)
ACTIONS = {What.CREATE: Action.CREATE, What.UPDATE: Action.UPDATE, What.DELETE: Action.DELETE}


class BulkComparison:
    """The working tables beside one table: the stage, what differs, and the plan.

    Args:
        target: The opened table.
        request: The run.
    """

    def __init__(self, target: BulkTarget, request: BulkRequest) -> None:
        self._target = target
        self._request = request
        self._work: WorkTables | None = None
        self._written: tuple[str, ...] | None = None
        self._loader: StageLoader | None = None
        self._is_empty = False
        self.recovered = 0
        """How many records an earlier attempt of the run had written when its plan was given up."""

    @property
    def needs_items(self) -> bool:
        """True if loading needs the items themselves, because a function reads them."""
        return self._target.reader.needs_items

    def why_not(self, page: SnapshotPage, items: Sequence[Any] | None) -> str | None:
        """Begins with the first page. Says why this table can't be synced in bulk, or None."""
        return self.begin(self._target.reader.names(page, items))

    def begin(self, written: Sequence[str], *, anew: bool = True) -> str | None:
        """Opens the working tables. Says why this table can't be synced in bulk, or None.

        Args:
            written: The columns that are written; key columns among them are not staged twice.
            anew: True to begin with an empty stage.
        """
        self._written = tuple(name for name in written if name not in self._target.key)
        self.__dict__.pop("columns", None)
        self.__dict__.pop("planner", None)
        reason = why_not(self._target, self._request, self._written, self.ownership)
        if reason is None:
            self._work = self._work or self._open_work()
            reason = None if self._work else "the role may make neither a schema nor temporary tables"
        if reason is None and anew:
            before = self.applied()
            self._make_stage()
            self.recovered += before.created + before.updated
        return reason

    def made_for(self, written: Sequence[str]) -> str:
        """The table and the declaration in short: a plan that was made for others must not be applied."""
        return made_for(self._target, written, self.ownership)

    @cached_property
    def ownership(self) -> Ownership:
        """What is known of the columns that are no item's."""
        target = self._target
        return Ownership(target.reflected, target.database.dialect, target.mark, target.scope)

    def _open_work(self) -> WorkTables | None:
        database = self._target.database
        if database.dialect.name == "sqlite":
            return SqliteWork(database, self._request)
        temporary = temporary_or_not(database, self._request.schema)
        if temporary is None:
            return None
        work = PostgresWork(
            database, self._request, temporary=temporary, has_addresses=self._target.reflected.has_addresses
        )
        try:
            work.drop_leftovers(_KEPT)
        except BaseException:  # nobody else will give its connection back
            work.close()
            raise
        return work

    @property
    def work(self) -> WorkTables:
        """The working tables."""
        assert self._work is not None, "begin() comes first"  # noqa: S101 - tells mypy; a defect of the caller
        return self._work

    @cached_property
    def columns(self) -> BulkColumns:
        """The staged columns."""
        reflected, dialect = self._target.reflected, self._target.database.dialect.name
        values = [
            staged_value(reflected.codecs[name], number, dialect, is_loose=name in reflected.case_insensitive)
            for number, name in enumerate(self._written or ())
        ]
        updated = [each for each in values if each.name not in self._target.create_only]
        compare, field = self._target.compare, self._request.version
        version = self._target.reader.column_of(field) if field is not None else None
        return BulkColumns(
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
            sa.cast(sa.null(), NamedType("smallint")).label("sp_lane"),
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
        """Loads a page into the stage. Gives the items that have no key there."""
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
        """Compares stage and table."""
        staged = {each.name for each in (*self.columns.key, *self.columns.values) if not each.cast_to}
        constraints = read_constraints(self._target.database, self._target.reflected.table, self._target.key, staged)
        return Planner(self.work, self._target.reflected.table, self.columns, constraints)

    def take_duplicates(self, keep: Callable[[Iterator[tuple[str, int, int]]], None]) -> int:
        """Tells which items are replaced by later ones, and takes them out of the stage. Gives how many there are.

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

    def compare(self, *, deletes: bool, veto: bool) -> BulkPlan:
        """Compares, and notes what differs; `make_plan` comes next.

        Args:
            deletes: True to look for records that no item is for.
            veto: True if the job itself decides whether a found record that differs is updated.
        """
        planner = self.planner
        with self.work.begin() as connection:
            empty = self._is_empty = planner.is_empty(connection)
            found = planner.compare(connection, deletes=deletes and not empty, empty=empty, veto=veto)
        lanes = {lane: found.get(int(What.LANE) + lane, 0) for lane in (SLOW, FAILED, SKIPPED)}
        return BulkPlan(
            unchanged=found.get(What.UNCHANGED, 0),
            skipped=lanes[SKIPPED],
            stale=found.get(What.STALE, 0),
            creates=found.get(What.CREATE, 0),
            updates=found.get(What.UPDATE, 0),
            deletes=found.get(What.DELETE, 0),
            one_by_one=lanes[SLOW] + lanes[FAILED] + found.get(What.ASIDE, 0),
            written=self._written or (),
            temporary=not self.work.outlives_session,
            made_for=self.made_for(self._written or ()),
            first_load=empty,
        )

    def missing(self) -> Iterator[str]:
        """The external ids of the records that `compare` found no item for."""
        with self.work.begin() as connection:
            yield from map(self._id_of, self.planner.missing(connection))

    def spare(self, due: Callable[[Sequence[str]], Collection[str]]) -> int:
        """Takes records that are not due out of those that `compare` found no item for. Gives how many.

        Args:
            due: Called with external ids, some thousands at a time; gives those that are to be deleted.
        """
        return Sparing(self.work, self.planner, self._target.reflected.profile, self._id_of).keep_only(due)

    def positions_of_updates(self) -> Iterator[int]:
        """Places in the fetch of the items whose records are to be updated, ascending."""
        return self._in_turns(self.planner.positions_of_updates)

    def existing(self) -> int:
        """How many local records there are that items can mean and a sync may delete."""
        with self.work.begin() as connection:
            return self.planner.count_existing(connection)

    def make_plan(self, *, without: Collection[Action] = ()) -> None:
        """Leaves what is to be written in working tables.

        Args:
            without: Actions that are not to be carried out, though `compare` found them.
        """
        withheld = [what for what, action in ACTIONS.items() if action in without]
        with self.work.begin() as connection:
            self.planner.make_plan(connection, empty=self._is_empty, without=withheld)
            self.work.analyze(connection, "plan")
            self.planner.make_aside(connection)

    def positions(self) -> Iterator[int]:
        """Places in the fetch of the items to be looked at one by one, ascending.

        No transaction is open while the caller works on them, which may take long.
        """
        return self._in_turns(partial(self.planner.positions, lanes=(SLOW, FAILED)))

    def _in_turns(self, read: Callable[..., list[int]]) -> Iterator[int]:
        found = [-1]
        while found:
            with self.work.begin() as connection:
                found = read(connection, after=found[-1])
            yield from found

    def is_there(self) -> bool:
        """True if the plan is still in the working tables, all of it: the table of rows set aside is made last.

        A plan has no rows if all that is to be written is looked at singly.
        """
        has_rows = self.work.is_there("stage") or self.work.is_there("plan")
        return has_rows and self.work.is_there("aside", has_rows=False)

    def applied(self) -> Counts:
        """What has been applied of this run, by whatever process."""
        with self.work.begin() as connection:
            return sum((Counts(**done.counts) for done in self.work.done(connection)), Counts())
