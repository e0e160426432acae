"""Writes the plan out of the staging tables: entry by entry, with what the local records hold now."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from sync_pipelines.engine.plan import Action, EntryRow
from sync_pipelines.engine.staged_target import Batch
from sync_pipelines.targets.staging.diff_sql import Planner, RowDecision
from sync_pipelines.targets.staging.field_changes import ChangesText, Constant, Field, changed_fields
from sync_pipelines.targets.staging.staging_tables import StagingTables
from sync_pipelines.targets.staging.table_parts import TableParts

_ROWS_AT_ONCE = 2_000
_ACTIONS = {RowDecision.CREATE: Action.CREATE, RowDecision.UPDATE: Action.UPDATE, RowDecision.DELETE: Action.DELETE}
_NO_CHANGES = "{}"


class PlanExport:
    """Reads what the comparison found as lines of a plan, some thousand rows at a time.

    Each piece is a short transaction of its own: nothing is open while the caller works on it. What the lines say is
    what the diff page by page says (`runner.decide.page_diff`); `test_same_as_pages` holds the two together.

    Args:
        target: The opened table.
        planner: Has compared.
        id_of: Gives the external id of a key as the database gives it.
    """

    def __init__(
        self, work: StagingTables, target: TableParts, planner: Planner, id_of: Callable[[Sequence[Any]], str]
    ) -> None:
        self._work = work
        self._target = target
        self._table = target.reflected.table
        self._planner = planner
        self._columns = planner.columns
        self._id_of = id_of
        self._by_database = work.place == "ctid"
        self._source = planner.export

    def rows(self, wanted: Collection[RowDecision], *, empty: bool) -> Iterator[list[EntryRow]]:
        """Yields lines: creates and updates in the order of the fetch, then deletes by key.

        Args:
            wanted: What is wanted.
            empty: True if the table had no rows when it was compared.
        """
        with self._work.begin() as connection:
            self._planner.make_export(connection, wanted, empty=empty)
            self._work.analyze(connection, "export")
            pieces = self._work.extent(connection, "export").batches(_ROWS_AT_ONCE)
        for piece in pieces:
            with self._work.begin() as connection:
                found = sorted(self._planned(connection, piece))
                rows = [row for what in found for row in self._read(connection, piece, what)]
            if len(found) > 1:
                rows.sort(key=lambda row: (row.position < 0, row.position))
            if rows:
                yield rows
        self._work.drop("export")

    def _planned(self, connection: sa.Connection, piece: Batch) -> list[RowDecision]:
        within = self._work.within(self._source, piece)
        return [
            RowDecision(each) for each in connection.scalars(sa.select(self._source.c.sp_what).where(within).distinct())
        ]

    def _read(self, connection: sa.Connection, piece: Batch, what: RowDecision) -> Iterator[EntryRow]:
        changes = ChangesText(self._fields(what), by_database=self._by_database)
        before = self._before(what)
        keys = self._columns.key_values(self._source, self._table)
        is_there = self._table.c[self._columns.key[0].name].is_not(None)
        query = sa.select(
            self._source.c.sp_n,
            (sa.literal_column("1") if what is RowDecision.CREATE else sa.case((is_there, 1), else_=0)).label(
                "is_there"
            ),
            *keys,
            *changes.columns,
            *(before.columns if before is not None else ()),
        )
        query = query.select_from(self._joined(what)).where(
            self._work.within(self._source, piece), self._source.c.sp_what == int(what)
        )
        order = (
            [self._source.c.sp_n]
            if what is not RowDecision.DELETE
            else [self._source.c[each.label] for each in self._columns.key]
        )
        start = 2 + len(keys)
        end = start + len(changes.columns)
        action = _ACTIONS[what].value
        for row in connection.execute(query.order_by(*order)):
            external_id, position = self._id_of(row[2:start]), row[0] if row[0] is not None else -1
            text = changes.read(row[start:end]) if row[1] else _NO_CHANGES
            if what is RowDecision.UPDATE and text == _NO_CHANGES:
                yield EntryRow(position, action, external_id, None)
            elif before is not None and row[1]:
                yield EntryRow(position, action, external_id, text, before.read(row[end:]))
            else:
                yield EntryRow(position, action, external_id, text)

    def _joined(self, what: RowDecision) -> sa.FromClause:
        if what is RowDecision.CREATE:
            return self._source
        same = [self._table.c[each.name] == self._source.c[each.label] for each in self._columns.key]
        if self._work.has_addresses:
            same.insert(0, self._work.address(self._table) == self._source.c.sp_at)
        return sa.join(self._source, self._table, sa.and_(*same), isouter=True)

    def _fields(self, what: RowDecision) -> list[Field]:
        if what is not RowDecision.DELETE:
            return changed_fields(what, self._source, self._table, self._columns)
        mark = self._target.mark
        if mark is None:
            return self._held()
        return [Field(mark.codec, self._table.c[mark.name], Constant.of(mark.shown))]

    def _held(self) -> list[Field]:
        """All that is shown of a local record."""
        return [Field(codec, self._table.c[codec.name]) for codec in self._target.shown]

    def _before(self, what: RowDecision) -> ChangesText | None:
        """What a marked record holds besides the mark; a record that is removed says it all in its changes."""
        if what is not RowDecision.DELETE or self._target.mark is None:
            return None
        return ChangesText(self._held(), by_database=self._by_database, only_old=True)
