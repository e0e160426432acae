"""Notices columns that run after run writes anew on the same records, because something sets them back meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from hashlib import sha256
from heapq import nsmallest
from typing import Any

from sync_pipelines.engine.codec import encodable, encode
from sync_pipelines.engine.plan import Action, PlanEntry

RUNS = 3
"""From so many runs that write the same it is told."""
LOOK_BACK = 20
SAMPLE = 20
_FEW = 10
_NAMED = 3
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
            counts: Column -> on how many records it is changed; none where that is not counted.
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

    def are_suspicious(self, matched: int, updates: int) -> bool:
        """True if nearly all records are updated that there is an item for, so that the columns are worth counting.

        Args:
            matched: How many there are.
            updates: How many of them are updated.
        """
        return _is_nearly_all(updates, matched)

    def found(
        self, matched: int, earlier: Sequence[Mapping[str, Any]], failed: Callable[[Sequence[str]], Collection[str]]
    ) -> dict[str, Any]:
        """Returns of each column some records that it is written on, and those that it was written on again and again.

        Args:
            matched: How many records there are that there is an item for.
            earlier: What this gave in the runs before, newest first.
            failed: Gives those of some external ids whose last write has failed: nothing has set back what never was.
        """
        columns: dict[str, Any] = {}
        for name, values in self._samples.items():
            sample = {each: values[each] for each in nsmallest(SAMPLE, values)}
            runs = {each: 1 + _runs_before(name, each, value, earlier) for each, value in sample.items()}
            again = sorted(each for each, number in runs.items() if number >= RUNS)
            again = sorted(set(again).difference(failed(again))) if again else again
            columns[name] = {
                "count": self._counts.get(name, 0),
                "sample": sample,
                "runs": max((runs[each] for each in again), default=1),
                "again": again,
            }
        is_whole = self.updates <= SAMPLE
        return {"matched": matched, "columns": columns, "is_whole": is_whole} if columns else {}


def _is_nearly_all(count: int, matched: int) -> bool:
    return count >= _FEW and count >= _NEARLY_ALL * matched


def _runs_before(name: str, external_id: str, value: str, earlier: Sequence[Mapping[str, Any]]) -> int:
    """Counts the runs before that wrote this value to a column of a record, and no other one meanwhile.

    A run that wrote nothing there is passed over, if all that it wrote is known.
    """
    runs = 0
    for each in earlier:
        sample = each.get("columns", {}).get(name, {}).get("sample", {})
        if sample.get(external_id) == value:
            runs += 1
        elif external_id in sample or not each.get("is_whole", not each):
            break
    return runs


def set_back_notes(found: Mapping[str, Any]) -> list[str]:
    """Says which columns are set back, of what `WrittenColumns.found` gave."""
    told: list[str] = []
    for name, each in found.get("columns", {}).items():
        again = each.get("again", list(each["sample"]))  # earlier versions kept only what is written on nearly all
        if each["runs"] >= RUNS and again:
            told.append(f"{name} was written on {_records(found, each, again)} runs: something sets it back")
    return told


def _records(found: Mapping[str, Any], column: Mapping[str, Any], again: Sequence[str]) -> str:
    matched, count, sample, runs = found["matched"], column["count"], column["sample"], column["runs"]
    if _is_nearly_all(count, matched) and len(again) >= _SAME * len(sample):
        share = f"all of {matched:,}" if count == matched else f"{count:,} of {matched:,}"
        return f"{share} records in each of {runs}"
    more = "" if len(again) <= _NAMED else " and others"
    least = "" if found.get("is_whole") else "at least "
    number = f"{least}{len(again)} record{'s' if len(again) > 1 else ''}"
    return f"{number} ({', '.join(again[:_NAMED])}{more}), with the same value each time, in {runs}"
