"""Writes a batch of decided entries onto the target, each with its own outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from itertools import groupby
from typing import Any, NamedTuple

from sync_pipelines.database.faults import Suspected, suspected
from sync_pipelines.engine.plan import Action, FieldChange, Outcome, PlanEntry
from sync_pipelines.errors import ItemError
from sync_pipelines.runner.calls.record_calls import Answer
from sync_pipelines.runner.calls.target_driver import Work
from sync_pipelines.runner.calls.whose_fault import Verdict, ended_by
from sync_pipelines.runner.decide.changes import DELETE, action_needed
from sync_pipelines.runner.decide.outcomes import Outcomes
from sync_pipelines.runner.decide.rules import RunRules
from sync_pipelines.runner.decide.stale_check import Watermark
from sync_pipelines.runner.write.record_history import Note, recovered

_WRITTEN = {Action.CREATE: Outcome.CREATED, Action.UPDATE: Outcome.UPDATED, Action.DELETE: Outcome.DELETED}


class Recheck(Enum):
    """Says what is looked up once more before it is written."""

    NOTHING = "nothing"
    """It has been decided just now, and nobody has come in between."""
    FOUND = "found"
    """Records that are there: something may have changed since the diff."""
    ALL = "all"
    """New ones as well: an earlier attempt may have written some."""


def write_entries(  # noqa: PLR0913 - what is known of the entries, by keyword
    rules: RunRules,
    entries: Mapping[int, PlanEntry],
    outcomes: Outcomes,
    *,
    recheck: Recheck,
    recovers: bool = False,
    uncertain: bool = False,
    holds: bool = False,
) -> None:
    """Writes a batch: looks up what it needs, decides once more against what is there now, writes.

    Args:
        entries: Handle -> entry, each of another external id.
        outcomes: Gets an outcome for each as the work goes on, so that what was done is known if it breaks off.
        recovers: True to count what is as it should be as written by an earlier attempt.
        uncertain: True if this very batch is the one that an earlier attempt may have written.
        holds: True to leave without an outcome what may be written once other batches have been.

    An entry for which the target is at fault, as other entries show, has failed in vain: see `Outcomes.ended`.
    """
    batch = BatchWriter(rules, entries, outcomes, recovers=recovers, uncertain=uncertain, holds=holds)
    if recheck is Recheck.NOTHING:
        batch.assign_decided()
    else:
        batch.assign_again(look_up_all=recheck is Recheck.ALL or rules.conflict_check is not None)
    try:
        batch.write()
    finally:
        if rules.stale_check is not None:
            rules.stale_check.keep_written(entries, outcomes.by_handle)


class _Refused(NamedTuple):
    """Holds a write that the target has refused, and may take once others are done."""

    handle: int
    work: Work
    action: Action
    error: Exception


_OF_ITEMS = (Action.CREATE, Action.UPDATE)
_NOT_TRIED = ItemError("it was not written")
"""Stands in until it has been tried."""


class BatchWriter:
    """Decides what each entry of a batch needs now, and writes it."""

    def __init__(  # noqa: PLR0913 - what is known of the batch, by keyword
        self,
        rules: RunRules,
        entries: Mapping[int, PlanEntry],
        outcomes: Outcomes,
        *,
        recovers: bool,
        uncertain: bool,
        holds: bool,
    ) -> None:
        self._rules = rules
        self._driver = rules.driver
        self._check = rules.conflict_check
        self._entries = entries
        self._outcomes = outcomes
        self._recovers = recovers
        self._uncertain = uncertain
        self._holds = holds
        self._notes: dict[str, Note] = {}
        self._suspected: list[tuple[_Refused, Suspected]] = []
        self._works: dict[Action, list[tuple[int, Work]]] = {action: [] for action in Action}

    def assign_decided(self) -> None:
        """Takes the entries as they were decided."""
        for handle, entry in self._entries.items():
            with self._outcomes.one_entry(handle, entry):
                self._add(entry.action, handle, entry, entry.local, entry.changes)

    def assign_again(self, *, look_up_all: bool) -> None:
        """Decides on the entries once more, against the local records that are there now.

        Args:
            look_up_all: True to look for the records of creates as well.
        """
        entries, stale_check = self._entries.values(), self._rules.stale_check
        wanted = [each.external_id for each in entries if look_up_all or each.action is not Action.CREATE]
        found, broken = self._driver.find(wanted) if wanted else ({}, {})
        ids = [each.external_id for each in entries]
        watermarks = stale_check.watermarks(found, ids) if stale_check is not None else {}
        for handle, entry in self._entries.items():
            with self._outcomes.one_entry(handle, entry):
                if entry.external_id in broken:
                    self._outcomes.fail_entry(handle, entry, broken[entry.external_id])
                elif self._is_stale(entry, watermarks):
                    self._outcomes.keep(handle, Outcome.SKIPPED)
                else:
                    self._assign(handle, entry, found.get(entry.external_id))

    def _is_stale(self, entry: PlanEntry, watermarks: Mapping[str, Watermark]) -> bool:
        """True if the local record has become newer than the item. Of a plan that is an error."""
        if self._rules.stale_check is None or not self._rules.stale_check.is_stale(entry, watermarks):
            return False
        if self._check is not None:
            raise self._check.older(entry)
        return True

    def _assign(self, handle: int, entry: PlanEntry, local: Any | None) -> None:
        """Decides on an entry, given the local record that is there now."""
        if local is None and entry.action is Action.CREATE:  # as the diff found it
            self._add(Action.CREATE, handle, entry, None, {})
            return
        action, changes = action_needed(self._driver, DELETE if entry.action is Action.DELETE else entry.item, local)
        if action is not None:
            self._add(action, handle, entry, local, changes)
            return
        self._outcomes.leave(handle, entry)
        if entry.action is not Action.DELETE:
            self._outcomes.recovered += int(self._recovers)
            self._record_recovered(entry)

    def _add(
        self, action: Action, handle: int, entry: PlanEntry, local: Any | None, changes: Mapping[str, FieldChange]
    ) -> None:
        refused = self._check.refused(entry, local, changes) if self._check is not None else None
        if refused is not None:
            raise refused
        work = Work(entry.external_id, entry.item, local)
        if self._driver.records_history:
            self._notes[work.external_id] = Note.of(self._driver, action, work, changes, entry)
        self._works[action].append((handle, work))

    def _record_recovered(self, entry: PlanEntry) -> None:
        written = recovered(entry) if self._uncertain and self._driver.records_history else None
        if written is not None:
            self._outcomes.written.append(written)

    def write(self) -> None:
        """Carries out creates, then updates, then deletes; then, in the order that they need, what others were before.

        A record may refer to one that comes later, or take over a unique value that another one still has.
        """
        rivals = self._later_rivals()
        refused = [each for action, works in self._works.items() for each in self._write(action, works)] + rivals
        while refused:
            still: list[_Refused] = []
            for unit in self._driver.units([each.work for each in refused]):
                by_action = groupby((refused[place] for place in unit), key=lambda each: each.action)
                for action, works in by_action:
                    still += self._write(action, [(each.handle, each.work) for each in works])
            is_stuck, refused = len(still) == len(refused), still
            if is_stuck:
                break
        for each in () if self._holds else refused:
            self._outcomes.fail_entry(each.handle, self._entries[each.handle], each.error)
        self._judge_suspected()

    def _later_rivals(self) -> list[_Refused]:
        """Takes out what wants a unique value that an earlier item wants, whatever is to be done with either."""
        works = {handle: (work, action) for action in _OF_ITEMS for handle, work in self._works[action]}
        handles = sorted(works)
        later = [handles[place] for place in sorted(self._driver.later_rivals([works[each][0] for each in handles]))]
        if taken_out := set(later):
            for action in _OF_ITEMS:
                self._works[action] = [each for each in self._works[action] if each[0] not in taken_out]
        return [_Refused(handle, *works[handle], _NOT_TRIED) for handle in later]

    def _judge_suspected(self) -> None:
        """Decides by the other records whether it is these that are at fault, or the target."""
        others = self._driver.others
        for each, found in self._suspected:
            others.note_failed(each.action.value, each.work.external_id, found)
        for each, found in self._suspected:
            verdict = others.verdict(each.action.value, found, is_last=not self._holds)
            entry = self._entries[each.handle]
            if verdict is Verdict.RECORD:
                self._outcomes.fail_entry(each.handle, entry, each.error)
            elif verdict is Verdict.TARGET:
                ended = ended_by(self._rules.job.name, found, each.error)
                self._outcomes.fail_in_vain(each.handle, entry, each.error, ended)

    def _write(self, action: Action, works: Sequence[tuple[int, Work]]) -> list[_Refused]:
        """Writes, and returns what was refused and may come right."""
        answers: dict[str, Answer] = {}
        refused: list[_Refused] = []
        try:
            self._driver.write(action, [work for _, work in works], answers)
        finally:  # what broke off half-way has written the first half
            for handle, work in works:
                answer = answers.pop(work.external_id, None)  # kept, each error would hold on to itself and its frames
                if answer is None:
                    continue
                if answer.error is not None:
                    found = suspected(answer.error)
                    if found is not None:
                        self._suspected.append((_Refused(handle, work, action, answer.error), found))
                    elif self._driver.may_come_right(answer.error):
                        refused.append(_Refused(handle, work, action, answer.error))
                    else:
                        self._outcomes.fail_entry(handle, self._entries[handle], answer.error)
                    continue
                self._outcomes.keep(handle, _WRITTEN[action])
                if work.external_id in self._notes:
                    note = self._notes.pop(work.external_id)
                    self._outcomes.written.append(note.written(self._driver, _WRITTEN[action]))
        return refused
