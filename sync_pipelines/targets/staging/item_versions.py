"""Versions of items in bulk: the database compares them where a column of the table holds them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sync_pipelines.snapshots import column_kinds
from sync_pipelines.snapshots.column_kinds import Kind
from sync_pipelines.targets.types.codec import Facts

_NUMBER = r"^-?[0-9]+(\.[0-9]+)?$"
_WITH_ZONE = r"([0-9]Z|[+-][0-9]{2}:[0-9]{2})$"


def why_not_by_version(
    field: str, column: str | None, facts: Facts | None, written: Collection[str], compared: Collection[str] | None
) -> str | None:
    """Why the database can't compare versions; None if it can.

    Args:
        field: The item's field that holds the version.
        column: The column that it is written to as it is, None if there is none.
        facts: What is known of the column's type.
        written: The columns that an update writes.
        compared: Those that decide whether a record has changed, None for all.
    """
    if column is None or facts is None or column not in written:
        return f"the version {field!r} is in no column that every update writes"
    if compared is not None and column not in compared:
        return f"the version's column {column!r} is not compared, and so may be behind"
    if facts.family not in {"int", "numeric"} and not (facts.family == "datetime" and facts.aware):
        return f"the version's column {column!r} holds neither numbers nor moments with a time zone"
    return None


def uncertain(kind: Kind, values: pa.Array, facts: Facts) -> list[int]:
    """Places of items whose version may be missing or none: they are looked at one by one.

    Args:
        kind: What the snapshot keeps in the field.
        values: As it keeps them.
        facts: What is known of the column's type.
    """
    sure: Any = values.is_valid()
    if facts.family == "datetime":
        if kind.name in {column_kinds.TEXT.name, column_kinds.MOMENT.name}:
            sure = pc.and_(sure, pc.match_substring_regex(values, _WITH_ZONE))
        elif kind.name != column_kinds.UTC_MOMENT.name:
            return list(range(len(values)))
    elif kind.name in {column_kinds.TEXT.name, column_kinds.DECIMAL.name, column_kinds.NUMBER.name}:
        sure = pc.and_(sure, pc.match_substring_regex(values, _NUMBER))
    elif kind.name != column_kinds.INT.name:
        return list(range(len(values)))
    return list(pc.indices_nonzero(pc.invert(pc.fill_null(sure, fill_value=False))).to_pylist())
