"""One batch of failures that are tried again: what each item is now, diffed and written as in any run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sync_pipelines.database.failure_rows import FailureRow
from sync_pipelines.database.history import Written
from sync_pipelines.engine.calls import resolve
from sync_pipelines.engine.codec import decode, encode
from sync_pipelines.engine.external_ids import checked_external_id
from sync_pipelines.engine.plan import Outcome, PlanEntry
from sync_pipelines.engine.results import Counts, SyncError
from sync_pipelines.errors import AccountsError, FetchError
from sync_pipelines.runner.decide.page_diff import PageDiff, diff_page
from sync_pipelines.runner.decide.rules import RunRules
from sync_pipelines.runner.failures.failure_notes import FailedItem
from sync_pipelines.runner.fetch.refetch import refetch
from sync_pipelines.runner.write.batch_writer import ChunkResult, apply_chunk
from sync_pipelines.snapshots.snapshot import SnapshotRow

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Tried:
    """A failure that is tried again.

    Args:
        failure: As it was.
        item: The item.
        external_id: Its id as the item gives it, None if it has none that can be read.
        payload: The item in the engine's JSON.
        seen_at: Since when it is known.
    """

    failure: FailureRow
    item: Any
    external_id: str | None
    payload: str | None
    seen_at: datetime | None


class RetryBatch:
    """Tries failures again.

    Args:
        rules: What decides about each item.
        failures: Those to try.
        first: Place of the first one in the run.
        now: The time.
    """

    def __init__(self, rules: RunRules, failures: Sequence[FailureRow], first: int, now: datetime) -> None:
        self._rules = rules
        self._job, self._driver = rules.job, rules.driver
        self._now = now
        self._failures = dict(enumerate(failures, start=first))
        self._tried: dict[int, Tried] = {}
        self._entries: list[PlanEntry] = []
        self.outcomes: dict[int, Outcome] = {}
        self.errors: dict[int, SyncError] = {}
        self.vanished: set[int] = set()
        """Those that the source no longer has."""
        self.in_vain: set[int] = set()
        """Those that failed because the source does not answer."""
        self.written: Sequence[Written] = ()
        """What was written, for the history of the records."""
        self.outage: FetchError | None = None
        """Set if the source does not answer; what it was not asked for is left."""

    def decide(self) -> None:
        """Finds out what the items are now, and what is to be written.

        Raises:
            TargetError: The target does not answer.
        """
        self._ask()
        for position, failure in self._failures.items():
            if position not in self._tried and failure.payload is not None and not self._is_asked(failure):
                self._tried[position] = Tried(failure, None, None, failure.payload, failure.seen_at)
        rows = [row for position in sorted(self._tried) if (row := self._row(position)) is not None]
        self._take(diff_page(self._rules, self._last_places(rows), rows))

    def _is_asked(self, failure: FailureRow) -> bool:
        return self._job.fetch_one is not None and failure.external_id is not None

    def _ask(self) -> None:
        """Asks the source what the items are now, where it can be asked."""
        asked = {each: row for each, row in self._failures.items() if self._is_asked(row)}
        if not asked:
            return
        ids = {position: row.source_id or row.external_id or "" for position, row in asked.items()}
        found = refetch(self._job, self._driver, list(dict.fromkeys(ids.values())))
        self.outage = found.outage
        for position, failure in asked.items():
            answer = found.answers.get(ids[position])
            if answer is None:
                continue
            if answer.error is not None:
                self.errors[position] = SyncError.of(answer.error, failure.external_id, position)
                if answer.error is found.outage:
                    self.in_vain.add(position)
            elif answer.value is None:
                self.vanished.add(position)
            else:
                self._tried[position] = Tried(failure, answer.value, None, encode(answer.value), self._now)

    def _row(self, position: int) -> SnapshotRow | None:
        """The item as a snapshot would have it; None of one that fails already."""
        tried = self._tried[position]
        try:
            item = decode(tried.payload or "") if tried.item is None else tried.item
            external_id = checked_external_id(resolve(self._job.identify(item)))
        except Exception as error:  # noqa: BLE001 - one bad item never stops the others
            self.errors[position] = SyncError.of(error, tried.failure.external_id, position)
            return None
        self._tried[position] = replace(tried, item=item, external_id=external_id)
        return SnapshotRow(position, external_id, item)

    def _last_places(self, rows: Sequence[SnapshotRow]) -> _LastPlaces:
        """Of several failures of one item the one that is known since last counts."""
        last: dict[str, int] = {}
        for row in rows:
            canonical = self._driver.canonical_or_error(row.external_id)
            if isinstance(canonical, str):
                before = last.get(canonical)
                if before is None or self._seen_at(row.position) >= self._seen_at(before):
                    last[canonical] = row.position
        return _LastPlaces(last)

    def _seen_at(self, position: int) -> datetime:
        return self._tried[position].seen_at or _LONG_AGO

    def _take(self, page: PageDiff) -> None:
        settled = {Outcome.SKIPPED: [*page.skipped, *page.stale], Outcome.UNCHANGED: page.unchanged}
        for outcome, candidates in settled.items():
            self.outcomes.update((each.position, outcome) for each in candidates)
        self.outcomes.update((each.position, Outcome.DUPLICATE) for each in page.duplicates)
        self.errors.update((error.position, error) for error in page.failed)
        self._entries = page.entries

    def write(self) -> None:
        """Writes what is to be written; if that breaks off, what was done is known.

        Raises:
            TargetError: The target does not answer.
        """
        chunk = ChunkResult()
        try:
            apply_chunk(self._rules, self._entries, verify=True, result=chunk)
        finally:
            self.written = chunk.written
            self.errors.update((error.position, error) for error in chunk.errors)
            for number in chunk.settled:
                position = self._entries[number].position
                if position not in self.errors:
                    self.outcomes[position] = chunk.outcomes[number]
        if not self._is_complete():
            raise AccountsError(
                f"{self._job.name}: {len(self._failures)} failures tried again, {len(self.outcomes)} outcomes, "
                f"{len(self.errors)} errors, {len(self.vanished)} vanished"
            )

    @property
    def has_writes(self) -> bool:
        """True if something is to be written."""
        return bool(self._entries)

    def _is_complete(self) -> bool:
        tried = self._tried.keys() | self.errors.keys()
        return tried == self.outcomes.keys() | self.errors.keys() and not self.outcomes.keys() & self.errors.keys()

    def counts(self) -> Counts:
        """All outcomes. What has vanished is no item any more."""
        return Counts.of(self.outcomes.values()) + Counts(failed=len(self.errors))

    def failed(self) -> dict[str, FailedItem]:
        """What failed again, by the key that it was known by; without what was asked for in vain."""
        found: dict[str, FailedItem] = {}
        for position in sorted(self.errors.keys() - self.in_vain):
            failure, error, tried = self._failures[position], self.errors[position], self._tried.get(position)
            found[failure.key] = FailedItem(
                external_id=error.external_id if error.external_id is not None else failure.external_id,
                exception_type=error.exception_type,
                message=error.message,
                source_id=(tried.external_id if tried is not None else None) or failure.source_id,
                payload=tried.payload if tried is not None else failure.payload,
                seen_at=tried.seen_at if tried is not None else failure.seen_at,
            )
        return found

    def resolved_keys(self) -> list[str]:
        """The keys of what is over because its item went through."""
        return [self._failures[position].key for position in self.outcomes]

    def vanished_keys(self) -> list[str]:
        """The keys of what is over because the source no longer has its item."""
        return [self._failures[position].key for position in self.vanished]

    def left(self) -> Mapping[str, FailureRow]:
        """What was not tried, because something did not answer."""
        dealt_with = self.outcomes.keys() | self.errors.keys() | self.vanished
        return {row.key: row for position, row in self._failures.items() if position not in dealt_with}

    def in_vain_keys(self) -> list[str]:
        """The keys of what the source was asked for in vain."""
        return [self._failures[position].key for position in self.in_vain]


class _LastPlaces:
    """Says which of several items of one id counts."""

    def __init__(self, places: Mapping[str, int]) -> None:
        self._places = places

    def positions(self, ids: Sequence[str]) -> Mapping[str, int]:
        """The position that counts of each of these ids."""
        return {each: self._places[each] for each in ids if each in self._places}
