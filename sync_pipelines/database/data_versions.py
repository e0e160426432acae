"""Keeps the data version of each sync's target: the last change that a run or a single item has made to it.

It tells whoever computes something from the target whether it must do so again. So a change must never be missed:
whoever is about to write says so before, and one that does not come back to say how it ended counts as a change.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from sync_pipelines.database.ledger import Ledger

_ID_SHOWN = 8
_LONGEST_ITEM = timedelta(hours=1)
"""A single item that has been open for longer has died."""


@dataclass(frozen=True, slots=True)
class Writing:
    """Names who writes to the target of a sync.

    Args:
        writer: The run, or an id of a single item's own.
        is_single: True for a single item that is applied at once.
    """

    job: str
    writer: str
    is_single: bool = False

    @property
    def described(self) -> str:
        """Returns how the data version names it."""
        return "single item" if self.is_single else f"run {self.writer[:_ID_SHOWN]}"


class DataVersions:
    """Keeps the data versions of all sync jobs."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._table = ledger.tables.data_versions
        self._writers = ledger.tables.data_writers

    def current(self, job: str) -> str | None:
        """Returns the data version of a sync's target; None if nothing was ever about to write to it.

        Everything that was written up to its last change was in the target before this answer.
        """
        table = self._table
        with self._ledger.transaction() as connection:
            row = connection.execute(select(table).where(table.c.job == job)).one_or_none()
        return _text(row) if row is not None else None

    def begin(self, writing: Writing, at: datetime) -> None:
        """Notes that somebody is about to write. What earlier ones have left open counts as a change.

        A run alone has the lease of the sync: no other run can be writing still. A single item can, beside anybody: a
        run counts it, but it stays open until it ends, or for an hour.
        """
        first = {"job": writing.job, "number": 0, "changed_at": at, "changed_by": writing.described, "written": 0}
        on_sqlite = self._ledger.database.dialect.name == "sqlite"
        statement: Any = (sqlite if on_sqlite else postgresql).insert(self._table)
        with self._ledger.transaction() as connection:
            connection.execute(statement.values(first).on_conflict_do_nothing())
            row = self._locked(connection, writing.job)
            described = self._count_open(connection, writing, at)
            if described is not None:
                values = {"number": row.number + 1, "changed_at": at, "changed_by": described, "writer": None}
                self._update(connection, writing.job, values)
            opened = {"job": writing.job, "writer": writing.writer, "described": writing.described, "began_at": at}
            opened |= {"is_single": writing.is_single, "is_counted": False}
            connection.execute(insert(self._writers).values(opened))

    def _count_open(self, connection: Connection, writing: Writing, at: datetime) -> str | None:
        """Forgets who can't be writing any more. Returns who that is, or may have died; None if there is nobody."""
        open_ones = self._writers
        of_job = open_ones.c.job == writing.job
        is_gone = open_ones.c.is_single & (open_ones.c.began_at < at - _LONGEST_ITEM)
        if not writing.is_single:
            is_gone |= ~open_ones.c.is_single
        gone = connection.execute(delete(open_ones).where(of_job, is_gone).returning(open_ones.c.described)).all()
        if writing.is_single:
            return gone[-1].described if gone else None
        uncounted = update(open_ones).where(of_job, ~open_ones.c.is_counted).values(is_counted=True)
        counted = [*gone, *connection.execute(uncounted.returning(open_ones.c.described))]
        return counted[-1].described if counted else None

    def settle(self, writing: Writing, written: int, at: datetime, *, is_certain: bool = True) -> None:
        """Notes what somebody has written. Saying the same twice makes one change.

        Args:
            written: How many records it created, updated and deleted.
            is_certain: False if it broke off, so that there may be more.
        """
        with self._ledger.transaction() as connection:
            row = self._locked(connection, writing.job)
            if row is None:
                return  # it failed before it could write anything
            values: dict[str, Any] = {}
            if written and (row.writer, row.written) != (writing.writer, written):
                values |= {"number": row.number + 1, "changed_at": at, "changed_by": writing.described}
                values |= {"writer": writing.writer, "written": written}
            if is_certain:
                own = self._writers
                connection.execute(delete(own).where(own.c.job == writing.job, own.c.writer == writing.writer))
            if values:
                self._update(connection, writing.job, values)

    def _locked(self, connection: Connection, job: str) -> Any:
        return connection.execute(select(self._table).where(self._table.c.job == job).with_for_update()).one_or_none()

    def _update(self, connection: Connection, job: str, values: dict[str, Any]) -> None:
        connection.execute(update(self._table).where(self._table.c.job == job).values(values))


def _text(row: Row[Any]) -> str:
    """Returns the version as the asset's page shows it: short, and different for each change also of another ledger."""
    return f"{row.number}: {row.changed_at:%Y-%m-%d %H:%M:%S} UTC, {row.changed_by}"
