"""Holds failures as the ledger keeps them, and says which of them may be tried again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

OPEN = "open"
GIVEN_UP = "given up"
RESOLVED = "resolved"
UNRESOLVED = (OPEN, GIVEN_UP)
STATES = (OPEN, GIVEN_UP, RESOLVED)
UPSERT = "upsert"
DELETE = "delete"
VANISHED = "vanished"
"""What resolved a failure whose item the source no longer has."""


@dataclass(frozen=True, slots=True)
class FailureRow:
    """Holds one failed item as the ledger keeps it. Times are aware.

    Args:
        key: Distinguishes it from others of the job: its external id, or what an item without one is.
        external_id: The item's, canonical as far as it is known; None of an item without one that can be read.
        source_id: The same as the source writes it.
        action: `upsert`, or `delete` for a local record that could not be deleted.
        payload: The item in the engine's JSON; None if it could not be kept, and of a failure that is resolved.
        payload_hash: Tells whether the item has changed.
        seen_at: Since when the payload is known; None of one that may be older than what has come since.
        fingerprint: What failures of one cause have in common.
        template: The message without the values that change.
        attempts: How often it was tried since the item changed last.
        next_try_at: When a retry is due; None: with the next run.
        state: `open`, `given up` or `resolved`.
        resolved_by: The run in which it succeeded, `single item`, or `vanished`.
        trace: Through which functions of the user the error came.
    """

    job: str
    key: str
    external_id: str | None
    source_id: str | None
    action: str
    payload: str | None
    payload_hash: str | None
    seen_at: datetime | None
    exception_type: str
    message: str
    fingerprint: str
    template: str
    attempts: int
    first_failed_at: datetime
    last_failed_at: datetime
    next_try_at: datetime | None
    state: str
    last_run_id: str
    resolved_at: datetime | None = None
    resolved_by: str | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """Holds what is known of a failure before it fails again."""

    key: str
    action: str
    payload_hash: str | None
    seen_at: datetime | None
    attempts: int
    first_failed_at: datetime
    state: str
    last_run_id: str


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Holds what shows whether a run has resolved a failure."""

    key: str
    external_id: str | None
    source_id: str | None
    action: str

    def ids(self) -> set[str]:
        """Returns the item's id as it may stand in a fetch."""
        return {each for each in (self.external_id, self.source_id) if each is not None}


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Sums up failures of one cause.

    Args:
        sample_ids: The first external ids, five at most.
    """

    fingerprint: str
    exception_type: str
    template: str
    count: int
    given_up: int
    sample_ids: tuple[str, ...]
    first_failed_at: datetime
    last_failed_at: datetime


@dataclass(frozen=True, slots=True)
class FailureCount:
    """Counts open and given-up failures of a sync job, with the time of the last one."""

    job: str
    open: int
    given_up: int
    last_failed_at: datetime


@dataclass(frozen=True, slots=True)
class Retryable:
    """Says which failures a retry may take.

    Args:
        by_asking: True if the source can be asked for an item, so that no payload is needed.
        has_versions: True if an older payload can't overwrite a newer record.
        uncertain_since: Payloads from before that time may be older than the local records; None: none is.
        due_at: Only those that are due by then; None: whenever they are.
    """

    by_asking: bool
    has_versions: bool
    uncertain_since: datetime | None = None
    due_at: datetime | None = None
    states: tuple[str, ...] = (OPEN,)

    def is_newest(self, failure: FailureRow) -> bool:
        """True if the payload of a failure can't overwrite anything newer."""
        if self.has_versions:
            return True
        seen_at, uncertain_since = failure.seen_at, self.uncertain_since
        return seen_at is not None and (uncertain_since is None or seen_at >= uncertain_since)
