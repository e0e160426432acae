"""Keeps which fields the items of a run had, for as long as a later run may be compared with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, insert, select

from sync_pipelines.database.ledger import Ledger


class RunShapes:
    """Keeps the shapes of the items of runs that took all of them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._table = ledger.tables.run_shapes

    def keep(
        self,
        job: str,
        run_id: str,
        shapes: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        earlier: Sequence[str],
    ) -> Mapping[str, Any]:
        """Keeps the shapes of a run, and forgets all others of its sync but those of the newest of the earlier runs.

        Args:
            shapes: Called with the shapes of that run, for those to keep.
            earlier: Good runs before this one, newest first.

        Returns:
            The shapes of that run; empty if there are none.
        """
        table = self._table
        with self._ledger.transaction() as connection:
            query = select(table.c.run_id, table.c.shapes).where(table.c.job == job, table.c.run_id.in_(earlier))
            known = {row.run_id: row.shapes for row in connection.execute(query)}
            newest = next((each for each in earlier if each in known and each != run_id), None)
            others = table.c.run_id != newest if newest is not None else table.c.run_id.is_not(None)
            connection.execute(delete(table).where(table.c.job == job, others))
            before: Mapping[str, Any] = known[newest] if newest is not None else {}
            connection.execute(insert(table).values(job=job, run_id=run_id, shapes=shapes(before)))
        return before
