"""Reads the runs of all syncs, for whoever looks back at them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, select, true

from sync_pipelines.database.ledger import Ledger, RunRow
from sync_pipelines.database.tables import FULL

_LOOK_BACK = 200
GOOD = ("clean", "partial", "guarded")
"""Outcomes of runs that have done what they were to do, as far as items and guards let them."""


class RunQueries:
    """Reads the runs that the ledger keeps."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._table = ledger.tables.runs

    def latest(self, limit: int) -> list[RunRow]:
        """Returns the newest runs of all sync jobs, newest first."""
        return self._ledger.find_runs(true(), limit)

    def starting_with(self, prefix: str, limit: int) -> list[RunRow]:
        """Returns the runs whose ids start like that, newest first."""
        return self._ledger.find_runs(self._table.c.id.startswith(prefix, autoescape=True), limit)

    def last_good_at(self, job: str) -> datetime | None:
        """Returns when the newest run of a sync that fetched all items and did not fail was done, or None."""
        runs = self._table
        query = select(runs.c.completed_at, runs.c.options).where(
            runs.c.job == job, runs.c.kind == FULL, runs.c.outcome.in_(GOOD)
        )
        with self._ledger.transaction() as connection:
            rows = connection.execute(query.order_by(runs.c.started_at.desc()).limit(_LOOK_BACK)).all()
        return next((row.completed_at for row in rows if took_all_items(row.options)), None)

    def first_started_at(self, job: str) -> datetime | None:
        """Returns when the oldest run of a sync that fetched, and that the ledger knows, began, or None."""
        runs = self._table
        first = func.min(runs.c.started_at, type_=runs.c.started_at.type)
        with self._ledger.transaction() as connection:
            found: datetime | None = connection.scalar(select(first).where(runs.c.job == job, runs.c.kind == FULL))
        return found

    def last_fetched(self, job: str, released: Collection[str], limit: int = 5) -> list[int]:
        """Returns how many items the last good fetches of all items had, newest first.

        Args:
            released: Guarded runs that a person has released: good ones too, and what came before them is no measure
                any more.
        """
        return [row.counts["fetched"] for row in self._good(job, released, limit)]

    def last_good(self, job: str, released: Collection[str], limit: int = 5) -> list[str]:
        """Returns the ids of the runs that `last_fetched` speaks of."""
        return [row.id for row in self._good(job, released, limit)]

    def _good(self, job: str, released: Collection[str], limit: int) -> list[Row[Any, Any, Any, Any]]:
        runs = self._table
        query = select(runs.c.id, runs.c.outcome, runs.c.options, runs.c.counts).where(
            runs.c.job == job, runs.c.kind == FULL, runs.c.outcome.in_(GOOD)
        )
        with self._ledger.transaction() as connection:
            rows = connection.execute(query.order_by(runs.c.started_at.desc()).limit(_LOOK_BACK)).all()
        good: list[Row[Any, Any, Any, Any]] = []
        for row in rows:
            if took_all_items(row.options) and (row.outcome != "guarded" or row.id in released):
                good.append(row)
                if row.id in released or len(good) == limit:
                    break
        return good


def took_all_items(options: Mapping[str, Any]) -> bool:
    """True for a run that took all items of the source."""
    return options.get("limit") is None and not options.get("only")
