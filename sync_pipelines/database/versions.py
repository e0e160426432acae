"""Keeps the newest version of each record that a sync has seen: its watermark."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from hashlib import sha256

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects import postgresql, sqlite

from sync_pipelines.database.ledger import Ledger, storable
from sync_pipelines.database.ledger_faults import ledger_failures

_AT_ONCE = 500
_LONGEST = 200


class _Turns:
    """Lets one thread at a time have each number."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken: set[int] = set()

    @contextmanager
    def of(self, number: int) -> Iterator[None]:
        """Waits until nobody else has that number."""
        with self._changed:
            self._changed.wait_for(lambda: number not in self._taken)
            self._taken.add(number)
        try:
            yield
        finally:
            with self._changed:
                self._taken.discard(number)
                self._changed.notify_all()


_TURNS = _Turns()
"""Of all threads of this process: each of them may have opened the ledger for itself."""


class Versions:
    """Keeps the watermarks of all sync jobs."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._table = ledger.tables.versions

    def known(self, job: str, external_ids: Sequence[str]) -> dict[str, str]:
        """Returns the versions of those records that have one, as texts."""
        table = self._table
        keys = {record_key(each): each for each in external_ids}
        found: dict[str, str] = {}
        for start in range(0, len(keys), _AT_ONCE):
            wanted = table.c.external_id.in_(list(keys)[start : start + _AT_ONCE])
            query = select(table.c.external_id, table.c.version).where(table.c.job == job, wanted)
            with self._ledger.transaction() as connection:
                found.update((keys[key], version) for key, version in connection.execute(query))
        return found

    def has_any(self, job: str) -> bool:
        """True if a version of any record is known."""
        query = select(self._table.c.job).where(self._table.c.job == job).limit(1)
        with self._ledger.transaction() as connection:
            return connection.scalar(query) is not None

    @contextmanager
    def locked(self, job: str, external_id: str) -> Iterator[None]:
        """Keeps others who bring single items waiting between the look at a record's version and its write.

        Threads of this process, and where the ledger is PostgreSQL other processes too.
        """
        number = int.from_bytes(sha256(f"{job} {record_key(external_id)}".encode()).digest()[:8], signed=True)
        with _TURNS.of(number), ExitStack() as stack:
            if self._ledger.database.dialect.name == "postgresql":
                with ledger_failures(self._ledger.database):
                    connection = stack.enter_context(self._ledger.database.begin())
                    connection.execute(select(func.pg_advisory_xact_lock(number)))
            yield

    def keep(self, job: str, versions: Mapping[str, str], connection: Connection | None = None) -> None:
        """Keeps the versions of records, in place of those that are known.

        Args:
            versions: Canonical id -> version as a text.
            connection: In whose transaction; by default in one of its own.
        """
        if not versions:
            return
        rows = [{"job": job, "external_id": record_key(each), "version": text} for each, text in versions.items()]
        on_sqlite = self._ledger.database.dialect.name == "sqlite"
        statement = (sqlite if on_sqlite else postgresql).insert(self._table)
        statement = statement.on_conflict_do_update(
            index_elements=["job", "external_id"], set_={"version": statement.excluded.version}
        )
        with nullcontext(connection) if connection is not None else self._ledger.transaction() as given:
            given.execute(statement, rows)


def record_key(external_id: str) -> str:
    """Returns what a record is kept by: its id, or of a long one the hash, for no index takes such a text."""
    text = storable(external_id) or ""
    return text if len(text) <= _LONGEST else f"sha256:{sha256(text.encode()).hexdigest()}"
