"""Notices columns that every run writes anew on nearly all records, because something sets them back meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from heapq import nsmallest
from typing import Any

from sync_pipelines.engine.codec import encodable, encode
from sync_pipelines.engine.plan import Action, PlanEntry

RUNS = 3
"""From so many runs in a row it is told."""
LOOK_BACK = 20
SAMPLE = 20
_FEW = 10
_NEARLY_ALL = 0.9
_SAME = 0.5


class WrittenColumns:
    """Counts on how many records each column is changed, and keeps the new values of a few, in short.

    The few are those with the first ids, so that two runs have the same: if they write the same values, it is not that
    the source has new ones each time.
    """

    def __init__(self) -> None:
        self.updates = 0
        self._counts: dict[str, int] = {}
        self._samples: dict[str, dict[str, str]] = {}

    def add(self, entries: Iterable[PlanEntry]) -> None:
        """Adds the updates among some entries, as far as the target names what they change."""
        for entry in entries:
            if entry.action is Action.UPDATE and entry.changes:
                self.updates += 1
                new = {name: encode(encodable(change.new)) for name, change in entry.changes.items()}
                self.add_counts(0, dict.fromkeys(new, 1), {entry.external_id: new})

    def add_counts(self, updates: int, counts: Mapping[str, int], values: Mapping[str, Mapping[str, str]]) -> None:
        """Adds what somebody else has counted.

        Args:
            counts: Column -> on how many records it is changed.
            values: External id -> column -> new value as text, of a few records.
        """
        self.updates += updates
        for name, count in counts.items():
            self._counts[name] = self._counts.get(name, 0) + count
        for external_id, new in values.items():
            for name, value in new.items():
                self._samples.setdefault(name, {})[external_id] = sha256(value.encode()).hexdigest()[:8]
        for name, sample in self._samples.items():
            if len(sample) > 2 * SAMPLE:
                self._samples[name] = {each: sample[each] for each in nsmallest(SAMPLE, sample)}

    def are_suspicious(self, matched: int, updates: int | None = None) -> bool:
        """True if nearly all records are updated that there is an item for.

        Args:
            matched: How many there are.
            updates: How many of them are updated; by default as many as have been added.
        """
        return _is_nearly_all(self.updates if updates is None else updates, matched)

    def found(self, matched: int, earlier: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Returns the columns that are written on nearly all records, and in how many runs in a row that was so.

        Args:
            matched: How many records there are that there is an item for.
            earlier: What this gave in the runs before, newest first.
        """
        columns: dict[str, Any] = {}
        for name, count in self._counts.items():
            if _is_nearly_all(count, matched):
                sample = {each: self._samples[name][each] for each in nsmallest(SAMPLE, self._samples[name])}
                columns[name] = {"count": count, "sample": sample, "runs": 1 + _runs_before(name, sample, earlier)}
        return {"matched": matched, "columns": columns} if columns else {}


def _is_nearly_all(count: int, matched: int) -> bool:
    return count >= _FEW and count >= _NEARLY_ALL * matched


def _runs_before(name: str, sample: Mapping[str, str], earlier: Sequence[Mapping[str, Any]]) -> int:
    """Counts how many runs in a row wrote the same values of a column on the same records."""
    for number, run in enumerate(earlier):
        before = run.get("columns", {}).get(name, {}).get("sample", {})
        both = sample.keys() & before.keys()
        if not both or sum(sample[each] == before[each] for each in both) < _SAME * len(both):
            return number
        sample = before
    return len(earlier)


def set_back_notes(found: Mapping[str, Any]) -> list[str]:
    """Says which columns are set back, of what `WrittenColumns.found` gave."""
    matched, told = found.get("matched", 0), []
    for name, each in found.get("columns", {}).items():
        if each["runs"] >= RUNS:
            share = f"all of {matched:,}" if each["count"] == matched else f"{each['count']:,} of {matched:,}"
            told.append(f"{name} was written on {share} records in each of {each['runs']} runs: something sets it back")
    return told
