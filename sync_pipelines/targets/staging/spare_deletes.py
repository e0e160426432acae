"""Takes records out of what is to be deleted, before the plan is made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import sqlalchemy as sa

from sync_pipelines.engine.staged_target import Batch
from sync_pipelines.targets.dialects.profile import DialectProfile
from sync_pipelines.targets.staging.diff_sql import Planner, RowDecision
from sync_pipelines.targets.staging.staging_tables import StagingTables

_ROWS_IN_BATCH = 10_000
_KEYS_AT_ONCE = 500

Key = Sequence[Any]


class Sparing:
    """Goes through the records that no item is for.

    Args:
        planner: Has compared.
        profile: How the database is worked with.
        id_of: Gives the external id of a key.
    """

    def __init__(
        self, work: StagingTables, planner: Planner, profile: DialectProfile, id_of: Callable[[Key], str]
    ) -> None:
        self._work = work
        self._planner = planner
        self._profile = profile
        self._id_of = id_of

    def keep_only(self, due: Callable[[Sequence[str]], Collection[str]]) -> int:
        """Leaves only the deletes that are due. Gives how many are not.

        Args:
            due: Called with external ids, some thousands at a time; gives those to be deleted. No transaction is open
                meanwhile, for it may write to the same database.
        """
        with self._work.begin() as connection:
            batches = self._work.extent(connection, "diffs").batches(_ROWS_IN_BATCH)
        return sum(self._spare_in(batch, due) for batch in batches)

    def _spare_in(self, batch: Batch, due: Callable[[Sequence[str]], Collection[str]]) -> int:
        condition = self._is_delete(batch)
        keys = self._planner.delete_keys()
        with self._work.begin() as connection:
            rows = connection.execute(sa.select(*keys).where(condition)).all()
        if not rows:
            return 0
        by_id = {self._id_of(row): row for row in rows}
        kept = set(due(list(by_id)))
        spared = [row for external_id, row in by_id.items() if external_id not in kept]
        diffs = self._planner.diffs
        with self._work.begin() as connection:
            if len(spared) == len(rows):
                connection.execute(sa.delete(diffs).where(condition))
                return len(spared)
            for start in range(0, len(spared), _KEYS_AT_ONCE):
                among = self._profile.among(keys, spared[start : start + _KEYS_AT_ONCE])
                connection.execute(sa.delete(diffs).where(condition, among))
        return len(spared)

    def _is_delete(self, batch: Batch) -> sa.ColumnElement[bool]:
        diffs = self._planner.diffs
        return sa.and_(self._work.within(diffs, batch), diffs.c.sp_what == int(RowDecision.DELETE))
