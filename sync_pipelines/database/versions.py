"""The newest version of each record that a sync has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from hashlib import sha256

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from sync_pipelines.database.ledger import Ledger, storable

_AT_ONCE = 500
_LONGEST = 200


class Versions:
    """The versions of all sync jobs.

    Args:
        ledger: The ledger that has them.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._table = ledger.tables.versions

    def known(self, job: str, external_ids: Sequence[str]) -> dict[str, str]:
        """The versions of those records that have one, as texts.

        Args:
            job: The sync job's name.
            external_ids: Canonical ids.
        """
        table = self._table
        keys = {_key(each): each for each in external_ids}
        found: dict[str, str] = {}
        for start in range(0, len(keys), _AT_ONCE):
            wanted = table.c.external_id.in_(list(keys)[start : start + _AT_ONCE])
            query = select(table.c.external_id, table.c.version).where(table.c.job == job, wanted)
            with self._ledger.transaction() as connection:
                found.update((keys[key], version) for key, version in connection.execute(query))
        return found

    def keep(self, job: str, versions: Mapping[str, str], connection: Connection | None = None) -> None:
        """Keeps the versions of records, in place of those that are known.

        Args:
            job: The sync job's name.
            versions: Canonical id -> version as a text.
            connection: In whose transaction; by default in one of its own.
        """
        if not versions:
            return
        rows = [{"job": job, "external_id": _key(each), "version": text} for each, text in versions.items()]
        on_sqlite = self._ledger.database.dialect.name == "sqlite"
        statement = (sqlite if on_sqlite else postgresql).insert(self._table)
        statement = statement.on_conflict_do_update(
            index_elements=["job", "external_id"], set_={"version": statement.excluded.version}
        )
        with nullcontext(connection) if connection is not None else self._ledger.transaction() as given:
            given.execute(statement, rows)


def _key(external_id: str) -> str:
    """What a record is kept by: its id, or of a long one the hash, for no index takes such a text."""
    text = storable(external_id) or ""
    return text if len(text) <= _LONGEST else f"sha256:{sha256(text.encode()).hexdigest()}"
