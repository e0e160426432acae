"""Retries one batch of failures: what each item is now becomes a change."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sync_pipelines.database.failure_rows import FailureRow
from sync_pipelines.engine.codec import encode
from sync_pipelines.engine.external_ids import external_id_of
from sync_pipelines.engine.plan import Outcome
from sync_pipelines.engine.stored_changes import stored_item
from sync_pipelines.engine.versions import Version, supersedes
from sync_pipelines.runner.changes.change_batch import AskedItem, ChangeBatch
from sync_pipelines.runner.decide.changes import Change
from sync_pipelines.runner.decide.rules import RunRules
from sync_pipelines.runner.decide.stale_check import version_of
from sync_pipelines.runner.failures.failure_notes import FailedItem

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class Tried:
    """Holds an item that is tried again.

    Args:
        payload: The item in the engine's JSON.
        external_id: Its id as the item gives it, None if it has none that can be read.
    """

    payload: str
    seen_at: datetime | None
    item: Any = None
    external_id: str | None = None


class RetryBatch(ChangeBatch):
    """Tries failures again. Handles are their places in the run.

    Args:
        first: Place of the first one in the run.
    """

    def __init__(self, rules: RunRules, failures: Sequence[FailureRow], first: int, now: datetime) -> None:
        super().__init__(rules)
        self._job, self._driver = rules.job, rules.driver
        self._now = now
        self._failures = dict(enumerate(failures, start=first))
        self._tried: dict[int, Tried] = {}
        self.vanished: set[int] = set()
        """Those that the source no longer has."""

    def decide_failures(self) -> None:
        """Finds out what the items are now, and what is to be written."""
        asked = {place: _asked_item(each) for place, each in self._failures.items() if self._can_be_asked(each)}
        items = self.ask(asked)
        self.vanished = {place for place, item in items.items() if item is None}
        for place, failure in self._failures.items():
            item = items.get(place)
            if item is not None:
                self._tried[place] = Tried(encode(item), self._now)
            elif place not in asked and failure.payload is not None:
                self._tried[place] = Tried(failure.payload, failure.seen_at)
        for place, tried in self._tried.items():
            with self.outcomes.one_item(place, self._failures[place].external_id):
                tried.item = items[place] if place in items else stored_item(tried.payload)
                tried.external_id = external_id_of(self._job, tried.item)
        self.decide(self._without_superseded(self._changes()))

    def _can_be_asked(self, failure: FailureRow) -> bool:
        return self._job.fetch_one is not None and failure.external_id is not None

    def _changes(self) -> list[Change]:
        """Returns the items that could be read, by canonical id; the others have failed."""
        read = {place: each for place, each in self._tried.items() if place not in self.outcomes.errors}
        self._driver.expect([each.external_id for each in read.values() if each.external_id is not None])
        changes: list[Change] = []
        for place, each in read.items():
            with self.outcomes.one_item(place, each.external_id):
                canonical = self._driver.canonical_id(each.external_id or "")
                changes.append(Change(place, canonical, each.item, self._version(each.item), each.seen_at))
        return changes

    def _version(self, item: Any) -> Version | None:
        """Returns the item's version; None if it has none that can be read: it fails when it is decided on."""
        with suppress(Exception):
            return version_of(self._job, item) if self._job.get_version is not None else None
        return None

    def _without_superseded(self, changes: Sequence[Change]) -> list[Change]:
        """Keeps of several failures of one item the one that supersedes the others; without versions the last."""
        kept: dict[str, Change] = {}
        for change in sorted(changes, key=lambda each: each.seen_at or _LONG_AGO):
            before = kept.get(change.external_id)
            if before is None or supersedes(change.version, before.version):
                kept[change.external_id] = change
        for change in changes:
            if kept[change.external_id] is not change:
                self.outcomes.keep(change.handle, Outcome.DUPLICATE)
        return [each for each in changes if kept[each.external_id] is each]

    def write_failures(self) -> None:
        """Writes what is to be written; if that breaks off, what was done is known. See `write`."""
        self.write(self._tried.keys() | self.outcomes.errors.keys())

    @property
    def has_writes(self) -> bool:
        """True if something is to be written."""
        return bool(self.decided.writes)

    def failed(self) -> dict[str, FailedItem]:
        """Returns what failed again, by the key that it was known by; without what got no answer."""
        found: dict[str, FailedItem] = {}
        for place in sorted(self.outcomes.errors.keys() - self.outcomes.in_vain):
            failure, error, tried = self._failures[place], self.outcomes.errors[place], self._tried.get(place)
            found[failure.key] = FailedItem(
                external_id=error.external_id if error.external_id is not None else failure.external_id,
                exception_type=error.exception_type,
                message=error.message,
                trace=error.trace,
                source_id=(tried.external_id if tried is not None else None) or failure.source_id,
                payload=tried.payload if tried is not None else failure.payload,
                seen_at=tried.seen_at if tried is not None else failure.seen_at,
            )
        return found

    def resolved_keys(self) -> list[str]:
        """Returns the keys of what is resolved because its item succeeded."""
        return [self._failures[place].key for place in self.outcomes.by_handle]

    def vanished_keys(self) -> list[str]:
        """Returns the keys of what is resolved because the source no longer has its item."""
        return [self._failures[place].key for place in self.vanished]

    def left(self) -> dict[str, FailureRow]:
        """Returns what was not tried, because something did not answer."""
        places = set(self.outcomes.missing(self._failures)) - self.vanished
        return {self._failures[place].key: self._failures[place] for place in places}

    def in_vain(self) -> list[FailureRow]:
        """Returns what something did not answer for."""
        return [self._failures[place] for place in self.outcomes.in_vain]


def _asked_item(failure: FailureRow) -> AskedItem:
    return AskedItem(failure.source_id or failure.external_id or "", failure.external_id)
