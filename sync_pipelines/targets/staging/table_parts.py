"""What syncing a table in bulk needs of the opened table, and what its comparison gives."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from sync_pipelines.engine.plan import Action, PlanCounts
from sync_pipelines.targets.staging.read_columns import PageReader
from sync_pipelines.targets.table.reflection import ReflectedTable
from sync_pipelines.targets.table.scope import Scope
from sync_pipelines.targets.table.soft_delete import Mark


@dataclass(frozen=True, slots=True)
class BulkTarget:
    """The parts of an opened table that syncing in bulk needs.

    Args:
        database: Where the table is.
        reflected: The table as it is there.
        key: Its key columns.
        compare: The columns that decide whether a row has changed, None for all.
        create_only: Columns that are written on create only.
        reader: Reads the table's columns out of pages.
        key_of_id: External id -> canonical key values.
        id_of_key: The same back.
        fence: Called with every transaction that is about to write.
        mark: The column that marks deleted rows, None if a delete removes them.
        scope: The rows that the sync answers for.
    """

    database: sa.Engine
    reflected: ReflectedTable
    key: Sequence[str]
    compare: frozenset[str] | None
    create_only: frozenset[str]
    reader: PageReader
    key_of_id: Callable[[str], Sequence[Any]]
    id_of_key: Callable[[Sequence[Any]], str]
    fence: Callable[[sa.Connection], object] | None
    mark: Mark | None
    scope: Scope


@dataclass(frozen=True, slots=True)
class BulkPlan:
    """What the comparison in the database found.

    Args:
        unchanged: Items whose local record is up to date.
        skipped: Items that the job leaves alone.
        stale: Items that are older than their local record.
        creates: Records to be created.
        updates: Records to be updated.
        deletes: Records to be deleted.
        one_by_one: Items to be looked at one by one.
        written: The columns that are written besides the key.
        temporary: True if the plan does not outlive this process.
        made_for: Table and declaration that the plan was made for.
        first_load: True if the table had no rows.
    """

    unchanged: int
    skipped: int
    stale: int
    creates: int
    updates: int
    deletes: int
    one_by_one: int
    written: tuple[str, ...]
    temporary: bool
    made_for: str
    first_load: bool = False

    def planned(self) -> PlanCounts:
        """What is to be written, by action."""
        return PlanCounts(self.creates, self.updates, self.deletes)

    def without(self, actions: Collection[Action]) -> BulkPlan:
        """The same but for those actions."""
        none = {f"{action.value}s": 0 for action in actions}
        return replace(self, **none)  # type: ignore[arg-type]  # the names of counts

    @property
    def writes(self) -> int:
        """How many records are to be written."""
        return self.creates + self.updates + self.deletes
