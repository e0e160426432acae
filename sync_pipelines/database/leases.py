"""Keeps leases: at most one run of a sync at a time, whoever starts it, also after a holder died or stalled."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Interval, case, cast, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from sync_pipelines.database.ledger import Ledger

_TAKING_S = 2.0
"""How long to wait for whoever else takes or gives back a lease just now: longer, and it is a run that has stopped."""
_IDLE = "idle_in_transaction_session_timeout"
_BEYOND_LEASE = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Holder:
    """Names who has a lease.

    Args:
        described: Host and process, for people.
        process: The process, for finding out whether it lives; empty if that can't be known.
    """

    run_id: str
    dagster_run_id: str | None = None
    described: str = ""
    process: str = ""


@dataclass(frozen=True, slots=True)
class Lease:
    """Grants the right to run a sync, until it expires or is given back.

    Args:
        token: Grows with each holder; whoever writes with an older one has lost the lease.
        expires_at: When it ends unless it is renewed, aware, by the clock of the ledger's database.
        is_continued: True if its holder had it all the time since an earlier phase.
    """

    job: str
    holder: Holder
    token: int
    expires_at: datetime
    is_continued: bool = False


class Leases:
    """Keeps the leases of all sync jobs. Times are the ledger database's, so that machines need not agree."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._table = ledger.tables.leases

    def acquire(self, job: str, holder: Holder, ttl: timedelta) -> Lease | None:
        """Takes the lease if nobody has it, if it has expired, or if this run has it already; else gives None.

        Raises:
            LedgerLockedError: A transaction has its row, as that of a run does that has stopped while it wrote.
        """
        try:
            with self._ledger.impatient(_TAKING_S) as connection:
                return self._acquire(connection, job, holder, ttl)
        except IntegrityError:  # somebody else took the very first lease of this job at the same moment
            return None

    def _acquire(self, connection: Connection, job: str, holder: Holder, ttl: timedelta) -> Lease | None:
        table, now = self._table, _now(connection)
        row = connection.execute(select(table).where(table.c.job == job).with_for_update()).one_or_none()
        is_ours = row is not None and row.holder == holder.run_id
        if row is not None and row.holder is not None and row.expires_at > now and not is_ours:
            return None
        token = 1 if row is None else row.token + (not is_ours)
        values = {
            "holder": holder.run_id,
            "token": token,
            "expires_at": now + ttl,
            "dagster_run_id": holder.dagster_run_id,
            "described": holder.described,
            "process": holder.process,
        }
        if row is None:
            connection.execute(insert(table).values(job=job, **values))
        else:
            connection.execute(update(table).where(table.c.job == job).values(values))
        return Lease(job, holder, token, now + ttl, is_continued=is_ours)

    def renew(self, lease: Lease, ttl: timedelta) -> bool:
        """Lengthens the lease; False if it is somebody else's by now.

        Raises:
            LedgerLockedError: A transaction has its row: in PostgreSQL one of this very run.
        """
        with self._ledger.impatient(ttl.total_seconds() / 4) as connection:
            return self._update(connection, lease, {"expires_at": _now(connection) + ttl})

    @property
    def locks_rows(self) -> bool:
        """True if a transaction that writes locks the lease's row, and nothing else of the ledger."""
        return self._ledger.database.dialect.name == "postgresql"

    def is_fenced(self, connection: Connection, lease: Lease, ttl: timedelta) -> bool:
        """False if the lease is somebody else's by now; asked inside the transaction that is about to write.

        In the ledger's own PostgreSQL the row stays locked until that transaction ends, so that nobody can take the
        lease before its rows are there. In another database there is nothing to ask: True. If this run stops in the
        transaction, or its host leaves the network, PostgreSQL ends it soon after the lease has expired, and with it
        the locks that the next run waits for.
        """
        if not self._ledger.is_in(connection):
            if connection.dialect.name == "postgresql":
                connection.execute(select(_idle_limit(ttl)))
            return True
        table = self._table
        query = select(table.c.token, _idle_limit(ttl)).where(table.c.job == lease.job).with_for_update(read=True)
        row = connection.execute(query).first()
        return row is not None and row.token == lease.token

    def hand_over(self, lease: Lease, ttl: timedelta, *, to_another: bool = True) -> None:
        """Keeps the lease for the next phase of the same run.

        Args:
            to_another: True if another process carries out that phase: that this one ends is then no sign of death.
        """
        values = {"process": ""} if to_another else {}
        with self._ledger.transaction() as connection:
            self._update(connection, lease, {**values, "expires_at": _now(connection) + ttl})

    def release(self, lease: Lease) -> None:
        """Gives the lease back; does nothing if it is somebody else's by now.

        Raises:
            LedgerLockedError: A transaction has its row; it expires by itself.
        """
        with self._ledger.impatient(_TAKING_S) as connection:
            self._update(connection, lease, {"holder": None, "dagster_run_id": None})

    def _update(self, connection: Connection, lease: Lease, values: dict[str, Any]) -> bool:
        table = self._table
        ours = (table.c.job == lease.job, table.c.token == lease.token, table.c.holder == lease.holder.run_id)
        return connection.execute(update(table).where(*ours).values(values)).rowcount == 1

    def of_job(self, job: str) -> Lease | None:
        """Returns the lease of a job if somebody has it, expired or not."""
        return next((lease for lease in self.held() if lease.job == job), None)

    def token(self, job: str) -> int:
        """Returns how many runs have had the lease of a job."""
        with self._ledger.transaction() as connection:
            return connection.scalar(select(self._table.c.token).where(self._table.c.job == job)) or 0

    def in_force(self, job: str) -> Lease | None:
        """Returns the lease of a job if a run has it and still renews it."""
        lease = self.of_job(job)
        if lease is None:
            return None
        with self._ledger.transaction() as connection:
            return lease if lease.expires_at > _now(connection) else None

    def all_in_force(self) -> dict[str, Lease]:
        """Returns the leases that a run has and still renews, by job."""
        expired = {lease.job for lease in self.expired()}
        return {lease.job: lease for lease in self.held() if lease.job not in expired}

    def expired(self) -> list[Lease]:
        """Returns leases whose holder has neither renewed them nor given them back: it died or stalled."""
        with self._ledger.transaction() as connection:
            now = _now(connection)
        return [lease for lease in self.held() if lease.expires_at <= now]

    def held(self) -> list[Lease]:
        """Returns all leases that somebody has, expired or not."""
        table = self._table
        with self._ledger.impatient(_TAKING_S) as connection:
            rows = connection.execute(select(table).where(table.c.holder.is_not(None)).order_by(table.c.job))
            return [
                Lease(
                    row.job,
                    Holder(row.holder, row.dagster_run_id, row.described, row.process),
                    row.token,
                    row.expires_at,
                )
                for row in rows
            ]


def _idle_limit(ttl: timedelta) -> ColumnElement[str]:
    """Lets PostgreSQL end a transaction in which a run is silent for longer than its lease, unless it does so earlier.

    Honest work between two statements that takes so long has lost its lease anyway, unless it is renewed meanwhile.
    """
    limit = ttl + _BEYOND_LEASE
    now = func.current_setting(_IDLE)
    is_longer = or_(now == "0", cast(now, Interval) > limit)
    ours = f"{round(limit.total_seconds() * 1000)}ms"
    return func.set_config(_IDLE, case((is_longer, ours), else_=now), True)


def _now(connection: Connection) -> datetime:
    """Returns the database's own time. SQLite is on this machine, so its clock is ours."""
    if connection.dialect.name == "sqlite":
        return datetime.now(UTC)
    now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return now
