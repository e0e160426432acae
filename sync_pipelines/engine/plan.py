"""The result of a diff: what is to become of each item, with old and new field values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple


class Action(StrEnum):
    """What a plan wants done with one item or local record."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


class Outcome(StrEnum):
    """What became of one item. Every fetched item has exactly one (`DELETED` is of local records without an item)."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    FAILED = "failed"
    DUPLICATE = "duplicate"


SUCCEEDED = frozenset({Outcome.CREATED, Outcome.UPDATED, Outcome.DELETED, Outcome.UNCHANGED})
"""The outcomes after which the local record is what the item says."""


@dataclass(frozen=True, slots=True)
class PlanCounts:
    """How many records a plan wants created, updated and deleted. None of them is written yet."""

    create: int = 0
    update: int = 0
    delete: int = 0

    @property
    def writes(self) -> int:
        """How many records are written."""
        return self.create + self.update + self.delete

    def __add__(self, other: PlanCounts) -> PlanCounts:
        return PlanCounts(self.create + other.create, self.update + other.update, self.delete + other.delete)

    def to_dict(self) -> dict[str, int]:
        """Returns the counts by name."""
        return {action.value: getattr(self, action.value) for action in Action}


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field of a local record, before and after. `old` is None for a create."""

    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class PlanEntry:
    """One line of a plan.

    Args:
        action: What to do.
        external_id: Canonical external id, as the target's key gives it back.
        position: Place of the item in the fetch, starting at 0; -1 for a delete, which has no item.
        item: The item to write, None for a delete.
        changes: Field -> old and new value, as far as the target names its fields. `new` is None for a delete.
        before: The fields of the local record when the plan was made, where the target does not name its changes;
            None if they are not known.
        local: The local record as the diff found it, for as long as the diff works on it.
        kept_changes: The changes as the plan file has them, where they are not read out of it.
    """

    action: Action
    external_id: str
    position: int = -1
    item: Any = None
    changes: Mapping[str, FieldChange] = field(default_factory=dict)
    before: Mapping[str, Any] | None = None
    local: Any = None
    kept_changes: str | None = None


class EntryRow(NamedTuple):
    """One line of a plan as its file has it, with values as the engine's JSON.

    `changes` is None of an update that somebody else's write has overtaken since the comparison: its item is to be
    looked at again before it is a line of the plan.
    """

    position: int
    action: str
    external_id: str
    changes: str | None
    before: str | None = None
