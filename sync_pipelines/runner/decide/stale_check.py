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
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.plan import Action, Outcome, PlanEntry
from sync_pipelines.engine.versions import Version, newer_of
from sync_pipelines.errors import ItemError
from sync_pipelines.runner.calls.target_driver import TargetDriver


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a local record's version.

    Args:
        noted: The version that the ledger has.
        held: The version that the record itself holds, which its column may have rounded.
    """

    noted: Version | None
    held: Version | None

    @property
    def newest(self) -> Version | None:
        """The newer one of the two."""
        return newer_of(self.noted, self.held)


class Standing(Enum):
    """How an item stands to its local record."""

    OLDER = "older"
    SAME = "same"
    NEWER = "newer"


class StaleCheck:
    """Knows the version of each local record: from the record itself if it holds it, and from the ledger.

    Args:
        job: A sync job with `get_version`.
        versions: Those of the ledger.
        driver: The opened target.
        connection: In whose transaction versions are kept; by default each time in one of its own.
    """

    def __init__(
        self, job: SyncJob[Any, Any], versions: Versions, driver: TargetDriver, connection: Connection | None = None
    ) -> None:
        self._job = job
        self._versions = versions
        self._driver = driver
        self._connection = connection

    def within(self, connection: Connection | None) -> StaleCheck:
        """The same, which keeps versions in that transaction."""
        return StaleCheck(self._job, self._versions, self._driver, connection)

    def version_of(self, item: Any) -> Version:
        """The item's version.

        Raises:
            ItemError: It is missing, or neither a number nor an aware moment.
        """
        return version_of(self._job, item)

    def known(self, found: Mapping[str, Any], external_ids: Sequence[str]) -> dict[str, Known]:
        """The versions of local records as far as they are known.

        Args:
            found: Those of the records that exist, by canonical id.
            external_ids: Of which records.
        """
        kept = self.noted(external_ids)
        known: dict[str, Known] = {}
        for external_id in external_ids:
            noted, held = kept.get(external_id), self._held(found.get(external_id))
            if noted is not None or held is not None:
                known[external_id] = Known(noted, held)
        return known

    def has_noted(self) -> bool:
        """True if the ledger has a version of any record."""
        return self._versions.has_any(self._job.name)

    def noted(self, external_ids: Sequence[str]) -> dict[str, Version]:
        """The versions that the ledger has of records, whether or not there are any."""
        kept = self._versions.known(self._job.name, external_ids)
        return {external_id: Version.from_text(text) for external_id, text in kept.items()}

    def _held(self, local: Any | None) -> Version | None:
        return _version_or_none(self._driver.local_version(local)) if local is not None else None

    def standing(self, version: Version, known: Known | None) -> Standing:
        """Says how an item of that version stands to its local record. Nothing else decides that an item is too old.

        Where a database compares, the ranks of `targets.staging.diff_sql` decide the same of what the record holds.
        """
        if known is None:
            return Standing.NEWER
        pairs = [(version, known.noted)]
        if known.held is not None:
            pairs.append((self._as_held(version), known.held))
        if any(of_item.is_older_than(of_record) for of_item, of_record in pairs):
            return Standing.OLDER
        if any(of_record is not None and of_record.is_older_than(of_item) for of_item, of_record in pairs):
            return Standing.NEWER
        return Standing.SAME

    def _as_held(self, version: Version) -> Version:
        """The version as a local record would hold it: a column may round it."""
        return _version_or_none(self._driver.stored_version(version.value)) or version

    def locked(self, external_id: str) -> AbstractContextManager[None]:
        """Keeps others who bring single items away from a record that is to be compared and then written."""
        return self._versions.locked(self._job.name, external_id)

    def is_stale(self, entry: PlanEntry, known: Mapping[str, Known]) -> bool:
        """True if the local record has become newer than the item since the diff."""
        if entry.action is Action.DELETE:
            return False
        return self.standing(self.version_of(entry.item), known.get(entry.external_id)) is Standing.OLDER

    def keep_written(self, entries: Mapping[int, PlanEntry], outcomes: Mapping[int, Outcome]) -> None:
        """Notes the versions of the items whose records have been brought up to them.

        Args:
            entries: Handle -> entry of a plan.
            outcomes: Handle -> what became of it.
        """
        good = {Outcome.CREATED, Outcome.UPDATED, Outcome.UNCHANGED}
        written = [entry for handle, entry in entries.items() if outcomes.get(handle) in good]
        self.keep({each.external_id: each.item for each in written if each.action is not Action.DELETE})

    def keep(self, items: Mapping[str, Any]) -> None:
        """Notes that local records are now what these items say.

        Args:
            items: Canonical id -> item.
        """
        versions: dict[str, Version] = {}
        for external_id, item in items.items():
            with suppress(Exception):  # it could be read before; that what is written can't be undone
                versions[external_id] = self.version_of(item)
        self.keep_versions(versions)

    def keep_versions(self, versions: Mapping[str, Version]) -> None:
        """Notes the versions of records, also of such as are deleted: an older item does not bring them back.

        Args:
            versions: Canonical id -> version.
        """
        texts = {external_id: version.text for external_id, version in versions.items()}
        self._versions.keep(self._job.name, texts, self._connection)


def version_of(job: SyncJob[Any, Any], item: Any) -> Version:
    """The item's version, for a job with `get_version`.

    Raises:
        ItemError: It is missing, or neither a number nor an aware moment.
    """
    return Version.of(resolve(job.read_version(item)))


def _version_or_none(given: Any) -> Version | None:
    try:
        return None if given is None else Version.of(given)
    except ItemError:  # somebody else has written something else there
        return None
