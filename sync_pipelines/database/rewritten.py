"""Keeps what a run wrote to which columns of a few of its records, so that it shows if every run writes the same."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select

from sync_pipelines.database.batches import REWRITTEN, Batches, BatchKey
from sync_pipelines.database.ledger import Ledger
from sync_pipelines.database.run_queries import took_all_items
from sync_pipelines.database.tables import FULL

_KEY = BatchKey(REWRITTEN)


class RewrittenColumns:
    """Keeps them among the batches of runs, with which they are read and forgotten."""

    def __init__(self, ledger: Ledger, batches: Batches) -> None:
        self._ledger = ledger
        self._batches = batches

    def keep(self, run_id: str, columns: Mapping[str, Any], at: datetime) -> None:
        """Keeps what a run writes, in place of what an earlier diff of it said."""
        self._batches.replace(run_id, _KEY, columns, at)

    def of_last_runs(self, job: str, limit: int) -> list[Mapping[str, Any]]:
        """Returns what was kept of the last runs that wrote all that they fetched, newest first; empty of others."""
        runs, batches = self._ledger.tables.runs, self._ledger.tables.run_batches
        kept = (batches.c.run_id == runs.c.id) & (batches.c.part == REWRITTEN)
        query = select(runs.c.options, batches.c.counts).select_from(runs.outerjoin(batches, kept))
        query = query.where(runs.c.job == job, runs.c.kind == FULL, runs.c.applied_all).order_by(
            runs.c.started_at.desc()
        )
        with self._ledger.transaction() as connection:
            rows = connection.execute(query.limit(limit)).all()
        return [row.counts or {} for row in rows if took_all_items(row.options)]
