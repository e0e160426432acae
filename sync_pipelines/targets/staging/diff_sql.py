"""The diff in the database: duplicates found, one join of staging table and table, and the plan as a staging table."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from sync_pipelines.targets.db_errors import is_of_statement
from sync_pipelines.targets.staging.constraints import Constraints
from sync_pipelines.targets.staging.owned_rows import Ownership
from sync_pipelines.targets.staging.readable import has_usual_form, is_readable
from sync_pipelines.targets.staging.staged_columns import StagedColumn
from sync_pipelines.targets.staging.staging_tables import FAST, SLOW, StagingTables
from sync_pipelines.targets.types.sqlalchemy_types import NamedType

_ROWS_AT_ONCE = 10_000
POSITIONS_AT_ONCE = 100_000
_ASCII_BLANKS = " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"
_BLANKS = (
    " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""What Python strips."""


class RowDecision(IntEnum):
    """What the comparison says of a staged item, or of a local record without one."""

    UNCHANGED = 0
    CREATE = 1
    UPDATE = 2
    DELETE = 3
    QUARANTINED = 4
    """To be looked at by itself: the database would refuse it, or finds a difference that may be none."""
    STALE = 5
    """The item is older than the local record."""
    ROUTE = 10
    """Plus the route of an item that was not compared."""


WRITES = (RowDecision.CREATE, RowDecision.UPDATE, RowDecision.DELETE)


@dataclass(frozen=True, slots=True)
class StagedColumns:
    """The staged columns by what they are for.

    Args:
        values: All others that are staged.
        compared: Those of them that decide whether a found row has changed.
        updated: Those that an update writes.
        version: That of them which says which of two states is the newer one, if the job has such a thing.
        ownership: What is known of the columns that are no item's.
    """

    key: Sequence[StagedColumn]
    values: Sequence[StagedColumn]
    compared: Sequence[StagedColumn]
    updated: Sequence[StagedColumn]
    version: StagedColumn | None
    ownership: Ownership

    def labels(self) -> list[str]:
        """The names of all in the staging tables."""
        return [column.label for column in (*self.key, *self.values)]

    def key_values(self, working: sa.FromClause, table: sa.Table) -> list[sa.ColumnElement[Any]]:
        """The key columns of a staging table, to be read as the table's own would be."""
        return [sa.type_coerce(working.c[column.label], table.c[column.name].type) for column in self.key]

    def are_older(self, working: sa.FromClause, table: sa.Table, *, on_sqlite: bool) -> sa.ColumnElement[bool] | None:
        """The condition that staged items are older than their local rows; None if no column of a row can tell.

        Null where a row has no version. `StaleCheck.standing` decides the same of one item.
        """
        if self.version is None:
            return None
        local, codec = table.c[self.version.name], self.version.codec
        is_older = working.c[self.version.label] < local
        if on_sqlite:
            return sa.and_(is_older, has_usual_form(local, codec.facts.family))
        readable = is_readable(codec, local)  # what can't be read is overwritten
        return is_older if readable is None else sa.and_(is_older, readable)


class Planner:
    """Compares the staging table with the table.

    Args:
        work: The staging tables, loaded.
        columns: The staged columns.
        constraints: What the table does not allow.
    """

    def __init__(self, work: StagingTables, table: sa.Table, columns: StagedColumns, constraints: Constraints) -> None:
        self._work = work
        self._table = table
        self.columns = columns
        self.constraints = constraints
        self._keys = [column.label for column in columns.key]
        self.stage = work.table("stage", "sp_n", "sp_route", *columns.labels())
        self.diffs = work.table("diffs", "sp_n", "sp_what", "sp_at", *self._keys)
        self.plan = work.table("plan", "sp_n", "sp_what", "sp_at", *columns.labels())
        self.export = work.table("export", "sp_n", "sp_what", "sp_at", *columns.labels())
        self._twice = work.table("twice", "sp_kept", *self._keys)

    @property
    def keys(self) -> Sequence[str]:
        """The names of the key columns in the staging tables."""
        return self._keys

    def find_duplicates(self, connection: sa.Connection) -> int:
        """Finds items that another one with the same key replaces: a newer or later one. Gives how many there are.

        Decides the same as `engine.versions.supersedes`.
        """
        keys = [self.stage.c[name] for name in self._keys]
        order = [self.stage.c.sp_n.desc()]
        if self.columns.version is not None:
            order.insert(0, self.stage.c[self.columns.version.label].desc().nulls_last())
        place = sa.func.row_number().over(partition_by=keys, order_by=order).label("sp_place")
        count = sa.func.count().over(partition_by=keys).label("sp_count")
        ranked = sa.select(*keys, self.stage.c.sp_n, place, count).subquery("ranked")
        query = sa.select(*(ranked.c[name] for name in self._keys), ranked.c.sp_n.label("sp_kept"))
        self._work.create_as(connection, "twice", query.where(ranked.c.sp_place == 1, ranked.c.sp_count > 1))
        if connection.execute(sa.select(self._twice.c.sp_kept).limit(1)).first() is None:
            return 0
        return int(connection.scalar(sa.select(sa.func.count()).select_from(self._replaced())) or 0)

    def _replaced(self) -> sa.Join:
        same = (self.stage.c[name] == self._twice.c[name] for name in self._keys)
        return sa.join(self.stage, self._twice, sa.and_(*same, self.stage.c.sp_n != self._twice.c.sp_kept))

    def duplicates(self, connection: sa.Connection) -> Iterator[tuple[int, int, Sequence[Any]]]:
        """Position, kept position and key of the items that were replaced, in the order of the fetch."""
        keys = self.columns.key_values(self.stage, self._table)
        query = sa.select(self.stage.c.sp_n, self._twice.c.sp_kept, *keys).select_from(self._replaced())
        for row in _streamed(connection, query.order_by(self.stage.c.sp_n)):
            yield row[0], row[1], row[2:]

    def remove_duplicates(self, connection: sa.Connection) -> None:
        """Leaves only the items that count in the staging table."""
        replaced = sa.select(self.stage.c.sp_n).select_from(self._replaced())
        connection.execute(sa.delete(self.stage).where(self.stage.c.sp_n.in_(replaced)))

    def is_empty(self, connection: sa.Connection) -> bool:
        """True if the table has no rows."""
        return connection.execute(sa.select(sa.literal(1)).select_from(self._table).limit(1)).first() is None

    def compare(self, connection: sa.Connection, *, deletes: bool, empty: bool, veto: bool) -> dict[int, int]:
        """Compares, and notes what differs. Gives how many there are of each `What`.

        Decides the same as `runner.decide.changes.action_needed` and `runner.decide.stale_check.StaleCheck.standing`.

        Args:
            connection: In a transaction.
            deletes: True to look for local records that no item is for.
            empty: True if the table has no rows: then nothing is to be compared.
            veto: True if the job itself decides whether a found record that differs is updated.
        """
        self._work.allow_more(connection)
        try:
            with connection.begin_nested():
                return self._counted(
                    connection, self._comparison(deletes=deletes, empty=empty, checks=True, veto=veto), empty=empty
                )
        except DBAPIError as error:
            if not self.constraints.checks or not is_of_statement(error):
                raise
            # a CHECK that can't be asked about rows outside of its table: its failures are narrowed down when they come
            return self._counted(
                connection, self._comparison(deletes=deletes, empty=empty, checks=False, veto=veto), empty=empty
            )

    def _counted(self, connection: sa.Connection, query: sa.Select[Any], *, empty: bool) -> dict[int, int]:
        """Keeps what the comparison says of each row that is not up to date, and counts.

        Where all is to be created nothing needs to be kept of it.
        """
        found = query.subquery("found")
        kept = (
            found.c.sp_what == int(RowDecision.QUARANTINED) if empty else found.c.sp_what != int(RowDecision.UNCHANGED)
        )
        self._work.create_as(connection, "diffs", sa.select(found).where(kept))
        contested = self._quarantine_contested(connection, empty=empty)
        counted: sa.FromClause = found if empty else self.diffs
        counts = sa.select(counted.c.sp_what, sa.func.count()).group_by(counted.c.sp_what)
        given: dict[int, int] = {row[0]: row[1] for row in connection.execute(counts)}
        if empty and contested:
            given[RowDecision.CREATE] -= contested
            given[RowDecision.QUARANTINED] = given.get(RowDecision.QUARANTINED, 0) + contested
        if not empty:
            staged = connection.scalar(sa.select(sa.func.count()).select_from(self.stage)) or 0
            given[RowDecision.UNCHANGED] = staged - sum(given.values()) + given.get(RowDecision.DELETE, 0)
        return given

    def _quarantine_contested(self, connection: sa.Connection, *, empty: bool) -> int:
        """Quarantines items with a unique value that an item has which is looked at by itself: the first gets it.

        Written at different times, the other one might. Gives how many there are.
        """
        single = self.stage.alias("single")
        quarantined = sa.select(self.diffs.c.sp_n).where(self.diffs.c.sp_what == int(RowDecision.QUARANTINED))
        is_single = sa.or_(single.c.sp_route == SLOW, single.c.sp_n.in_(quarantined))
        if not self.constraints.unique or not connection.scalar(sa.select(sa.exists().where(is_single))):
            return 0
        labels = {each.name: each.label for each in self._staged()}
        found = 0
        for names in self.constraints.unique:
            same = [self.stage.c[labels[name]] == single.c[labels[name]] for name in names]
            joined = sa.join(self.stage, single, sa.and_(*same, self.stage.c.sp_n != single.c.sp_n))
            contested = sa.select(self.stage.c.sp_n).distinct().select_from(joined)
            contested = contested.where(is_single, self.stage.c.sp_route == FAST, self.stage.c.sp_n.not_in(quarantined))
            if empty:
                what = sa.literal_column(str(int(RowDecision.QUARANTINED)), sa.Integer).label("sp_what")
                query = sa.select(contested.subquery("contested").c.sp_n, what)
                statement: Any = sa.insert(self.diffs).from_select(["sp_n", "sp_what"], query)
            else:
                writes = self.diffs.c.sp_what.in_([int(RowDecision.CREATE), int(RowDecision.UPDATE)])
                statement = sa.update(self.diffs).values(sp_what=int(RowDecision.QUARANTINED))
                statement = statement.where(writes, self.diffs.c.sp_n.in_(contested))
            found += connection.execute(statement.execution_options(preserve_rowcount=True)).rowcount
        return found

    def _comparison(self, *, deletes: bool, empty: bool, checks: bool, veto: bool) -> sa.Select[Any]:
        """One row per staged item (and record without one): number, what, address, and the key of a delete."""
        staged = self._checked_stage() if checks else sa.select(
            self.stage, sa.literal_column("0", sa.Integer).label("sp_quarantined")
        ).subquery("s")  # fmt: skip
        refused, route = staged.c.sp_quarantined == 1, staged.c.sp_route
        if empty:
            what = sa.case(
                (route != FAST, int(RowDecision.ROUTE) + route),
                (refused, int(RowDecision.QUARANTINED)),
                else_=int(RowDecision.CREATE),
            )
            none = [sa.null().label(name) for name in ("sp_at", *self._keys)]
            return sa.select(staged.c.sp_n, what.label("sp_what"), *none)
        local = self._table
        same = sa.and_(*(staged.c[each.label] == local.c[each.name] for each in self.columns.key))
        missing = local.c[self.columns.key[0].name].is_(None)
        whens: list[tuple[Any, Any]] = [(staged.c.sp_n.is_(None), int(RowDecision.DELETE))] if deletes else []
        whens += [
            (route != FAST, int(RowDecision.ROUTE) + route),
            (missing & refused, int(RowDecision.QUARANTINED)),
            (missing, int(RowDecision.CREATE)),
            *self._staleness(staged),
            *self._difference(staged, refused, veto=veto),
        ]
        what = sa.case(*whens, else_=int(RowDecision.UNCHANGED))
        address = self._work.address(local) if self._work.has_addresses else sa.null()
        keys = [
            # as it lies there, not as it would be read
            sa.type_coerce(sa.case((staged.c.sp_n.is_(None), local.c[each.name])), NamedType("")).label(each.label)
            if deletes
            else sa.cast(sa.null(), NamedType(each.type_name)).label(each.label)
            for each in self.columns.key
        ]
        joined = sa.join(staged, local, same, isouter=True, full=deletes)
        query = sa.select(staged.c.sp_n, what.label("sp_what"), address.label("sp_at"), *keys).select_from(joined)
        if deletes:
            owned = sa.and_(*self._owned())
            query = query.where(sa.or_(staged.c.sp_n.is_not(None), owned))
        return query

    def _can_be_meant(self, column: StagedColumn) -> sa.ColumnElement[bool]:
        """The condition that an external id can stand for a key: it is neither null, nor blank, nor NaN.

        On SQLite it must also have the form that a look-up has; others may have written it in another one.
        """
        local, family = self._table.c[column.name], column.codec.facts.family
        is_sqlite = self._work.place == "rowid"
        if is_sqlite and family != "text":
            return has_usual_form(local, family)
        if family != "text":
            readable = is_readable(column.codec, local)
            return local.is_not(None) if readable is None else sa.and_(local.is_not(None), readable)
        trim = sa.func.trim if is_sqlite else sa.func.btrim
        text = sa.cast(local, sa.Text())
        blanks = _BLANKS if self._work.is_unicode else _ASCII_BLANKS
        bare = trim(text, blanks) if len(self.columns.key) == 1 else text
        is_text = sa.func.typeof(local) == "text" if is_sqlite else local.is_not(None)
        return sa.and_(is_text, bare != "")

    def _staleness(self, staged: sa.FromClause) -> list[tuple[Any, Any]]:
        is_older = self.columns.are_older(staged, self._table, on_sqlite=self._work.place == "rowid")
        return [] if is_older is None else [(is_older, int(RowDecision.STALE))]

    def _difference(
        self, staged: sa.FromClause, refused: sa.ColumnElement[bool], *, veto: bool
    ) -> list[tuple[Any, Any]]:
        strict = [self._differs(each, staged) for each in self.columns.compared if not each.loose]
        loose = [self._differs(each, staged) for each in self.columns.compared if each.loose]
        marked = self.columns.ownership.is_marked()
        if marked is not None:
            strict.append(marked)
        whens: list[tuple[Any, Any]] = []
        if strict:
            found = sa.or_(*strict)
            whens += (
                [(found, int(RowDecision.QUARANTINED))]
                if veto
                else [(found & refused, int(RowDecision.QUARANTINED)), (found, int(RowDecision.UPDATE))]
            )
        if loose:
            whens.append((sa.or_(*loose), int(RowDecision.QUARANTINED)))
        return whens

    def _differs(self, column: StagedColumn, staged: sa.FromClause) -> sa.ColumnElement[bool]:
        return column.differs(staged.c[column.label], self._table.c[column.name])

    def _checked_stage(self) -> sa.Subquery:
        """The staging table with a flag on rows that a NOT NULL or CHECK of the table would refuse."""
        names = self.constraints.names_in_checks()
        renamed = [self.stage.c[each.label].label(each.name) for each in self._staged() if each.name in names]
        inner = sa.select(*(column for column in self.stage.c if column.name != self._work.place), *renamed).subquery(
            "checked"
        )
        refused: list[sa.ColumnElement[bool]] = [
            sa.literal_column(f"NOT ({check})", sa.Boolean) for check in self.constraints.checks
        ]
        refused += [
            inner.c[each.label].is_(None) for each in self.columns.values if each.name in self.constraints.not_null
        ]
        flag = sa.case((sa.or_(*refused), 1), else_=0) if refused else sa.literal_column("0", sa.Integer)
        kept = [inner.c[name] for name in ("sp_n", "sp_route", *self.columns.labels())]
        return sa.select(*kept, flag.label("sp_quarantined")).subquery("s")

    def _staged(self) -> list[StagedColumn]:
        return [*self.columns.key, *self.columns.values]

    def delete_keys(self) -> list[sa.ColumnElement[Any]]:
        """The key columns of the local records that are to be deleted."""
        return self.columns.key_values(self.diffs, self._table)

    def count_existing(self, connection: sa.Connection) -> int:
        """How many local records there are that items can mean and a sync may delete."""
        query = sa.select(sa.func.count()).select_from(self._table).where(*self._owned())
        return int(connection.scalar(query) or 0)

    def _owned(self) -> list[sa.ColumnElement[bool]]:
        """The conditions that a local record is one that an item can mean and a sync may delete."""
        can_be_meant = [self._can_be_meant(each) for each in self.columns.key]
        return [*can_be_meant, *self.columns.ownership.may_be_deleted()]

    def make_plan(self, connection: sa.Connection, *, empty: bool, without: Collection[RowDecision] = ()) -> None:
        """Puts what is to be written into a table of its own: in the order in which local rows lie, new ones by key.

        Args:
            connection: In a transaction.
            empty: True if the table has no rows: then all is to be created that is not quarantined.
            without: What is not to be written though it differs.
        """
        if empty:
            query = self._all_creates().order_by(*self._create_order())
        else:
            query = self._differences([what for what in WRITES if what not in without])
            in_order = self._create_order()
            query = query.order_by(*([self.diffs.c.sp_at] if self._work.has_addresses else []), *in_order)
        self._work.create_as(connection, "plan", query)

    def _create_order(self) -> list[sa.ColumnElement[Any]]:
        """New rows go in by key; but as they were fetched where two can't both, so that the first does."""
        by_key: list[sa.ColumnElement[Any]] = [self.stage.c[name] for name in self._keys]
        return [self.stage.c.sp_n, *by_key] if self.constraints.order_counts else by_key

    def make_export(self, connection: sa.Connection, wanted: Collection[RowDecision], *, empty: bool) -> None:
        """Puts what differs into a table of its own: in the order of the fetch, deletes last and by key.

        Args:
            connection: In a transaction.
            wanted: What is wanted.
            empty: As in `make_plan`.
        """
        if empty:
            query = self._all_creates() if RowDecision.CREATE in wanted else self._all_creates().where(sa.false())
            query = query.order_by(self.stage.c.sp_n)
        else:
            number = self.diffs.c.sp_n
            query = self._differences(wanted).order_by(
                number.is_(None), number, *(self.diffs.c[name] for name in self._keys)
            )
        self._work.create_as(connection, "export", query)

    def _all_creates(self) -> sa.Select[Any]:
        quarantined = sa.select(self.diffs.c.sp_n).where(self.diffs.c.sp_what == int(RowDecision.QUARANTINED))
        staged = [self.stage.c[name] for name in self.columns.labels()]
        what = sa.cast(sa.literal_column(str(int(RowDecision.CREATE))), sa.Integer).label("sp_what")
        query = sa.select(self.stage.c.sp_n, what, self._no_address(), *staged)
        return query.where(self.stage.c.sp_route == FAST, self.stage.c.sp_n.not_in(quarantined))

    def _no_address(self) -> sa.ColumnElement[Any]:
        kind = NamedType("tid" if self._work.has_addresses else "bigint")
        return sa.cast(sa.null(), kind).label("sp_at")

    def _differences(self, wanted: Collection[RowDecision]) -> sa.Select[Any]:
        values = [self.stage.c[each.label] for each in self.columns.values]
        keys = [
            sa.func.coalesce(self.stage.c[name], self.diffs.c[name]).label(name) if self._work.request.deletes
            else self.stage.c[name]
            for name in self._keys
        ]  # fmt: skip
        joined = sa.join(self.diffs, self.stage, self.stage.c.sp_n == self.diffs.c.sp_n, isouter=True)
        query = sa.select(self.diffs.c.sp_n, self.diffs.c.sp_what, self.diffs.c.sp_at, *keys, *values)
        return query.select_from(joined).where(self.diffs.c.sp_what.in_([int(what) for what in wanted]))

    def make_quarantine(self, connection: sa.Connection) -> None:
        """Makes the empty table of rows to be written by themselves."""
        keys = [self.stage.c[name] for name in self._keys]
        what = sa.cast(sa.null(), NamedType("smallint")).label("sp_what")
        self._work.create_as(connection, "quarantine", sa.select(self.stage.c.sp_n, what, *keys), empty=True)

    def positions(self, connection: sa.Connection, routes: Sequence[int], after: int) -> list[int]:
        """Places in the fetch of the next items to be looked at singly: those of the routes and those quarantined.

        Args:
            connection: In a transaction.
            after: Places after this one; they come in order, a limited number.
        """
        by_route = sa.select(self.stage.c.sp_n).where(self.stage.c.sp_route.in_(routes))
        quarantined = sa.select(self.diffs.c.sp_n).where(self.diffs.c.sp_what == int(RowDecision.QUARANTINED))
        both = sa.union_all(by_route, quarantined).subquery("one_by_one")
        query = sa.select(both.c.sp_n).where(both.c.sp_n > after).order_by(both.c.sp_n).limit(POSITIONS_AT_ONCE)
        return list(connection.scalars(query))


def _streamed(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[Any]:
    # options of the statement: those of a connection would stay with it, and have a cursor declared for DROP TABLE
    yield from connection.execute(query, execution_options={"yield_per": _ROWS_AT_ONCE})
