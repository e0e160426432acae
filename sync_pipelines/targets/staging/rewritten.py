"""Which columns the updates of a plan change: on how many records, and to which values on a few of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from sync_pipelines.targets.staging.diff_sql import Planner, RowDecision


def count_columns(connection: sa.Connection, planner: Planner, table: sa.Table) -> dict[str, int]:
    """Returns column -> number of records. Looks at all updates.

    Args:
        planner: Has compared.
    """
    columns = planner.columns.updated
    source = _updates(planner).join(table, _same_key(planner, table))
    sums = [sa.func.sum(sa.case((each, 1), else_=0)) for each in _differing(planner, table)]
    numbers = connection.execute(sa.select(*sums).select_from(source).where(_is_update(planner))).one()
    return {each.name: int(number) for each, number in zip(columns, numbers, strict=True) if number}


def sample_columns(
    connection: sa.Connection, planner: Planner, table: sa.Table, id_of: Callable[[Sequence[Any]], str], limit: int
) -> dict[str, dict[str, str]]:
    """Returns external id -> column -> new value as text of some of the records.

    Args:
        planner: Has compared.
        id_of: Gives the external id of a key.
        limit: Of how many records, those with the first keys.
    """
    stage, columns = planner.stage, planner.columns
    few = sa.select(stage.c.sp_n).select_from(_updates(planner)).where(_is_update(planner))
    first = few.order_by(*(stage.c[key] for key in planner.keys)).limit(limit).subquery("first")
    source = sa.join(first, stage, first.c.sp_n == stage.c.sp_n).join(table, _same_key(planner, table))
    keys = columns.key_values(stage, table)
    new = [
        sa.case((differs, sa.func.coalesce(sa.cast(stage.c[each.label], sa.Text()), "")))
        for each, differs in zip(columns.updated, _differing(planner, table), strict=True)
    ]
    values: dict[str, dict[str, str]] = {}
    for row in connection.execute(sa.select(*keys, *new).select_from(source)):
        named = zip(columns.updated, row[len(keys) :], strict=True)
        values[id_of(row[: len(keys)])] = {each.name: str(value) for each, value in named if value is not None}
    return values


def _updates(planner: Planner) -> sa.Join:
    return sa.join(planner.diffs, planner.stage, planner.diffs.c.sp_n == planner.stage.c.sp_n)


def _is_update(planner: Planner) -> sa.ColumnElement[bool]:
    return planner.diffs.c.sp_what == int(RowDecision.UPDATE)


def _same_key(planner: Planner, table: sa.Table) -> sa.ColumnElement[bool]:
    return sa.and_(*(planner.stage.c[each.label] == table.c[each.name] for each in planner.columns.key))


def _differing(planner: Planner, table: sa.Table) -> list[sa.ColumnElement[bool]]:
    return [each.differs(planner.stage.c[each.label], table.c[each.name]) for each in planner.columns.updated]
