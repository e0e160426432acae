"""The runs of all syncs, for whoever looks back at them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from itertools import islice

from sqlalchemy import Select, select

from sync_pipelines.database.ledger import Ledger, RunRow
from sync_pipelines.database.tables import FULL, WHOLE

_LOOK_BACK = 200


class RunHistory:
    """Reads the runs that the ledger keeps.

    Args:
        ledger: The ledger that has them.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._table = ledger.tables.runs

    def latest(self, limit: int) -> list[RunRow]:
        """The newest runs of all sync jobs, newest first."""
        runs = self._table
        return self._rows(select(runs.c.id).order_by(runs.c.started_at.desc(), runs.c.id).limit(limit))

    def starting_with(self, prefix: str, limit: int) -> list[RunRow]:
        """The runs whose ids start like that, newest first."""
        runs = self._table
        query = select(runs.c.id).where(runs.c.id.startswith(prefix, autoescape=True))
        return self._rows(query.order_by(runs.c.started_at.desc(), runs.c.id).limit(limit))

    def last_applied_at(self, job: str, now: datetime) -> datetime | None:
        """Until when the newest full run of a sync that has begun to apply may have applied; None if there is none.

        One that was killed has no end: it was over when the next run of the sync began, or is now.

        Args:
            job: The sync job's name.
            now: The time, asked by whoever has the lease of the sync.
        """
        runs = self._table
        of_job = runs.c.job == job
        query = select(runs.c.started_at, runs.c.completed_at).where(of_job, runs.c.kind.in_(WHOLE))
        query = query.where(runs.c.apply_started_at.is_not(None)).order_by(runs.c.started_at.desc()).limit(1)
        with self._ledger.transaction() as connection:
            found = connection.execute(query).one_or_none()
            if found is None:
                return None
            following = select(runs.c.started_at).where(of_job, runs.c.started_at > found.started_at)
            began_at: datetime | None = connection.scalar(following.order_by(runs.c.started_at).limit(1))
        ended_at: datetime | None = found.completed_at
        return ended_at or began_at or now

    def last_fetched(self, job: str, released: Collection[str], limit: int = 5) -> list[int]:
        """How many items the last good fetches of all items had, newest first.

        Args:
            job: The sync job's name.
            released: Guarded runs that a person has released, which are good ones too.
            limit: How many fetches.
        """
        runs = self._table
        query = select(runs.c.id, runs.c.outcome, runs.c.options, runs.c.counts).where(
            runs.c.job == job, runs.c.kind == FULL, runs.c.outcome.in_(("clean", "partial", "guarded"))
        )
        with self._ledger.transaction() as connection:
            rows = connection.execute(query.order_by(runs.c.started_at.desc()).limit(_LOOK_BACK)).all()
        good = (
            row.counts["fetched"]
            for row in rows
            if (row.outcome != "guarded" or row.id in released)
            and row.options.get("limit") is None
            and not row.options.get("only")
        )
        return list(islice(good, limit))

    def _rows(self, query: Select[str]) -> list[RunRow]:
        with self._ledger.database.begin() as connection:
            ids = connection.execute(query).scalars().all()
        found = (self._ledger.run(run_id) for run_id in ids)
        return [run for run in found if run is not None]
