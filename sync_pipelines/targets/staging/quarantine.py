"""Finds the rows of a plan that the database refuses, and quarantines them: each is then written by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from sync_pipelines.engine.staged_target import Batch
from sync_pipelines.targets.db_errors import is_of_statement
from sync_pipelines.targets.staging.constraints import Constraints, ForeignKey
from sync_pipelines.targets.staging.diff_sql import RowDecision, StagedColumns
from sync_pipelines.targets.staging.staging_tables import StagingTables

_ROWS_AT_ONCE = 20_000
_GENERATIONS = 20


class Quarantine:
    """The rows of a plan that are quarantined.

    Args:
        columns: The staged columns.
        constraints: What the table does not allow.
        plan: The staging table that is applied.
    """

    def __init__(
        self, work: StagingTables, table: sa.Table, columns: StagedColumns, constraints: Constraints, plan: sa.Table
    ) -> None:
        self._work = work
        self._table = table
        self._columns = columns
        self._constraints = constraints
        self._plan = plan
        self._labels = {each.name: each.label for each in (*columns.key, *columns.values)}
        self._keys = [each.label for each in columns.key]
        self._quarantined = work.table("quarantine", "sp_n", "sp_what", *self._keys)
        self._has_searched = False

    def quarantine_known(self, batch: Batch) -> int:
        """Quarantines the rows of a refused batch that are known to break something. Gives how many.

        The first search is for rows whose key somebody else has written meanwhile. The others are for the whole plan at
        once, so that no further batch is refused for the same reason.
        """
        found = self._add(self._work.within(self._plan, batch), self._to_create(), self._exists_by(self._key_names()))
        if not self._has_searched:
            self._has_searched = True
            found += sum(self._search(self._taken(names)) for names in self._constraints.unique)
            found += sum(self._search_lacking(key) for key in self._constraints.foreign_keys)
        return found

    def _search_lacking(self, key: ForeignKey) -> int:
        """Quarantines rows that refer to what is not there, then those that refer to these, and so on for a while."""
        found = 0
        for _ in range(_GENERATIONS):
            more = self._search(self._lacks(key))
            found += more
            if not more:
                break
        return found

    def quarantine_deletes(self) -> int:
        """Quarantines all deletes: where one may take other rows with it, each is looked at."""
        return self._add(self._plan.c.sp_what == int(RowDecision.DELETE))

    def quarantine_all(self, batch: Batch) -> int:
        """Quarantines all rows of a batch."""
        return self._add(self._work.within(self._plan, batch))

    def count_lacking(self, connection: sa.Connection, batch: Batch) -> int:
        """Counts the rows of a batch that were created or updated, and are not in the table under their key.

        Args:
            connection: In the transaction that has written the batch.
        """
        lacking = ~self._exists_by(self._key_names())
        query = sa.select(sa.func.count()).select_from(self._plan)
        return int(connection.scalar(query.where(self._work.within(self._plan, batch), self._to_write(), lacking)) or 0)

    def quarantine_unwritten(self, connection: sa.Connection, batch: Batch, what: RowDecision) -> int:
        """Quarantines rows of a batch that were planned and not written, though the local row is not as it should be.

        Args:
            connection: In the transaction that has written the batch.
            what: What was to be done with them.
        """
        exists = self._exists_by(self._key_names())
        conditions = [self._work.within(self._plan, batch)]
        if what is RowDecision.CREATE:
            conditions += [self._to_create(), ~exists]
        elif what is RowDecision.DELETE:
            stays = self._exists_by(self._key_names(), *self._columns.ownership.may_be_deleted())
            conditions += [self._plan.c.sp_what == int(RowDecision.DELETE), stays]
        else:
            same = [self._table.c[each.name] == self._plan.c[each.label] for each in self._columns.key]
            equal = [
                ~each.differs(self._plan.c[each.label], self._table.c[each.name]) for each in self._columns.compared
            ]
            marked = self._columns.ownership.is_marked()
            is_equal = _exists(
                self._table, *same, *equal, *([sa.or_(marked.is_(None), ~marked)] if marked is not None else [])
            )
            conditions += [self._plan.c.sp_what == int(RowDecision.UPDATE), ~is_equal]
        return self._insert(connection, conditions)

    def rows(self, connection: sa.Connection, skip: int) -> list[tuple[int | None, int, Sequence[Any]]]:
        """Number, what and key of rows that were quarantined while applying, in the order of the fetch.

        Args:
            connection: In a transaction.
            skip: How many have been given; a limited number comes at a time.
        """
        keys = self._columns.key_values(self._quarantined, self._table)
        query = sa.select(self._quarantined.c.sp_n, self._quarantined.c.sp_what, *keys)
        query = query.order_by(
            self._quarantined.c.sp_n.is_(None),
            self._quarantined.c.sp_n,
            *(self._quarantined.c[name] for name in self._keys),
        )
        rows = connection.execute(query.offset(skip).limit(_ROWS_AT_ONCE))
        return [(row[0], row[1], row[2:]) for row in rows]

    def _key_names(self) -> tuple[str, ...]:
        return tuple(each.name for each in self._columns.key)

    def _to_create(self) -> sa.ColumnElement[bool]:
        return self._plan.c.sp_what == int(RowDecision.CREATE)

    def _to_write(self) -> sa.ColumnElement[bool]:
        return self._plan.c.sp_what.in_([int(RowDecision.CREATE), int(RowDecision.UPDATE)])

    def _exists_by(self, names: Sequence[str], *further: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
        """The condition that the table has a row with the same values in these columns."""
        same = [self._table.c[name] == self._plan.c[self._labels[name]] for name in names]
        return _exists(self._table, *same, *further)

    def _lacks(self, key: ForeignKey) -> sa.ColumnElement[bool]:
        """The condition that a row refers to something that is not there."""
        other = sa.table(key.table, *(sa.column(name) for name in key.referred), schema=key.schema).alias("referred")
        own = [self._plan.c[self._labels[name]] for name in key.columns]
        same = [other.c[name] == column for name, column in zip(key.referred, own, strict=True)]
        there: sa.ColumnElement[bool] = _exists(other, *same)
        is_own_table = key.table == self._table.name and key.schema in {None, self._table.schema}
        if is_own_table and set(key.referred) <= set(self._labels):  # what is still to be created counts as well
            parent = self._plan.alias("parent")
            pairs = zip(key.referred, own, strict=True)
            planned = _exists(parent, *(parent.c[self._labels[name]] == column for name, column in pairs))
            there = sa.or_(there, planned)
        return sa.and_(*(column.is_not(None) for column in own), ~there)

    def _taken(self, names: Sequence[str]) -> sa.ColumnElement[bool]:
        """The condition that another row has, or is to have, the same values in columns that must be unique."""
        others = [self._table.c[each.name] != self._plan.c[each.label] for each in self._columns.key]
        local = self._exists_by(names, sa.or_(*others))
        other = self._plan.alias("other")
        same = [other.c[self._labels[name]] == self._plan.c[self._labels[name]] for name in names]
        planned = _exists(other, *same, other.c.sp_n != self._plan.c.sp_n)
        return sa.or_(local, planned)

    def _search(self, guilty: sa.ColumnElement[bool]) -> int:
        """Quarantines what is guilty in the whole plan; nothing where the role may not look at the other table."""
        with self._work.begin() as connection:
            try:
                with connection.begin_nested():
                    return self._insert(connection, (self._to_write(), guilty))
            except DBAPIError as error:
                if not is_of_statement(error):
                    raise
                return 0

    def _add(self, *conditions: sa.ColumnElement[bool]) -> int:
        with self._work.begin() as connection:
            return self._insert(connection, conditions)

    def _insert(self, connection: sa.Connection, conditions: Sequence[sa.ColumnElement[bool]]) -> int:
        """Moves rows of the plan to those that are quarantined: an anti-join in every statement would cost more."""
        plan, quarantined = self._plan, self._quarantined
        query = sa.select(plan.c.sp_n, plan.c.sp_what, *(plan.c[name] for name in self._keys)).select_from(plan)
        statement = sa.insert(quarantined).from_select(["sp_n", "sp_what", *self._keys], query.where(*conditions))
        found = connection.execute(statement.execution_options(preserve_rowcount=True)).rowcount
        if found:
            self._work.analyze(connection, "quarantine")
            connection.execute(sa.delete(plan).where(plan.c.sp_n.in_(sa.select(quarantined.c.sp_n))))
            keys = (quarantined.c[name] == plan.c[name] for name in self._keys)
            connection.execute(sa.delete(plan).where(plan.c.sp_n.is_(None), _exists(quarantined, *keys)))
        return found


def _exists(table: sa.FromClause, *conditions: sa.ColumnElement[bool]) -> sa.Exists:
    return sa.exists(sa.select(sa.literal(1)).select_from(table).where(*conditions))
