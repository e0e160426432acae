"""Keeps older items from overwriting newer records, for jobs that say which item is the newer one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sqlalchemy import Connection

from sync_pipelines.database.versions import Versions
from sync_pipelines.engine.calls import resolve
from sync_pipelines.engine.changes import ChangeEvent, Delete, Upsert
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.places import note_place
from sync_pipelines.engine.plan import Action, Outcome, PlanEntry
from sync_pipelines.engine.stored_changes import version_of_delete
from sync_pipelines.engine.versions import Version, newer_of
from sync_pipelines.errors import ItemError
from sync_pipelines.runner.calls.backoff import call_again
from sync_pipelines.runner.calls.target_driver import TargetDriver


@dataclass(frozen=True, slots=True)
class Watermark:
    """Says how new a local record is, as far as it is known: an item below that is too old.

    Args:
        in_record: The version that the record itself holds, which its column may have rounded.
    """

    in_ledger: Version | None
    in_record: Version | None

    @property
    def newest(self) -> Version | None:
        """Returns the newer one of the two."""
        return newer_of(self.in_ledger, self.in_record)


class Standing(Enum):
    """Says how an item stands to its local record."""

    OLDER = "older"
    SAME = "same"
    NEWER = "newer"


class StaleCheck:
    """Knows the version of each local record: from the record itself if it holds it, and from the ledger.

    Args:
        job: A sync job with `get_version`.
        connection: In whose transaction watermarks are kept; by default each time in one of its own.
    """

    def __init__(
        self, job: SyncJob[Any, Any], versions: Versions, driver: TargetDriver, connection: Connection | None = None
    ) -> None:
        self._job = job
        self._versions = versions
        self._driver = driver
        self._connection = connection

    def within(self, connection: Connection | None) -> StaleCheck:
        """Returns the same, which keeps watermarks in that transaction."""
        return StaleCheck(self._job, self._versions, self._driver, connection)

    def version_of(self, item: Any) -> Version:
        """Returns the item's version."""
        version: Version = call_again(version_of, self._job, item)
        return version

    def watermarks(self, found: Mapping[str, Any], external_ids: Sequence[str]) -> dict[str, Watermark]:
        """Returns the watermarks of local records as far as they are known.

        Args:
            found: Those of the records that exist, by canonical id.
        """
        in_ledger = self.in_ledger(external_ids)
        watermarks: dict[str, Watermark] = {}
        for external_id in external_ids:
            watermark = Watermark(in_ledger.get(external_id), self._in_record(found.get(external_id)))
            if watermark.newest is not None:
                watermarks[external_id] = watermark
        return watermarks

    def has_any_in_ledger(self) -> bool:
        """True if the ledger has a version of any record."""
        return self._versions.has_any(self._job.name)

    def in_ledger(self, external_ids: Sequence[str]) -> dict[str, Version]:
        """Returns the versions that the ledger has of records, whether or not these are there."""
        kept = self._versions.known(self._job.name, external_ids)
        return {external_id: Version.from_text(text) for external_id, text in kept.items()}

    def _in_record(self, local: Any | None) -> Version | None:
        return _version_or_none(self._driver.local_version(local)) if local is not None else None

    def standing(self, version: Version, watermark: Watermark | None) -> Standing:
        """Says how an item of that version stands to its local record. Nothing else decides that an item is too old.

        Where a database compares, `targets.staging.diff_sql.Planner.compare` decides the same of what the record holds.
        """
        if watermark is None:
            return Standing.NEWER
        pairs = [(version, watermark.in_ledger)]
        if watermark.in_record is not None:
            pairs.append((self._as_stored(version), watermark.in_record))
        if any(of_item.is_older_than(of_record) for of_item, of_record in pairs):
            return Standing.OLDER
        if any(of_record is not None and of_record.is_older_than(of_item) for of_item, of_record in pairs):
            return Standing.NEWER
        return Standing.SAME

    def _as_stored(self, version: Version) -> Version:
        """Returns the version as a local record would hold it: a column may round it."""
        return _version_or_none(self._driver.stored_version(version.value)) or version

    def locked(self, external_id: str) -> AbstractContextManager[None]:
        """Keeps others who bring single items away from a record that is to be compared and then written."""
        return self._versions.locked(self._job.name, external_id)

    def is_stale(self, entry: PlanEntry, watermarks: Mapping[str, Watermark]) -> bool:
        """True if the local record has become newer than the item since the diff."""
        if entry.action is Action.DELETE:
            return False
        return self.standing(self.version_of(entry.item), watermarks.get(entry.external_id)) is Standing.OLDER

    def keep_written(self, entries: Mapping[int, PlanEntry], outcomes: Mapping[int, Outcome]) -> None:
        """Raises watermarks to the items whose records have been brought up to them, by handle."""
        good = {Outcome.CREATED, Outcome.UPDATED, Outcome.UNCHANGED}
        written = [entry for handle, entry in entries.items() if outcomes.get(handle) in good]
        self.keep({each.external_id: each.item for each in written if each.action is not Action.DELETE})

    def keep(self, items: Mapping[str, Any]) -> None:
        """Raises watermarks to the items that local records are now, by canonical id."""
        versions: dict[str, Version] = {}
        for external_id, item in items.items():
            with suppress(Exception):  # it could be read before; that what is written can't be undone
                versions[external_id] = self.version_of(item)
        self.keep_versions(versions)

    def keep_versions(self, versions: Mapping[str, Version]) -> None:
        """Keeps watermarks of records by canonical id, deleted ones too: an older item does not bring them back."""
        texts = {external_id: version.text for external_id, version in versions.items()}
        self._versions.keep(self._job.name, texts, self._connection)


def version_of(job: SyncJob[Any, Any], item: Any) -> Version:
    """Returns the item's version, for a job with `get_version`.

    Raises:
        ItemError: It is missing, or neither a number nor an aware moment.
    """
    try:
        version = resolve(job.read_version(item))
    except Exception as error:
        note_place(error, "get_version")
        raise
    return Version.of(version)


def version_of_change(job: SyncJob[Any, Any], change: ChangeEvent) -> Version | None:
    """Returns the version of the state that a change says; None of one without.

    Raises:
        ConfigurationError: A delete has a version, and the items of the job have none.
        ItemError: It is missing, or neither a number nor an aware moment.
    """
    if isinstance(change, Delete):
        return version_of_delete(job, change)
    if isinstance(change, Upsert) and job.get_version is not None:
        return version_of(job, change.item)
    return None


def _version_or_none(given: Any) -> Version | None:
    try:
        return None if given is None else Version.of(given)
    except ItemError:  # somebody else has written something else there
        return None
