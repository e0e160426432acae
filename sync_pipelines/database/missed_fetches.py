"""Counts how many complete fetches in a row have been without a local record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Text, case, cast, delete, func, insert, literal, select, true, update
from sqlalchemy.dialects import postgresql, sqlite

from sync_pipelines.database.ledger import Ledger
from sync_pipelines.database.versions import record_key

_AT_ONCE = 500
_LATEST = ""
"""Stands for the external id in the row that says which fetch was counted last: no record has such an id."""


@dataclass(frozen=True, slots=True)
class CountedFetch:
    """Describes the complete fetch of a sync that was counted last.

    Args:
        number: How many were counted until then.
    """

    number: int
    run_id: str
    started_at: datetime


class MissedFetches:
    """Keeps missed fetches of all sync jobs. They count in a row only if the fetch before missed the record too."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._table = ledger.tables.misses
        self._dialect = sqlite if ledger.database.dialect.name == "sqlite" else postgresql

    def latest(self, job: str) -> CountedFetch | None:
        """Returns the fetch of a sync that was counted last; None if there is none."""
        table = self._table
        query = select(table.c.fetch, table.c.run_id, table.c.first_missed_at)
        with self._ledger.transaction() as connection:
            found = connection.execute(query.where(table.c.job == job, table.c.external_id == _LATEST)).first()
        return None if found is None else CountedFetch(*found)

    def begin(self, job: str, fetch: CountedFetch) -> None:
        """Notes which fetch is counted now."""
        table, own = self._table, {"job": job, "external_id": _LATEST}
        values = {"fetch": fetch.number, "run_id": fetch.run_id, "first_missed_at": fetch.started_at}
        marker = update(table).where(*(table.c[name] == value for name, value in own.items())).values(values)
        with self._ledger.transaction() as connection:
            if connection.execute(marker).rowcount == 0:
                connection.execute(insert(table).values(**own, **values, misses=0))

    def count(self, job: str, fetch: CountedFetch, external_ids: Sequence[str]) -> dict[str, int]:
        """Counts that a fetch is without these records; once, however often it is called for that fetch.

        Args:
            external_ids: Canonical ids, each once.

        Returns:
            How many fetches in a row have been without each of them.
        """
        if not external_ids:
            return {}
        table = self._table
        keys = {record_key(each): each for each in external_ids}
        statement = self._inserting(job, fetch, list(keys))
        new = statement.excluded
        in_a_row = table.c.fetch >= new.fetch - 1
        misses = case((table.c.fetch == new.fetch, table.c.misses), (in_a_row, table.c.misses + 1), else_=1)
        since = case((in_a_row, table.c.first_missed_at), else_=new.first_missed_at)
        counting = statement.on_conflict_do_update(
            index_elements=["job", "external_id"],
            set_={"misses": misses, "first_missed_at": since, "fetch": new.fetch, "run_id": new.run_id},
        ).returning(table.c.external_id, table.c.misses)
        with self._ledger.transaction() as connection:
            return {keys[key]: count for key, count in connection.execute(counting)}

    def _inserting(self, job: str, fetch: CountedFetch, keys: list[str]) -> Any:
        """Inserts a row for each record out of one parameter: a thousand of them take a millisecond, not twenty."""
        given = json.dumps(keys)
        each: Any = (
            func.json_each(given).table_valued("value").c.value
            if self._dialect is sqlite
            else func.json_array_elements_text(cast(literal(given, Text), JSON)).column_valued("value")
        )
        moment = literal(fetch.started_at, self._table.c.first_missed_at.type)
        row = [literal(job), each, literal(1), literal(fetch.number), moment, literal(fetch.run_id)]
        columns = ["job", "external_id", "misses", "fetch", "first_missed_at", "run_id"]
        # SQLite takes ON CONFLICT for a part of the SELECT unless that has a WHERE
        return self._dialect.insert(self._table).from_select(columns, select(*row).where(true()))

    def known(self, job: str, number: int, external_ids: Sequence[str]) -> dict[str, int]:
        """Returns how many fetches in a row, up to the one of that number, have been without these records."""
        table = self._table
        keys = {record_key(each): each for each in external_ids}
        found: dict[str, int] = {}
        for start in range(0, len(keys), _AT_ONCE):
            wanted = table.c.external_id.in_(list(keys)[start : start + _AT_ONCE])
            query = select(table.c.external_id, table.c.misses)
            query = query.where(table.c.job == job, table.c.fetch == number, wanted)
            with self._ledger.transaction() as connection:
                found.update((keys[key], count) for key, count in connection.execute(query))
        return found

    def end(self, job: str, number: int) -> None:
        """Forgets the records that the fetch of that number was not without: they have come back, or were deleted."""
        table = self._table
        returned = (table.c.job == job, table.c.fetch < number, table.c.external_id != _LATEST)
        with self._ledger.transaction() as connection:
            connection.execute(delete(table).where(*returned))

    def forget_records(self, job: str, external_ids: Sequence[str]) -> None:
        """Forgets the missed fetches of records whose items were delivered."""
        table, keys = self._table, [record_key(each) for each in external_ids]
        for start in range(0, len(keys), _AT_ONCE):
            wanted = table.c.external_id.in_(keys[start : start + _AT_ONCE])
            with self._ledger.transaction() as connection:
                connection.execute(delete(table).where(table.c.job == job, wanted))

    def forget(self, job: str) -> None:
        """Forgets all of a sync, which does not count missed fetches any more."""
        with self._ledger.transaction() as connection:
            connection.execute(delete(self._table).where(self._table.c.job == job))
