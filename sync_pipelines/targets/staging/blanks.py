"""Counts in the database of how many records an update would blank a column, beside `engine.blanks`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from sync_pipelines.targets.staging.diff_sql import Planner, RowDecision
from sync_pipelines.targets.staging.staged_columns import StagedColumn
from sync_pipelines.targets.staging.staging_tables import FAST, StagingTables

_TEXTS = frozenset({"text", "enum", "asked"})
_NEVER_EMPTY = frozenset({"int", "float", "numeric", "bool", "datetime", "date", "uuid"})
_EMPTY_FORMS = ("", "{}", "[]", '""', "null", "\\x")
"""The texts of what is empty: arrays, JSON, bytes."""
_SHORT = 64
"""Bytes of a value that may be empty; a longer one need not be read."""


def is_blank(column: StagedColumn, value: sa.ColumnElement[Any], dialect: str) -> sa.ColumnElement[bool]:
    """The condition that a staged value, or one of the table, is null or empty.

    Says the same as `engine.blanks.is_blank`.
    """
    family = column.codec.facts.family
    if dialect == "sqlite":
        bare = sa.type_coerce(value, sa.Text())
        is_text = sa.func.typeof(bare) == "text"
        empty = [is_text & (sa.func.replace(bare, " ", "") == form) for form in _EMPTY_FORMS[1:-1]]
        filled = sa.collate(sa.func.coalesce(bare, sa.literal_column("''")), "BINARY")
        is_empty = filled.in_([sa.literal_column("''"), sa.literal_column("x''")])
        return sa.or_(is_empty, *empty) if family == "json" else is_empty
    if family in _NEVER_EMPTY:
        return value.is_(None)
    text = sa.cast(value, sa.Text())
    if family in _TEXTS:
        return sa.or_(value.is_(None), sa.func.octet_length(text) == 0)
    is_form = sa.func.replace(text, " ", "").in_([sa.literal_column(f"'{form}'") for form in _EMPTY_FORMS])
    return sa.or_(value.is_(None), sa.case((sa.func.pg_column_size(value) < _SHORT, is_form), else_=sa.false()))


class BlankCounter:
    """Counts what the comparison of a planner would blank.

    Args:
        planner: Has compared.
    """

    def __init__(self, work: StagingTables, planner: Planner, table: sa.Table, dialect: str) -> None:
        self._work = work
        self._planner = planner
        self._table = table
        self._dialect = dialect

    def lost(self) -> dict[str, int]:
        """Column -> of how many records an update would leave nothing in it."""
        columns, stage = self._planner.columns.updated, self._planner.stage
        lost = [
            is_blank(each, stage.c[each.label], self._dialect)
            & ~is_blank(each, self._table.c[each.name], self._dialect)
            for each in columns
        ]
        diffs = self._planner.diffs
        joined = sa.join(diffs, stage, diffs.c.sp_n == stage.c.sp_n).join(self._table, self._same_key())
        return self._counted(columns, lost, joined, diffs.c.sp_what == int(RowDecision.UPDATE))

    def had(self, names: Collection[str]) -> dict[str, int]:
        """Column -> how many of the records that items were compared with have something in it."""
        columns = [each for each in self._planner.columns.updated if each.name in names]
        had = [~is_blank(each, self._table.c[each.name], self._dialect) for each in columns]
        stage, diffs = self._planner.stage, self._planner.diffs
        joined = sa.join(stage, self._table, self._same_key()).join(diffs, diffs.c.sp_n == stage.c.sp_n, isouter=True)
        compared = sa.or_(diffs.c.sp_what.is_(None), diffs.c.sp_what == int(RowDecision.UPDATE))
        return self._counted(columns, had, joined, sa.and_(stage.c.sp_route == FAST, compared))

    def _same_key(self) -> sa.ColumnElement[bool]:
        stage = self._planner.stage
        return sa.and_(*(stage.c[each.label] == self._table.c[each.name] for each in self._planner.columns.key))

    def _counted(
        self,
        columns: Sequence[StagedColumn],
        conditions: Sequence[sa.ColumnElement[bool]],
        joined: sa.Join,
        among: sa.ColumnElement[bool],
    ) -> dict[str, int]:
        """Counts in one pass in how many rows each condition holds."""
        if not columns:
            return {}
        counts = [sa.func.count(sa.case((condition, 1))) for condition in conditions]
        with self._work.begin() as connection:
            found = connection.execute(sa.select(*counts).select_from(joined).where(among)).one()
        return {each.name: count for each, count in zip(columns, found, strict=True) if count}
