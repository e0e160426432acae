"""Which values are blank, and how many updates would blank a field that local records have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from sync_pipelines.engine.plan import FieldChange

_EMPTY_IF_WITHOUT = frozenset({str, bytes, list, tuple, dict, set, frozenset})


def is_blank(value: Any) -> bool:
    """Returns True for None and for what is empty: a text, a list, an object. Zero and False are values.

    Where a database compares, `targets.staging.blanks.is_blank` says the same.
    """
    return value is None or (type(value) in _EMPTY_IF_WITHOUT and not value)


@dataclass(frozen=True, slots=True)
class Blanking:
    """Says how many local records have a field, and of how many an update would leave nothing in it."""

    field: str
    records: int
    had: int


@dataclass
class BlankTally:
    """Counts, of the local records that items were compared with, who has a field and would lose its value.

    Args:
        had: Field -> records in which it is not blank.
        lost: Field -> those of them in which an update would blank it.
    """

    had: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)

    def note(
        self, local: Mapping[str, Any], changes: Mapping[str, FieldChange], not_items: Collection[str] = ()
    ) -> None:
        """Counts one local record.

        Args:
            local: Its fields.
            changes: What an update would change of it; empty if there is none.
            not_items: Fields that no item has a say in, such as the mark of deleted records.
        """
        self.had.update([name for name, value in local.items() if not is_blank(value)])
        for name, change in changes.items():
            if name not in not_items and is_blank(change.new) and not is_blank(change.old):
                self.lost[name] += 1

    def add(self, other: BlankTally) -> None:
        """Adds what another tally has counted."""
        self.had.update(other.had)
        self.lost.update(other.lost)

    def blankings(self) -> list[Blanking]:
        """Returns the fields that would be blanked, in the order of their names."""
        return [Blanking(name, self.lost[name], self.had[name]) for name in sorted(self.lost)]
