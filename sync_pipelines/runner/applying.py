"""Apply: one chunk of a plan onto the target, each entry with its own outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sync_pipelines.engine.plan import Action, Outcome, PlanEntry
from sync_pipelines.engine.redaction import exception_type, message_of
from sync_pipelines.engine.results import Counts, SyncError
from sync_pipelines.runner.target_driver import TargetDriver, Work

_WRITTEN = {Action.CREATE: Outcome.CREATED, Action.UPDATE: Outcome.UPDATED, Action.DELETE: Outcome.DELETED}


@dataclass
class ChunkResult:
    """What applying a chunk did. Counts are of what was written, not of what was planned."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    raised: dict[int, Exception] = field(default_factory=dict)
    errors: list[SyncError] = field(default_factory=list)
    gone: int = 0
    failed_deletes: int = 0
    recovered: int = 0

    def counts(self) -> Counts:
        """The outcomes, counted."""
        return Counts.of(self.outcomes.values()) + Counts(
            failed_deletes=self.failed_deletes, recovered=self.recovered
        )


def apply_chunk(driver: TargetDriver, entries: Sequence[PlanEntry], *, verify: bool) -> ChunkResult:
    """Writes a chunk: looks up what it needs, decides once more against what is there now, writes.

    Args:
        driver: The opened target.
        entries: A chunk of the plan.
        verify: True if an earlier attempt may have written some of it: then creates are looked up as well.

    Raises:
        TargetError: The target as a whole does not answer.
    """
    result = ChunkResult()
    wanted = [each.external_id for each in entries if verify or each.action is not Action.CREATE]
    found, broken = driver.find(wanted) if wanted else ({}, {})
    works: dict[Action, list[tuple[int, Work]]] = {action: [] for action in Action}
    for number, entry in enumerate(entries):
        if entry.external_id in broken:
            _fail(result, number, entry, broken[entry.external_id])
        else:
            _assign(driver, result, works, number, entry, found, verify=verify)
    write_works(driver, result, works, entries)
    return result


def _assign(  # noqa: PLR0913 - one entry and all that decides on it
    driver: TargetDriver,
    result: ChunkResult,
    works: dict[Action, list[tuple[int, Work]]],
    number: int,
    entry: PlanEntry,
    found: Mapping[str, Any],
    *,
    verify: bool,
) -> None:
    local = found.get(entry.external_id)
    if entry.action is Action.DELETE:
        if local is None:
            result.gone += 1
        else:
            works[Action.DELETE].append((number, Work(entry.external_id, None, local)))
        return
    if local is None:
        works[Action.CREATE].append((number, Work(entry.external_id, entry.item, None)))
        return
    try:
        changed = driver.compare(entry.item, local).changed
    except Exception as error:  # noqa: BLE001 - one bad item never stops the others
        _fail(result, number, entry, error)
        return
    if changed:
        works[Action.UPDATE].append((number, Work(entry.external_id, entry.item, local)))
    else:
        result.outcomes[number] = Outcome.UNCHANGED
        result.recovered += int(verify)


def write_works(
    driver: TargetDriver,
    result: ChunkResult,
    works: Mapping[Action, Sequence[tuple[int, Work]]],
    entries: Sequence[PlanEntry],
) -> None:
    """Carries out creates, then updates, then deletes, and notes each outcome in the result."""
    for action, numbered in works.items():
        errors = driver.write(action, [work for _, work in numbered])
        for (number, _), error in zip(numbered, errors, strict=True):
            if error is not None:
                _fail(result, number, entries[number], error)
            else:
                result.outcomes[number] = _WRITTEN[action]
    result.errors.sort(key=lambda error: error.position)


def _fail(result: ChunkResult, number: int, entry: PlanEntry, error: Exception) -> None:
    result.raised[number] = error
    result.errors.append(SyncError(entry.external_id, message_of(error), exception_type(error), entry.position))
    if entry.action is Action.DELETE:
        result.failed_deletes += 1
    else:
        result.outcomes[number] = Outcome.FAILED
