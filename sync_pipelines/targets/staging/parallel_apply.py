"""Applies batches over a second connection to PostgreSQL, from the end of a plan, while the first goes on in front."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from sync_pipelines.engine.staged_target import Batch
from sync_pipelines.targets.dialects.postgresql import name_of
from sync_pipelines.targets.staging.apply_sql import BatchApplier
from sync_pipelines.targets.staging.diff_sql import RowDecision
from sync_pipelines.targets.staging.postgres import PostgresStaging
from sync_pipelines.targets.staging.quarantine import Quarantine

FROM_BATCHES = 4
"""For fewer batches a second connection is not worth opening."""

# No trigger, no constraint and no index but that of the key has a say in which of two rows may be written: then it does
# not matter which one is written first. Indexes of columns that are not written (an identity) have none.
_ORDER_IS_FREE = sa.text(
    "SELECT NOT EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = CAST(:name AS regclass) AND NOT tgisinternal) "
    "AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conrelid = CAST(:name AS regclass) "
    "AND (contype = 'x' OR (contype = 'f' AND confrelid = conrelid))) "
    "AND NOT EXISTS (SELECT 1 FROM pg_index i CROSS JOIN LATERAL (SELECT array_agg(CAST(a.attname AS text)) AS names "
    "FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)) AS has "
    "WHERE i.indrelid = CAST(:name AS regclass) AND i.indisunique AND NOT (i.indexprs IS NULL AND i.indpred IS NULL "
    "AND ((has.names <@ :key AND has.names @> :key) OR NOT has.names && :written)))"
).bindparams(sa.bindparam("key", type_=ARRAY(sa.Text)), sa.bindparam("written", type_=ARRAY(sa.Text)))


def is_order_free(connection: sa.Connection, table: sa.Table, key: Collection[str], written: Collection[str]) -> bool:
    """True if the rows of a table may be written in any order, with the same end.

    Args:
        connection: To PostgreSQL, in a transaction.
        table: A plain table.
        key: Its key columns.
        written: All columns that are written.
    """
    values = {"name": name_of(connection.dialect, table), "key": list(key), "written": list(written)}
    return bool(connection.scalar(_ORDER_IS_FREE, values))


class Helping(Protocol):
    """Applies batches over a connection of its own."""

    def apply_clean(self, batch: Batch) -> bool:
        """Applies a batch that the database takes as it is; else leaves it as it was and gives False."""

    def cancel(self) -> None:
        """Calls off what is under way; may be called from another thread."""

    def close(self) -> None:
        """Gives the connection back."""


class PostgresHelp:
    """Applies batches of a staging table in a transaction of its own each, and quarantines nothing.

    Args:
        work: The same staging tables, over a connection of their own.
        applier: Made with them and with `NoQuarantine`.
    """

    def __init__(self, work: PostgresStaging, applier: BatchApplier) -> None:
        self._work = work
        self._applier = applier

    def apply_clean(self, batch: Batch) -> bool:
        """Applies a batch, or leaves it as it was and gives False."""
        return self._applier.apply_clean(batch)

    def cancel(self) -> None:
        """Calls off the statement that is under way."""
        self._work.cancel()

    def close(self) -> None:
        """Gives the connection back."""
        self._work.close()


class NoQuarantine(Quarantine):
    """Leaves it to the other connection to look for the rows that could not be written."""

    def quarantine_unwritten(self, connection: sa.Connection, batch: Batch, what: RowDecision) -> int:  # noqa: ARG002
        """Ends the transaction."""
        raise _NotCleanError


class _NotCleanError(Exception):
    """A batch has rows that somebody else has changed since the diff."""


class BatchHelper:
    """Works in a thread of its own until it meets the caller; what it can not apply as it is, it leaves to the caller.

    Args:
        batches: All batches, in order.
        open_help: Called in the thread.
    """

    def __init__(self, batches: Sequence[Batch], open_help: Callable[[], Helping]) -> None:
        self._waiting = deque(batches)
        self._current: Batch | None = None
        self._changed = threading.Condition()
        self._help: Helping | None = None
        self._thread = threading.Thread(target=self._run, args=(open_help,), name="batch helper", daemon=True)
        self._thread.start()

    def leave(self, batch: Batch) -> None:
        """Called before the caller sees to a batch itself: waits if the helper is at it."""
        with self._changed:
            if batch in self._waiting:
                self._waiting.remove(batch)
            self._changed.wait_for(lambda: self._current != batch)

    def stop(self) -> None:
        """Ends the help; what is under way is called off."""
        with self._changed:
            self._waiting.clear()
            given, is_busy = self._help, self._current is not None
        if given is not None:  # else the thread may wait for a connection, and ends when it has one
            if is_busy:
                given.cancel()
            self._thread.join()

    def _run(self, open_help: Callable[[], Helping]) -> None:
        try:
            given = open_help()
        except Exception:  # noqa: BLE001 - the caller does it all, as it would have without help
            return
        with self._changed:
            self._help = given
        try:
            while (batch := self._next()) is not None and self._apply(given, batch):
                continue
        finally:
            given.close()

    def _next(self) -> Batch | None:
        with self._changed:
            self._current = self._waiting.pop() if self._waiting else None
            return self._current

    def _apply(self, given: Helping, batch: Batch) -> bool:
        try:
            return given.apply_clean(batch)
        except Exception:  # noqa: BLE001 - the caller comes to this batch, and tries it in its own way
            return False
        finally:
            with self._changed:
                self._current = None
                self._changed.notify_all()
