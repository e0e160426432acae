"""The plans that the ledger knows, on SQLite and PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sync_pipelines.database.ledger import Ledger, open_ledger
from sync_pipelines.database.plans import PlanRow, Plans

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
COUNTS = {"create": 1, "update": 2, "delete": 0}


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    with open_ledger(database_url) as opened:
        yield opened


@pytest.fixture
def plans(ledger: Ledger) -> Plans:
    return Plans(ledger)


def plan(number: int = 1, **fields: Any) -> PlanRow:
    given = {"id": f"p{number}", "job": "stock", "created_at": AT + timedelta(hours=number), "counts": COUNTS}
    return PlanRow(**{"expires_at": AT + timedelta(days=7), "made_for": "variants", **given, **fields})


def test_a_plan_is_kept_as_it_is_and_saved_again_by_a_repeated_diff(plans: Plans) -> None:
    plans.save(plan())
    plans.save(plan(made_for="others"))

    assert plans.plan("p1") == plan(made_for="others")
    assert plans.plan("p2") is None


def test_plans_are_found_newest_first(plans: Plans) -> None:
    for number in range(3):
        plans.save(plan(number, job="prices" if number == 1 else "stock"))

    assert [each.id for each in plans.latest(None, 2)] == ["p2", "p1"]
    assert [each.id for each in plans.latest("stock", 5)] == ["p2", "p0"]
    assert [each.id for each in plans.starting_with("p", 5)] == ["p2", "p1", "p0"]
    assert plans.starting_with("%", 5) == []


def test_an_open_plan_goes_to_one_run_which_may_be_gone_on_with(plans: Plans) -> None:
    plans.save(plan())

    with ThreadPoolExecutor(4) as pool:
        claimed = list(pool.map(lambda number: plans.claim("p1", f"r{number}", AT), range(4)))
    assert len(set(claimed)) == 1

    plans.finish("p1", AT)
    assert plans.claim("p1", "r9", AT) is None
    found = plans.plan("p1")
    assert found is not None
    assert (found.state, found.applied_by, found.applied_at) == ("applied", claimed[0], AT)


def test_an_expired_plan_can_not_be_claimed_but_one_that_was_begun_can_be_finished(plans: Plans) -> None:
    plans.save(plan())
    late = AT + timedelta(days=8)
    assert plans.claim("p1", "r1", late) is None

    assert plans.claim("p1", "r1", AT) == "r1"
    assert plans.claim("p1", "r2", late) == "r1"


def test_a_plan_of_which_nothing_was_applied_is_given_back(plans: Plans) -> None:
    plans.save(plan())
    plans.claim("p1", "r1", AT)
    plans.give_back("p1")

    assert plans.claim("p1", "r2", AT) == "r2"


def test_cleaning_up_marks_forgets_and_says_whose_files_must_stay(plans: Plans) -> None:
    for number, days in enumerate((1, 3, 3, 9)):
        plans.save(plan(number, expires_at=AT + timedelta(days=days)))
    plans.claim("p1", "r1", AT)
    plans.claim("p3", "r3", AT)
    plans.finish("p3", AT)

    kept = plans.clean_up(AT + timedelta(days=3), AT + timedelta(days=2))

    assert kept == {"p1"}, "begun; what is applied or expired needs no files"
    found = {each.id: each.state for each in plans.latest(None, 9)}
    assert found == {"p1": "applying", "p2": "expired", "p3": "applied"}
