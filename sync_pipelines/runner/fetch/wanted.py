"""The ids that a run was asked for, in whatever spelling, and which of them have come."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sync_pipelines.runner.calls.id_spellings import record_keys
from sync_pipelines.runner.calls.target_driver import TargetDriver


class WantedIds:
    """Finds the items with certain ids among those that come.

    Args:
        given: The ids as a person or a program wrote them.
        driver: Says which ids mean the same record.
    """

    def __init__(self, given: Collection[str], driver: TargetDriver) -> None:
        self._driver = driver
        ids = sorted(given)
        self._ids_by_key: dict[str, list[str]] = {}
        for external_id, key in zip(ids, record_keys(driver, ids), strict=True):
            self._ids_by_key.setdefault(key, []).append(external_id)
        self._missing = set(self._ids_by_key)

    def places(self, external_ids: Sequence[str | None]) -> list[int]:
        """Returns the places of those that are wanted, and notes that they have come."""
        known = [place for place, external_id in enumerate(external_ids) if external_id is not None]
        keys = record_keys(self._driver, [external_ids[place] or "" for place in known])
        found = [(place, key) for place, key in zip(known, keys, strict=True) if key in self._ids_by_key]
        self._missing.difference_update(key for _, key in found)
        return [place for place, _ in found]

    @property
    def missing(self) -> list[str]:
        """The ids that have not come, as they were given."""
        return sorted(each for key in self._missing for each in self._ids_by_key[key])
