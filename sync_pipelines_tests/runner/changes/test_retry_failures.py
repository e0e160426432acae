"""Failures are tried again when they are due or named, as any item is, and never over what is newer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import sqlalchemy as sa

from sync_pipelines.database.batches import Batches
from sync_pipelines.database.connections import create_database
from sync_pipelines.engine.codec import decode, encode
from sync_pipelines.engine.retry import Retry
from sync_pipelines.errors import ConfigurationError, FetchError, RetryableError, RunError, SyncBusyError, TargetError
from sync_pipelines.runner.changes import retry_failures as retrying_failures
from sync_pipelines.runner.changes.retry_failures import retry_failures
from sync_pipelines.runner.context.lease import take_lease
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.failures.failure_notes import FailedItem, FailureNotes
from sync_pipelines.runner.runs.apply_plan import PlanRun
from sync_pipelines.runner.runs.comparing_run import PlanRef
from sync_pipelines.runner.runs.dry_run import DryRun
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines_tests.runner.desk import Clock, Desk
from sync_pipelines_tests.runner.failing_shop import FailingShop


@pytest.fixture
def shop(tmp_path: Path, database_url: str, clock: Clock) -> Iterator[FailingShop]:
    """A shop whose ledger is on each kind of database."""
    settings = Settings(data_dir=tmp_path / "data", database_url=None, ledger_url=database_url)
    with open_workspace(settings) as workspace:
        yield FailingShop(workspace, clock)


def test_what_is_due_goes_through_with_the_item_as_it_was_kept(shop: FailingShop) -> None:
    shop.put("A", "B", stock=7)
    shop.refuse("A", "B")
    shop.run()
    shop.accept("A")
    shop.clock.advance(100)
    results = shop.retry()
    assert (results.fetched, results.created, results.error_count, results.outcome) == (2, 1, 1, "partial")
    assert shop.target.records == {"A": {"sku": "A", "stock": 7}}
    assert shop.states() == {"A": "resolved", "B": "open"}
    assert (shop.failure("A").resolved_by, shop.failure("B").attempts) == (results.run_id, 2)
    assert shop.failure("B").next_try_at == shop.clock() + timedelta(seconds=240)


def test_what_is_not_due_yet_is_left(shop: FailingShop) -> None:
    shop.put("A")
    shop.refuse("A")
    shop.run()
    shop.accept("A")
    assert shop.retry().fetched == 0
    assert shop.states() == {"A": "open"}
    assert shop.retry(everything=True).created == 1


def test_what_is_given_up_is_left_alone_until_it_is_named(shop: FailingShop) -> None:
    shop.put("A", "B")
    shop.refuse("A", "B")
    shop.run()
    for _ in range(5):
        shop.clock.advance(100_000)
        shop.retry()
    assert shop.states() == {"A": "given up", "B": "given up"}
    assert shop.failure("A").attempts == 3
    shop.retry("A")
    assert (shop.failure("A").attempts, shop.failure("A").state) == (4, "given up")
    shop.accept("A", "B")
    assert shop.retry("A").created == 1
    assert shop.states() == {"A": "resolved", "B": "given up"}
    assert shop.retry(everything=True).created == 1


def test_without_a_retry_it_is_never_due_but_may_be_asked_for(shop: FailingShop) -> None:
    shop.fields["retry"] = None
    shop.put("A")
    shop.refuse("A")
    for _ in range(10):
        shop.run()
    assert (shop.failure("A").state, shop.failure("A").attempts, shop.failure("A").next_try_at) == ("open", 10, None)
    shop.accept("A")
    assert shop.retry().created == 1


def test_the_source_is_asked_for_the_item_as_it_is_now(shop: FailingShop) -> None:
    shop.can_be_asked()
    shop.put("A", "B")
    shop.refuse("A", "B")
    shop.run()
    shop.put("A", "B", stock=9)
    shop.accept("A")
    shop.clock.advance(100)
    shop.retry()
    assert sorted(shop.asked) == ["A", "B"]
    assert shop.target.records == {"A": {"sku": "A", "stock": 9}}
    assert decode(shop.failure("B").payload or "")["stock"] == 9
    assert (shop.failure("B").attempts, shop.failure("B").seen_at) == (1, shop.clock())


def test_what_the_source_no_longer_has_is_resolved_and_nothing_is_deleted(shop: FailingShop) -> None:
    shop.can_be_asked()
    shop.target.records["A"] = {"sku": "A", "stock": 0}
    shop.put("A")
    shop.refuse("A")
    shop.run()
    shop.items.clear()
    shop.clock.advance(100)
    results = shop.retry()
    assert (results.fetched, results.outcome) == (0, "clean")
    assert results.notes == ("1 failed items are no longer in the source",)
    assert shop.failure("A").resolved_by == "vanished"
    assert "A" in shop.target.records


@pytest.mark.usefixtures("no_waits")
def test_a_source_that_is_down_costs_no_attempt_and_leaves_the_rest(shop: FailingShop) -> None:
    def away(external_id: str) -> Any:
        raise RetryableError(f"away: {external_id}")

    skus = [f"A{number:02}" for number in range(20)]
    shop.put(*skus)
    shop.refuse(*skus)
    shop.run()
    shop.fields["fetch_one"] = away
    shop.clock.advance(100)
    before = shop.failure("A19").next_try_at
    with (
        patch.object(retrying_failures, "BATCH_SIZE", 12),
        pytest.raises(FetchError, match="does not answer") as raised,
    ):
        shop.retry()
    assert (raised.value.results.outcome, raised.value.results.error_count) == ("failed", 10)
    assert {shop.failure(sku).attempts for sku in skus} == {1}
    assert {shop.failure(sku).next_try_at for sku in skus[10:]} == {before}
    assert {shop.failure(sku).next_try_at for sku in skus[:10]} == {shop.clock() + timedelta(seconds=60)}


@pytest.mark.usefixtures("no_waits")
def test_a_target_that_is_down_leaves_everything_as_it_was(shop: FailingShop) -> None:
    shop.put("A", "B")
    shop.refuse("A", "B")
    shop.run()
    before = {sku: shop.failure(sku) for sku in "AB"}
    shop.refuse("A", "B", error=RetryableError("down"))
    shop.clock.advance(100)
    with pytest.raises(TargetError):
        shop.retry()
    assert {sku: shop.failure(sku) for sku in "AB"} == before


def test_an_item_that_has_gone_through_meanwhile_is_found_up_to_date(shop: FailingShop) -> None:
    shop.put("A")
    shop.refuse("A")
    shop.run()
    shop.accept("A")
    shop.target.records["A"] = {"sku": "A", "stock": 1}
    results = shop.retry("A")
    assert (results.unchanged, results.recovered, shop.target.writes) == (1, 0, 0)
    assert shop.states() == {"A": "resolved"}


def test_what_a_retry_writes_is_in_the_history_of_the_record(shop: FailingShop) -> None:
    shop.put("A")
    shop.refuse("A")
    shop.run()
    shop.accept("A")
    results = shop.retry("A")
    rows = shop.workspace.history.written("stock", "A", 10)
    assert [(each.kind, each.via, each.run_id) for each in rows] == [("created", "retry", results.run_id)]


def test_skipped_items_are_over_as_well(shop: FailingShop) -> None:
    shop.put("A")
    shop.refuse("A")
    shop.run()
    shop.fields["should_skip"] = lambda _: True
    assert shop.retry("A").skipped == 1
    assert shop.states() == {"A": "resolved"}


def test_many_batches_are_tried_each_once(shop: FailingShop) -> None:
    skus = [f"A{number:03}" for number in range(95)]
    shop.put(*skus)
    shop.refuse(*skus)
    shop.run()
    shop.accept(*skus[::2])
    shop.clock.advance(100)
    with patch.object(retrying_failures, "BATCH_SIZE", 10):
        results = shop.retry()
    assert (results.fetched, results.created, results.error_count) == (95, 48, 47)
    assert {shop.failure(sku).attempts for sku in skus[1::2]} == {2}
    assert [each.external_id for each in results.errors] == skus[1::2]


def test_an_item_whose_id_is_found_out_now_is_kept_under_it(shop: FailingShop) -> None:
    shop.items["?"] = {"code": "A", "stock": 1, "sku": None}
    shop.run()
    assert shop.states() == {None: "open"}
    shop.fields["get_external_id"] = "code"
    shop.refuse("A")
    shop.target.fails["None"] = ValueError("no")
    shop.retry(everything=True)
    assert shop.states() == {None: "resolved", "A": "open"}


class TestNamed:
    @pytest.mark.parametrize("given", [["A", "X"], ["X"]])
    def test_an_id_without_a_failure_is_an_error_and_nothing_is_tried(
        self, shop: FailingShop, given: list[str]
    ) -> None:
        shop.put("A")
        shop.refuse("A")
        shop.run()
        with pytest.raises(ConfigurationError, match="stock: 'X' has no failure; `sync-pipelines failures stock"):
            shop.retry(*given)
        assert shop.failure("A").attempts == 1
        assert [run.kind for run in shop.workspace.ledger.latest_runs("stock")] == ["full"]

    def test_one_that_is_over_is_an_error_unless_the_source_can_be_asked(self, shop: FailingShop) -> None:
        shop.put("A")
        shop.refuse("A")
        shop.run()
        shop.accept("A")
        shop.run()
        with pytest.raises(ConfigurationError, match="'A' has no failure that is open"):
            shop.retry("A")
        shop.can_be_asked()
        assert shop.retry("A").unchanged == 1

    def test_ids_may_be_numbers(self, shop: FailingShop, settings: Settings) -> None:
        with pytest.raises(ConfigurationError, match="stock: '7' has no failure"):
            retry_failures(shop.job, external_ids=[7], settings=settings)  # type: ignore[list-item]
        with pytest.raises(ConfigurationError, match="stock: external_ids: None is no id; give text or numbers"):
            retry_failures(shop.job, external_ids=[None], settings=settings)  # type: ignore[list-item]

    def test_certain_ids_and_everything_exclude_each_other(self, shop: FailingShop) -> None:
        with pytest.raises(ConfigurationError, match="certain ids and everything exclude each other"):
            shop.retry("A", everything=True)

    def test_a_text_is_no_list_of_ids(self, shop: FailingShop) -> None:
        with pytest.raises(ConfigurationError, match=r"must be a list of ids, such as \['A-1'\]"):
            retry_failures(shop.job, external_ids="A-1")


class TestOrder:
    """An older item never overwrites what has come since."""

    def broken_off(self, shop: FailingShop) -> str:
        """A run that has written an unknown part of its newer items and died."""
        run = SyncRun(shop.job, shop.workspace)
        planned = run.diff(run.fetch())
        with patch.object(Batches, "save", side_effect=SystemExit), pytest.raises(SystemExit):
            run.apply(planned)
        return planned.run_id

    def fails_then_a_newer_run_breaks_off(self, shop: FailingShop) -> None:
        shop.put("A", stock=1)
        shop.refuse("A")
        shop.run()
        shop.accept("A")
        shop.put("A", stock=2)
        self.broken_off(shop)
        assert shop.target.records["A"]["stock"] == 2
        shop.clock.advance(100)

    def test_after_a_newer_run_that_broke_off_the_kept_item_is_left(self, shop: FailingShop) -> None:
        self.fails_then_a_newer_run_breaks_off(shop)
        assert shop.retry(everything=True).fetched == 0
        with pytest.raises(ConfigurationError, match="'A' may be older than its record by now; try it with"):
            shop.retry("A")
        assert shop.target.records["A"]["stock"] == 2
        shop.run()
        assert shop.states() == {"A": "resolved"}

    def test_then_the_source_can_be_asked_all_the_same(self, shop: FailingShop) -> None:
        shop.can_be_asked()
        self.fails_then_a_newer_run_breaks_off(shop)
        shop.put("A", stock=3)
        assert shop.retry().updated == 1
        assert shop.target.records["A"]["stock"] == 3

    def test_then_a_version_tells_that_the_kept_item_is_older(self, shop: FailingShop) -> None:
        shop.fields["get_version"] = "stock"
        self.fails_then_a_newer_run_breaks_off(shop)
        assert shop.retry().skipped == 1
        assert shop.target.records["A"]["stock"] == 2
        assert shop.states() == {"A": "resolved"}

    def test_a_plans_item_is_not_tried_again_as_it_was_kept(self, shop: FailingShop) -> None:
        """The plan may have been refused because its record had become newer."""
        shop.put("A", stock=1)
        shop.run()
        shop.put("A", stock=2)
        planning = DryRun(shop.job, shop.workspace)
        plan = planning.finish(planning.diff(planning.fetch()))
        shop.put("A", stock=3)
        shop.run()
        results = PlanRun(shop.job, shop.workspace).apply_kept(plan.plan_id or "")
        assert results.errors[0].exception_type == "StalePlanError"
        assert shop.retry(everything=True).fetched == 0
        assert shop.target.records["A"]["stock"] == 3

    def test_an_applied_plan_resolves_nothing_that_was_fetched_later(self, shop: FailingShop) -> None:
        shop.put("A", stock=2)
        planning = DryRun(shop.job, shop.workspace)
        plan = planning.finish(planning.diff(planning.fetch()))
        shop.put("A", stock=3)
        shop.refuse("A")
        shop.run()
        shop.accept("A")
        PlanRun(shop.job, shop.workspace).apply_kept(plan.plan_id or "")
        assert shop.states() == {"A": "open"}
        assert shop.retry(everything=True).updated == 1

    def test_a_run_that_is_gone_on_with_after_the_source_was_asked_is_refused(self, shop: FailingShop) -> None:
        shop.can_be_asked()
        shop.put("A", "B", stock=1)
        shop.refuse("A")
        run = SyncRun(shop.job, shop.workspace)
        planned = run.diff(run.fetch())
        run.apply(planned)
        shop.accept("A")
        shop.put("A", stock=2)
        shop.clock.advance(100)
        shop.retry()
        with pytest.raises(RunError, match="single items have been applied since this run fetched"):
            SyncRun(shop.job, shop.workspace).apply(PlanRef(planned.run_id, planned.writes))
        assert shop.target.records["A"]["stock"] == 2

    def test_a_delivery_that_came_before_the_source_was_asked_is_asked_for_as_well(self, shop: FailingShop) -> None:
        shop.can_be_asked()
        shop.put("A", stock=1)
        shop.refuse("A")
        shop.run()
        desk = Desk(shop.workspace)
        desk.upsert({"sku": "A", "stock": 2})
        shop.accept("A")
        shop.put("A", stock=3)
        shop.clock.advance(100)
        shop.retry()
        shop.clock.advance(1)
        desk.drain(shop.job)
        assert shop.target.records["A"]["stock"] == 3

    def test_of_two_failures_of_one_record_the_later_one_counts(self, tmp_path: Path, database_url: str) -> None:
        """`007` and `7` are one key of a table with whole numbers."""
        database = create_database(database_url)
        with database.begin() as connection:
            connection.execute(sa.text("CREATE TABLE variants (sku INTEGER PRIMARY KEY, stock INTEGER)"))
        database.dispose()
        clock = Clock()
        settings = Settings(data_dir=tmp_path / "data", database_url=database_url, ledger_url=None)
        with open_workspace(settings) as workspace:
            shop = FailingShop(workspace, clock)
            shop.fields["target"] = SqlTable(table="variants", key="sku", columns=["stock"], database=database_url)
            shop.put("007", stock="x")
            shop.run()
            assert shop.states() == {"7": "open"}
            assert shop.failure("007").key == "id:7"

    @pytest.mark.parametrize("newer_first", [True, False])
    def test_of_two_failures_of_one_record_the_newer_version_counts_whichever_was_seen_last(
        self,
        tmp_path: Path,
        database_url: str,
        newer_first: bool,  # noqa: FBT001 - parametrised
    ) -> None:
        """Before it was known to convert, an item is kept under the id as the source writes it."""
        database = create_database(database_url)
        with database.begin() as connection:
            connection.execute(sa.text("CREATE TABLE variants (sku INTEGER PRIMARY KEY, stock INTEGER)"))
        clock = Clock()
        settings = Settings(data_dir=tmp_path / "data", database_url=database_url, ledger_url=None)
        with open_workspace(settings) as workspace:
            shop = FailingShop(workspace, clock)
            target = SqlTable(table="variants", key="sku", columns=["stock"], database=database_url)
            shop.fields |= {"target": target, "get_version": "version"}
            for sku, version in (("7", 2), ("007", 1)) if newer_first else (("7", 1), ("007", 2)):
                payload = encode({"sku": sku, "stock": version, "version": version})
                failed = FailedItem(sku, "ValueError", "no", payload=payload, seen_at=clock())
                FailureNotes(shop.job, workspace.failures, f"run {sku}", clock()).note([failed])
                clock.advance(1)
            assert shop.retry(everything=True).duplicate_count == 1
            assert shop.states() == {"7": "resolved", "007": "resolved"}
        with database.connect() as connection:
            assert connection.execute(sa.text("SELECT sku, stock FROM variants")).all() == [(7, 2)]
        database.dispose()


def test_while_a_run_is_under_way_nothing_is_done(shop: FailingShop) -> None:
    held = take_lease(shop.workspace, "stock", "another run", None, 0)
    with pytest.raises(SyncBusyError):
        shop.retry()
    shop.workspace.leases.release(held.lease)
    assert shop.workspace.ledger.latest_runs("stock") == []


def test_by_its_public_name_it_works_with_the_settings(tmp_path: Path, settings: Settings, clock: Clock) -> None:
    with open_workspace(settings) as workspace:
        shop = FailingShop(workspace, clock)
        shop.fields["retry"] = Retry(first_wait_s=0.001)
        shop.put("A")
        shop.refuse("A")
        shop.run()
        shop.accept("A")
        results = retry_failures(shop.job, settings=settings)
    assert (results.created, results.outcome) == (1, "clean")
