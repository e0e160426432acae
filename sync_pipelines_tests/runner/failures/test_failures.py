"""The life of a failure: kept with its item, tried again, given up, and over when it goes through or vanishes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sync_pipelines.database.applied_since import AppliedSince
from sync_pipelines.database.batches import BatchKey
from sync_pipelines.engine.codec import decode
from sync_pipelines.engine.guards import Guards
from sync_pipelines.errors import ConfigurationError, FetchError, HookError, RunError, TooManyFailedError
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.runs.apply_plan import PlanRun
from sync_pipelines.runner.runs.comparing_run import PlanRef
from sync_pipelines.runner.runs.dry_run import DryRun
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines.runner.runs.results import results_of_run
from sync_pipelines.runner.runs.session import FULL_RUN, RunSession
from sync_pipelines.settings.model import Settings
from sync_pipelines.testing import MemoryTarget
from sync_pipelines_tests.runner.desk import Clock, Desk
from sync_pipelines_tests.runner.failing_shop import FailingShop


class TellsOfDeletes(MemoryTarget):
    """Has a note of its own."""

    def notes(self) -> list[str]:
        return ["no deletes: the archive keeps everything"]


@pytest.fixture
def shop(tmp_path: Path, database_url: str, clock: Clock) -> Iterator[FailingShop]:
    """A shop whose ledger is on each kind of database."""
    settings = Settings(data_dir=tmp_path / "data", database_url=None, ledger_url=database_url)
    with open_workspace(settings) as workspace:
        yield FailingShop(workspace, clock)


def end_again(shop: FailingShop, run_id: str) -> None:
    """Ends a run as well as it can end, once more."""
    RunSession(shop.job, shop.workspace, FULL_RUN, run_id=run_id).finish(None, applied_all=True)


def test_an_item_that_fails_is_kept_with_its_error_and_itself(shop: FailingShop) -> None:
    shop.put("A", "B", stock=7)
    shop.refuse("B")
    results = shop.run()
    failure = shop.failure("B")
    assert shop.states() == {"B": "open"}
    assert (failure.exception_type, failure.message) == ("ValueError", "the shop refuses this")
    assert decode(failure.payload or "") == {"sku": "B", "stock": 7}
    assert (failure.attempts, failure.action, failure.last_run_id) == (1, "upsert", results.run_id)
    assert failure.first_failed_at == failure.last_failed_at == results.completed_at
    assert failure.next_try_at == results.completed_at + timedelta(seconds=60)


def test_each_run_counts_as_one_attempt_until_it_is_given_up(shop: FailingShop) -> None:
    shop.put("A")
    shop.refuse("A")
    first = shop.run().completed_at
    waits = [60, 240, None]
    for attempts, wait in enumerate(waits, start=1):
        failure = shop.failure("A")
        assert (failure.attempts, failure.first_failed_at) == (attempts, first)
        assert failure.next_try_at == (failure.last_failed_at + timedelta(seconds=wait) if wait else None)
        assert failure.state == ("open" if wait else "given up")
        shop.run()
    assert shop.failure("A").attempts == 4


def test_what_is_given_up_opens_again_when_its_item_changes(shop: FailingShop) -> None:
    shop.put("A")
    shop.refuse("A")
    first = shop.run().completed_at
    shop.run()
    shop.run()
    assert shop.states() == {"A": "given up"}
    shop.put("A", stock=2)
    shop.run()
    failure = shop.failure("A")
    assert (failure.state, failure.attempts, failure.first_failed_at) == ("open", 1, first)
    assert decode(failure.payload or "")["stock"] == 2


def test_what_goes_through_is_resolved_by_that_run_and_its_item_is_kept_no_longer(shop: FailingShop) -> None:
    shop.put("A", "B")
    shop.refuse("A", "B")
    shop.run()
    shop.accept("A")
    results = shop.run()
    failure = shop.failure("A")
    assert shop.states() == {"A": "resolved", "B": "open"}
    assert (failure.resolved_by, failure.payload, failure.next_try_at) == (results.run_id, None, None)
    assert failure.resolved_at == results.completed_at


def test_what_fails_again_after_it_went_through_begins_anew(shop: FailingShop) -> None:
    shop.put("A")
    shop.refuse("A")
    shop.run()
    shop.run()
    shop.accept("A")
    shop.run()
    shop.refuse("A")
    shop.put("A", stock=2)
    later = shop.run()
    failure = shop.failure("A")
    assert (failure.state, failure.attempts, failure.first_failed_at) == ("open", 1, later.completed_at)
    assert (failure.resolved_at, failure.resolved_by) == (None, None)
    assert failure.payload is not None


def test_what_vanishes_from_the_source_is_resolved_as_vanished(shop: FailingShop) -> None:
    shop.put("A", "B")
    shop.refuse("A")
    shop.run()
    del shop.items["A"]
    shop.run()
    assert (shop.failure("A").state, shop.failure("A").resolved_by) == ("resolved", "vanished")


def test_a_source_that_gives_nothing_resolves_nothing(shop: FailingShop) -> None:
    shop.put("A")
    shop.refuse("A")
    shop.run()
    shop.items.clear()
    shop.run()
    assert shop.states() == {"A": "open"}


def test_an_item_without_an_id_may_be_any_that_seems_to_have_vanished(shop: FailingShop) -> None:
    shop.put("A", "B")
    shop.refuse("A")
    shop.run()
    del shop.items["A"]
    shop.items["?"] = {"sku": None, "stock": 1}
    shop.run()
    assert shop.states() == {"A": "open", None: "open"}
    del shop.items["?"]
    shop.run()
    assert shop.states() == {"A": "resolved", None: "resolved"}


def test_items_without_an_id_are_told_apart_by_what_they_are(shop: FailingShop) -> None:
    shop.items = {str(number): {"sku": None, "stock": number % 3} for number in range(9)}
    shop.run()
    shop.run()
    found = shop.workspace.failures.newest("stock", ("open",), 10)
    assert sorted(decode(each.payload or "")["stock"] for each in found) == [0, 1, 2]
    assert {each.attempts for each in found} == {2}


def test_a_fetch_that_breaks_off_notes_and_resolves_nothing(shop: FailingShop) -> None:
    def broken() -> Iterator[Any]:
        yield {"sku": "B", "stock": 1}
        raise ConnectionError("gone")

    shop.put("A")
    shop.refuse("A")
    shop.run()
    before = shop.failure("A")
    shop.fields["fetch_external"] = broken
    with pytest.raises(FetchError):
        shop.run()
    assert shop.failure("A") == before
    assert shop.states() == {"A": "open"}


def test_a_run_that_breaks_off_notes_what_it_knows_and_resolves_nothing(shop: FailingShop) -> None:
    shop.put("A", "B", "C")
    shop.refuse("A", "B")
    shop.run()
    shop.accept("B")
    shop.put("B", "D", stock=2)
    shop.refuse("D")
    run = SyncRun(shop.job, shop.workspace)
    planned = run.diff(run.fetch())
    # its accounts won't balance
    shop.workspace.batches.save(planned.run_id, BatchKey(number=99), {"created": 1}, [], shop.clock())
    with pytest.raises(RunError):
        run.apply(planned)
    assert shop.states() == {"A": "open", "B": "open", "D": "open"}
    assert shop.failure("A").attempts == 2


def test_only_what_a_limited_run_took_is_resolved(shop: FailingShop) -> None:
    shop.put("A", "B", "C")
    shop.refuse("A", "B", "C")
    shop.run()
    shop.accept("A", "B")
    shop.run(only=["A", "C"])
    assert shop.states() == {"A": "resolved", "B": "open", "C": "open"}
    shop.run(limit=2)
    assert shop.states() == {"A": "resolved", "B": "resolved", "C": "open"}
    assert shop.failure("C").attempts == 2


def test_finishing_twice_counts_once(shop: FailingShop) -> None:
    """As when `on_complete` fails, after the run has ended well."""

    def broken(_: Any) -> None:
        raise ValueError("no")

    shop.put("A", "B")
    shop.refuse("A", "B")
    shop.run()
    shop.accept("B")
    shop.fields["on_complete"] = broken
    with pytest.raises(HookError) as raised:
        shop.run()
    assert shop.states() == {"A": "open", "B": "resolved"}
    assert shop.failure("A").attempts == 2
    run_id = raised.value.results.run_id
    end_again(shop, run_id)
    assert shop.failure("A").attempts == 2


def test_an_old_run_that_is_finished_again_does_not_bring_back_what_went_through(shop: FailingShop) -> None:
    shop.put("A")
    shop.refuse("A")
    old = shop.run()
    shop.accept("A")
    shop.run()
    end_again(shop, old.run_id)
    assert shop.states() == {"A": "resolved"}


def test_an_item_that_fails_before_it_is_compared_is_kept_as_well(shop: FailingShop) -> None:
    def refuses(item: Any) -> bool:
        if item["sku"] == "B":
            raise KeyError("colour")
        return False

    shop.put("A", "B")
    shop.fields["should_skip"] = refuses
    shop.run()
    assert shop.failure("B").exception_type == "KeyError"
    assert shop.failure("B").message.startswith("should_skip: KeyError: 'colour' (test_failures.py:")
    assert shop.failure("B").payload is not None


def test_an_item_that_could_not_be_kept_waits_for_the_next_run(shop: FailingShop) -> None:
    shop.put("A")
    shop.items["A"]["stock"] = object()
    shop.run()
    failure = shop.failure("A")
    assert (failure.payload, failure.next_try_at, failure.state) == (None, None, "open")
    with pytest.raises(ConfigurationError, match="'A' could not be kept; try it with `sync-pipelines run stock --only"):
        shop.retry("A")


def test_a_record_that_could_not_be_deleted_is_a_failure_of_its_own_kind(shop: FailingShop) -> None:
    shop.put("A", "B")
    shop.fields["deletes"] = "hard"
    shop.run()
    shop.refuse("B")
    del shop.items["B"]
    shop.run()
    failure = shop.failure("B")
    assert (failure.action, failure.payload, failure.next_try_at, failure.state) == ("delete", None, None, "open")
    assert shop.retry().fetched == 0
    with pytest.raises(ConfigurationError, match="'B' is a record that could not be deleted"):
        shop.retry("B")
    shop.accept("B")
    shop.run()
    assert shop.states() == {"B": "resolved"}


def test_a_delete_that_was_withheld_this_time_is_not_over(shop: FailingShop) -> None:
    shop.put("A", "B")
    shop.fields["deletes"] = "hard"
    shop.run()
    shop.refuse("B")
    del shop.items["B"]
    shop.run()
    shop.items["?"] = {"sku": None, "stock": 1}
    shop.run()
    assert shop.states() == {"B": "open", None: "open"}


def test_what_a_target_says_of_deletes_decides_nothing(shop: FailingShop) -> None:
    """Its own notes may begin as ours do."""
    shop.target = TellsOfDeletes()
    shop.fields["deletes"] = "hard"
    shop.put("A", "B")
    shop.run()
    del shop.items["B"]
    shop.refuse("B")
    shop.run()
    assert shop.states() == {"B": "open"}
    shop.accept("B")
    assert shop.run().deleted == 1
    assert shop.states() == {"B": "resolved"}


def test_an_item_that_fails_to_be_deleted_after_it_failed_to_be_written_begins_anew(shop: FailingShop) -> None:
    shop.target.records["A"] = {"sku": "A", "stock": 0}
    shop.put("A", "B")
    shop.refuse("A")
    shop.fields["deletes"] = "hard"
    shop.run()
    shop.run()
    del shop.items["A"]
    shop.run()
    assert (shop.failure("A").action, shop.failure("A").attempts) == ("delete", 1)


def test_a_dry_run_notes_no_failure_and_resolves_none(shop: FailingShop) -> None:
    def refuses(item: Any) -> bool:
        if item["stock"] == 9:
            raise ValueError("nine")
        return False

    shop.fields["should_skip"] = refuses
    shop.put("A", stock=9)
    shop.put("B")
    shop.run()
    shop.put("A", stock=1)
    shop.put("B", stock=9)
    run = DryRun(shop.job, shop.workspace)
    results = run.finish(run.diff(run.fetch()))
    assert shop.states() == {"A": "open"}
    assert [cause.count for cause in results.causes] == [1]


def test_a_plan_that_is_applied_notes_and_resolves_what_is_in_it(shop: FailingShop) -> None:
    shop.put("A", "B", "C")
    shop.refuse("A", "B")
    shop.run()
    shop.accept("A")
    run = DryRun(shop.job, shop.workspace)
    planned = run.finish(run.diff(run.fetch()))
    results = PlanRun(shop.job, shop.workspace).apply_kept(planned.plan_id or "")
    assert (results.created, results.error_count) == (1, 1)
    assert shop.states() == {"A": "resolved", "B": "open"}
    assert shop.failure("B").attempts == 2
    assert (shop.failure("B").seen_at, shop.failure("B").next_try_at) == (None, None)


def test_of_several_runs_that_break_off_and_go_on_each_error_counts_once(shop: FailingShop) -> None:
    shop.put("A", "B")
    shop.refuse("A")
    run = SyncRun(shop.job, shop.workspace)
    planned = run.diff(run.fetch())
    run.apply(planned)
    SyncRun(shop.job, shop.workspace).apply(PlanRef(planned.run_id, planned.writes))
    assert shop.failure("A").attempts == 1


def test_resolved_failures_are_removed_when_the_runs_of_their_time_are(shop: FailingShop) -> None:
    shop.put("A", "B")
    shop.refuse("A", "B")
    shop.run()
    shop.accept("A")
    shop.run()
    shop.clock.advance(shop.workspace.keep_runs.total_seconds() - 100)
    shop.run()
    assert shop.states() == {"A": "resolved", "B": "given up"}
    shop.clock.advance(200)
    shop.run()
    assert shop.states() == {"B": "given up"}


def test_ids_of_any_length_and_kind_are_kept(shop: FailingShop) -> None:
    odd = ["x" * 5_000, "x" * 4_999 + "y", "a\x00b", "é'\"", '["a", 1]', "sha256:0"]
    shop.put(*odd)
    shop.refuse(*odd)
    shop.run()
    shop.run()
    assert len(shop.states()) == len(odd)
    assert {shop.failure(each).attempts for each in odd} == {2}
    shop.accept(*odd)
    shop.run()
    assert set(shop.states().values()) == {"resolved"}


class TestGuards:
    """What guards withhold has not gone through."""

    def test_an_update_that_is_withheld_resolves_nothing_until_it_is_released(self, shop: FailingShop) -> None:
        shop.fields["guards"] = Guards(max_update_share=0.1, few=0)
        shop.put("A", "B", "C")
        shop.refuse("C")
        shop.run()
        assert shop.states() == {"C": "open"}
        shop.accept("C")
        shop.target.records["C"] = {"sku": "C", "stock": 0}
        shop.put("A", "B", "C", stock=2)
        results = shop.run()
        assert results.outcome == "guarded"
        assert shop.states() == {"C": "open"}
        PlanRun(shop.job, shop.workspace).apply_kept(results.plan_id or results.run_id, "it is right")
        assert shop.target.records["C"]["stock"] == 2
        assert shop.states() == {"C": "resolved"}

    def test_a_run_of_which_something_is_withheld_lets_nothing_vanish(self, shop: FailingShop) -> None:
        shop.fields.update(guards=Guards(max_delete_share=0.1, max_deletes=0), deletes="hard")
        shop.put("A", "B", "C", "D")
        shop.refuse("D")
        shop.run()
        del shop.items["D"], shop.items["C"]
        assert shop.run().outcome == "guarded"
        assert shop.states() == {"D": "open"}

    def test_a_run_that_applied_all_but_of_which_too_many_failed_resolves_as_any(self, shop: FailingShop) -> None:
        shop.fields["fail_above"] = 1
        shop.put("A", "B", "C")
        shop.refuse("A", "B", "C")
        with pytest.raises(TooManyFailedError):
            shop.run()
        shop.accept("A")
        with pytest.raises(TooManyFailedError):
            shop.run()
        assert shop.states() == {"A": "resolved", "B": "open", "C": "open"}
        assert AppliedSince(shop.workspace.ledger, "stock").uncertain_since() is None


class TestSingleItems:
    """A later state that came by itself and went through ends a failure."""

    @pytest.fixture
    def desk(self, shop: FailingShop) -> Desk:
        return Desk(shop.workspace)

    def test_a_delivery_that_goes_through_resolves_the_failure_of_its_item(self, shop: FailingShop, desk: Desk) -> None:
        shop.put("A", "B")
        shop.refuse("A", "B")
        shop.run()
        shop.accept("A", "B")
        desk.upsert({"sku": "A", "stock": 5})
        desk.drain(shop.job)
        assert shop.states() == {"A": "resolved", "B": "open"}
        assert shop.failure("A").resolved_by == "single item"

    def test_one_that_fails_does_not(self, shop: FailingShop, desk: Desk) -> None:
        shop.put("A")
        shop.refuse("A")
        shop.run()
        desk.upsert({"sku": "A", "stock": 5})
        desk.drain(shop.job)
        assert (shop.failure("A").state, shop.failure("A").attempts) == ("open", 1)

    def test_one_that_came_before_the_item_was_fetched_does_not(self, shop: FailingShop, desk: Desk) -> None:
        shop.put("A")
        shop.refuse("A")
        desk.upsert({"sku": "A", "stock": 0})
        shop.run()
        shop.accept("A")
        desk.drain(shop.job)
        assert shop.states() == {"A": "open"}

    def test_a_delete_does(self, shop: FailingShop, desk: Desk) -> None:
        shop.put("A")
        shop.run()
        shop.put("A", stock=2)
        shop.refuse("A")
        shop.run()
        shop.accept("A")
        desk.delete("A")
        desk.drain(shop.job)
        assert shop.states() == {"A": "resolved"}

    @pytest.mark.parametrize(("delivered", "state"), [(3, "open"), (5, "resolved"), (6, "resolved")])
    def test_with_versions_only_one_that_is_not_older_does(
        self, shop: FailingShop, desk: Desk, delivered: int, state: str
    ) -> None:
        shop.fields["get_version"] = "version"
        shop.put("A", version=5)
        shop.refuse("A")
        shop.run()
        shop.accept("A")
        desk.upsert({"sku": "A", "stock": 5, "version": delivered})
        desk.drain(shop.job)
        assert shop.states() == {"A": state}


class TestCauses:
    """Errors are told by cause, and compared with those of the run before."""

    def test_a_run_tells_its_errors_by_cause_the_most_frequent_first(self, shop: FailingShop) -> None:
        shop.put(*(f"A-{number}" for number in range(9)), "B")
        shop.target.fails = {f"A-{number}": ValueError(f"{number} pieces are too many") for number in range(8)}
        shop.refuse("B", error=KeyError("colour"))
        results = shop.run()
        assert [(each.count, each.template, each.sample_ids, each.is_new) for each in results.causes] == [
            (8, "<number> pieces are too many", ("A-0", "A-1", "A-2", "A-3", "A-4"), False),
            (1, "'colour'", ("B",), False),
        ]
        assert results.gone_causes == ()
        assert results_of_run(shop.workspace, results.run_id).causes == results.causes

    def test_it_says_what_is_new_and_what_is_gone_since_the_run_before(self, shop: FailingShop) -> None:
        shop.put("A", "B", "C")
        shop.refuse("A", error=KeyError("colour"))
        shop.refuse("B")
        shop.run()
        shop.accept("A")
        shop.put("C", stock=2)
        shop.refuse("C", error=TypeError("no"))
        results = shop.run()
        assert {each.exception_type: each.is_new for each in results.causes} == {"ValueError": False, "TypeError": True}
        assert [(each.template, each.count) for each in results.gone_causes] == [("'colour'", 1)]
        shop.accept("B", "C")
        results = shop.run()
        assert (results.causes, len(results.gone_causes)) == ((), 2)
        assert shop.run().gone_causes == ()

    def test_runs_that_failed_or_were_limited_are_no_run_before(self, shop: FailingShop) -> None:
        def broken() -> Any:
            raise OSError("away")

        shop.put("A", "B")
        shop.refuse("A")
        shop.run()
        limited = shop.run(only=["B"])
        assert (limited.causes, limited.gone_causes) == ((), ())
        shop.fields["fetch_external"] = broken
        with pytest.raises(FetchError) as raised:
            shop.run()
        assert raised.value.results.gone_causes == ()
        del shop.fields["fetch_external"]
        assert [each.is_new for each in shop.run().causes] == [False]

    def test_after_a_run_whose_updates_were_withheld_an_old_cause_is_not_new(self, shop: FailingShop) -> None:
        shop.put("A", "B", "C", "D")
        shop.run()
        shop.put("D", stock=2)
        shop.refuse("D", error=KeyError("colour"))
        assert [each.is_new for each in shop.run().causes] == [True]
        shop.fields["guards"] = Guards(max_update_share=0.3, few=0)
        shop.put("A", "B", stock=3)
        guarded = shop.run()
        assert (guarded.outcome, guarded.causes, guarded.gone_causes) == ("guarded", (), ())
        del shop.fields["guards"]
        assert [each.is_new for each in shop.run().causes] == [False]
        shop.accept("D")
        assert [each.template for each in shop.run().gone_causes] == ["'colour'"]

    def test_a_retry_tells_its_errors_by_cause_too(self, shop: FailingShop) -> None:
        shop.put("A", "B")
        shop.refuse("A", "B")
        shop.run()
        results = shop.retry(everything=True)
        assert [(each.count, each.is_new) for each in results.causes] == [(2, False)]
        assert replace(results.causes[0], count=1).line() == "1 x ValueError: the shop refuses this (e.g. A, B)"
