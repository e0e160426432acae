"""What a result says about itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync_pipelines.engine.plan import Outcome
from sync_pipelines.engine.results import Counts, Duplicate, SyncError, SyncResults

AT = datetime(2024, 5, 6, tzinfo=UTC)
NOTHING = SyncResults(name="erp-stock", run_id="1", started_at=AT, completed_at=AT, duration_ms=0)


def results(**fields: Any) -> SyncResults:
    return replace(NOTHING, **fields)


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({}, "clean"),
        ({"error_count": 1}, "partial"),
        ({"failure": "x"}, "failed"),
        ({"failure": "", "fetched": 1}, "failed"),
    ],
)
def test_the_outcome_tells_whether_items_or_the_run_failed(fields: dict[str, Any], outcome: str) -> None:
    assert results(**fields).outcome == outcome


def test_accounts_balance_if_every_item_has_one_outcome() -> None:
    whole = {"created": 1, "updated": 2, "unchanged": 3, "skipped": 4, "error_count": 5, "duplicate_count": 6}
    assert results(fetched=21, **whole).accounts_balance
    assert results(fetched=21, **{**whole, "error_count": 7}, failed_deletes=2, deleted=9).accounts_balance
    assert not results(fetched=20, **whole).accounts_balance
    assert not results(fetched=21, **{**whole, "error_count": 5}, failed_deletes=1).accounts_balance


def test_the_summary_is_one_line_with_what_happened() -> None:
    done = results(fetched=1_234, created=1_000, unchanged=200, error_count=34, duration_ms=1_540)
    assert done.summary() == ("erp-stock: partial: 1,234 fetched = 1,000 created, 200 unchanged, 34 failed in 1.5 s")
    assert results().summary() == "erp-stock: clean: 0 fetched in 0.0 s"
    assert results(failure="fetch: gone").summary().endswith("0.0 s: fetch: gone")
    assert "(7 of the unchanged were written by an attempt that broke off)" in results(recovered=7).summary()


def test_the_frame_lists_errors_and_duplicates_in_the_order_of_the_fetch() -> None:
    frame = results(
        errors=(SyncError("B", "no", "ValueError", 1), SyncError(None, "no id", "ItemError", 3)),
        duplicates=(Duplicate("A", 0, 2),),
    ).to_frame()
    assert list(frame.columns) == ["outcome", "external_id", "position", "message", "exception_type"]
    assert list(frame["position"]) == [0, 1, 3]
    assert list(frame["outcome"]) == ["duplicate", "failed", "failed"]
    assert list(frame["message"]) == ["replaced by item 2", "no", "no id"]
    assert list(results().to_frame().columns) == list(frame.columns)
    assert len(results().to_frame()) == 0


@settings(deadline=None)
@given(st.lists(st.sampled_from(list(Outcome))))
def test_counts_count_each_outcome_once(outcomes: list[Outcome]) -> None:
    counts = Counts.of(outcomes)
    assert sum(counts.to_dict().values()) == len(outcomes)
    assert counts.items() == len([each for each in outcomes if each is not Outcome.DELETED])
    assert counts + Counts() == counts
    assert (counts + counts).created == 2 * counts.created


def test_items_per_second_count_work_not_waiting() -> None:
    waiting = results(fetched=100, duration_ms=60_000, phase_ms={"fetch": 500, "apply": 500})
    assert waiting.items_per_s == 100
    assert results(fetched=5).items_per_s == 5


def test_a_result_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        NOTHING.created = 5  # type: ignore[misc]
