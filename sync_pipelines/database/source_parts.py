"""Keeps what each sync has fetched of its source, in short: the data version of a source that several syncs read.

Each may have another view of it, prices or stock. So the source has changed when one of them gets something else than
it got itself the last time; one that reads it for the first time has nothing to compare with.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import insert, select, update

from sync_pipelines.database.ledger import Ledger

_HEX_SHOWN = 12


class SourceParts:
    """Keeps the parts of all sources."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._table = ledger.tables.source_parts

    def note(self, source: str, job: str, part: str) -> str:
        """Notes what a sync has fetched of a source, and returns the source's data version."""
        table = self._table
        query = select(table).where(table.c.source == source).order_by(table.c.number.desc(), table.c.job)
        with self._ledger.transaction() as connection:
            rows = connection.execute(query.with_for_update()).all()
            newest = rows[0] if rows else None
            known = next((row for row in rows if row.job == job), None)
            if known is not None and newest is not None and known.part == part:
                return str(newest.version)
            if newest is not None and known is None:
                number, version = newest.number, newest.version
            else:
                parts = {row.job: row.part for row in rows} | {job: part}
                number, version = (newest.number + 1 if newest is not None else 1), _version_of(parts)
            values = {"part": part, "number": number, "version": version}
            if known is None:
                connection.execute(insert(table).values(source=source, job=job, **values))
            else:
                connection.execute(update(table).where(table.c.source == source, table.c.job == job).values(values))
        return str(version)

    def version(self, source: str) -> str | None:
        """Returns the data version of a source; None if nobody has noted what it fetched."""
        table = self._table
        query = select(table.c.version).where(table.c.source == source)
        with self._ledger.transaction() as connection:
            found: str | None = connection.scalar(query.order_by(table.c.number.desc(), table.c.job).limit(1))
        return found


def _version_of(parts: dict[str, str]) -> str:
    """Returns one short text for what all readers have."""
    told = "\0".join(f"{job}\0{part}" for job, part in sorted(parts.items()))
    return hashlib.sha256(told.encode()).hexdigest()[:_HEX_SHOWN]
