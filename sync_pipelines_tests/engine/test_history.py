"""Lines and blocks: what was written in bulk is found again, record by record."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipelines.engine import history
from sync_pipelines.engine.codec import encode
from sync_pipelines.engine.history import (
    HistoryBlock,
    blocks_of,
    bound_of,
    find_line,
    history_line,
    json_of_id,
    lines_of,
    read_changes,
    without,
)
from sync_pipelines.engine.plan import FieldChange, Outcome

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=150)


def line(external_id: str, changes: str = "{}") -> str:
    return history_line(json_of_id(external_id), Outcome.UPDATED, changes)


def packed(*external_ids: str) -> list[HistoryBlock]:
    return list(blocks_of(map(line, external_ids), "run", NOW))


def may_have(block: HistoryBlock, external_id: str) -> bool:
    return block.first <= bound_of(external_id) <= block.last


@given(st.sets(ids, max_size=40), ids)
def test_each_record_is_found_between_the_bounds_of_its_block(known: set[str], other: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "_BLOCK_CHARS", 300)
        patch.setattr(history, "_SORTED_CHARS", 1_500)
        blocks = packed(*known)
    for each in known | {other}:
        found = [block for block in blocks if may_have(block, each) and find_line(block.lines, each)]
        assert len(found) == (each in known)
    assert sum(block.count for block in blocks) == len(known)


def test_neighbours_lie_in_one_block_so_that_a_look_up_opens_few() -> None:
    names = [f"A-{number:06}" for number in range(20_000)]
    blocks = packed(*reversed(names))
    assert len(blocks) > 2
    assert [sum(may_have(block, each) for block in blocks) for each in names[::1_000]] == [1] * 20


def test_nothing_makes_no_block() -> None:
    assert packed() == []


def test_a_line_says_what_was_written_and_the_fields() -> None:
    changes = encode({"price": [Decimal("1.50"), None]})
    [block] = blocks_of([history_line('"A\\t1"', Outcome.DELETED, changes)], "run", NOW)
    assert find_line(block.lines, "A\t1") == (Outcome.DELETED, changes)
    assert find_line(block.lines, "A") is None
    assert read_changes(changes) == {"price": FieldChange(Decimal("1.50"), None)}


def test_lines_can_be_taken_out_of_a_block() -> None:
    [block] = packed("A", "B", "C")
    [left] = without(block, {'"A"', '"C"'})
    assert (left.count, [each.partition("\t")[0] for each in lines_of(left.lines)]) == (2, ['"A"', '"C"'])
    assert list(without(block, set())) == []


def test_fields_that_were_not_kept_are_none() -> None:
    assert read_changes("") is None
    assert read_changes(None) is None


def test_a_value_that_can_not_be_read_back_stays_the_json_that_was_kept() -> None:
    """A class that is gone, a date beyond Python's: the other fields are shown all the same."""
    gone = {"$": "enum", "c": "nowhere.to:be_found", "v": "X"}
    late = {"$": "date", "v": "12026-01-01"}
    kept = json.dumps({"a": [1, 2], "b": [gone, {"$": "decimal", "v": "1"}], "c": [None, late]})
    assert read_changes(kept) == {
        "a": FieldChange(1, 2),
        "b": FieldChange(gone, Decimal(1)),
        "c": FieldChange(None, late),
    }
