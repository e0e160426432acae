"""`AppliedSince`: answers whether something newer has been applied than what is about to be."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Select, and_, func, not_, or_, select

from sync_pipelines.database.inbox import APPLIED
from sync_pipelines.database.ledger import Ledger, RunRow
from sync_pipelines.database.run_queries import GOOD, got_all_items
from sync_pipelines.database.tables import APPLY, FULL, RETRY, WHOLE

_WRITTEN = ("created", "updated", "deleted")
_THERE = ("created", "updated", "unchanged")
_LOOK_BACK = 200


class AppliedSince:
    """Answers whether records of a sync may be newer than what is about to be applied.

    Newer state comes from whole runs, from deliveries, and from failures that were tried again. The last bring newer
    state only where the source was asked for their items: a kept payload is no newer than the run that it failed in.

    - The fetch of a run that is continued: has a whole run applied that began later (`whole_run`), or have single items
      been written (`single_items`)? Then it is refused.
    - A plan that deletes, and a record that fetches have missed: have items come by themselves (`item_ids`), or have
      later fetches had them (`fetches`)? Then their records are not missing.
    - A delivery without a version: until when may a whole run or a retry have applied what is newer (`until`), and
      which fetches have certainly been applied (`applied_fetches`)?
    - The payload of a failure: since when is it uncertain whether a whole run has applied what is newer
      (`uncertain_since`)?

    Items with versions need none of it: the stale check holds them against the record's own version. Which of two
    deliveries is the later one is the inbox's own order (`Inbox.newest_applied`).

    Args:
        asks_source: True if the source can be asked for single items.
    """

    def __init__(self, ledger: Ledger, job: str, *, asks_source: bool = False) -> None:
        self._ledger = ledger
        self._job = job
        self._asks_source = asks_source
        self._runs, self._inbox = ledger.tables.runs, ledger.tables.inbox

    def whole_run(self, run: RunRow) -> str | None:
        """Returns the id of a whole run that began later than this one and has begun to apply, or None."""
        runs = self._runs
        newer = select(runs.c.id).where(runs.c.job == self._job, runs.c.kind.in_(WHOLE), runs.c.id != run.id)
        newer = newer.where(runs.c.started_at > run.started_at, runs.c.apply_started_at.is_not(None))
        return self._first(newer)

    def single_items(self, moment: datetime) -> bool:
        """True if single items have been written after that moment that may be newer than a fetch of it."""
        runs, inbox = self._runs, self._inbox
        retried = select(runs.c.id).where(runs.c.job == self._job, runs.c.kind == RETRY, runs.c.started_at > moment)
        retried = retried.where(runs.c.apply_started_at.is_not(None))
        delivered = select(inbox.c.action).where(inbox.c.finished_at > moment, inbox.c.job == self._job)
        delivered = delivered.where(inbox.c.state == APPLIED, inbox.c.action.in_(_WRITTEN))
        has_retried = self._asks_source and self._first(retried) is not None
        return has_retried or self._first(delivered) is not None

    def item_ids(self, moment: datetime) -> set[str]:
        """Returns the external ids of items that have come since, other than in a fetch: their records are there."""
        delivered = self.delivered_ids(moment)
        return delivered | self._retried_ids(moment) if self._asks_source else delivered

    def delivered_ids(self, moment: datetime) -> set[str]:
        """Returns the external ids of deliveries that have succeeded since, but for deletes."""
        inbox = self._inbox
        query = select(inbox.c.external_id).where(inbox.c.finished_at > moment, inbox.c.job == self._job)
        with self._ledger.transaction() as connection:
            return set(connection.scalars(query.where(inbox.c.state == APPLIED, inbox.c.action.in_(_THERE))))

    def _retried_ids(self, moment: datetime) -> set[str]:
        failures, runs = self._ledger.tables.failures, self._runs
        query = select(failures.c.external_id).join(runs, runs.c.id == failures.c.resolved_by)
        query = query.where(failures.c.job == self._job, failures.c.resolved_at > moment, runs.c.kind == RETRY)
        with self._ledger.transaction() as connection:
            return {each for each in connection.scalars(query) if each is not None}

    def fetches(self, moment: datetime) -> list[RunRow]:
        """Returns the runs whose fetches say together what the source has had since: the newest whole one, later parts.

        Args:
            moment: Only runs that began after it.
        """
        runs, found = self._runs, []
        later = and_(runs.c.job == self._job, runs.c.kind == FULL, runs.c.started_at > moment, runs.c.outcome.in_(GOOD))
        for run in self._ledger.find_runs(later, _LOOK_BACK):
            found.append(run)
            if got_all_items(run.options, run.completeness):
                break
        return found

    def applied_fetches(self) -> list[RunRow]:
        """Returns the runs that fetched what was applied last: down to one of all items, with none withheld.

        They are in the order of their fetches, newest first. For a plan that was applied it is the run that left it.
        """
        runs, found = self._runs, []
        is_applied = or_(runs.c.applied_all, runs.c.outcome.in_(GOOD))
        of_job = and_(runs.c.job == self._job, runs.c.kind.in_(WHOLE))
        for run in self._ledger.find_runs(and_(of_job, is_applied), _LOOK_BACK):
            fetched = run if run.kind != APPLY else self._ledger.run(str(run.options.get("plan")))
            found += [fetched] if fetched is not None else []
            if run.kind == FULL and run.outcome != "guarded" and got_all_items(run.options, run.completeness):
                break
        return sorted({each.id: each for each in found}.values(), key=lambda each: each.started_at, reverse=True)

    def until(self, now: datetime) -> datetime | None:
        """Returns until when the newest run that brings what the source says may have applied; None if there is none.

        One that was killed has no end: it was over when the next run of the sync began, or is now.

        Args:
            now: The time, asked by whoever has the lease of the sync.
        """
        runs = self._runs
        of_job = runs.c.job == self._job
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

    def uncertain_since(self) -> datetime | None:
        """Returns when the newest run began of which nobody knows what it has applied; None if there is none.

        It may have brought records up to newer items than those that had failed before it.
        """
        runs = self._runs
        query = select(func.max(runs.c.started_at, type_=runs.c.started_at.type)).where(
            runs.c.job == self._job,
            runs.c.kind.in_(WHOLE),
            runs.c.apply_started_at.is_not(None),
            not_(runs.c.applied_all),
        )
        with self._ledger.transaction() as connection:
            found: datetime | None = connection.scalar(query)
        return found

    def _first(self, query: Select[str]) -> str | None:
        with self._ledger.transaction() as connection:
            return connection.scalar(query.limit(1))
