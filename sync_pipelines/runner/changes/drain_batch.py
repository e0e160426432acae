"""One batch of deliveries: what each says, one change per item, written and settled together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import Connection

from sync_pipelines.database.history import Written
from sync_pipelines.engine.changes import Delete, Ignore, Refetch, Upsert
from sync_pipelines.engine.plan import Action, Outcome, PlanEntry
from sync_pipelines.engine.results import Counts, SyncError
from sync_pipelines.engine.versions import Version, newer_of
from sync_pipelines.errors import AccountsError, FetchError
from sync_pipelines.runner.changes.coalesce import Choice, Incoming, choose
from sync_pipelines.runner.decide.page_diff import NoDuplicates, PageDiff, diff_page
from sync_pipelines.runner.decide.rules import RunRules
from sync_pipelines.runner.decide.stale_check import Known
from sync_pipelines.runner.fetch.refetch import no_fetch_one, refetch
from sync_pipelines.runner.write.batch_writer import ChunkResult, apply_chunk
from sync_pipelines.snapshots.snapshot import SnapshotRow


@dataclass
class BatchResult:
    """What became of the deliveries of a batch, by their place in it.

    Args:
        incoming: The deliveries as they were read.
        outcomes: Those that are settled without an error.
        errors: Those that failed.
        in_vain: Those of them that failed because the source does not answer.
        written: What was written, for the history of the records.
    """

    incoming: Sequence[Incoming]
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    errors: dict[int, SyncError] = field(default_factory=dict)
    in_vain: set[int] = field(default_factory=set)
    written: Sequence[Written] = ()

    def fail(self, position: int, external_id: str | None, error: Exception) -> None:
        """Keeps the error of a delivery."""
        self.errors[position] = SyncError.of(error, external_id, position)

    def counts(self) -> Counts:
        """All outcomes. A delete that failed counts as an item that failed: it is a delivery."""
        return Counts.of(self.outcomes.values()) + Counts(failed=len(self.errors))

    @property
    def is_complete(self) -> bool:
        """True if every delivery has its outcome."""
        return len(self.outcomes) + len(self.errors) == len(self.incoming)


class DrainBatch:
    """Decides what a batch of deliveries asks for, and writes it.

    Args:
        rules: What decides about each item.
        incoming: Deliveries as they were read, in the order in which they came.
        unsure_until: What came until then may be older than what a full sync has applied meanwhile.
    """

    def __init__(
        self,
        rules: RunRules,
        incoming: Sequence[Incoming],
        unsure_until: datetime | None,
    ) -> None:
        self._rules = rules
        self._job, self._driver, self._stale_check = rules.job, rules.driver, rules.stale_check
        self._unsure_until = unsure_until
        self.result = BatchResult(incoming)
        self.written: BatchResult | None = None
        """What became of all deliveries in a transaction that was complete, but for the answer to its commit."""
        self.outage: FetchError | None = None
        """Set if the source does not answer; what it was not asked for is not in the result."""
        self._entries: list[PlanEntry] = []
        self._versions_of_deleted: dict[str, Version] = {}

    def decide(self) -> None:
        """Finds out what is to be written.

        Raises:
            TargetError: The target does not answer.
        """
        choices = self._choices()
        asked = {key: each for key, each in choices.items() if isinstance(each.change, Refetch)}
        choices = {key: each for key, each in choices.items() if key not in asked} | self._refetched(asked)
        page = self._diff(choices)
        if self._stale_check is not None and self._job.fetch_one is not None:
            doubtful = self._of_equal_version(page, {key: choices[key] for key in choices.keys() - asked.keys()})
            if doubtful:
                fetched = self._refetched({key: choices[key].asked_for() for key in doubtful})
                page.entries = [each for each in page.entries if each.external_id not in doubtful]
                choices |= fetched
                self._take(self._diff(fetched))
        self._take(page)
        deletes = {key: each for key, each in choices.items() if isinstance(each.change, Delete)}
        self._decide_deletes(deletes | self._passed_over(page, choices))

    def _passed_over(self, page: PageDiff, choices: Mapping[str, Choice]) -> dict[str, Choice]:
        """The deletes after which nothing came but items that are older than the record that they delete."""
        found: dict[str, Choice] = {}
        for each in page.stale:
            choice = choices[each.external_id]
            gone = choice.passed_over_delete
            if gone is not None and gone.change is not None:
                del self.result.outcomes[gone.position]
                found[each.external_id] = Choice(gone, gone.change)
        return found

    def _choices(self) -> dict[str, Choice]:
        """One change per item; what can't be read has failed, what is made up for by another is settled."""
        groups: dict[str, list[Incoming]] = {}
        for each in self.result.incoming:
            if each.error is not None:
                self.result.fail(each.position, each.external_id, each.error)
            elif isinstance(each.change, Ignore):
                self.result.outcomes[each.position] = Outcome.SKIPPED
            elif each.is_overtaken and self._job.fetch_one is None:
                self.result.outcomes[each.position] = Outcome.DUPLICATE
            elif isinstance(each.change, Refetch) and self._job.fetch_one is None:
                self.result.fail(each.position, each.external_id, no_fetch_one(self._job))
            else:
                groups.setdefault(each.external_id or "", []).append(each)
        can_refetch = self._job.fetch_one is not None
        choices = {
            key: choose(group, can_refetch=can_refetch, unsure_until=self._unsure_until)
            for key, group in groups.items()
        }
        for choice in choices.values():
            for loser in choice.losers:
                self.result.outcomes[loser.position] = Outcome.DUPLICATE
        return choices

    def _refetched(self, asked: Mapping[str, Choice]) -> dict[str, Choice]:
        """What the source says of these items: an upsert, or a delete of one that is gone. Errors are kept."""
        ids = {key: each.change.external_id for key, each in asked.items() if isinstance(each.change, Refetch)}
        found = refetch(self._job, self._driver, list(dict.fromkeys(ids.values())))
        self.outage = self.outage or found.outage
        fetched: dict[str, Choice] = {}
        for key, choice in asked.items():
            answer = found.answers.get(ids[key])
            if answer is None:
                self._leave(choice)
                continue
            fetched[key] = choice
            if answer.error is not None:
                self.result.fail(choice.winner.position, key, answer.error)
                if answer.error is found.outage:
                    self.result.in_vain.add(choice.winner.position)
            else:
                gone = answer.value is None
                fetched[key] = replace(choice, change=Delete(ids[key]) if gone else Upsert(answer.value))
        return fetched

    def _leave(self, choice: Choice) -> None:
        """Leaves the deliveries for an item waiting, as if they were not in the batch."""
        positions = {choice.winner.position, *(each.position for each in choice.losers)}
        for each in positions & self.result.outcomes.keys():
            del self.result.outcomes[each]
        self.result.incoming = [each for each in self.result.incoming if each.position not in positions]

    def _diff(self, choices: Mapping[str, Choice]) -> PageDiff:
        rows = [
            SnapshotRow(each.winner.position, key, each.change.item)
            for key, each in choices.items()
            if isinstance(each.change, Upsert)
        ]
        return diff_page(self._rules, NoDuplicates(), rows)

    def _of_equal_version(self, page: PageDiff, choices: Mapping[str, Choice]) -> set[str]:
        """Items that differ from a local record of the very same version."""
        ids = [each.external_id for each in page.entries if each.action is Action.UPDATE]
        ids = [each for each in ids if each in choices]
        if not ids or self._stale_check is None:
            return set()
        found, _ = self._driver.find(ids)
        known = self._stale_check.known(found, ids)
        versions = {each: choices[each].winner.version for each in ids}
        return {
            each
            for each, version in versions.items()
            if version is not None and not self._stale_check.is_newer(version, known.get(each))
        }

    def _take(self, page: PageDiff) -> None:
        settled = {Outcome.SKIPPED: [*page.skipped, *page.stale], Outcome.UNCHANGED: page.unchanged}
        for outcome, candidates in settled.items():
            self.result.outcomes.update((each.position, outcome) for each in candidates)
        self.result.errors.update((error.position, error) for error in page.failed)
        self._entries += page.entries

    def _decide_deletes(self, choices: Mapping[str, Choice]) -> None:
        found, broken = self._driver.find(list(choices)) if choices else ({}, {})
        if self._stale_check is not None and choices:
            self._note_versions(self._stale_check.known(found, list(choices)), choices)
        for external_id, choice in choices.items():
            position = choice.winner.position
            if external_id in broken:
                self.result.fail(position, external_id, broken[external_id])
            elif external_id in found and not self._driver.is_marked(found[external_id]):
                self._entries.append(PlanEntry(Action.DELETE, external_id, position))
            else:
                self.result.outcomes[position] = Outcome.UNCHANGED

    def _note_versions(self, known: Mapping[str, Known], choices: Mapping[str, Choice]) -> None:
        """Keeps in mind what the deleted records had come to, which nothing that is older may bring back."""
        for external_id, choice in choices.items():
            before = known[external_id].newest if external_id in known else None
            newest = newer_of(before, choice.newest_version)
            if newest is not None:
                self._versions_of_deleted[external_id] = newest

    def write(self, connection: Connection | None) -> BatchResult:
        """Writes it. A drain that was killed between writing and settling finds its deliveries again: it looks first.

        Args:
            connection: In whose transaction versions are kept; None: each time in one of its own.

        Returns:
            What became of all deliveries; if writing breaks off, what is in `result` is known.

        Raises:
            TargetError: The target does not answer.
        """
        chunk = ChunkResult()
        rules = self._rules.within(connection)
        given = replace(self.result, outcomes=dict(self.result.outcomes), errors=dict(self.result.errors))
        try:
            if rules.stale_check is not None:
                rules.stale_check.keep_versions(self._versions_of_deleted)
            apply_chunk(rules, self._entries, verify=True, result=chunk)
        finally:
            _add_written(given, self._entries, chunk)
            given.written = chunk.written
            if connection is None:
                self.result = given
        if not given.is_complete:
            raise AccountsError(
                f"{self._job.name}: {len(given.incoming)} deliveries, {len(given.outcomes)} outcomes, "
                f"{len(given.errors)} errors"
            )
        return given


def _add_written(result: BatchResult, entries: Sequence[PlanEntry], chunk: ChunkResult) -> None:
    result.errors.update((error.position, error) for error in chunk.errors)
    for number in chunk.settled:
        position = entries[number].position
        if position not in result.errors:  # of a delete that found nothing any more there is no outcome
            result.outcomes[position] = chunk.outcomes.get(number, Outcome.UNCHANGED)
