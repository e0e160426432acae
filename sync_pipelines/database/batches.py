"""Keeps the batches of a run that are written: what became of their items, and what of them is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, case, delete, insert, select, update

from sync_pipelines.database.ledger import ErrorRow, Ledger

BATCH = "batch"
"""Part of a run that is written batch by batch: its plan file, deliveries, failures."""
STAGED = "staged"
"""What the database has written itself out of staging tables, all together in one row."""
REFUSED = "refused"
"""Rows of staging tables that the database refused, or that somebody else had changed, batch by batch."""
EARLIER = "earlier"
"""What plans of the same run had written that a later one replaced, as `recovered`."""
COMPLETE = "complete"
"""A row without counts: all of the plan in staging tables is written, and they can go."""
REWRITTEN = "rewritten"
"""No batch, but what `database.rewritten` keeps of a run."""
_UNSORTED = "unsorted"
"""A batch of the version before 0010, of which only the run's plan says whether it is in staging tables."""


@dataclass(frozen=True, slots=True)
class BatchKey:
    """Names one batch of a run: the part of the run that it belongs to, and its number there, from 0."""

    part: str = BATCH
    number: int = 0


@dataclass(frozen=True, slots=True)
class BatchRow:
    """Holds one batch as the ledger keeps it.

    Args:
        left: Places in it that are still to be written; empty if it is done.
    """

    counts: Mapping[str, int]
    left: Sequence[int] = ()


class WrittenBatches(dict[BatchKey, BatchRow]):
    """Holds what a run has written so far, as the ledger has noted it."""

    rewritten: Mapping[str, Any]
    """What `database.rewritten` keeps of the run, which is no batch of it."""

    def total(self) -> dict[str, int]:
        """Adds up the counts of all batches."""
        tally: Counter[str] = Counter()
        for each in self.values():
            tally.update(each.counts)
        return dict(tally)

    def written(self, part: str | None = None) -> int:
        """Counts the items that were written, in whatever attempt; by default of all parts."""
        rows = (row.counts for key, row in self.items() if part is None or key.part == part)
        return sum(counts.get(name, 0) for counts in rows for name in ("created", "updated", "recovered"))

    def done(self, part: str = BATCH) -> set[int]:
        """Returns the numbers of the batches of a part of which nothing is left."""
        return {key.number for key, row in self.items() if key.part == part and not row.left}

    @property
    def is_unsorted(self) -> bool:
        """True if only the run's plan says what its batches are."""
        return any(key.part == _UNSORTED for key in self)

    @property
    def is_complete(self) -> bool:
        """True if all of the plan in staging tables is written."""
        return BatchKey(COMPLETE) in self


class Batches:
    """Keeps which batches of runs are written; each method is one transaction."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._table = ledger.tables.run_batches

    def of_run(self, run_id: str) -> WrittenBatches:
        """Returns the batches of a run that are written, in whole or in part."""
        table = self._table
        query = select(table.c.part, table.c.number, table.c.counts, table.c.left).where(table.c.run_id == run_id)
        with self._ledger.transaction() as connection:
            rows = {BatchKey(row.part, row.number): row for row in connection.execute(query)}
        rewritten = rows.pop(BatchKey(REWRITTEN), None)
        found = WrittenBatches((key, BatchRow(row.counts, tuple(row.left or ()))) for key, row in rows.items())
        found.rewritten = rewritten.counts if rewritten is not None else {}
        return found

    def save(  # noqa: PLR0913 - one row
        self,
        run_id: str,
        key: BatchKey,
        counts: Mapping[str, int],
        errors: Iterable[ErrorRow],
        at: datetime,
        *,
        left: Sequence[int] = (),
        within: Connection | None = None,
        also: Callable[[Connection], object] | None = None,
    ) -> None:
        """Notes that a batch is written, with the errors of its items.

        Args:
            counts: What became of the items; they add to those of an attempt that did not finish the batch.
            left: Places in the batch that are still to be written.
            within: In whose transaction; by default in one of its own.
            also: Called with that transaction.
        """
        table, own = self._table, self._is(run_id, key)
        with nullcontext(within) if within is not None else self._ledger.transaction() as connection:
            before = connection.execute(select(table.c.counts, table.c.left).where(*own)).one_or_none()
            if before is not None and before.left:
                names = {**before.counts, **counts}
                counts = {name: before.counts.get(name, 0) + counts.get(name, 0) for name in names}
                connection.execute(delete(table).where(*own))
            self._insert(connection, run_id, key, counts, at, left)
            self._ledger.insert_errors(connection, run_id, "apply", errors)
            if also:
                also(connection)

    def replace(self, run_id: str, key: BatchKey, counts: Mapping[str, Any], at: datetime) -> None:
        """Notes what a batch has done so far, in place of what was noted of it before."""
        with self._ledger.transaction() as connection:
            connection.execute(delete(self._table).where(*self._is(run_id, key)))
            self._insert(connection, run_id, key, counts, at)

    def forget(self, run_id: str) -> None:
        """Forgets the progress of a plan that a new one replaces. What it had written stays known as recovered."""
        table, errors = self._table, self._ledger.tables.run_errors
        of_run = table.c.run_id == run_id
        with self._ledger.transaction() as connection:
            rows = connection.execute(select(table.c.part, table.c.number, table.c.counts).where(of_run))
            noted = WrittenBatches((BatchKey(row.part, row.number), BatchRow(row.counts)) for row in rows)
            connection.execute(delete(errors).where(errors.c.run_id == run_id, errors.c.phase == "apply"))
            connection.execute(delete(table).where(of_run))
            if written := noted.written():
                self._insert(connection, run_id, BatchKey(EARLIER), {"recovered": written}, datetime.now(UTC))

    def sort(self, run_id: str, *, is_staged: bool) -> None:
        """Says what the batches are that the version before 0010 had written of a run, now that its plan is known.

        Args:
            is_staged: True if its plan is in staging tables. Then batch 0 was what the database wrote itself.
        """
        table = self._table
        values: dict[str, Any] = {"part": BATCH}
        if is_staged:
            is_first = table.c.number == 0
            values = {
                "part": case((is_first, STAGED), else_=BATCH),
                "number": case((is_first, 0), else_=table.c.number - 1),
            }
        with self._ledger.transaction() as connection:
            connection.execute(update(table).where(table.c.run_id == run_id, table.c.part == _UNSORTED).values(values))

    def _is(self, run_id: str, key: BatchKey) -> tuple[Any, ...]:
        table = self._table
        return table.c.run_id == run_id, table.c.part == key.part, table.c.number == key.number

    def _insert(  # noqa: PLR0913, PLR0917 - one row
        self,
        connection: Connection,
        run_id: str,
        key: BatchKey,
        counts: Mapping[str, Any],
        at: datetime,
        left: Sequence[int] = (),
    ) -> None:
        row = {"run_id": run_id, "part": key.part, "number": key.number, "counts": dict(counts), "applied_at": at}
        connection.execute(insert(self._table).values({**row, "left": list(left) or None}))
