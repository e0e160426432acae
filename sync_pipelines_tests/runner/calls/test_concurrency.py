"""Targets that are functions, several at a time: the same plan and results as one at a time, and a safe end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis
import pytest
import stamina
from hypothesis import example, given
from hypothesis import strategies as st

from sync_pipelines.database.inbox import FAILED
from sync_pipelines.engine.codec import encode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.plan import Action
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.engine.retry import Retry
from sync_pipelines.errors import ItemError, LeaseLostError, RetryableError, TargetError
from sync_pipelines.runner.calls.circuit_breaker import ITEMS_IN_VAIN
from sync_pipelines.runner.calls.rate_limit import RateLimit
from sync_pipelines.runner.calls.target_driver import TargetDriver, Work, open_target
from sync_pipelines.runner.changes.drain import Drain, DrainLimits
from sync_pipelines.runner.changes.single_item import sync_single_item
from sync_pipelines.runner.context.lease import HeldLease, take_lease
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines.settings.model import Settings
from sync_pipelines.testing import MemoryTarget
from sync_pipelines_tests.two_speeds import few_and_many

PATIENCE_S = 30.0
Item = dict[str, Any]


def item(sku: Any, stock: int = 1) -> Item:
    return {"sku": sku, "stock": stock}


def items(count: int) -> list[Item]:
    return [item(f"A{number:04}") for number in range(count)]


@dataclass
class Shop:
    """A service with per-record functions that is told which calls fail. Safe to use from several threads."""

    records: dict[str, Item] = field(default_factory=dict)
    fails: dict[str, Exception] = field(default_factory=dict)
    fails_to_find: dict[str, Exception] = field(default_factory=dict)
    kind: str = "plain"
    inside: Callable[[], object] = bool
    written: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    most: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def job(self, fetched: list[Item], **fields: Any) -> SyncJob[Any, Any]:
        given = {
            "name": "shop",
            "fetch_external": lambda: fetched,
            "get_external_id": "sku",
            "find_local": self._offered(self.find),
            "create": self._offered(lambda each: self.write(each["sku"], each)),
            "update": self._offered(lambda each, local: self.write(local["sku"], each)),
            "delete": self._offered(lambda local: self.write(local["sku"], None)),
            "list_local": lambda: list(self.records),
            "has_changed": lambda each, local: each != local,
            "guards": None,
        }
        return SyncJob(**{**given, **fields})

    def _offered(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def asynchronous(*args: Any) -> Any:
            await asyncio.sleep(0)
            return function(*args)

        def gives_an_awaitable(*args: Any) -> Any:
            return asynchronous(*args)

        return {"plain": function, "async": asynchronous, "awaitable": gives_an_awaitable}[self.kind]

    def find(self, external_id: str) -> Item | None:
        if external_id in self.fails_to_find:
            raise copy(self.fails_to_find[external_id])  # several threads that raise one error spoil its traceback
        found = self.records.get(external_id)
        return dict(found) if found is not None else None

    def write(self, external_id: str, each: Item | None) -> None:
        with self.lock:
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
        try:
            self.inside()
            if external_id in self.fails:
                raise copy(self.fails[external_id])
            with self.lock:
                self.written[external_id] += 1
                if each is None:
                    del self.records[external_id]
                else:
                    self.records[external_id] = each
        finally:
            with self.lock:
                self.in_flight -= 1


def told(results: SyncResults) -> Any:
    """What a result says, but for times and the ids of the run and of its plan."""
    listed = [(each.external_id, each.message, each.exception_type, each.position) for each in results.errors]
    notes = [note.replace((results.plan_id or "no plan")[:8], "ID") for note in results.notes]
    return results.counts(), results.outcome, notes, listed, results.duplicates


# The same results


skus = st.sampled_from([*"ABCDEFGHIJ", None, ""])
some = st.frozensets(st.sampled_from("ABCDEFGHIJ"), max_size=4)
errors = st.sampled_from([ValueError("no"), ItemError("odd"), RetryableError("busy"), TargetError("a nested one")])


worlds = st.fixed_dictionaries(
    {
        "before": st.dictionaries(st.sampled_from("ABCDEFGHIJXYZ"), st.integers(0, 2)),
        "unfound": some,
        "refused": some,
        "error": errors,
        "kind": st.sampled_from(["plain", "async", "awaitable"]),
    }
)


@few_and_many(12, 40)
def test_any_concurrency_gives_the_same_records_and_results(examples: int) -> None:
    """Counts, outcomes, errors, their words and their order, for any mix of failures."""
    checked = hypothesis.settings(max_examples=examples, deadline=None)
    fetches = st.lists(st.builds(item, skus, st.integers(0, 2)), max_size=25)
    nothing = {"before": {"A": 1}, "unfound": (), "refused": (), "error": ValueError("no"), "kind": "plain"}
    checked(example([], nothing)(given(fetches, worlds)(assert_any_concurrency_gives_the_same)))()


def assert_any_concurrency_gives_the_same(fetched: list[Item], world: dict[str, Any]) -> None:
    shops, results = [], []
    with TemporaryDirectory() as folder, stamina.set_testing(True, attempts=100, cap=True):
        for concurrency in (1, 8):
            shop = Shop(
                {sku: item(sku, stock) for sku, stock in world["before"].items()},
                fails=dict.fromkeys(world["refused"], world["error"]),
                fails_to_find=dict.fromkeys(world["unfound"], world["error"]),
                kind=world["kind"],
            )
            job = shop.job(fetched, concurrency=concurrency, deletes="hard")
            shops.append(shop)
            results.append(run_sync(job, settings=Settings(data_dir=Path(folder))))
            assert results[-1].accounts_balance
    assert told(results[0]) == told(results[1])
    assert shops[0].records == shops[1].records
    assert shops[0].written == shops[1].written


@pytest.mark.parametrize("kind", ["plain", "async", "awaitable"])
def test_a_run_has_as_many_calls_in_flight_as_the_job_says(settings: Settings, kind: str) -> None:
    """The barrier opens only when four creates are inside; async ones meet on their loop."""
    barrier = threading.Barrier(4)
    shop = Shop(kind=kind, inside=(lambda: barrier.wait(PATIENCE_S)) if kind == "plain" else bool)

    results = run_sync(shop.job(items(40), concurrency=4), settings=settings)

    assert (results.created, results.error_count) == (40, 0)
    assert shop.most == 4 if kind == "plain" else shop.most <= 4


def test_async_functions_are_in_flight_at_one_time(settings: Settings) -> None:
    barrier, here, most = asyncio.Barrier(5), 0, 0

    async def create(_: Item) -> None:
        nonlocal here, most
        here += 1
        most = max(most, here)
        async with asyncio.timeout(PATIENCE_S):
            await barrier.wait()
        here -= 1

    assert run_sync(Shop().job(items(30), concurrency=5, create=create), settings=settings).created == 30
    assert most == 5


def test_without_concurrency_functions_run_in_the_callers_thread(settings: Settings) -> None:
    threads: set[int] = set()

    def create(_: Item) -> None:
        threads.add(threading.get_ident())

    run_sync(Shop().job(items(5), create=create), settings=settings)
    sync_single_item(Shop().job([], create=create, concurrency=8), item("A"))

    assert threads == {threading.get_ident()}


def test_methods_for_many_records_are_still_called_once(settings: Settings) -> None:
    target = MemoryTarget({f"A{number:04}": item("old", 9) for number in range(5)})
    job = SyncJob[Any, Any](
        name="bulk", fetch_external=lambda: items(10), get_external_id="sku", target=target, concurrency=8
    )

    run_sync(job, settings=settings)

    assert {name: count for name, count in target.calls.items() if name != "open"} == {
        "find_many": 2, "create_many": 1, "update_many": 1,
    }  # fmt: skip


def test_a_look_up_of_many_is_narrowed_down_one_by_one(settings: Settings) -> None:
    """A target that offers both may have but one connection."""
    threads: set[int] = set()

    class Narrowed(MemoryTarget):
        def find_local(self, external_id: str) -> Any:
            threads.add(threading.get_ident())
            return super().find_local(external_id)

    target = Narrowed(fails_to_find={"A0003": ValueError("no")})
    job = SyncJob[Any, Any](
        name="bulk", fetch_external=lambda: items(6), get_external_id="sku", target=target, concurrency=8
    )

    assert run_sync(job, settings=settings).error_count == 1
    assert threads == {threading.get_ident()}


def test_it_works_inside_a_running_event_loop_and_for_deliveries(settings: Settings, workspace: Workspace) -> None:
    shop = Shop(kind="async", fails={"A0002": ValueError("no")})

    async def handler() -> SyncResults:
        return run_sync(shop.job(items(6), concurrency=3), settings=settings)

    assert asyncio.run(handler()).created == 5
    for each in [item("A0001", 5), item("B")]:
        workspace.inbox.store("shop", encode(each), workspace.clock())
    drained = Drain(shop.job([], concurrency=3), workspace).run(DrainLimits(idle_wait_s=0))
    assert (drained.created, drained.updated) == (1, 1)


def test_an_async_function_may_run_another_sync_with_several_at_a_time(settings: Settings) -> None:
    inner, outer = Shop(kind="async"), Shop()

    async def create(each: Item) -> None:
        run_sync(inner.job([item(f"{each['sku']}-{number}") for number in range(3)], name=each["sku"].lower(),
                           concurrency=3), settings=settings)  # fmt: skip

    results = run_sync(outer.job(items(4), create=create, concurrency=2), settings=settings)

    assert (results.created, len(inner.records)) == (4, 12)


def test_a_run_keeps_to_the_calls_a_second_of_its_job(settings: Settings) -> None:
    """Nine creates and nine look-ups at a rate: they take at least as long as the rate says."""
    began_s = time.monotonic()
    results = run_sync(Shop().job(items(9), concurrency=8, max_calls_per_s=200), settings=settings)
    assert results.created == 9
    assert time.monotonic() - began_s >= 16 / 200


def test_one_that_is_told_to_wait_holds_back_the_others() -> None:
    """By a clock of the test, which only waiting moves: nobody calls between the 429 and the end of its wait."""
    lock = threading.Lock()
    now_s, called_s, answered, paused = [0.0], [], [], threading.Event()

    class Told(RateLimit):
        def pause(self, seconds: float) -> None:
            super().pause(seconds)
            paused.set()

    def sleep(seconds: float) -> None:
        with lock:
            now_s[0] = max(now_s[0], answered[0] + seconds)

    def create(_: Item) -> None:
        with lock:
            called_s.append(now_s[0])
            is_first = not answered
            answered.append(now_s[0])
        if not is_first:
            paused.wait(PATIENCE_S)
            return
        raise RetryableError("429", retry_after_s=20)

    job = Shop().job([], concurrency=4, create=create)
    driver = TargetDriver(job, job, pace=Told(None, sleep, lambda: now_s[0]))

    assert driver.write(Action.CREATE, [Work(f"A{number}", item(f"A{number}"), None) for number in range(40)]) == (
        [None] * 40
    )
    # those that were inside when the answer came are no offence: one for each worker
    assert len([each for each in called_s if each < 20]) <= 4
    assert len(called_s) == 41


# A target that is down


def down_after(shop: Shop, good: int) -> None:
    """Lets the first writes through, and no further one."""
    left = [good]

    def inside() -> None:
        with shop.lock:
            left[0] -= 1
            if left[0] < 0:
                raise RetryableError("no route to host")

    shop.inside = inside


@pytest.mark.usefixtures("no_waits")
class TestOutage:
    @pytest.mark.parametrize("concurrency", [1, 8])
    @pytest.mark.parametrize("kind", ["plain", "async"])
    @pytest.mark.parametrize("with_has_changed", [True, False])
    def test_the_run_ends_and_going_on_writes_nothing_twice(
        self,
        workspace: Workspace,
        concurrency: int,
        kind: str,
        with_has_changed: bool,  # noqa: FBT001 - parametrised
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """What was written is counted at once, and the counts of both attempts add up to the whole."""
        monkeypatch.setattr("sync_pipelines.runner.plans.plan_file.PAGE_SIZE", 40)
        shop = Shop({"A0000": item("A0000", 9), "gone": item("gone")}, kind=kind, fails={"A0003": ValueError("no")})
        fields: dict[str, Any] = {} if with_has_changed else {"has_changed": None}
        run = SyncRun(shop.job(items(95), concurrency=concurrency, deletes="hard", **fields), workspace)
        plan = run.diff(run.fetch())
        down_after(shop, 60)

        with pytest.raises(TargetError, match="shop: the target does not answer to calls for 10 records in a row: no"):
            run.apply(plan)

        broken_off = workspace.ledger.run(plan.run_id)
        assert broken_off is not None
        counts = broken_off.counts
        assert counts["created"] + counts["updated"] == shop.written.total() == 59
        assert (counts["failed"], broken_off.outcome) == (1, "failed")
        shop.inside = bool
        results = run.apply(plan)
        assert (results.created, results.updated, results.deleted, results.error_count) == (93, 1, 1, 1)
        assert (results.recovered, results.accounts_balance, results.outcome) == (0, True, "partial")
        assert set(shop.written.values()) == {1}
        assert [error.external_id for error in results.errors] == ["A0003"]

    def test_it_may_be_down_again_when_the_run_is_gone_on_with(self, workspace: Workspace) -> None:
        shop = Shop()
        run = SyncRun(shop.job(items(50), concurrency=4), workspace)
        plan = run.diff(run.fetch())
        for good in (7, 0, 20):
            down_after(shop, good)
            with pytest.raises(TargetError):
                run.apply(plan)
        shop.inside = bool
        assert run.apply(plan).created == 50
        assert set(shop.written.values()) == {1}

    @pytest.mark.parametrize("concurrency", [1, 8])
    def test_a_new_run_does_the_rest(self, settings: Settings, concurrency: int) -> None:
        shop = Shop()
        down_after(shop, 20)
        with pytest.raises(TargetError) as caught:
            run_sync(shop.job(items(50), concurrency=concurrency), settings=settings)
        assert caught.value.results.created == len(shop.records) == 20
        shop.inside = bool
        results = run_sync(shop.job(items(50), concurrency=concurrency), settings=settings)
        assert (results.created, results.unchanged) == (30, 20)

    @pytest.mark.parametrize("concurrency", [1, 8])
    def test_not_every_item_waits_through_all_attempts(self, settings: Settings, concurrency: int) -> None:
        calls = Counter[str]()

        def create(each: Item) -> None:
            calls[each["sku"]] += 1
            raise RetryableError("down")

        with pytest.raises(TargetError):
            run_sync(Shop().job(items(1_000), create=create, concurrency=concurrency), settings=settings)

        assert ITEMS_IN_VAIN <= len(calls) <= ITEMS_IN_VAIN * concurrency
        assert max(calls.values()) == 4

    @pytest.mark.parametrize("concurrency", [1, 8])
    @pytest.mark.parametrize("fails_to_find", [True, False])
    def test_nine_in_a_row_are_nine_failures(
        self,
        settings: Settings,
        concurrency: int,
        fails_to_find: bool,  # noqa: FBT001 - parametrised
    ) -> None:
        """Nine, one that answers, nine more: these fail alone. One more without an answer is an outage."""
        silent = {f"A{number:04}": RetryableError("busy") for number in range(19) if number != 9}
        shop = Shop(**{"fails_to_find" if fails_to_find else "fails": silent})
        results = run_sync(shop.job(items(40), concurrency=concurrency), settings=settings)
        assert (results.created, results.error_count) == (22, 18)
        silent["A0019"] = RetryableError("busy")
        with pytest.raises(TargetError):
            run_sync(shop.job(items(40), concurrency=concurrency), settings=settings)

    @pytest.mark.parametrize("concurrency", [1, 8])
    def test_a_row_goes_on_from_one_chunk_to_the_next(
        self, settings: Settings, concurrency: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sync_pipelines.runner.plans.plan_file.PAGE_SIZE", 4)
        shop = Shop(fails={f"A{number:04}": RetryableError("busy") for number in range(2, 12)})
        with pytest.raises(TargetError) as caught:
            run_sync(shop.job(items(30), concurrency=concurrency), settings=settings)
        assert caught.value.results.created == 2
        assert caught.value.results.error_count == 6, "those of whole chunks are failures already"
        shop.fails.pop("A0007")
        assert run_sync(shop.job(items(30), concurrency=concurrency), settings=settings).error_count == 9

    def test_one_item_that_gets_no_answer_is_the_targets_outage_and_no_items_error(self) -> None:
        shop = Shop(fails={"A": RetryableError("busy")})
        with pytest.raises(TargetError, match="the target does not answer: busy"):
            sync_single_item(shop.job([], concurrency=8), item("A"))

    def test_deliveries_that_a_down_target_did_not_get_stay_waiting(self, workspace: Workspace) -> None:
        """Those that it got are settled, and not applied again."""
        workspace = replace(workspace, retries=Retry(attempts=1))
        shop = Shop()
        for each in [item(None), *items(30)]:
            workspace.inbox.store("shop", encode(each), workspace.clock())
        down_after(shop, 12)
        with pytest.raises(TargetError):
            Drain(shop.job([], concurrency=4, has_changed=None), workspace).run(DrainLimits(idle_wait_s=0))
        [run] = workspace.ledger.latest_runs("shop")
        assert (run.counts["created"], run.counts["failed"], len(shop.records)) == (12, 1, 12)
        assert (workspace.inbox.count("shop"), workspace.inbox.count("shop", FAILED)) == (18, 1)

        shop.inside = bool
        results = Drain(shop.job([], concurrency=4, has_changed=None), workspace).run(DrainLimits(idle_wait_s=0))

        assert (results.created, workspace.inbox.count("shop")) == (18, 0)
        assert set(shop.written.values()) == {1}

    @pytest.mark.parametrize("method", ["create_many", "update_many"])
    def test_what_a_bulk_target_wrote_before_it_went_down_is_counted(self, workspace: Workspace, method: str) -> None:
        """A batch is halved because of a bad record; the first half lands, then nothing answers any more."""

        class Shaky(MemoryTarget):
            good = 0

            def _write(self, name: str, pairs: Any) -> None:
                super()._write(name, pairs)
                self.good -= 1
                if self.good == 0:
                    self.fails["A0009"] = RetryableError("no route to host")

        before = {each["sku"]: {**each, "stock": 9} for each in items(20)} if method == "update_many" else {}
        target = Shaky(before, fails={"A0009": ValueError("no")})
        target.good = 1
        job = SyncJob[Any, Any](name="bulk", fetch_external=lambda: items(20), get_external_id="sku", target=target)
        run = SyncRun(job, workspace)
        plan = run.diff(run.fetch())
        with pytest.raises(TargetError) as caught:
            run.apply(plan)
        assert caught.value.results.created + caught.value.results.updated == target.writes > 0
        target.fails.clear()
        results = run.apply(plan)
        assert (results.created + results.updated, results.recovered, target.writes) == (20, 0, 20)


# A run that is broken off


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_an_interrupted_run_counts_what_it_did_and_can_be_gone_on_with(
    workspace: Workspace, concurrency: int, kind: str
) -> None:
    shop = Shop(kind=kind)
    left = [30]

    def inside() -> None:
        with shop.lock:
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt

    run = SyncRun(shop.job(items(60), concurrency=concurrency), workspace)
    plan = run.diff(run.fetch())
    shop.inside = inside
    with pytest.raises(KeyboardInterrupt):
        run.apply(plan)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("worker ")]
    broken_off = workspace.ledger.run(plan.run_id)
    assert broken_off is not None
    assert broken_off.failure == "apply: interrupted"
    assert broken_off.counts["created"] >= 1

    results = run.apply(plan)

    assert (results.created + results.recovered, results.accounts_balance) == (60, True)
    assert set(shop.written.values()) == {1}


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_run_that_lost_its_lease_writes_no_more(workspace: Workspace, concurrency: int) -> None:
    """Another run takes over while this one works: whoever is not inside a write yet does not begin one."""
    shop = Shop()
    held = take_lease(workspace, "shop", "run-1", None, 0)
    taken_over = HeldLease(workspace.leases, held.lease, timedelta(0))
    workspace.leases.release(held.lease)
    with open_target(shop.job([], concurrency=concurrency), taken_over) as driver, pytest.raises(LeaseLostError):
        driver.write(Action.CREATE, [Work(each["sku"], each, None) for each in items(50)])
    assert shop.records == {}


def test_many_threads_that_find_the_lease_stale_ask_the_ledger_once(workspace: Workspace) -> None:
    now_s, renewed = [0.0], []
    held = take_lease(workspace, "shop", "run-1", None, 0)

    class Leases:
        def renew(self, *_: Any) -> bool:
            renewed.append(threading.get_ident())
            return True

    shared = HeldLease(Leases(), held.lease, timedelta(seconds=60), lambda: now_s[0])  # type: ignore[arg-type]
    now_s[0] = 50.0
    barrier = threading.Barrier(8)

    def check() -> None:
        barrier.wait(PATIENCE_S)
        shared.check()

    threads = [threading.Thread(target=check) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(renewed) == 1


def test_the_lease_error_of_a_sync_that_a_function_runs_itself_fails_that_item(settings: Settings) -> None:
    shop = Shop(fails={"A0001": LeaseLostError("the other sync lost its lease")})
    results = run_sync(shop.job(items(4), concurrency=2), settings=settings)
    assert (results.created, results.error_count) == (3, 1)
