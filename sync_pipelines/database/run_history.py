"""The runs of all syncs, for whoever looks back at them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Select, func, or_, select

from sync_pipelines.database.ledger import Ledger, RunRow
from sync_pipelines.database.tables import RETRY, WHOLE


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
        """Until when the newest run of a sync that brings what the source says may have applied; None if there is none.

        One that was killed has no end: it was over when the next run of the sync began, or is now.

        Args:
            job: The sync job's name.
            now: The time, asked by whoever has the lease of the sync.
        """
        runs = self._table
        of_job = runs.c.job == job
        query = select(runs.c.started_at, runs.c.completed_at).where(of_job, runs.c.kind.in_((*WHOLE, RETRY)))
        query = query.where(runs.c.apply_started_at.is_not(None)).order_by(runs.c.started_at.desc()).limit(1)
        with self._ledger.transaction() as connection:
            found = connection.execute(query).one_or_none()
            if found is None:
                return None
            following = select(runs.c.started_at).where(of_job, runs.c.started_at > found.started_at)
            began_at: datetime | None = connection.scalar(following.order_by(runs.c.started_at).limit(1))
        ended_at: datetime | None = found.completed_at
        return ended_at or began_at or now

    def has_retried_since(self, job: str, moment: datetime) -> bool:
        """True if a run that tried failures again has begun to write after that moment."""
        runs = self._table
        query = select(runs.c.id).where(runs.c.job == job, runs.c.kind == RETRY, runs.c.started_at > moment)
        with self._ledger.transaction() as connection:
            return connection.scalar(query.where(runs.c.apply_started_at.is_not(None)).limit(1)) is not None

    def in_doubt_until(self, job: str) -> datetime | None:
        """When the newest run began of which nobody knows what it has applied; None if there is none.

        It may have brought records up to newer items than those that had failed before it.
        """
        runs = self._table
        in_doubt = or_(runs.c.completed_at.is_(None), runs.c.failure.is_not(None))
        query = select(func.max(runs.c.started_at, type_=runs.c.started_at.type)).where(
            runs.c.job == job, runs.c.kind.in_(WHOLE), runs.c.apply_started_at.is_not(None), in_doubt
        )
        with self._ledger.transaction() as connection:
            found: datetime | None = connection.scalar(query)
        return found

    def _rows(self, query: Select[str]) -> list[RunRow]:
        with self._ledger.database.begin() as connection:
            ids = connection.execute(query).scalars().all()
        found = (self._ledger.run(run_id) for run_id in ids)
        return [run for run in found if run is not None]
