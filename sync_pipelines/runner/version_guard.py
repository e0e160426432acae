"""Keeps older items from overwriting newer records, for jobs that say which item is the newer one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from sync_pipelines.database.versions import Versions
from sync_pipelines.engine.calls import resolve
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.plan import Action, Outcome, PlanEntry
from sync_pipelines.engine.versions import Version, newer_of
from sync_pipelines.errors import ItemError
from sync_pipelines.runner.target_driver import TargetDriver


class VersionGuard:
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

    def within(self, connection: Connection | None) -> VersionGuard:
        """The same, which keeps versions in that transaction."""
        return VersionGuard(self._job, self._versions, self._driver, connection)

    def version_of(self, item: Any) -> Version:
        """The item's version.

        Raises:
            ItemError: It is missing, or neither a number nor an aware moment.
        """
        return version_of(self._job, item)

    def known(self, found: Mapping[str, Any], external_ids: Sequence[str]) -> dict[str, Version]:
        """The versions of local records as far as they are known.

        Args:
            found: Those of the records that exist, by canonical id.
            external_ids: Of which records.
        """
        kept = self._versions.known(self._job.name, external_ids)
        known: dict[str, Version] = {}
        for external_id in external_ids:
            ledgers = Version.from_text(kept[external_id]) if external_id in kept else None
            newest = newer_of(ledgers, self._local(found.get(external_id)))
            if newest is not None:
                known[external_id] = newest
        return known

    def _local(self, local: Any | None) -> Version | None:
        given = self._driver.local_version(local) if local is not None else None
        try:
            return None if given is None else Version.of(given)
        except ItemError:  # somebody else has written something else there
            return None

    def is_stale(self, entry: PlanEntry, known: Mapping[str, Version]) -> bool:
        """True if the local record has become newer than the item since the diff."""
        if entry.action is Action.DELETE:
            return False
        return self.version_of(entry.item).is_older_than(known.get(entry.external_id))

    def keep_written(self, entries: Sequence[PlanEntry], outcomes: Mapping[int, Outcome]) -> None:
        """Notes the versions of the items whose records have been brought up to them.

        Args:
            entries: Of a plan.
            outcomes: Place in them -> what became of it.
        """
        good = {Outcome.CREATED, Outcome.UPDATED, Outcome.UNCHANGED}
        written = [entries[number] for number, outcome in outcomes.items() if outcome in good]
        self.keep({each.external_id: each.item for each in written})

    def keep(self, items: Mapping[str, Any]) -> None:
        """Notes that local records are now what these items say.

        Args:
            items: Canonical id -> item.
        """
        self.keep_versions({external_id: self.version_of(item) for external_id, item in items.items()})

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


def guard_of(job: SyncJob[Any, Any], versions: Versions, driver: TargetDriver) -> VersionGuard | None:
    """The guard of a job; None for one without `get_version`."""
    return None if job.get_version is None else VersionGuard(job, versions, driver)
