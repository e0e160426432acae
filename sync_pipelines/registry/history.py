"""`record_history`: what happened to one record, out of all that the ledger knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

from sync_pipelines.database.history import History, HistoryRow
from sync_pipelines.database.ledger import open_ledger
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.history import HistoryEvent, bound_of, find_line, read_changes
from sync_pipelines.engine.redaction import typed
from sync_pipelines.registry.registry import find_job, known_job
from sync_pipelines.runner.calls.id_spellings import spellings_of
from sync_pipelines.settings.model import Settings, load_settings

MANY = 1_000_000


def record_history(
    job: SyncJob[Any, Any] | str, external_id: Any, *, limit: int | None = None, settings: Settings | None = None
) -> list[HistoryEvent]:
    """What happened to one record, newest first: what was written of it, what failed, which webhooks came.

    Args:
        job: A sync job or the name of one; also one that is gone, as long as the ledger remembers the record.
        external_id: The record's id, as the source gives it or as the target has it. A target that can't be reached is
            not asked how it writes the id; the history is then looked for as the id is given.
        limit: The newest so many events; by default all.
        settings: Where the ledger is; by default those of the environment.

    Returns:
        The events: `kind` says what happened, `changes` has the fields' old and new values, as they are: secrets are
        only redacted where the command line shows them. Empty if the ledger knows nothing of the record.

    Raises:
        ConfigurationError: There is no such job, the id is none, or the ledger can't be opened.
    """
    name = job if isinstance(job, str) else job.name
    known = known_job(job) if isinstance(job, str) else job
    ids = spellings_of(known, external_id, name)
    with open_ledger((settings or load_settings()).ledger_database_url()) as ledger:
        found = events_of_record(History(ledger), name, ids, MANY if limit is None else limit)
    if known is None and not found:
        find_job(name)  # says what is wrong with it
    return found


def events_of_record(history: History, job: str, external_ids: Sequence[str], limit: int) -> list[HistoryEvent]:
    """Returns what happened to a record, newest first, by its id as the target and as the source write it."""
    found: list[HistoryEvent] = []
    for external_id in external_ids:
        found += map(_event, history.written(job, external_id, limit))
        found += islice(_written_in_bulk(history, job, external_id), limit)
    found += map(_event, history.failures(job, external_ids, limit))
    found += map(_event, history.deliveries(job, external_ids, limit))
    return sorted(found, key=lambda event: event.at, reverse=True)[:limit]


def _event(row: HistoryRow) -> HistoryEvent:
    message = row.message
    if row.kind == "failed" and message is not None:  # of a function of the user it has the error's name twice
        name, _, said = message.partition(": ")
        message = typed(name, said)
    return HistoryEvent(**{**asdict(row), "message": message, "changes": read_changes(row.changes)})


def _written_in_bulk(history: History, job: str, external_id: str) -> Iterator[HistoryEvent]:
    for block in history.blocks_around(job, bound_of(external_id)):
        line = find_line(block.lines, external_id)
        if line is not None:
            outcome, changes = line
            yield HistoryEvent(block.at, outcome.value, external_id, block.run_id, block.via, read_changes(changes))
