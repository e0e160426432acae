"""What is set back run after run is told, and what the source itself changes is not."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from sync_pipelines.engine.set_back import RUNS, WrittenColumns, set_back_notes


def run(earlier: list[Mapping[str, Any]], written: Mapping[str, object], matched: int = 1_000) -> list[str]:
    """One run that writes these values to the column `price`; what it tells. It becomes the newest of `earlier`."""
    columns = WrittenColumns()
    new = {external_id: {"price": str(value)} for external_id, value in written.items()}
    columns.add_counts(len(new), {"price": len(new)}, new)
    found = columns.found(matched, earlier, lambda _: ())
    earlier.insert(0, found)
    return set_back_notes(found)


def test_one_record_of_a_thousand_is_told_from_the_third_run_on() -> None:
    earlier: list[Mapping[str, Any]] = []
    told = [run(earlier, {"A-1": 5}) for _ in range(4)]
    assert [bool(each) for each in told] == [number + 1 >= RUNS for number in range(4)]
    assert told[-1] == [
        "price was written on 1 record (A-1), with the same value each time, in 4 runs: something sets it back"
    ]


def test_a_value_that_comes_and_goes_is_not_told() -> None:
    """The source has one and the other by turns: also where some of the runs wrote too much to keep all of it."""
    earlier: list[Mapping[str, Any]] = []
    many = {f"Z-{number}": number for number in range(50)}
    for number in range(10):
        assert run(earlier, {"A-1": number % 2}) == []
    earlier.clear()
    for number in range(10):
        changing = {"A-1": 5} if number % 2 else dict.fromkeys(many, number)
        assert run(earlier, changing) == []


def test_what_a_run_before_wrote_nothing_of_may_still_be_set_back() -> None:
    earlier: list[Mapping[str, Any]] = []
    told = [run(earlier, {"A-1": 5} if number % 2 else {"B-1": 6}) for number in range(6)]
    assert told[:4] == [[], [], [], []]
    assert all(told[4:])


def test_a_part_is_told_among_more_that_the_source_changes() -> None:
    earlier: list[Mapping[str, Any]] = []
    chosen = random.Random(1)
    ids = [f"{number:04}" for number in range(1_000)]
    told: list[str] = []
    for number in range(6):
        changed = {each: f"{each}-{number}" for each in chosen.sample(ids, 100)}
        told = run(earlier, changed | dict.fromkeys(ids[::20], 7))
        assert (told == []) == (number + 1 < RUNS)
    assert told[0].startswith("price was written on at least ")
