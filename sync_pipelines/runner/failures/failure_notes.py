"""Notes items that failed, each in place of what was known of it: attempts, next try, given up."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from sync_pipelines.database.failure_rows import GIVEN_UP, OPEN, RESOLVED, UPSERT, FailureRow, Known
from sync_pipelines.database.failures import Failures, hash_of, key_of_id, key_without_id
from sync_pipelines.engine.causes import fingerprint, template_of
from sync_pipelines.engine.changes import ChangeEvent
from sync_pipelines.engine.codec import decode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.versions import Version, supersedes
from sync_pipelines.runner.decide.stale_check import version_of, version_of_change

SINGLE_ITEM = "single item"
"""What resolved a failure whose item came by itself and succeeded."""


@dataclass(frozen=True, slots=True)
class FailedItem:
    """Describes one item that failed in a run.

    Args:
        external_id: Its id, canonical as far as it is known; None if it has none that can be read.
        source_id: The id as the source writes it.
        action: `upsert` or `delete`.
        payload: The item in the engine's JSON, None if there is none.
        seen_at: Since when the payload is known; None if it may be older than what has come since.
        template: The message without its values, if that is known already.
        trace: Through which functions of the user the error came.
    """

    external_id: str | None
    exception_type: str
    message: str
    source_id: str | None = None
    action: str = UPSERT
    payload: str | None = None
    seen_at: datetime | None = None
    template: str | None = None
    trace: str | None = None

    @property
    def key(self) -> str:
        """Returns what distinguishes it from other failures of its job."""
        if self.external_id is not None:
            return key_of_id(self.external_id)
        return key_without_id(self.payload or f"{self.exception_type}\n{self.message}")


@dataclass(frozen=True, slots=True)
class Delivered:
    """Describes a single item that was delivered and succeeded."""

    external_id: str
    received_at: datetime
    version: Version | None = None


class FailureNotes:
    """Notes failures of one run. The same run may note them again: an attempt counts once."""

    def __init__(self, job: SyncJob[Any, Any], failures: Failures, run_id: str, now: datetime) -> None:
        self._job = job
        self._failures = failures
        self._run_id = run_id
        self._now = now

    def note(self, failed: Sequence[FailedItem], within: Connection | None = None) -> None:
        """Notes items that failed, all in one transaction.

        Args:
            failed: The items; of several with one id the last counts.
        """
        items = {each.key: each for each in failed}
        if not items:
            return
        with self._failures.transaction(within) as connection:
            known = self._failures.known(self._job.name, list(items), connection)
            self._failures.save([self._row(key, each, known.get(key)) for key, each in items.items()], connection)
            spelt = [key_of_id(each.source_id) for each in items.values() if each.source_id is not None]
            others = [key for key in spelt if key not in items]
            if others:  # before its id was known to convert, the same item was kept under the source's spelling
                self._failures.resolve(self._job.name, others, self._run_id, self._now, connection)

    def _row(self, key: str, failed: FailedItem, known: Known | None) -> FailureRow:
        if known is not None and known.state == RESOLVED:
            known = None
        failed, hashed = _with_what_is_kept(failed, known)
        attempts = attempts_after(failed, hashed, known, self._run_id)
        retry = self._job.retry
        is_given_up = retry is not None and failed.action == UPSERT and attempts >= retry.attempts
        template = failed.template or template_of(failed.exception_type, failed.message, failed.external_id)
        is_kept = known is not None and known.payload_hash == hashed
        return FailureRow(
            job=self._job.name,
            key=key,
            external_id=failed.external_id,
            source_id=failed.source_id,
            action=failed.action,
            payload=None if is_kept else failed.payload,
            payload_hash=None if is_kept else hashed,
            seen_at=failed.seen_at,
            exception_type=failed.exception_type,
            message=failed.message,
            fingerprint=fingerprint(failed.exception_type, template),
            template=template,
            attempts=attempts,
            first_failed_at=known.first_failed_at if known is not None else self._now,
            last_failed_at=self._now,
            next_try_at=retry.next_at(attempts, self._now) if retry and self._can_retry(failed, hashed) else None,
            state=GIVEN_UP if is_given_up else OPEN,
            last_run_id=self._run_id,
            trace=failed.trace or None,
        )

    def _can_retry(self, failed: FailedItem, hashed: str | None) -> bool:
        """True if the item can be tried again without a run that fetches it."""
        if failed.action != UPSERT:
            return False  # only a complete fetch can say that the record is still missing
        if self._job.fetch_one is not None and failed.external_id is not None:
            return True
        return hashed is not None and (failed.seen_at is not None or self._job.get_version is not None)


def _with_what_is_kept(failed: FailedItem, known: Known | None) -> tuple[FailedItem, str | None]:
    """Returns the item and the hash of its payload; without one of its own it keeps the one that is known."""
    if failed.payload is not None:
        return failed, hash_of(failed.payload)
    if known is None or known.action != failed.action:
        return failed, None
    return replace(failed, seen_at=known.seen_at), known.payload_hash


def attempts_after(failed: FailedItem, hashed: str | None, known: Known | None, run_id: str) -> int:
    """Counts how often the item has been tried since it changed last.

    Args:
        known: What was known of it before; None of one that did not fail, or has succeeded since.
    """
    if known is None or known.action != failed.action:
        return 1
    if known.last_run_id == run_id:
        return known.attempts
    has_changed = None not in (hashed, known.payload_hash) and hashed != known.payload_hash
    return 1 if has_changed else known.attempts + 1


def delivered_now(job: SyncJob[Any, Any], change: ChangeEvent, external_id: str, at: datetime) -> Delivered:
    """Returns a change that was applied at once."""
    return Delivered(external_id, at, version_of_change(job, change))


def resolve_delivered(
    job: SyncJob[Any, Any],
    failures: Failures,
    delivered: Sequence[Delivered],
    now: datetime,
    within: Connection | None = None,
) -> None:
    """Resolves failures whose items came by themselves, as a later state, and succeeded.

    Args:
        within: In whose transaction; by default in one of its own.
    """
    by_key = {key_of_id(each.external_id): each for each in delivered}
    if not by_key:
        return
    with failures.transaction(within) as connection:
        found = failures.of_keys(job.name, list(by_key), connection)
        resolved = [each.key for each in found if _is_resolved_by(job, each, by_key[each.key])]
        failures.resolve(job.name, resolved, SINGLE_ITEM, now, connection)


def _is_resolved_by(job: SyncJob[Any, Any], failure: FailureRow, delivered: Delivered) -> bool:
    """True if the state that succeeded supersedes the one that failed: by their versions, else by the time."""
    if delivered.version is not None and failure.payload is not None:
        with suppress(Exception):  # an item without a readable version: the time decides
            return supersedes(delivered.version, version_of(job, decode(failure.payload)))
    return failure.seen_at is None or delivered.received_at > failure.seen_at
