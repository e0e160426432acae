"""Decides which changes are to be written, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Final

from sync_pipelines.engine.blanks import BlankTally
from sync_pipelines.engine.plan import Action, FieldChange, Outcome, PlanEntry
from sync_pipelines.engine.results import Counts, Duplicate, SyncError
from sync_pipelines.engine.versions import Version, newer_of
from sync_pipelines.runner.calls.backoff import call_again
from sync_pipelines.runner.calls.target_driver import TargetDriver
from sync_pipelines.runner.decide.outcomes import Outcomes
from sync_pipelines.runner.decide.rules import RunRules
from sync_pipelines.runner.decide.stale_check import Standing, Watermark
from sync_pipelines.runner.plans.plan_file import readable_fields


class _Gone(Enum):
    DELETE = "delete"


DELETE: Final = _Gone.DELETE
"""Stands in place of the item of a record that is to be deleted."""


@dataclass(frozen=True, slots=True)
class Change:
    """Describes one item as its record is to be.

    Args:
        handle: What the caller knows it by, such as its place in a fetch or among deliveries.
        external_id: Canonical external id.
        item: The item, or `DELETE`.
        version: The item's, if it has been read already; of a delete its own, None if it has none.
        seen_at: Since when that state is known, where it matters.
        newest: Of a delete, the newest version that is known of the item; by default the delete's own.
    """

    handle: int
    external_id: str
    item: Any
    version: Version | None = None
    seen_at: datetime | None = None
    newest: Version | None = None


@dataclass
class Decided:
    """Holds what has been decided on changes.

    Args:
        writes: Handle -> what is to be written.
        stale: Handles of those of the skipped that are older than their local records.
        same_version: Handles of those to be written whose local record has the very same version.
        blanks: What the writes would set to null or empty, of a run whose limits count that.
        tombstones: Canonical id -> watermark of a record that is to be gone: nothing that is older brings it back.
    """

    writes: dict[int, PlanEntry] = field(default_factory=dict)
    outcomes: Outcomes = field(default_factory=Outcomes)
    duplicates: list[Duplicate] = field(default_factory=list)
    stale: set[int] = field(default_factory=set)
    same_version: set[int] = field(default_factory=set)
    blanks: BlankTally = field(default_factory=BlankTally)
    tombstones: dict[str, Version] = field(default_factory=dict)

    @property
    def entries(self) -> list[PlanEntry]:
        """Returns what is to be written."""
        return list(self.writes.values())

    @property
    def failed(self) -> list[SyncError]:
        """Returns the errors, in the order of the fetch."""
        return self.outcomes.all_errors()

    def counts(self) -> Counts:
        """Counts the outcomes that need no write."""
        return self.outcomes.counts()


def decide_changes(rules: RunRules, changes: Sequence[Change], decided: Decided) -> None:
    """Decides what is to be done for changes, each of another external id, and adds it to `decided`."""
    changes = _without_skipped(rules, changes, decided.outcomes)
    ids = [each.external_id for each in changes]
    if not ids:
        return
    found, broken = rules.driver.find(ids)
    watermarks = rules.stale_check.watermarks(found, ids) if rules.stale_check is not None else {}
    unchanged: dict[str, Any] = {}
    for change in changes:
        with decided.outcomes.one_item(change.handle, change.external_id):
            if _is_stale(rules, change, watermarks, decided):
                decided.stale.add(change.handle)
                decided.outcomes.keep(change.handle, Outcome.SKIPPED)
            elif change.external_id in broken:
                decided.outcomes.fail(change.handle, change.external_id, broken[change.external_id])
            elif not _is_to_be_written(rules, change, found.get(change.external_id), decided):
                decided.outcomes.keep(change.handle, Outcome.UNCHANGED)
                unchanged[change.external_id] = change.item
    if rules.stale_check is not None:
        _add_tombstones(changes, watermarks, decided)
        rules.stale_check.keep({key: item for key, item in unchanged.items() if item is not DELETE})


def _without_skipped(rules: RunRules, changes: Sequence[Change], outcomes: Outcomes) -> Sequence[Change]:
    """Leaves out what the job leaves alone."""
    should_skip = rules.job.should_skip
    if should_skip is None:
        return changes
    left: list[Change] = []
    for change in changes:
        with outcomes.one_item(change.handle, change.external_id):
            if change.item is not DELETE and call_again(should_skip, change.item, what="should_skip"):
                outcomes.keep(change.handle, Outcome.SKIPPED)
            else:
                left.append(change)
    return left


def _is_stale(rules: RunRules, change: Change, watermarks: Mapping[str, Watermark], decided: Decided) -> bool:
    """True if the item, or a delete with a version, is older than the local record."""
    if rules.stale_check is None or (change.item is DELETE and change.version is None):
        return False
    version = change.version or rules.stale_check.version_of(change.item)
    standing = rules.stale_check.standing(version, watermarks.get(change.external_id))
    if standing is Standing.SAME:
        decided.same_version.add(change.handle)
    return standing is Standing.OLDER


def _is_to_be_written(rules: RunRules, change: Change, local: Any | None, decided: Decided) -> bool:
    action, differing = action_needed(rules.driver, change.item, local)
    if local is not None and change.item is not DELETE and rules.limits is not None and rules.limits.counts_blanks:
        _note_blanks(rules.driver, local, differing, decided.blanks)
    if action is None:
        return False
    item = None if change.item is DELETE else change.item
    decided.writes[change.handle] = PlanEntry(action, change.external_id, change.handle, item, differing, local=local)
    return True


def _note_blanks(driver: TargetDriver, local: Any, differing: Mapping[str, FieldChange], blanks: BlankTally) -> None:
    """Counts what an update would blank of a record, for a target that names the fields it changes."""
    if not driver.names_changes:
        return
    with suppress(Exception):  # whatever a local record raises, the item can be written
        mark = driver.delete_changes(local) if driver.is_marked(local) else ()
        blanks.note(readable_fields(driver, local), differing, mark)


def _add_tombstones(changes: Sequence[Change], watermarks: Mapping[str, Watermark], decided: Decided) -> None:
    for change in changes:
        if change.item is DELETE and change.handle not in decided.stale:
            watermark = watermarks.get(change.external_id)
            newest = newer_of(watermark.newest if watermark is not None else None, change.newest or change.version)
            if newest is not None:
                decided.tombstones[change.external_id] = newest


def action_needed(
    driver: TargetDriver, item: Any, local: Any | None
) -> tuple[Action | None, Mapping[str, FieldChange]]:
    """Returns what brings a local record up to an item: None if nothing, and the fields that the target names.

    Nothing else decides that; but where a database compares, `targets.staging.diff_sql.Planner.compare` does.

    Args:
        item: The item, or `DELETE`.
        local: The local record, None if there is none.
    """
    if item is DELETE:
        is_there = local is not None and not driver.is_marked(local)
        return (Action.DELETE if is_there else None), {}
    comparison = driver.compare(item, local)
    if not comparison.changed:
        return None, {}
    return (Action.CREATE if local is None else Action.UPDATE), comparison.changes
