"""Apply: one chunk of a plan onto the target, each entry with its own outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sync_pipelines.database.history import Written
from sync_pipelines.engine.plan import Action, FieldChange, Outcome, PlanEntry
from sync_pipelines.engine.results import Counts, SyncError
from sync_pipelines.runner.calls.record_calls import Answer
from sync_pipelines.runner.calls.target_driver import Work
from sync_pipelines.runner.decide.rules import RunRules
from sync_pipelines.runner.decide.stale_check import Known, StaleCheck
from sync_pipelines.runner.write.record_history import Note, recovered

_WRITTEN = {Action.CREATE: Outcome.CREATED, Action.UPDATE: Outcome.UPDATED, Action.DELETE: Outcome.DELETED}


@dataclass
class ChunkResult:
    """What applying a chunk did. Counts are of what was written, not of what was planned.

    Args:
        outcomes: Place in the chunk -> outcome; without deletes that failed or found nothing to delete.
        errors: What failed, in the order of the fetch.
        failed_deletes: How many deletes failed.
        recovered: How many entries an attempt that broke off had already written.
        settled: Places in the chunk of which it is known what became of them; if applying broke off, not of all.
        written: What was written, for the history of the records.
    """

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    errors: list[SyncError] = field(default_factory=list)
    failed_deletes: int = 0
    recovered: int = 0
    settled: set[int] = field(default_factory=set)
    written: list[Written] = field(default_factory=list)

    def counts(self) -> Counts:
        """The outcomes, counted."""
        return Counts.of(self.outcomes.values()) + Counts(failed_deletes=self.failed_deletes, recovered=self.recovered)

    def settle(self, number: int, outcome: Outcome | None) -> None:
        """Keeps the outcome of an entry; None if there was nothing to delete."""
        self.settled.add(number)
        if outcome is not None:
            self.outcomes[number] = outcome

    def fail(self, number: int, entry: PlanEntry, error: Exception) -> None:
        """Keeps the error of an entry."""
        self.errors.append(SyncError.of(error, entry.external_id, entry.position))
        self.failed_deletes += int(entry.action is Action.DELETE)
        self.settle(number, Outcome.FAILED if entry.action is not Action.DELETE else None)


def apply_chunk(
    rules: RunRules,
    entries: Sequence[PlanEntry],
    *,
    verify: bool,
    result: ChunkResult | None = None,
    in_doubt: bool = False,
) -> ChunkResult:
    """Writes a chunk: looks up what it needs, decides once more against what is there now, writes.

    Args:
        rules: What decides about each entry.
        entries: A chunk of the plan.
        verify: True if an earlier attempt may have written some of it: then creates are looked up as well.
        result: An empty one to fill as the work goes on, for a caller that must know what was done if it breaks off.
        in_doubt: True if this very chunk is the one that an earlier attempt may have written.

    Raises:
        TargetError: The target as a whole does not answer.
    """
    driver, stale_check = rules.driver, rules.stale_check
    look_up_all = verify or rules.conflict_check is not None
    wanted = [each.external_id for each in entries if look_up_all or each.action is not Action.CREATE]
    found, broken = driver.find(wanted) if wanted else ({}, {})
    chunk = ChunkWriter(rules, entries, verify=verify, result=result, in_doubt=in_doubt)
    known = stale_check.known(found, [each.external_id for each in entries]) if stale_check is not None else {}
    for number, entry in enumerate(entries):
        if entry.external_id in broken:
            chunk.result.fail(number, entry, broken[entry.external_id])
        elif stale_check is None or not _is_settled_as_stale(stale_check, known, number, entry, chunk):
            chunk.assign(number, found.get(entry.external_id))
    try:
        return chunk.write()
    finally:
        if stale_check is not None:
            stale_check.keep_written(entries, chunk.result.outcomes)


def _is_settled_as_stale(
    stale_check: StaleCheck, known: Mapping[str, Known], number: int, entry: PlanEntry, chunk: ChunkWriter
) -> bool:
    """True if the entry is not to be written, because its local record has become newer or nobody can tell."""
    try:
        is_stale = stale_check.is_stale(entry, known)
    except Exception as error:  # noqa: BLE001 - one bad item never stops the others
        chunk.result.fail(number, entry, error)
        return True
    if is_stale:
        chunk.leave(number)
    return is_stale


class ChunkWriter:
    """Decides what each entry of a chunk needs now, and writes it.

    Args:
        rules: What decides about each entry.
        entries: The chunk.
        verify: True if an earlier attempt may have written some of it.
        result: What is filled as the work goes on; by default a new one.
        in_doubt: True if this very chunk is the one that an earlier attempt may have written.
    """

    def __init__(
        self,
        rules: RunRules,
        entries: Sequence[PlanEntry],
        *,
        verify: bool = False,
        result: ChunkResult | None = None,
        in_doubt: bool = False,
    ) -> None:
        self.result = result if result is not None else ChunkResult()
        self._driver = rules.driver
        self._entries = entries
        self._verify = verify
        self._check = rules.conflict_check
        self._in_doubt = in_doubt
        self._notes: dict[str, Note] = {}
        self._works: dict[Action, list[tuple[int, Work]]] = {action: [] for action in Action}

    def leave(self, number: int) -> None:
        """Leaves a record as it is that has become newer than the item of the entry."""
        if self._check is None:
            self.result.settle(number, Outcome.SKIPPED)
        else:
            self.result.fail(number, self._entries[number], self._check.older(self._entries[number]))

    def assign(self, number: int, local: Any | None) -> None:
        """Decides on an entry, given the local record that is there now."""
        entry = self._entries[number]
        if local is None:
            if entry.action is not Action.DELETE:
                self._add(Action.CREATE, number, None)
            else:
                self.result.settle(number, None)
        elif entry.action is Action.DELETE:
            self._assign_delete(number, local)
        else:
            self._assign_found(number, entry, local)

    def _assign_delete(self, number: int, local: Any) -> None:
        if self._driver.is_marked(local):
            self.result.settle(number, None)
        else:
            self._add(Action.DELETE, number, local)

    def _assign_found(self, number: int, entry: PlanEntry, local: Any) -> None:
        try:
            comparison = self._driver.compare(entry.item, local)
        except Exception as error:  # noqa: BLE001 - one bad item never stops the others
            self.result.fail(number, entry, error)
            return
        if comparison.changed:
            self._add(Action.UPDATE, number, local, comparison.changes)
        else:
            self.result.settle(number, Outcome.UNCHANGED)
            self.result.recovered += int(self._verify)
            self._record_recovered(entry)

    def _add(
        self, action: Action, number: int, local: Any | None, changes: Mapping[str, FieldChange] | None = None
    ) -> None:
        entry = self._entries[number]
        refused = self._check.refused(entry, local, changes or {}) if self._check is not None else None
        if refused is not None:
            self.result.fail(number, entry, refused)
            return
        work = Work(entry.external_id, entry.item, local)
        self._works[action].append((number, work))
        if self._driver.records_history:
            self._notes[work.external_id] = Note.of(self._driver, action, work, changes or {}, entry)

    def _record_recovered(self, entry: PlanEntry) -> None:
        written = recovered(entry) if self._in_doubt and self._driver.records_history else None
        if written is not None:
            self.result.written.append(written)

    def write(self) -> ChunkResult:
        """Carries out creates, then updates, then deletes, and gives all outcomes.

        Raises:
            TargetError: The target as a whole does not answer.
        """
        try:
            for action, numbered in self._works.items():
                self._write(action, numbered)
        finally:
            self.result.errors.sort(key=lambda error: error.position)
        return self.result

    def _write(self, action: Action, numbered: Sequence[tuple[int, Work]]) -> None:
        answers: dict[str, Answer] = {}
        try:
            self._driver.write(action, [work for _, work in numbered], answers)
        finally:  # what broke off half-way has written the first half
            for number, work in numbered:
                answer = answers.pop(work.external_id, None)  # kept, each error would hold on to itself and its frames
                if answer is None:
                    continue
                if answer.error is not None:
                    self.result.fail(number, self._entries[number], answer.error)
                else:
                    self.result.settle(number, _WRITTEN[action])
                    if work.external_id in self._notes:
                        note = self._notes.pop(work.external_id)
                        self.result.written.append(note.written(self._driver, _WRITTEN[action]))
