"""A dry run writes nothing to the target, and its plan is applied exactly, once, and to nothing that has changed."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.plan import PlanCounts
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.engine.versions import Version
from sync_pipelines.errors import ConfigurationError, HookError, PlanError, SyncBusyError, TargetError
from sync_pipelines.registry.plans import apply_plan
from sync_pipelines.runner.context.workspace import open_workspace, utc_now
from sync_pipelines.runner.plans.plan_view import Plan, list_plans, open_plan
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.testing import MemorySource, MemoryTarget

Item = dict[str, Any]
BEFORE = [{"sku": "A", "stock": 1, "note": "ours"}, {"sku": "B", "stock": 2, "note": None}, {"sku": "Z", "stock": 9}]
ITEMS = [{"sku": "A", "stock": 5}, {"sku": "B", "stock": 2}, {"sku": "C", "stock": 3}]


class Table:
    """A table with three records, and the sync that would create C, update A, and delete Z."""

    def __init__(self, database: sa.Engine, settings: Settings) -> None:
        self.database = database
        self.settings = settings
        self.items = [dict(item) for item in ITEMS]
        with database.begin() as connection:
            connection.exec_driver_sql(
                "CREATE TABLE variants (sku VARCHAR(20) PRIMARY KEY, stock INTEGER CHECK (stock >= 0), note TEXT)"
            )
            for row in BEFORE:
                values = {"note": None, **row}
                connection.execute(sa.text("INSERT INTO variants VALUES (:sku, :stock, :note)"), values)

    def job(self, **fields: Any) -> SyncJob[Any, Any]:
        target = SqlTable(table="variants", key="sku", columns=["stock"], database=self.database)
        given = {"name": "stock", "fetch_external": lambda: self.items, "target": target, "deletes": "hard"}
        return SyncJob(**{**given, **fields})

    def plan(self, **options: Any) -> str:
        results = run_sync(self.job(), settings=self.settings, dry_run=True, **options)
        assert results.plan_id is not None
        return results.plan_id

    def apply(self, plan_id: str, **options: Any) -> SyncResults:
        results = apply_plan(plan_id, **{"job": self.job(), "settings": self.settings, **options})
        assert results.accounts_balance
        return results

    def do(self, statement: str) -> None:
        with self.database.begin() as connection:
            connection.exec_driver_sql(statement)

    def rows(self) -> dict[str, Any]:
        with self.database.connect() as connection:
            return {row.sku: row.stock for row in connection.execute(sa.text("SELECT sku, stock FROM variants"))}


@pytest.fixture
def table(database: sa.Engine, settings: Settings) -> Table:
    return Table(database, settings)


@pytest.fixture
def lite(sqlite: sa.Engine, settings: Settings) -> Table:
    """The same on SQLite alone, for what has nothing to do with the database."""
    return Table(sqlite, settings)


def lines(plan: Plan, **filters: Any) -> list[tuple[Any, ...]]:
    frame = plan.to_frame(**filters)
    return list(frame[["action", "external_id", "field", "old", "new"]].itertuples(index=False, name=None))


def test_a_dry_run_writes_nothing_to_the_target_and_what_it_shows_is_what_apply_then_does(table: Table) -> None:
    """Promise 12."""
    before = table.rows()

    results = run_sync(table.job(), settings=table.settings, dry_run=True)

    assert table.rows() == before
    assert (results.outcome, results.dry_run, results.planned) == ("planned", True, PlanCounts(1, 1, 1))
    assert (results.created, results.updated, results.deleted, results.unchanged) == (0, 0, 0, 1)
    assert results.accounts_balance
    plan = open_plan(results.plan_id or "", settings=table.settings)
    assert lines(plan) == [
        ("update", "A", "stock", 1, 5),
        ("create", "C", "sku", None, "C"),
        ("create", "C", "stock", None, 3),
        ("delete", "Z", "sku", "Z", None),
        ("delete", "Z", "stock", 9, None),
    ]

    table.items = [{"sku": "X", "stock": 1}]  # nobody asks the source any more
    applied = table.apply(plan.id)

    assert table.rows() == {"A": 5, "B": 2, "C": 3}
    assert (applied.created, applied.updated, applied.deleted, applied.unchanged) == (1, 1, 1, 1)
    assert (applied.outcome, applied.plan_id, applied.dry_run) == ("clean", plan.id, False)


class TestStale:
    @pytest.mark.parametrize(
        ("meanwhile", "external_id", "told"),
        [
            ("UPDATE variants SET stock = 7 WHERE sku = 'A'", "A", "stock was 1, is 7"),
            ("DELETE FROM variants WHERE sku = 'A'", "A", "the local record is gone"),
            ("INSERT INTO variants VALUES ('C', 8, NULL)", "C", "there is a local record by now: its stock is 8"),
            ("UPDATE variants SET stock = 10 WHERE sku = 'Z'", "Z", "stock was 9, is 10"),
        ],
        ids=["updated", "gone", "created", "to be deleted"],
    )
    def test_a_record_that_has_changed_since_is_refused_and_the_others_are_written(
        self, table: Table, meanwhile: str, external_id: str, told: str
    ) -> None:
        plan_id = table.plan()
        table.do(meanwhile)
        before = table.rows()

        results = table.apply(plan_id)

        [error] = results.errors
        assert (error.external_id, error.exception_type) == (external_id, "StalePlanError")
        assert told in error.message
        assert "make a new plan of stock" in error.message
        assert table.rows().get(external_id) == before.get(external_id)
        assert results.created + results.updated + results.deleted == 2
        assert results.outcome == "partial"

    @pytest.mark.parametrize(
        "meanwhile",
        [
            "UPDATE variants SET stock = 5 WHERE sku = 'A'",
            "INSERT INTO variants VALUES ('C', 3, NULL)",
            "DELETE FROM variants WHERE sku = 'Z'",
        ],
    )
    def test_a_record_that_is_already_as_the_plan_wants_it_is_unchanged(self, table: Table, meanwhile: str) -> None:
        plan_id = table.plan()
        table.do(meanwhile)

        results = table.apply(plan_id)

        assert results.outcome == "clean"
        assert results.created + results.updated + results.deleted == 2
        assert table.rows() == {"A": 5, "B": 2, "C": 3}

    def test_what_the_sync_does_not_write_may_change(self, lite: Table) -> None:
        plan_id = lite.plan()
        lite.do("UPDATE variants SET note = 'theirs'")

        assert lite.apply(plan_id).outcome == "clean"

    def test_a_field_that_the_plan_does_not_change_is_not_changed_either(self, lite: Table) -> None:
        target = SqlTable(table="variants", key="sku", columns=["stock", "note"], database=lite.database)
        lite.items = [{"sku": "A", "stock": 5, "note": "ours"}]
        job = lite.job(target=target, deletes="off")
        plan_id = run_sync(job, settings=lite.settings, dry_run=True).plan_id or ""
        lite.do("UPDATE variants SET note = 'theirs' WHERE sku = 'A'")

        [error] = lite.apply(plan_id, job=job).errors

        assert "note was ours, is theirs" in error.message

    def test_a_plan_that_is_older_than_a_run_is_checked_entry_by_entry(self, lite: Table) -> None:
        plan_id = lite.plan()
        lite.items[0]["stock"] = 6
        run_sync(lite.job(), settings=lite.settings)

        results = lite.apply(plan_id)

        assert [error.external_id for error in results.errors] == ["A"]
        assert lite.rows() == {"A": 6, "B": 2, "C": 3}

    def test_an_older_item_never_overwrites_a_newer_one(self, lite: Table) -> None:
        for number, item in enumerate(lite.items):
            item["at"] = number + 1
        job = lite.job(get_version="at")
        plan_id = run_sync(job, settings=lite.settings, dry_run=True).plan_id or ""
        with open_workspace(lite.settings) as workspace:
            workspace.versions.keep("stock", {"A": Version.of(9).text})

        [error] = lite.apply(plan_id, job=job).errors

        assert "a newer item has been applied since" in error.message
        assert lite.rows()["A"] == 1

    def test_a_function_that_writes_something_else_now_is_noticed(self, lite: Table) -> None:
        factor = 1
        columns: Any = {"stock": lambda item: item["stock"] * factor}
        job = lite.job(target=SqlTable(table="variants", key="sku", columns=columns, database=lite.database))
        plan_id = run_sync(job, settings=lite.settings, dry_run=True).plan_id or ""
        factor = 2

        results = lite.apply(plan_id, job=job)

        assert {error.external_id for error in results.errors} == {"A", "C"}
        assert "stock would be 6, the plan says 3" in results.errors[1].message


class TestOnce:
    def test_results_without_a_plan_name_none(self, lite: Table) -> None:
        unguarded = run_sync(lite.job(deletes="off"), settings=lite.settings)
        for use in (lite.apply, lambda plan_id: open_plan(plan_id, settings=lite.settings)):
            with pytest.raises(
                ConfigurationError, match="None is no id of a plan; results have a plan_id after a dry run"
            ):
                use(unguarded.plan_id)  # type: ignore[arg-type]

    def test_a_plan_is_applied_once(self, lite: Table) -> None:
        plan_id = lite.plan()
        lite.apply(plan_id)

        with pytest.raises(PlanError, match=r"a plan is applied once; nothing was done. Make a new one"):
            lite.apply(plan_id)

        assert open_plan(plan_id, settings=lite.settings).state == "applied"

    @pytest.mark.parametrize("wait_s", [0, 20])
    def test_also_by_two_at_the_same_moment(self, table: Table, wait_s: float) -> None:
        plan_id = table.plan()
        begun = threading.Barrier(2)

        def apply(_number: int) -> str:
            begun.wait(10)
            try:
                return table.apply(plan_id, wait_s=wait_s).outcome
            except (PlanError, SyncBusyError) as error:
                return type(error).__name__

        with ThreadPoolExecutor(2) as pool:
            outcomes = sorted(pool.map(apply, range(2)))

        assert outcomes[1] == "clean"
        assert outcomes[0] == "PlanError" or (outcomes[0] == "SyncBusyError" and not wait_s)
        with open_workspace(table.settings) as workspace:
            assert [run.kind for run in workspace.ledger.latest_runs("stock")] == ["apply", "dry run"]

    def test_an_attempt_that_did_not_get_to_the_target_changes_nothing_for_the_next_one(self, lite: Table) -> None:
        plan_id = lite.plan()
        lite.do("ALTER TABLE variants RENAME COLUMN stock TO quantity")
        with pytest.raises(ConfigurationError, match="names the column 'stock'"):
            lite.apply(plan_id)
        lite.do("ALTER TABLE variants RENAME COLUMN quantity TO stock")
        lite.do("UPDATE variants SET stock = 5 WHERE sku = 'A'")

        results = lite.apply(plan_id)

        assert (results.outcome, results.unchanged, results.recovered) == ("clean", 2, 0)

    def test_no_other_run_goes_meanwhile(self, lite: Table) -> None:
        plan_id, busy = lite.plan(), []

        def look(_results: SyncResults) -> None:
            with pytest.raises(SyncBusyError):
                run_sync(lite.job(), settings=lite.settings)
            busy.append(True)

        lite.apply(plan_id, job=lite.job(on_complete=look))
        assert busy == [True]

    def test_a_plan_whose_target_breaks_off_is_gone_on_with(self, settings: Settings) -> None:
        target = MemoryTarget()
        job = SyncJob[Any, Any](name="stock", fetch_external=MemorySource(ITEMS), get_external_id="sku", target=target)
        plan_id = run_sync(job, settings=settings, dry_run=True).plan_id or ""
        target.fails = {"B": TargetError("away")}
        with pytest.raises(TargetError):
            apply_plan(plan_id, job=job, settings=settings)
        assert open_plan(plan_id, settings=settings).state == "applying"

        target.fails = {}
        results = apply_plan(plan_id, job=job, settings=settings)

        assert (results.fetched, results.created + results.unchanged, results.outcome) == (3, 3, "clean")
        assert {key: record["stock"] for key, record in target.records.items()} == {"A": 5, "B": 2, "C": 3}
        with open_workspace(settings) as workspace:
            assert [run.outcome for run in workspace.ledger.latest_runs("stock")] == ["clean", "planned"]


class TestRefusals:
    def test_an_expired_plan_says_so(self, lite: Table) -> None:
        lite.settings = lite.settings.model_copy(update={"keep_plans_days": 1e-9})
        plan_id = lite.plan()

        with pytest.raises(PlanError, match=r"has expired at .*Make a new one: sync-pipelines plan stock"):
            lite.apply(plan_id)

        assert open_plan(plan_id, settings=lite.settings).state == "expired"
        assert lite.rows() == {"A": 1, "B": 2, "Z": 9}

    def test_a_plan_keeps_its_files_until_it_expires_and_then_says_that_they_are_gone(self, lite: Table) -> None:
        lite.settings = lite.settings.model_copy(update={"keep_plans_days": 30, "keep_snapshots_days": 1})
        plan_id = lite.plan()
        with open_workspace(lite.settings, clock=lambda: utc_now() + timedelta(days=29)) as workspace:
            workspace.clean_up()
        plan = open_plan(plan_id, settings=lite.settings)
        assert len(list(plan.entries())) == 3

        with open_workspace(lite.settings, clock=lambda: utc_now() + timedelta(days=31)) as workspace:
            workspace.clean_up()
        plan = open_plan(plan_id, settings=lite.settings)
        assert (plan.state, plan.counts.writes) == ("expired", 3)
        with pytest.raises(PlanError, match="has expired"):
            next(plan.entries())
        with pytest.raises(PlanError, match=r"cleaned up|has expired"):
            lite.apply(plan_id)

        with open_workspace(lite.settings, clock=lambda: utc_now() + timedelta(days=500)) as workspace:
            workspace.clean_up()
        with pytest.raises(ConfigurationError, match="`sync-pipelines plans` lists those it has"):
            open_plan(plan_id, settings=lite.settings)

    @pytest.mark.parametrize(
        "changed",
        [
            {"deletes": "off"},
            {"target": SqlTable(table="variants", key="sku", columns={"note": "stock"})},
            {"target": MemoryTarget()},
        ],
    )
    def test_a_plan_is_not_applied_to_something_else(self, lite: Table, changed: dict[str, Any]) -> None:
        plan_id = lite.plan()

        with pytest.raises(PlanError, match="has changed since the plan"):
            lite.apply(plan_id, job=lite.job(**{"get_external_id": "sku", **changed}))

        assert lite.rows() == {"A": 1, "B": 2, "Z": 9}
        assert lite.apply(plan_id).outcome == "clean", "with what it was made for, it may still be applied"

    def test_a_plan_is_not_applied_to_another_database(self, lite: Table, tmp_path: Path) -> None:
        plan_id = lite.plan()
        other = SqlTable(table="variants", key="sku", columns=["stock"], database=f"sqlite:///{tmp_path / 'other'}")

        with pytest.raises(PlanError, match="has changed since the plan"):
            lite.apply(plan_id, job=lite.job(target=other))

    def test_a_plan_of_another_sync_is_refused(self, lite: Table) -> None:
        plan_id = lite.plan()

        with pytest.raises(ConfigurationError, match=f"the plan {plan_id} is one of 'stock', not of 'other'"):
            lite.apply(plan_id, job=lite.job(name="other"))

    def test_an_id_that_is_none_is_told(self, lite: Table) -> None:
        lite.plan()
        for unknown in ("nothing", "", "%"):
            with pytest.raises(ConfigurationError, match="the ledger has no plan"):
                open_plan(unknown, settings=lite.settings)


class TestReading:
    def test_entries_are_filtered_by_action_and_field(self, lite: Table) -> None:
        plan = open_plan(lite.plan()[:8], settings=lite.settings)

        assert [entry.external_id for entry in plan.entries(action="delete")] == ["Z"]
        assert [entry.external_id for entry in plan.entries(field="stock")] == ["A", "C", "Z"]
        assert [entry.external_id for entry in plan.entries(field="sku", action="create")] == ["C"]
        assert list(plan.entries(field="price")) == []
        with pytest.raises(ConfigurationError, match="give create, update or delete"):
            list(plan.entries(action="remove"))

    def test_json_and_csv_hold_everything(self, lite: Table) -> None:
        with open_plan(lite.plan(), settings=lite.settings) as plan:
            as_json, as_csv = io.StringIO(), io.StringIO()
            plan.to_json(as_json)
            plan.to_csv(as_csv, action="update")

        document = json.loads(as_json.getvalue())
        assert document["counts"] == {"create": 1, "update": 1, "delete": 1}
        assert document["entries"][0] == {
            "action": "update",
            "external_id": "A",
            "position": 0,
            "changes": {"stock": {"old": 1, "new": 5}},
            "before": None,
            "item": {"sku": "A", "stock": 5},
        }
        assert as_csv.getvalue() == "action,external_id,position,field,old,new\nupdate,A,0,stock,1,5\n"

    def test_secrets_are_never_shown(self, settings: Settings) -> None:
        item = {"sku": "A", "api_token": "hunter2", "link": "https://me:hunter2@shop", "deep": {"password": "hunter2"}}
        job = SyncJob[Any, Any](
            name="secret", fetch_external=lambda: [item], get_external_id="sku", target=MemoryTarget()
        )
        plan = open_plan(run_sync(job, settings=settings, dry_run=True).plan_id or "", settings=settings)
        as_json, as_csv = io.StringIO(), io.StringIO()
        plan.to_json(as_json)
        plan.to_csv(as_csv)

        assert "hunter2" not in as_json.getvalue() + as_csv.getvalue() + plan.to_frame().to_string()
        assert next(plan.entries()).item == item, "apply gets them"

    def test_plans_are_listed_newest_first(self, lite: Table) -> None:
        first, second = lite.plan(), lite.plan(limit=1)

        assert [plan.id for plan in list_plans("stock", 5, settings=lite.settings)] == [second, first]
        assert [plan.id for plan in list_plans(None, 1, settings=lite.settings)] == [second]
        assert list_plans("other", 5, settings=lite.settings) == []


class TestRuns:
    def test_hooks(self, lite: Table) -> None:
        calls: list[str] = []
        job = lite.job(
            on_start=lambda: calls.append("start"), on_complete=lambda results: calls.append(results.outcome)
        )

        plan_id = run_sync(job, settings=lite.settings, dry_run=True).plan_id or ""
        assert calls == ["start"]

        lite.apply(plan_id, job=job)
        assert calls == ["start", "start", "clean"]

    def test_a_hook_that_fails_leaves_the_plan_to_be_gone_on_with(self, lite: Table) -> None:
        plan_id = lite.plan()

        def fail() -> None:
            raise OSError("no network")

        with pytest.raises(HookError, match="on_start failed, nothing was written"):
            lite.apply(plan_id, job=lite.job(on_start=fail))
        assert lite.rows() == {"A": 1, "B": 2, "Z": 9}

        assert lite.apply(plan_id).outcome == "clean"

    def test_failures_of_the_dry_run_and_of_the_applying_are_all_told(self, table: Table) -> None:
        table.items += [{"sku": "D", "stock": -1}, {"sku": None, "stock": 1}, {"sku": "C", "stock": 4}]
        results = run_sync(table.job(deletes="off"), settings=table.settings, dry_run=True)
        assert (results.error_count, results.duplicate_count, results.planned) == (1, 1, PlanCounts(2, 1, 0))

        applied = table.apply(results.plan_id or "", job=table.job(deletes="off"))

        assert [error.position for error in applied.errors] == [3, 4]
        assert (applied.duplicate_count, applied.created, applied.updated) == (1, 1, 1)
        assert table.rows()["C"] == 4

    def test_a_dry_run_of_some_items_plans_no_deletes(self, lite: Table) -> None:
        results = run_sync(lite.job(), settings=lite.settings, dry_run=True, only=["C"])

        assert results.planned == PlanCounts(1, 0, 0)
        assert results.notes == ("no deletes: the run was limited to some items (limit, only)",)

    def test_a_large_dry_run_uses_no_working_tables(self, table: Table) -> None:
        table.items = [{"sku": f"N{number}", "stock": 1} for number in range(1_500)]
        names = sa.inspect(table.database).get_table_names()

        plan_id = table.plan()

        assert sa.inspect(table.database).get_table_names() == names
        assert open_plan(plan_id, settings=table.settings).counts == PlanCounts(1_500, 0, 3)
        assert table.apply(plan_id).created == 1_500
        assert len(table.rows()) == 1_500

    def test_the_results_of_a_dry_run_whose_files_are_gone_are_those_of_the_ledger(self, lite: Table) -> None:
        from sync_pipelines.runner.runs.results import results_of_run

        results = run_sync(lite.job(), settings=lite.settings, dry_run=True)
        with open_workspace(lite.settings) as workspace:
            workspace.store.files_of(results.run_id).remove()
            again = results_of_run(workspace, results.run_id)

        assert (again.counts(), again.outcome, again.plan_id) == (results.counts(), "planned", results.run_id)
        assert again.accounts_balance

    def test_a_dry_run_whose_source_breaks_off_leaves_no_plan(self, lite: Table) -> None:
        from sync_pipelines.errors import FetchError

        completed: list[Any] = []
        job = lite.job(fetch_external=MemorySource(ITEMS, breaks_after=1), on_complete=completed.append)

        with pytest.raises(FetchError) as caught:
            run_sync(job, settings=lite.settings, dry_run=True)

        assert (caught.value.results.outcome, caught.value.results.plan_id) == ("failed", None)
        assert (list_plans(None, 5, settings=lite.settings), completed) == ([], [])


class TestFunctions:
    """Jobs with functions per record: which fields an update writes is not known."""

    @pytest.fixture
    def shelf(self) -> dict[str, Any]:
        return {"7": {"id": 7, "name": "Ada"}, "9": 5}

    @pytest.fixture
    def make(self, shelf: dict[str, Any]) -> Callable[..., SyncJob[Any, Any]]:
        items = [{"id": 7, "name": "Bea"}, {"id": 8, "name": "Cid"}, {"id": 9, "name": "Dee"}]
        given = {
            "name": "people",
            "fetch_external": lambda: items,
            "get_external_id": "id",
            "find_local": shelf.get,
            "create": lambda item: shelf.update({str(item["id"]): item}),
            "update": lambda item, _local: shelf.update({str(item["id"]): item}),
        }
        return lambda **fields: SyncJob(**{**given, **fields})

    def test_the_plan_shows_the_item_and_what_is_known_of_the_record(
        self, make: Callable[..., SyncJob[Any, Any]], settings: Settings
    ) -> None:
        plan = open_plan(run_sync(make(), settings=settings, dry_run=True).plan_id or "", settings=settings)

        assert lines(plan, field="name") == [
            ("update", "7", "(item)", {"id": 7, "name": "Ada"}, {"id": 7, "name": "Bea"}),
            ("create", "8", "(item)", None, {"id": 8, "name": "Cid"}),
            ("update", "9", "(item)", 5, {"id": 9, "name": "Dee"}),
        ]

    def test_what_has_changed_is_refused(
        self, make: Callable[..., SyncJob[Any, Any]], shelf: dict[str, Any], settings: Settings
    ) -> None:
        plan_id = run_sync(make(), settings=settings, dry_run=True).plan_id or ""
        shelf["7"] = {"id": 7, "name": "Ida"}
        shelf["8"] = {"id": 8, "name": "Kim"}

        results = apply_plan(plan_id, job=make(), settings=settings)

        assert [error.external_id for error in results.errors] == ["7", "8"]
        assert "name was Ada, is Ida" in results.errors[0].message
        assert shelf["9"] == {"id": 9, "name": "Dee"}

    def test_the_order_in_which_a_record_gives_its_members_is_no_change(
        self, make: Callable[..., SyncJob[Any, Any]], shelf: dict[str, Any], settings: Settings
    ) -> None:
        """Sets of texts come in another order in every process, and keys as whoever wrote them last liked it."""
        tags = [f"tag {number}" for number in range(20)]
        shelf["7"] = {"id": 7, "tags": set(tags), "place": {"hall": 1, "row": 2}}
        plan_id = run_sync(make(), settings=settings, dry_run=True).plan_id or ""
        other_order = {*tags[::-1], "more"} - {"more"}
        shelf["7"] = {"place": {"row": 2, "hall": 1}, "tags": other_order, "id": 7}

        results = apply_plan(plan_id, job=make(), settings=settings)

        assert results.errors == ()
        assert shelf["7"] == {"id": 7, "name": "Bea"}

    def test_deletes_show_what_goes(
        self, make: Callable[..., SyncJob[Any, Any]], shelf: dict[str, Any], settings: Settings
    ) -> None:
        shelf.update({"1": {"id": 1, "name": "Old"}, "2": {"id": 2, "name": "Older"}})
        job = make(delete=lambda local: shelf.pop(str(local["id"])), list_local=lambda: list(shelf), deletes="hard")
        plan_id = run_sync(job, settings=settings, dry_run=True).plan_id or ""
        plan = open_plan(plan_id, settings=settings)
        assert lines(plan, action="delete")[1] == ("delete", "1", "name", "Old", None)
        shelf["2"] = {"id": 2, "name": "Changed"}

        results = apply_plan(plan_id, job=job, settings=settings)

        assert (results.deleted, results.failed_deletes) == (1, 1)
        assert "1" not in shelf
        assert shelf["2"]["name"] == "Changed"

    def test_records_that_can_not_be_read_are_written_unchecked_and_that_is_said(
        self, make: Callable[..., SyncJob[Any, Any]], settings: Settings
    ) -> None:
        job = make(find_local=lambda external_id: object() if external_id == "7" else None)
        plan_id = run_sync(job, settings=settings, dry_run=True).plan_id or ""

        results = apply_plan(plan_id, job=job, settings=settings)

        assert (results.updated, results.created) == (1, 2)
        assert results.notes[0].startswith("1 records were written unchecked")


@pytest.fixture(autouse=True)
def own_data(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A `SqlTable` without a database means one in the folder of the test."""
    monkeypatch.setenv("SYNC_PIPELINES_DATA_DIR", str(settings.data_dir))
    return
