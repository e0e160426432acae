"""The loop that everybody writes first, whatever the database."""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

from benchmarks.task import Report
from benchmarks.work import KEY, Item, Work


class LocalRecords(Protocol):
    """What the loop calls."""

    def find_local(self, sku: str) -> tuple[Any, ...] | None:
        """The local record, None if there is none."""

    def has_changed(self, item: Item, local: tuple[Any, ...]) -> bool:
        """True if the local record is not as the item says."""

    def create(self, item: Item) -> None:
        """Makes a local record."""

    def update(self, item: Item, local: tuple[Any, ...]) -> None:
        """Changes a local record."""

    def list_local(self) -> list[str]:
        """The keys of all local records."""

    def delete(self, sku: str) -> None:
        """Removes a local record."""


def sync_one_by_one(records: LocalRecords, work: Work) -> Report:
    """Takes one item after the other; an item that fails stops no other."""
    counts: Counter[str] = Counter()
    errors: list[str] = []
    seen: set[str] = set()
    for page in work.pages():
        for item in page:
            seen.add(item[KEY])
            try:
                counts[_sync(records, item)] += 1
            except Exception as error:  # noqa: BLE001 - whatever an item raises, the others go on
                errors.append(str(error))
    if work.deletes:
        for sku in set(records.list_local()) - seen:
            records.delete(sku)
            counts["deleted"] += 1
    counts["failed"] = len(errors)
    return Report({"fetched": work.size, **counts}, tuple(errors))


def _sync(records: LocalRecords, item: Item) -> str:
    local = records.find_local(item[KEY])
    if local is None:
        records.create(item)
        return "created"
    if records.has_changed(item, local):
        records.update(item, local)
        return "updated"
    return "unchanged"
