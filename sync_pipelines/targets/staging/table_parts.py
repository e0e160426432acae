"""What syncing a table by way of staging tables needs of the opened table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from sync_pipelines.targets.staging.read_columns import PageReader
from sync_pipelines.targets.table.reflection import ReflectedTable
from sync_pipelines.targets.table.scope import Scope
from sync_pipelines.targets.table.soft_delete import Mark
from sync_pipelines.targets.table.write_effects import WriteEffects
from sync_pipelines.targets.types.codec import ColumnCodec


@dataclass(frozen=True, slots=True)
class TableParts:
    """Holds the parts of an opened table that its staging needs.

    Args:
        database: Where the table is.
        reflected: The table as it is there.
        key: Its key columns.
        shown: The columns that a plan shows of a local record.
        compare: The columns that decide whether a row has changed, None for all.
        create_only: Columns that are written on create only.
        reader: Reads the table's columns out of pages.
        key_of_id: External id -> canonical key values.
        id_of_key: The same back.
        fence: Called with every transaction that is about to write.
        mark: The column that marks deleted rows, None if a delete removes them.
        scope: The rows that the sync answers for.
        effects: Sees what the database does by itself when a row is written; None if that is nothing.
        deletes_singly: True if a delete may take other rows with it, so that each is looked at.
    """

    database: sa.Engine
    reflected: ReflectedTable
    key: Sequence[str]
    shown: Sequence[ColumnCodec]
    compare: frozenset[str] | None
    create_only: frozenset[str]
    reader: PageReader
    key_of_id: Callable[[str], Sequence[Any]]
    id_of_key: Callable[[Sequence[Any]], str]
    fence: Callable[[sa.Connection], object] | None
    mark: Mark | None
    scope: Scope
    deletes_singly: bool
    effects: WriteEffects | None
