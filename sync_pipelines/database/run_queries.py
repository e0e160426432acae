"""The runs of all syncs, for whoever looks back at them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, not_, select

from sync_pipelines.database.ledger import Ledger, RunRow
from sync_pipelines.database.tables import FULL, RETRY, WHOLE

_LOOK_BACK = 200
_GOOD = ("clean", "partial", "guarded")


class RunQueries:
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

    def has_begun_to_apply(self, run_id: str) -> bool:
        """True if a run may have written something."""
        runs = self._table
        query = select(runs.c.id).where(runs.c.id == run_id, runs.c.apply_started_at.is_not(None))
        with self._ledger.transaction() as connection:
            return connection.scalar(query) is not None

    def in_doubt_until(self, job: str) -> datetime | None:
        """When the newest run began of which nobody knows what it has applied; None if there is none.

        It may have brought records up to newer items than those that had failed before it.
        """
        runs = self._table
        query = select(func.max(runs.c.started_at, type_=runs.c.started_at.type)).where(
            runs.c.job == job, runs.c.kind.in_(WHOLE), runs.c.apply_started_at.is_not(None), not_(runs.c.applied_all)
        )
        with self._ledger.transaction() as connection:
            found: datetime | None = connection.scalar(query)
        return found

    def last_good_at(self, job: str) -> datetime | None:
        """When the newest run of a sync that fetched all items, and did not fail, was done; None if there is none."""
        runs = self._table
        query = select(runs.c.completed_at, runs.c.options).where(
            runs.c.job == job, runs.c.kind == FULL, runs.c.outcome.in_(_GOOD)
        )
        with self._ledger.transaction() as connection:
            rows = connection.execute(query.order_by(runs.c.started_at.desc()).limit(_LOOK_BACK)).all()
        return next((row.completed_at for row in rows if took_all_items(row.options)), None)

    def first_started_at(self, job: str) -> datetime | None:
        """When the oldest run of a sync that fetched, and that the ledger knows, began; None if there is none."""
        runs = self._table
        first = func.min(runs.c.started_at, type_=runs.c.started_at.type)
        with self._ledger.transaction() as connection:
            found: datetime | None = connection.scalar(select(first).where(runs.c.job == job, runs.c.kind == FULL))
        return found

    def last_fetched(self, job: str, released: Collection[str], limit: int = 5) -> list[int]:
        """How many items the last good fetches of all items had, newest first.

        Args:
            job: The sync job's name.
            released: Guarded runs that a person has released: good ones too, and what came before them is no measure
                any more.
            limit: How many fetches.
        """
        runs = self._table
        query = select(runs.c.id, runs.c.outcome, runs.c.options, runs.c.counts).where(
            runs.c.job == job, runs.c.kind == FULL, runs.c.outcome.in_(_GOOD)
        )
        with self._ledger.transaction() as connection:
            rows = connection.execute(query.order_by(runs.c.started_at.desc()).limit(_LOOK_BACK)).all()
        good: list[int] = []
        for row in rows:
            if took_all_items(row.options) and (row.outcome != "guarded" or row.id in released):
                good.append(row.counts["fetched"])
                if row.id in released or len(good) == limit:
                    break
        return good

    def came_since(self, job: str, moment: datetime, *, by_asking: bool) -> set[str]:
        """The external ids of items that have gone through since, other than in a fetch: their records are there.

        Args:
            job: The sync job's name.
            moment: Since when.
            by_asking: True if the source is asked for what is tried again; else that is no newer than the failure.
        """
        came = self.items_since(job, moment)
        return came | self.retried_since(job, moment) if by_asking else came

    def items_since(self, job: str, moment: datetime) -> set[str]:
        """The external ids of single items that have gone through since: their records are not missing any more."""
        inbox = self._ledger.tables.inbox
        query = select(inbox.c.external_id).where(inbox.c.finished_at > moment, inbox.c.job == job)
        query = query.where(inbox.c.state == "applied", inbox.c.action.in_(("created", "updated", "unchanged")))
        with self._ledger.transaction() as connection:
            return set(connection.scalars(query))

    def retried_since(self, job: str, moment: datetime) -> set[str]:
        """The external ids of failures that have gone through since because they were tried again."""
        failures, runs = self._ledger.tables.failures, self._table
        query = select(failures.c.external_id).join(runs, runs.c.id == failures.c.resolved_by)
        query = query.where(failures.c.job == job, failures.c.resolved_at > moment, runs.c.kind == RETRY)
        with self._ledger.transaction() as connection:
            return {each for each in connection.scalars(query) if each is not None}

    def fetched_since(self, job: str, moment: datetime) -> list[RunRow]:
        """The runs whose fetches say together what the source has had since: the newest whole one, and later parts.

        Args:
            job: The sync job's name.
            moment: Only runs that began after it.
        """
        runs = self._table
        query = select(runs.c.id).where(
            runs.c.job == job, runs.c.kind == FULL, runs.c.started_at > moment, runs.c.outcome.in_(_GOOD)
        )
        found: list[RunRow] = []
        for run in self._rows(query.order_by(runs.c.started_at.desc()).limit(_LOOK_BACK)):
            found.append(run)
            if took_all_items(run.options):
                break
        return found

    def _rows(self, query: Select[str]) -> list[RunRow]:
        with self._ledger.database.begin() as connection:
            ids = connection.execute(query).scalars().all()
        found = (self._ledger.run(run_id) for run_id in ids)
        return [run for run in found if run is not None]


def took_all_items(options: Mapping[str, Any]) -> bool:
    """True for a run that took all items of the source."""
    return options.get("limit") is None and not options.get("only")
