"""The one book of what became of changes: one outcome or one error each; deletes without an item count apart."""

from __future__ import annotations

import pytest

from sync_pipelines.engine.plan import Action, Outcome, PlanEntry
from sync_pipelines.engine.results import Counts
from sync_pipelines.errors import AccountsError
from sync_pipelines.runner.decide.outcomes import Outcomes

MISSING = PlanEntry(Action.DELETE, "gone")
"""A delete that a fetch asks for: no item says so."""
ASKED = PlanEntry(Action.DELETE, "gone", position=3)
"""A delete that a delivery asks for."""


def test_a_delete_of_a_missing_record_is_no_item() -> None:
    outcomes = Outcomes()
    outcomes.fail_entry(0, MISSING, ValueError("no"))
    outcomes.leave(1, MISSING)
    assert outcomes.counts() == Counts(failed_deletes=1)
    assert outcomes.errors[0].position == -1
    assert outcomes.is_complete([0, 1])


def test_a_delete_that_somebody_asked_for_is_an_item() -> None:
    outcomes = Outcomes()
    outcomes.fail_entry(3, ASKED, ValueError("no"))
    outcomes.leave(4, ASKED)
    assert outcomes.counts() == Counts(failed=1, unchanged=1)


def test_errors_come_in_the_order_of_the_fetch() -> None:
    outcomes = Outcomes()
    for place in (2, 0, 1):
        with outcomes.one_item(place, str(place)):
            raise ValueError(place)
    assert [each.position for each in outcomes.all_errors()] == [0, 1, 2]


def test_a_book_of_one_item_raises_its_error_as_it_is() -> None:
    error = ValueError("no")
    outcomes = Outcomes(raises=True).copy()
    with pytest.raises(ValueError, match="no") as caught, outcomes.one_item(0, "A"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("kept", "failed", "handles"), [([0], [], [0, 1]), ([0, 1], [], [0]), ([0], [0], [0]), ([0], [1], [0, 2])]
)
def test_accounts_that_do_not_add_up_are_an_error(kept: list[int], failed: list[int], handles: list[int]) -> None:
    outcomes = Outcomes()
    for handle in kept:
        outcomes.keep(handle, Outcome.SKIPPED)
    for handle in failed:
        outcomes.fail(handle, None, ValueError("no"))
    with pytest.raises(AccountsError, match="stock"):
        outcomes.require_complete("stock", handles)


def test_what_is_written_into_a_copy_is_not_in_the_first_book() -> None:
    first = Outcomes()
    first.keep(0, Outcome.SKIPPED)
    second = first.copy()
    second.keep(1, Outcome.CREATED)
    second.fail(2, None, ValueError("no"))
    assert (first.missing([0, 1, 2]), second.missing([0, 1, 2])) == ([1, 2], [])
