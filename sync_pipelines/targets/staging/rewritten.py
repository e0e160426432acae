"""Which columns the updates of a plan change: on how many records, and to which values on a few of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from sync_pipelines.targets.staging.diff_sql import Planner, RowDecision


def count_columns(
    connection: sa.Connection, planner: Planner, table: sa.Table, id_of: Callable[[Sequence[Any]], str], limit: int
) -> tuple[dict[str, int], dict[str, dict[str, str]]]:
    """Returns column -> number of records, and external id -> column -> new value as text of some of the records.

    Args:
        planner: Has compared.
        id_of: Gives the external id of a key.
        limit: Of how many records, those with the first keys.
    """
    stage, diffs, columns = planner.stage, planner.diffs, planner.columns
    same = [stage.c[each.label] == table.c[each.name] for each in columns.key]
    source = sa.join(diffs, stage, diffs.c.sp_n == stage.c.sp_n).join(table, sa.and_(*same))
    is_update = diffs.c.sp_what == int(RowDecision.UPDATE)
    differs = [each.differs(stage.c[each.label], table.c[each.name]) for each in columns.updated]
    sums = [sa.func.sum(sa.case((each, 1), else_=0)) for each in differs]
    counted = connection.execute(sa.select(*sums).select_from(source).where(is_update)).one()
    counts = {each.name: int(count) for each, count in zip(columns.updated, counted, strict=True) if count}
    keys = columns.key_values(stage, table)
    new = [
        sa.case((differing, sa.func.coalesce(sa.cast(stage.c[each.label], sa.Text()), "")))
        for each, differing in zip(columns.updated, differs, strict=True)
    ]
    query = (
        sa.select(*keys, *new).select_from(source).where(is_update).order_by(*(stage.c[key] for key in planner.keys))
    )
    values: dict[str, dict[str, str]] = {}
    for row in connection.execute(query.limit(limit)):
        named = zip(columns.updated, row[len(keys) :], strict=True)
        values[id_of(row[: len(keys)])] = {each.name: str(value) for each, value in named if value is not None}
    return counts, values
