"""What guards find suspicious, as pure decisions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipelines.engine.guards import NO_LIMITS, Found, Guards, judge
from sync_pipelines.engine.plan import Action, PlanCounts
from sync_pipelines.errors import ConfigurationError

DELETE, UPDATE = frozenset({Action.DELETE}), frozenset({Action.UPDATE})


def found(fetched: int = 100, **given: Any) -> Found:
    counts = PlanCounts(*(given.pop(name, 0) for name in ("create", "update", "delete")))
    return Found(fetched, counts, **given)


@pytest.mark.parametrize(
    ("guards", "diff", "withheld", "reason"),
    [
        (Guards(), found(delete=20, existing=100), frozenset(), None),
        (Guards(), found(delete=21, existing=100), DELETE, "21 of 100 local records would be deleted: 21%"),
        (Guards(), found(2, delete=10, existing=12), frozenset(), None),
        (Guards(few=0), found(2, delete=10, existing=12), DELETE, "10 of 12 local records would be deleted: 83.3%"),
        (Guards(max_delete_share=None), found(delete=99, existing=99), frozenset(), None),
        (Guards(max_delete_share=0, few=0), found(delete=1, existing=900), DELETE, "1 of 900"),
        (Guards(max_deletes=5), found(delete=6, existing=900), DELETE, "6 local records would be deleted"),
        (Guards(max_deletes=0), found(delete=1, existing=900), DELETE, "max_deletes is 0"),
        (Guards(), found(create=900, update=900), frozenset(), None),
        (Guards(max_update_share=0.5), found(update=51, unchanged=49), UPDATE, "51 of 100 local records"),
        (Guards(max_update_share=0.5), found(update=50, unchanged=50), frozenset(), None),
        (Guards(), found(49, delete=1, existing=50, last_fetched=[100]), DELETE, "the source gave 49 items"),
        (Guards(), found(50, delete=1, existing=50, last_fetched=[100]), frozenset(), None),
        (Guards(), found(49, last_fetched=[100, 100, 3]), frozenset(), "the last good fetches had 100: 51% fewer"),
        (Guards(), found(1, last_fetched=[11]), frozenset(), None),
        (Guards(), found(0, last_fetched=[1]), frozenset(), "the source gave no items at all"),
        (Guards(), found(0), frozenset(), None),
        (Guards(), found(0, delete=1, existing=1), DELETE, "the source gave no items at all"),
        (NO_LIMITS, found(0, delete=1, existing=1), DELETE, "the source gave no items at all"),
        (NO_LIMITS, found(1, delete=900, existing=901, last_fetched=[901]), frozenset(), None),
    ],
)
def test_what_goes_beyond_a_limit_is_withheld_with_the_reason(
    guards: Guards, diff: Found, withheld: frozenset[Action], reason: str | None
) -> None:
    verdict = judge(guards, diff)
    assert verdict.withheld == withheld
    assert bool(verdict) == (reason is not None)
    assert reason is None or any(reason in each for each in verdict.reasons), verdict.reasons


@given(
    st.integers(0, 300), st.integers(0, 300), st.integers(0, 300), st.integers(0, 300), st.lists(st.integers(1, 300))
)
def test_an_empty_fetch_never_deletes_and_no_limit_withholds_creates(
    fetched: int, update: int, delete: int, more: int, last: list[int]
) -> None:
    diff = found(fetched, create=5, update=update, delete=delete, existing=delete + more, last_fetched=last)
    for guards in (Guards(), NO_LIMITS, Guards(max_update_share=0.1, max_deletes=3)):
        verdict = judge(guards, diff)
        assert Action.CREATE not in verdict.withheld
        assert verdict or not verdict.withheld
        if not fetched and delete:
            assert Action.DELETE in verdict.withheld


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_delete_share": 20},
        {"max_delete_share": -0.1},
        {"max_update_share": True},
        {"max_shrink_share": float("nan")},
        {"max_delete_share": "0.2"},
        {"max_deletes": 1.5},
        {"max_deletes": -1},
        {"few": None},
        {"few": True},
    ],
)
def test_a_wrong_limit_is_named(wrong: dict[str, Any]) -> None:
    [(name, value)] = wrong.items()
    with pytest.raises(ConfigurationError) as raised:
        Guards(**wrong)
    assert f"Guards: {name}={value!r} must be" in str(raised.value)
