"""What happened to one record: rows, blocks, failures and deliveries of the ledger in one order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice

from sync_pipelines.database.history import History, HistoryRow
from sync_pipelines.engine.history import HistoryEvent, bound_of, find_line, read_changes


def events_of_record(history: History, job: str, external_ids: Sequence[str], limit: int) -> list[HistoryEvent]:
    """What happened to a record, newest first.

    Args:
        history: That of the ledger.
        job: The sync job's name.
        external_ids: The record's id, as the target and as the source write it.
        limit: How many events at most.
    """
    found: list[HistoryEvent] = []
    for external_id in external_ids:
        found += map(_event, history.written(job, external_id, limit))
        found += islice(_written_in_bulk(history, job, external_id), limit)
    found += map(_event, history.failures(job, external_ids, limit))
    found += map(_event, history.deliveries(job, external_ids, limit))
    return sorted(found, key=lambda event: event.at, reverse=True)[:limit]


def _event(row: HistoryRow) -> HistoryEvent:
    return HistoryEvent(**{**asdict(row), "changes": read_changes(row.changes)})


def _written_in_bulk(history: History, job: str, external_id: str) -> Iterator[HistoryEvent]:
    for block in history.blocks_around(job, bound_of(external_id)):
        line = find_line(block.lines, external_id)
        if line is not None:
            outcome, changes = line
            yield HistoryEvent(block.at, outcome.value, external_id, block.run_id, block.via, read_changes(changes))
