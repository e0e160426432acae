"""Reads the errors of a run in the order of the fetch, and keeps their causes with the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, or_, select, update

from sync_pipelines.database.ledger import ErrorRow, Ledger, error_row_of
from sync_pipelines.database.run_queries import got_all_items
from sync_pipelines.database.tables import FULL

NEW = "new"
KNOWN = "known"
GONE = "gone"

_PAGE = 1_000
_LOOK_BACK = 100


@dataclass(frozen=True, slots=True)
class CauseRow:
    """Counts errors of one cause.

    Args:
        count: How many there are; of a cause that is gone, how many there were in the run before.
        state: `new`, `known`, or `gone`.
    """

    exception_type: str
    template: str
    count: int
    sample_ids: tuple[str, ...]
    state: str


class RunCauses:
    """Reads the errors of runs, and keeps their causes."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._errors = ledger.tables.run_errors
        self._table = ledger.tables.run_causes

    def error_pages(self, run_id: str) -> Iterator[list[tuple[int, ErrorRow]]]:
        """Yields the errors of a run with their numbers, a page at a time; those of deletes come first."""
        table = self._errors
        position, number = -2, 0
        while True:
            later = or_(table.c.position > position, table.c.id > number)
            query = select(table).where(table.c.run_id == run_id, table.c.position >= position, later)
            query = query.order_by(table.c.position, table.c.id).limit(_PAGE)
            with self._ledger.transaction() as connection:
                rows = connection.execute(query).all()
            if not rows:
                return
            yield [(row.id, error_row_of(row)) for row in rows]
            position, number = rows[-1].position, rows[-1].id

    def noted_to(self, run_id: str) -> int:
        """Returns the number of the last error of the run that is noted in the failures, 0 if none is."""
        runs = self._ledger.tables.runs
        with self._ledger.transaction() as connection:
            return int(connection.scalar(select(runs.c.errors_noted_to).where(runs.c.id == run_id)) or 0)

    def keep(self, run_id: str, causes: Sequence[CauseRow], noted_to: int) -> None:
        """Keeps the causes of a run in place of those that are known, and up to which error they are counted."""
        runs, table = self._ledger.tables.runs, self._table
        rows: list[dict[str, Any]] = [
            {
                "run_id": run_id,
                "number": number,
                "exception_type": each.exception_type,
                "template": each.template,
                "count": each.count,
                "sample_ids": list(each.sample_ids),
                "state": each.state,
            }
            for number, each in enumerate(causes)
        ]
        with self._ledger.transaction() as connection:
            connection.execute(delete(table).where(table.c.run_id == run_id))
            if rows:
                connection.execute(insert(table), rows)
            connection.execute(update(runs).where(runs.c.id == run_id).values(errors_noted_to=noted_to))

    def of_run(self, run_id: str) -> list[CauseRow]:
        """Returns the causes of a run, the most frequent first; those that are gone come last."""
        table = self._table
        columns = [table.c[name] for name in CauseRow.__dataclass_fields__]
        query = select(*columns).where(table.c.run_id == run_id).order_by(table.c.number)
        with self._ledger.transaction() as connection:
            found = connection.execute(query).all()
        return [CauseRow(name, template, count, tuple(ids), state) for name, template, count, ids, state in found]

    def runs_before(self, job: str, run_id: str | None = None) -> list[str]:
        """Returns the runs before this one (by default all) that fetched all items and were done, newest first."""
        runs = self._ledger.tables.runs
        done = (runs.c.completed_at.is_not(None), runs.c.failure.is_(None), runs.c.kind == FULL)
        query = select(runs.c.id, runs.c.options, runs.c.completeness).where(runs.c.job == job, *done)
        if run_id is not None:
            own = select(runs.c.started_at).where(runs.c.id == run_id).scalar_subquery()
            query = query.where(runs.c.id != run_id, runs.c.started_at <= own)
        query = query.order_by(runs.c.started_at.desc(), runs.c.id).limit(_LOOK_BACK)
        with self._ledger.transaction() as connection:
            found = connection.execute(query).all()
        return [row.id for row in found if got_all_items(row.options, row.completeness)]
