"""Keeps what is written in the history of its record: old and new values as far as they are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection

from sync_pipelines.database.history import BlockRow, Writer, Written
from sync_pipelines.database.ledger import RunRow
from sync_pipelines.database.tables import FULL
from sync_pipelines.engine.codec import encodable, encode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.plan import Action, FieldChange, Outcome, PlanEntry
from sync_pipelines.runner.calls.target_driver import Staged, TargetDriver, Work
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.plans.plan_file import delete_entry, encoded_changes, readable_fields

SINGLE = "single"
"""How an item was written that was applied at once, without a run."""
_BLOCKS_AT_ONCE = 50
_NO_CHANGES = "{}"


@dataclass(frozen=True, slots=True)
class Note:
    """Holds what is known of a write before it is made.

    Args:
        changes: The fields' old and new values, as the target names them.
        before: The record's fields as JSON each, where the target does not name its changes.
        kept: What the plan keeps of a create, as JSON.
    """

    action: Action
    work: Work
    changes: Mapping[str, FieldChange]
    before: Mapping[str, str]
    kept: str | None = None

    @staticmethod
    def of(
        driver: TargetDriver, action: Action, work: Work, changes: Mapping[str, FieldChange], entry: PlanEntry
    ) -> Note:
        """Makes the note, before the write."""
        before: dict[str, str] = {}
        if action is Action.CREATE and entry.action is Action.CREATE:  # what a create writes, its plan says already
            return Note(action, work, entry.changes, before, entry.kept_changes)
        if action is Action.DELETE:
            changes = delete_entry(driver, work.external_id, work.local).changes
        elif action is Action.UPDATE and not driver.names_changes:
            before = _encoded(readable_fields(driver, work.local))
        return Note(action, work, changes, before)

    def written(self, driver: TargetDriver, outcome: Outcome) -> Written:
        """Returns what the history keeps, after the write."""
        return Written(self.work.external_id, outcome.value, self._changes(driver))

    def _changes(self, driver: TargetDriver) -> str | None:
        if self.action is Action.UPDATE and not driver.names_changes:
            # an update that changes the local record itself can be told afterwards, any other can not
            after = _encoded(readable_fields(driver, self.work.local))
            changed = [name for name in {**self.before, **after} if self.before.get(name) != after.get(name)]
            pairs = (f"{encode(each)}:[{self.before.get(each, 'null')},{after.get(each, 'null')}]" for each in changed)
            return f"{{{','.join(pairs)}}}" if changed and "$" not in changed else None
        if self.kept is not None:
            return self.kept if self.kept != _NO_CHANGES else None
        changes = self.changes
        if self.action is Action.CREATE and not changes:
            changes = _created(driver, self.work.item)
        return encoded_changes(changes) if changes else None


def _encoded(fields: Mapping[str, Any]) -> dict[str, str]:
    """Encodes fields as texts: a value that an update changes in place would be its own new one."""
    return {str(name): encode(encodable(value)) for name, value in fields.items()}


def _created(driver: TargetDriver, item: Any) -> Mapping[str, FieldChange]:
    try:
        return driver.compare(item, None).changes
    except Exception:  # noqa: BLE001 - it is written; what was written is then not known
        return {}


def recovered(entry: PlanEntry) -> Written | None:
    """Returns what an attempt that broke off wrote according to its plan; None if the plan does not say its fields."""
    outcome = Outcome.CREATED if entry.action is Action.CREATE else Outcome.UPDATED
    return Written(entry.external_id, outcome.value, encoded_changes(entry.changes)) if entry.changes else None


class Recorder:
    """Keeps what one run writes."""

    def __init__(self, workspace: Workspace, writer: Writer) -> None:
        self._workspace = workspace
        self._writer = writer

    @staticmethod
    def of_run(workspace: Workspace, run: RunRow, driver: TargetDriver) -> Recorder | None:
        """Makes the recorder of a run; None if its job keeps no history."""
        return Recorder(workspace, Writer(run.job, run.id, run.kind)) if driver.records_history else None

    def keep(self, written: Sequence[Written], within: Connection) -> None:
        """Keeps what a batch has written, in the transaction that notes the batch."""
        self._workspace.history.keep(self._writer, written, self._workspace.clock(), within)

    def move(self, driver: TargetDriver, staged: Staged) -> None:
        """Moves what was written from staging tables into the ledger, also by runs that died.

        Killed at any instant, the next call goes on, and nothing is kept twice.
        """
        while blocks := driver.at_once(partial(staged.recorded, _BLOCKS_AT_ONCE)):
            self._workspace.history.keep_blocks(self._writer.job, FULL, [BlockRow(**asdict(each)) for each in blocks])
            driver.at_once(partial(staged.forget_recorded, [each.id for each in blocks]))


def move_left(workspace: Workspace, run: RunRow, driver: TargetDriver, staged: Staged) -> None:
    """Moves the history that dead runs have left into the ledger, whether or not this run uses staging tables.

    Of a job that keeps no history any more it is forgotten.

    Args:
        run: The run, which has written nothing yet.
    """
    if not driver.at_once(staged.has_recorded):
        return
    recorder = Recorder.of_run(workspace, run, driver)
    if recorder is not None:
        recorder.move(driver, staged)
    driver.at_once(staged.end_recorded)


def forget_old_history(job: SyncJob[Any, Any], workspace: Workspace) -> bool:
    """Forgets a part of what happened to the job's records before the days that it keeps. True if there may be more."""
    return workspace.history.purge(job.name, workspace.clock() - timedelta(days=job.keep_history_days))
