"""Guards: what looks like a broken source is withheld as a plan, all else is applied, and a person releases it once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.database.batches import Batches
from sync_pipelines.engine.codec import encode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.guards import Guards
from sync_pipelines.engine.plan import Action, PlanCounts
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import PlanError, TooManyFailedError
from sync_pipelines.registry.plans import apply_plan
from sync_pipelines.runner.changes.drain import Drain, DrainLimits
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.plans.plan_view import list_plans, open_plan
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable

Item = dict[str, Any]
TIGHT = Guards(few=0, max_delete_share=0.2, max_update_share=0.5)


def items(numbers: range, stock: int = 1) -> list[Item]:
    return [{"sku": f"S{number:04}", "stock": stock} for number in numbers]


class Shop:
    """A sync into a table, or by functions, and what is in it."""

    def __init__(self, settings: Settings, database: sa.Engine | None) -> None:
        self.settings = settings
        self.fetched: list[Item] = []
        self.calls: list[str] = []
        self._database = database
        self._records: dict[str, Item] = {}
        if database is not None:
            with database.begin() as connection:
                connection.exec_driver_sql(
                    "CREATE TABLE variants (sku VARCHAR(9) PRIMARY KEY, stock INTEGER CHECK (stock >= 0))"
                )

    def job(self, **fields: Any) -> SyncJob[Any, Any]:
        given: dict[str, Any] = {
            "name": "stock",
            "fetch_external": lambda: self.fetched,
            "deletes": "hard",
            "on_complete": lambda results: self.calls.append(results.outcome),
        }
        if self._database is not None:
            given["target"] = SqlTable(table="variants", key="sku", columns=["stock"], database=self._database)
        else:
            given |= {
                "get_external_id": "sku",
                "find_local": self._records.get,
                "create": self._create,
                "update": lambda item, _local: self._create(item),
                "has_changed": lambda item, local: item != local,
                "delete": lambda local: self._records.pop(local["sku"]),
                "list_local": lambda: list(self._records),
            }
        return SyncJob(**given | fields)

    def _create(self, item: Item) -> None:
        if item["stock"] < 0:
            raise ValueError("CHECK")
        self._records[item["sku"]] = item

    def sync(self, fetched: list[Item], *, options: dict[str, Any] | None = None, **fields: Any) -> SyncResults:
        self.fetched = fetched
        results = run_sync(self.job(**fields), settings=self.settings, **options or {})
        assert results.accounts_balance, results.summary()
        return results

    def release(self, results: SyncResults, reason: str | None = "right", **options: Any) -> SyncResults:
        given = {"job": self.job(), "settings": self.settings, "reason": reason}
        released = apply_plan(results.plan_id or "", **given | options)
        assert released.accounts_balance
        return released

    def stocks(self) -> dict[str, int]:
        if self._database is None:
            return {sku: item["stock"] for sku, item in self._records.items()}
        with self._database.connect() as connection:
            return {row.sku: row.stock for row in connection.execute(sa.text("SELECT sku, stock FROM variants"))}

    def write(self, sku: str, stock: int) -> None:
        """Somebody else changes a record."""
        if self._database is None:
            self._records[sku] = {"sku": sku, "stock": stock}
            return
        with self._database.begin() as connection:
            connection.execute(sa.text("UPDATE variants SET stock = :stock WHERE sku = :sku"), locals())


@pytest.fixture(params=["sqlite", "postgresql", "functions"])
def shop(request: pytest.FixtureRequest, settings: Settings) -> Shop:
    """In bulk on both databases, page by page with functions."""
    names = {"sqlite": "sqlite", "postgresql": "postgres"}
    given = request.getfixturevalue(names[request.param]) if request.param in names else None
    return Shop(settings, given)


def test_too_many_deletes_are_withheld_and_everything_else_is_applied(shop: Shop) -> None:
    shop.sync(items(range(100)))

    results = shop.sync([*items(range(70), stock=2), {"sku": "NEW", "stock": 1}])

    assert results.outcome == "guarded"
    assert (results.created, results.updated, results.deleted) == (1, 70, 0)
    assert results.withheld == PlanCounts(delete=30)
    assert results.guarded == ("30 of 100 local records would be deleted: 30%, and max_delete_share is 20%",)
    assert len(shop.stocks()) == 101
    assert shop.calls == ["clean", "guarded"]


def test_what_is_withheld_is_a_plan_that_shows_which_records_and_what_they_hold(shop: Shop) -> None:
    shop.sync(items(range(100)))

    results = shop.sync(items(range(70)))

    plan = open_plan(results.plan_id or "", settings=shop.settings)
    entries = {entry.external_id: entry for entry in plan.entries()}
    assert (plan.kind, plan.state, plan.guarded) == ("withheld", "open", results.guarded)
    assert sorted(entries) == [f"S{number:04}" for number in range(70, 100)]
    assert {entry.action for entry in entries.values()} == {Action.DELETE}
    assert entries["S0080"].changes["stock"].old == 1
    assert any(f"sync-pipelines apply {plan.id[:8]} --reason" in note for note in results.notes)


def test_it_is_released_once_with_a_reason_and_who_said_so_is_kept(shop: Shop) -> None:
    shop.sync(items(range(100)))
    guarded = shop.sync(items(range(70)))

    released = shop.release(guarded, "supplier Ltd is gone, password=hunter2", released_by="ada")

    assert (released.outcome, released.deleted) == ("clean", 30)
    assert len(shop.stocks()) == 70
    plan = open_plan(guarded.plan_id or "", settings=shop.settings)
    assert (plan.state, plan.released_by) == ("applied", "ada")
    assert (plan.reason or "").startswith("supplier Ltd is gone, password=")
    assert "hunter2" not in (plan.reason or "")
    assert any(note.startswith("released by ada: supplier Ltd is gone") for note in released.notes)
    with pytest.raises(PlanError, match="was applied at"):
        shop.release(guarded)
    assert shop.sync(items(range(70))).outcome == "clean"


@pytest.mark.parametrize("reason", [None, "", "  \n"])
def test_without_a_reason_nothing_is_released(shop: Shop, reason: str | None) -> None:
    shop.sync(items(range(100)))
    guarded = shop.sync(items(range(70)))

    with pytest.raises(PlanError, match=r"30 of 100 local records would be deleted.* with a reason"):
        shop.release(guarded, reason)

    assert len(shop.stocks()) == 100
    assert shop.release(guarded).deleted == 30


def test_records_that_have_changed_since_are_not_deleted(shop: Shop) -> None:
    shop.sync(items(range(100)))
    guarded = shop.sync(items(range(70)))
    shop.write("S0099", 77)

    released = shop.release(guarded)

    assert (released.deleted, released.failed_deletes, released.outcome) == (29, 1, "partial")
    assert shop.stocks()["S0099"] == 77
    assert [error.external_id for error in released.errors] == ["S0099"]


def test_records_whose_item_has_come_by_itself_since_are_not_deleted(shop: Shop) -> None:
    shop.sync(items(range(100)))
    guarded = shop.sync(items(range(70)))
    with open_workspace(shop.settings) as workspace:
        workspace.inbox.store("stock", encode(items(range(99, 100))[0]), workspace.clock())
        Drain(shop.job(), workspace).run(DrainLimits(idle_wait_s=0))

    released = shop.release(guarded)

    assert (released.deleted, released.failed_deletes) == (29, 1)
    assert "not missing any more" in released.errors[0].message


def test_a_newer_whole_run_supersedes_what_was_withheld(shop: Shop) -> None:
    shop.sync(items(range(100)))
    first = shop.sync(items(range(70)))
    second = shop.sync(items(range(75)))

    with pytest.raises(PlanError, match="superseded"):
        shop.release(first)
    assert shop.release(second).deleted == 25


def test_when_the_source_is_well_again_nothing_is_left_to_release(shop: Shop) -> None:
    shop.sync(items(range(100)))
    guarded = shop.sync(items(range(70)))
    assert shop.sync(items(range(100))).outcome == "clean"

    with pytest.raises(PlanError, match="superseded"):
        shop.release(guarded)
    assert len(shop.stocks()) == 100


def test_a_limited_run_supersedes_nothing(shop: Shop) -> None:
    shop.sync(items(range(100)))
    guarded = shop.sync(items(range(70)))

    limited = shop.sync(items(range(70)), options={"limit": 3})

    assert limited.outcome == "clean"
    assert shop.release(guarded).deleted == 30


def test_too_many_updates_are_withheld_and_count_as_skipped(shop: Shop) -> None:
    shop.sync(items(range(100)))

    changed = [*items(range(60), stock=0), *items(range(60, 100)), {"sku": "NEW", "stock": 3}]
    results = shop.sync(changed, guards=TIGHT)

    assert (results.outcome, results.created, results.updated, results.skipped) == ("guarded", 1, 0, 60)
    assert results.withheld == PlanCounts(update=60)
    assert set(shop.stocks().values()) == {1, 3}
    plan = open_plan(results.plan_id or "", settings=shop.settings)
    assert {entry.action for entry in plan.entries()} == {Action.UPDATE}

    released = shop.release(results, job=shop.job(guards=TIGHT))
    assert (released.fetched, released.updated, released.outcome) == (60, 60, "clean")
    assert sorted(shop.stocks().values()) == [0] * 60 + [1] * 40 + [3]


def test_errors_are_not_said_to_be_gone_while_updates_are_withheld(shop: Shop) -> None:
    shop.sync(items(range(100)))
    failing = [{"sku": "S0000", "stock": -1}, *items(range(1, 100))]
    assert shop.sync(failing, guards=TIGHT).error_count == 1

    results = shop.sync(items(range(100), stock=0), guards=TIGHT)

    assert (results.withheld.update, results.gone_causes) == (100, ())


def test_an_empty_fetch_deletes_nothing_whatever_the_guards_allow(shop: Shop) -> None:
    """Promise 6."""
    shop.sync(items(range(3)))

    results = shop.sync([], guards=None)

    assert (results.outcome, results.deleted, results.withheld) == ("guarded", 0, PlanCounts(delete=3))
    assert results.guarded == ("the source gave no items at all; the last good fetches had 3",)
    assert len(shop.stocks()) == 3


def test_an_empty_table_and_an_empty_source_are_no_cause_for_concern(shop: Shop) -> None:
    assert shop.sync([]).outcome == "clean"
    assert shop.sync([]).outcome == "clean"


def test_a_source_that_gives_half_its_items_deletes_nothing_even_within_the_share(shop: Shop) -> None:
    shop.sync(items(range(100)), deletes="off")

    results = shop.sync(items(range(40)), guards=Guards(max_delete_share=None))

    assert (results.outcome, results.deleted, results.unchanged) == ("guarded", 0, 40)
    assert "the source gave 40 items, the last good fetches had 100: 60% fewer" in results.guarded[0]


def test_a_shrunken_fetch_is_told_even_where_nothing_is_ever_deleted(shop: Shop) -> None:
    shop.sync(items(range(100)), deletes="off")

    results = shop.sync(items(range(40), stock=5), deletes="off")

    assert (results.outcome, results.updated, results.withheld) == ("guarded", 40, PlanCounts())


def test_a_released_fetch_is_what_later_ones_are_compared_with(shop: Shop) -> None:
    shop.sync(items(range(100)), deletes="off")
    half = shop.sync(items(range(40)), deletes="off")
    assert shop.sync(items(range(40)), deletes="off").outcome == "guarded"

    guarded = shop.sync(items(range(40)), deletes="off")
    assert shop.release(guarded, job=shop.job(deletes="off")).outcome == "clean"

    assert half.outcome == "guarded"
    for _ in range(2):
        results = shop.sync(items(range(40)), deletes="off")
    assert results.outcome == "clean"


@pytest.mark.parametrize("left", [40, 0])
def test_one_release_is_enough_however_many_good_fetches_there_were_before(shop: Shop, left: int) -> None:
    for _ in range(5):
        shop.sync(items(range(100)), deletes="off")
    guarded = shop.sync(items(range(left)), deletes="off")
    assert shop.release(guarded, job=shop.job(deletes="off")).outcome == "clean"

    for _ in range(2):
        assert shop.sync(items(range(left)), deletes="off").outcome == "clean"
    assert shop.sync(items(range(left // 4)), deletes="off").outcome == ("guarded" if left else "clean")


def test_guarded_runs_are_no_measure_for_later_ones(shop: Shop) -> None:
    shop.sync(items(range(100)), deletes="off")
    for _ in range(7):
        assert shop.sync(items(range(40)), deletes="off").outcome == "guarded"


def test_a_run_that_somebody_limited_is_not_guarded(shop: Shop) -> None:
    shop.sync(items(range(100)))

    results = shop.sync(items(range(100), stock=9), guards=TIGHT, options={"limit": 40})

    assert (results.outcome, results.updated) == ("clean", 40)


def test_a_dry_run_says_what_guards_would_withhold_and_its_plan_needs_a_reason(shop: Shop) -> None:
    shop.sync(items(range(100)))

    planned = shop.sync(items(range(70), stock=2), options={"dry_run": True})

    assert (planned.outcome, planned.planned) == ("planned", PlanCounts(update=70, delete=30))
    assert any("a run would be guarded: 30 of 100" in note for note in planned.notes)
    with pytest.raises(PlanError, match="with a reason"):
        shop.release(planned, None)
    released = shop.release(planned)
    assert (released.updated, released.deleted) == (70, 30)


def test_items_that_fail_and_what_is_withheld_are_both_told(shop: Shop) -> None:
    shop.sync(items(range(100)))

    results = shop.sync([*items(range(70)), {"sku": "BAD", "stock": -1}])

    assert (results.outcome, results.error_count, results.withheld.delete) == ("guarded", 1, 30)


def test_another_target_is_not_given_what_was_withheld(shop: Shop) -> None:
    shop.sync(items(range(100)))
    guarded = shop.sync(items(range(70)))

    with pytest.raises(PlanError, match="has changed since"):
        shop.release(guarded, job=shop.job(get_external_id=lambda item: item["sku"]))
    assert shop.release(guarded).deleted == 30


@pytest.mark.parametrize(
    ("fail_above", "fails"),
    [(None, False), (0, True), (2, True), (3, False), (0.29, True), (0.3, False), (0.99, False)],
)
def test_more_failed_items_than_allowed_fail_the_run_after_the_others_are_applied(
    shop: Shop, fail_above: float | None, *, fails: bool
) -> None:
    fetched = [*items(range(7)), *({"sku": f"BAD{number}", "stock": -1} for number in range(3))]

    if fails:
        with pytest.raises(TooManyFailedError, match="3 of 10 items failed, and fail_above is") as raised:
            shop.sync(fetched, fail_above=fail_above)
        assert raised.value.results.outcome == "failed"
        assert raised.value.results.created == 7
    else:
        assert shop.sync(fetched, fail_above=fail_above).outcome == "partial"
    assert len(shop.stocks()) == 7
    assert shop.calls == ["failed" if fails else "partial"]


def test_plans_that_are_withheld_are_listed(shop: Shop) -> None:
    shop.sync(items(range(100)))
    guarded = shop.sync(items(range(70)))

    [plan] = list_plans("stock", 5, settings=shop.settings)
    assert (plan.id, plan.counts) == (guarded.plan_id, PlanCounts(delete=30))


class Killed(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_release_that_is_killed_goes_on(shop: Shop, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Promise 7."""
    shop.sync(items(range(2_500)))
    guarded = shop.sync(items(range(100)))
    assert guarded.withheld.delete == 2_400

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        calls: list[int] = []

        def save(*args: Any, **options: Any) -> Any:
            calls.append(1)
            if len(calls) == 2 and when == "before":
                raise Killed
            done = real(*args, **options)
            if len(calls) == 2:
                raise Killed
            return done

        return save

    with monkeypatch.context() as patched:
        patched.setattr(Batches, "save", dying(Batches.save))
        with pytest.raises(Killed):
            shop.release(guarded)
    assert 100 < len(shop.stocks()) < 2_500

    released = shop.release(guarded, None)  # the reason is known

    assert len(shop.stocks()) == 100
    with open_workspace(shop.settings) as workspace:
        assert released.run_id == next(
            each.id for each in workspace.ledger.latest_runs("stock") if each.kind == "apply"
        )
    assert released.failed_deletes == 0
