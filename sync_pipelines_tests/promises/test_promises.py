"""The twelve promises, each proven as a reader would want to see it, on SQLite and on PostgreSQL.

Larger tests of each stand with the code that keeps it; these are short, and real.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines import (
    AccountsError,
    FetchError,
    SqlTable,
    SyncBusyError,
    SyncJob,
    apply_plan,
    open_plan,
    run_sync,
    sync_single_item,
)
from sync_pipelines.database.batches import Batches
from sync_pipelines.engine.retry import Retry
from sync_pipelines.runner.changes.drain import Drain, DrainLimits
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines_tests.promises.child import items as childs_items
from sync_pipelines_tests.promises.conftest import Shop, stock
from sync_pipelines_tests.webhooks.conftest import Served

PATIENCE_S = 60
MANY = 1_500
"""Enough for the database to compare them itself."""


class TestPromise1:
    """The second run changes nothing, whatever the types, time zones, decimals, nulls and empty strings."""

    @pytest.mark.parametrize("copies", [1, MANY])
    def test_promise_1_the_second_run_changes_nothing(self, shop: Shop, copies: int) -> None:
        table = sa.Table(
            "things",
            sa.MetaData(),
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("price", sa.Numeric(10, 2)),
            sa.Column("weight", sa.Float),
            sa.Column("changed_at", sa.DateTime(timezone=True)),
            sa.Column("day", sa.Date),
            sa.Column("note", sa.Text),
            sa.Column("sold", sa.Boolean),
            sa.Column("details", sa.JSON),
        )
        table.create(shop.database)
        india = timezone(timedelta(hours=5, minutes=30))
        kinds: list[dict[str, Any]] = [
            {"price": "3.10", "weight": 0.1, "changed_at": datetime(2026, 3, 29, 2, 30, tzinfo=india), "note": "ü 💥"},
            {"price": Decimal("3.1"), "weight": 1, "changed_at": "2026-03-29T02:30:00Z", "note": ""},
            {"price": 3, "weight": float("nan"), "changed_at": datetime(2026, 3, 29, tzinfo=UTC), "note": None},
            {"day": date(2024, 2, 29), "sold": True, "details": {"b": [1, None, 2.5], "a": ""}, "note": "null"},
            {"day": "2024-02-29", "sold": 0, "details": [], "note": "  "},
        ]
        empty = dict.fromkeys(column.name for column in table.columns)
        items = [{**empty, **kind} for kind in kinds for _ in range(copies)]
        things = [{**item, "id": number} for number, item in enumerate(items)]
        job = SyncJob[Any, Any](
            name="things",
            fetch_external=lambda: things,
            target=SqlTable(table=table, key="id", columns=list(empty)[1:], database=shop.database),
        )

        assert run_sync(job, settings=shop.settings).created == len(things)
        for _ in range(2):
            again = run_sync(job, settings=shop.settings)
            assert (again.unchanged, again.created, again.updated) == (len(things), 0, 0)


class TestPromise2:
    """Every item has exactly one outcome, and a run whose accounts do not balance is never green."""

    def test_promise_2_every_item_has_exactly_one_outcome(self, shop: Shop) -> None:
        shop.fill({"old": 1, "same": 1})
        items = [stock("old", 2), stock("same", 1), stock("new", 1), stock("skip", 1), stock("bad", -1)]
        items += [stock(None, 1), stock("new", 3), stock("worse", "many")]

        results = shop.sync(items, should_skip=lambda item: item["sku"] == "skip")

        outcomes = {
            name: results.counts()[name] for name in ("created", "updated", "unchanged", "skipped", "duplicate")
        }
        assert outcomes == dict.fromkeys(outcomes, 1)
        assert [(error.position, error.external_id) for error in results.errors] == [
            (4, "bad"),
            (5, None),
            (7, "worse"),
        ]
        assert results.fetched == len(items) == sum(outcomes.values()) + results.error_count

    def test_promise_2_a_run_whose_accounts_do_not_balance_is_never_green(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Batches, "save", lambda *_args, **_options: None)  # somebody loses count

        with pytest.raises(AccountsError, match="do not balance") as caught:
            shop.sync([stock("A", 1)])

        assert caught.value.results.outcome == "failed"


class TestPromise3:
    """One bad item never stops the others, and its own message is kept with its external id."""

    def test_promise_3_one_bad_item_never_stops_the_others(self, shop: Shop) -> None:
        errors = {"B": ValueError("no B today"), "C": StopIteration("odd"), "D": AssertionError("D is impossible")}

        def create(item: Any) -> None:
            if item["sku"] in errors:
                raise errors[item["sku"]]
            shop.fill({item["sku"]: item["stock"]})

        functions = {"get_external_id": "sku", "find_local": shop.rows().get, "create": create, "update": create}
        results = shop.sync([stock(sku, 1) for sku in "ABCDE"] + [stock("F", -1)], target=None, **functions)

        assert sorted(shop.rows()) == ["A", "E"]
        told = {error.external_id: error.message for error in results.errors}
        said = {"B": "ValueError: no B today", "C": "StopIteration: odd", "D": "AssertionError: D is impossible"}
        for sku, message in said.items():
            assert told[sku].startswith(f"create: {message} (test_promises.py:")
        assert "check" in told["F"].lower()


class TestPromise4:
    """Bulk speed and per-item errors at once."""

    def test_promise_4_bulk_speed_and_per_item_errors_at_once(self, shop: Shop) -> None:
        shop.do("CREATE UNIQUE INDEX one_of_each ON variants (stock)")
        good = [stock(f"A{number}", number) for number in range(MANY)]
        bad = [stock("taken", 7), stock("negative", -1), stock("wordy", "many")]

        with shop.statements() as sent:
            results = shop.sync([*good[:700], *bad, *good[700:]])

        assert results.created == len(shop.rows()) == MANY
        told = {error.external_id: error.message.lower() for error in results.errors}
        assert sorted(told) == ["negative", "taken", "wordy"]
        assert "unique" in told["taken"]
        assert "check" in told["negative"]
        assert "many" in told["wordy"]
        of_rows = [each for each in sent if not each.startswith("SET TRANSACTION")]  # with which each begins
        assert len(of_rows) < MANY / 5, "it did not go row by row"


class TestPromise5:
    """Counts say what was written, not what was planned."""

    @pytest.mark.parametrize("count", [5, MANY])
    def test_promise_5_counts_say_what_was_written_not_what_was_planned(self, shop: Shop, count: int) -> None:
        shop.fill({"A1": 99})
        job = shop.job([stock(f"A{number}", number) for number in range(count)])
        with open_workspace(shop.settings) as workspace:
            run = SyncRun(job, workspace)
            plan = run.diff(run.fetch())
            assert plan.writes == count
            shop.do("DELETE FROM variants WHERE sku = 'A1'")  # others were faster
            shop.fill({"A2": 2})
            before = shop.rows()

            results = run.apply(plan)

        after = shop.rows()
        assert results.created == len(after) - len(before) == count - 1, "A1 is a new record by now"
        assert results.updated == 0
        assert results.unchanged + results.error_count == 1


class TestPromise6:
    """Deletes only after a complete fetch; what was seen and what was applied well are two sets."""

    def test_promise_6_deletes_only_after_a_complete_fetch(self, shop: Shop) -> None:
        before = {"A": 1, "B": 1, "C": 1}
        shop.fill(before)

        def breaking() -> Iterator[Any]:
            yield stock("A", 1)
            raise ConnectionError("the line is dead")

        with pytest.raises(FetchError):
            shop.sync(breaking, deletes="hard")
        assert shop.rows() == before
        for incomplete in ([], [stock("A", 1), stock(None, 1)]):
            results = shop.sync(incomplete, deletes="hard")
            assert (results.deleted, shop.rows()) == (0, before)
            assert results.outcome != "clean", "and it is told"

        results = shop.sync([stock("A", 1), stock("B", -1)], deletes="hard")

        assert (results.deleted, results.error_count) == (1, 1)
        assert sorted(shop.rows()) == ["A", "B"], "B was seen, though it could not be applied"


class TestPromise7:
    """A crash at any instant loses nothing and repeats nothing that matters."""

    def test_promise_7_a_crash_at_any_instant_loses_nothing(self, shop: Shop) -> None:
        wanted = {item["sku"]: item["stock"] for item in childs_items(1_200)}
        killed = 0
        for instant in (20, 45, 70, 85, 100, 115):
            shop.do("DELETE FROM variants")
            shop.fill({"A000000": 5, "A000001": 1, "gone": 1})
            child = shop.child("kill", instant)
            _, told = child.finish()
            assert child.returncode in {0, -signal.SIGKILL}, told
            killed += child.returncode != 0
            half = shop.rows()

            results = shop.sync(childs_items(1_200), deletes="hard")

            assert results.outcome == "clean", "the dead process blocks nobody"
            assert shop.rows() == wanted
            written = sum(half.get(sku) != quantity for sku, quantity in wanted.items())
            assert results.created + results.updated == written, "what the dead process wrote is not written again"
        assert killed >= 4


class TestPromise8:
    """One run of a sync at a time, whoever starts it; a trigger that has to wait is not lost."""

    def test_promise_8_one_run_at_a_time_and_who_has_to_wait_is_not_lost(self, shop: Shop) -> None:
        child = shop.child("wait", 3)
        assert child.read_line() == "fetching\n"

        with pytest.raises(SyncBusyError, match="another run of this sync is under way"):
            shop.sync([stock("ours", 1)])
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(run_sync, shop.job([stock("ours", 1)]), settings=shop.settings, wait_s=PATIENCE_S)
            child.finish("go on\n")
            assert waiting.result(PATIENCE_S).created == 1

        assert child.returncode == 0
        assert len(shop.rows()) == 4

    def test_promise_8_a_run_that_is_dead_blocks_nobody(self, shop: Shop) -> None:
        child = shop.child("wait", 3)
        child.read_line()
        child.kill()
        child.finish()

        assert shop.sync([stock("ours", 1)]).created == 1


class TestPromise9:
    """A webhook answered with 2xx is stored durably and is applied, or ends in the failures with its reason."""

    JOB = """
        from sync_pipelines import SyncJob, Unsigned, Webhook

        JOB = SyncJob(name="stock", fetch_external=list, get_external_id="sku", find_local=id, create=id, update=print,
                      webhook=Webhook(signature=Unsigned()))
    """

    def test_promise_9_a_webhook_answered_with_2xx_is_applied_or_fails_with_its_reason(
        self, shop: Shop, tmp_path: Any
    ) -> None:
        served = Served(tmp_path, shop.url, self.JOB)
        try:
            served.start()
            statuses = [served.post(stock(sku, quantity)).status_code for sku, quantity in (("A", 5), ("B", -1))]
            served.end(signal.SIGKILL)
        finally:
            served.close()
        assert statuses == [202, 202]

        settings = type(shop.settings)(data_dir=shop.settings.data_dir, ledger_url=shop.url)
        with open_workspace(settings) as opened:
            workspace = replace(opened, retries=Retry(attempts=1))
            Drain(shop.job(), workspace).run(DrainLimits(idle_wait_s=0))
            failed, applied = workspace.inbox.newest("stock", limit=5)

        assert shop.rows() == {"A": 5}
        assert (applied.external_id, applied.action) == ("A", "created")
        assert (failed.external_id, failed.state) == ("B", "failed")
        assert "check" in (failed.message or "").lower()


class TestPromise10:
    """An older item never overwrites a newer one."""

    def test_promise_10_an_older_item_never_overwrites_a_newer_one(self, shop: Shop) -> None:
        def version(number: int, quantity: int) -> dict[str, Any]:
            return {**stock("A", quantity), "at": datetime(2026, 1, 31, 12, number, tzinfo=UTC)}

        fields = {"get_version": "at"}
        shop.sync([version(2, 20)], **fields)

        assert shop.sync([version(1, 10)], **fields).skipped == 1
        assert sync_single_item(shop.job(**fields), version(0, 5), settings=shop.settings).action == "skipped"
        assert shop.sync([version(3, 30), version(1, 10)], **fields).updated == 1
        assert shop.rows() == {"A": 30}


class TestPromise11:
    """Memory does not grow with the number of items."""

    def test_promise_11_memory_does_not_grow_with_the_number_of_items(self, shop: Shop) -> None:
        peaks_kb: list[int] = []
        for count in (30_000, 120_000):
            shop.do("DELETE FROM variants")
            child = shop.child("measure", count)
            told, error = child.finish()
            assert child.returncode == 0, error
            peaks_kb.append(int(told))
        few, many = peaks_kb
        assert many < few + 12_000, "90,000 ids alone take more"


class TestPromise12:
    """A dry run writes nothing to the target, and what it shows is what apply then does."""

    @pytest.mark.parametrize("count", [5, MANY])
    def test_promise_12_a_dry_run_writes_nothing_and_shows_what_apply_then_does(self, shop: Shop, count: int) -> None:
        shop.fill({"A0": 0, "A1": 9, "gone": 1})
        before, everything = shop.rows(), shop.everything()
        job = shop.job([stock(f"A{number}", number) for number in range(count)], deletes="hard")

        with shop.statements() as sent:
            planned = run_sync(job, settings=shop.settings, dry_run=True)

        assert shop.everything() == everything
        assert not [each for each in sent if shop.writes_to_target(each)]
        rows: dict[str, Any] = dict(before)
        for entry in open_plan(planned.plan_id or "", settings=shop.settings).entries():
            rows[entry.external_id] = entry.changes["stock"].new
            assert entry.changes["stock"].old == before.get(entry.external_id)

        applied = apply_plan(planned.plan_id or "", job=job, settings=shop.settings)

        assert shop.rows() == {sku: quantity for sku, quantity in rows.items() if quantity is not None}
        assert planned.planned is not None
        assert (applied.created, applied.updated, applied.deleted) == (count - 2, 1, 1)
        assert planned.planned.to_dict() == {"create": count - 2, "update": 1, "delete": 1}
