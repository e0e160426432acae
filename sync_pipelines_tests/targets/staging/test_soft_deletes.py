"""Soft deletes, scope and grace: declared, and the same in bulk and page by page."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.engine.changes import Delete
from sync_pipelines.engine.guards import Guards
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import ConfigurationError, ItemError
from sync_pipelines.registry.history import record_history
from sync_pipelines.registry.plans import apply_plan
from sync_pipelines.runner.changes.single_item import sync_single_item
from sync_pipelines.runner.plans.plan_view import open_plan
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.open_table import OpenedSqlTable
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.targets.table.soft_delete import SoftDelete
from sync_pipelines.testing import MemorySource
from sync_pipelines_tests.targets.staging.conftest import Paths, Syncs, counts

TABLE = (
    "CREATE TABLE things (sku VARCHAR(9) PRIMARY KEY, stock INTEGER NOT NULL, active BOOLEAN NOT NULL, "
    "state VARCHAR(9) DEFAULT 'draft', gone_at TIMESTAMP, day DATE, supplier VARCHAR(9), rank INTEGER)"
)
ACTIVE = SoftDelete("active", deleted=False)
STATE = SoftDelete("state", deleted="archived", live="active")
GONE_AT = SoftDelete("gone_at")


class Desk:
    """Syncs of one table with marks, on one path."""

    def __init__(self, sync: Syncs, *, in_bulk: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sync = sync
        self.in_bulk = in_bulk
        if not in_bulk:
            monkeypatch.setattr(OpenedSqlTable, "open_staged", lambda _self, _request: None)
        sync.execute(TABLE)

    def table(self, soft_delete: SoftDelete | None = ACTIVE, **fields: Any) -> SqlTable:
        given = {"table": "things", "key": "sku", "columns": ["stock"], "database": self.sync.database, **fields}
        return SqlTable(**given, soft_delete=soft_delete)

    def job(self, stock: dict[str, int], target: SqlTable | None = None, **fields: Any) -> Any:
        items = [{"sku": sku, "stock": number} for sku, number in stock.items()]
        fields = {"deletes": "soft", **fields}
        return self.sync.job(fields.pop("items", items), **fields, target=target or self.table())

    def run(self, stock: dict[str, int], target: SqlTable | None = None, **fields: Any) -> SyncResults:
        options = {name: fields.pop(name) for name in ("limit", "dry_run") if name in fields}
        results = run_sync(self.job(stock, target, **fields), settings=self.sync.settings, **options)
        assert results.accounts_balance
        assert not results.errors
        if self.in_bulk and not options.get("dry_run") and stock:
            self.sync.paths.assert_bulk()
        return results

    def counted(self, stock: dict[str, int], target: SqlTable | None = None, **fields: Any) -> dict[str, int]:
        return counts(self.run(stock, target, **fields))

    def rows(self, *columns: str) -> dict[str, Any]:
        found = self.sync.rows(f"SELECT sku, {', '.join(columns)} FROM things")
        return {row[0]: row[1] if len(row) == 2 else row[1:] for row in found}


@pytest.fixture(params=[True, False], ids=["bulk", "pages"])
def desk(request: pytest.FixtureRequest, sync: Syncs, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(sync, in_bulk=request.param, monkeypatch=monkeypatch)


@pytest.fixture
def bulk_desk(sync: Syncs, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(sync, in_bulk=True, monkeypatch=monkeypatch)


def test_a_missing_row_is_marked_and_restored_when_its_item_comes_back(desk: Desk) -> None:
    both, one = {"A": 1, "B": 2}, {"A": 1}
    assert desk.counted(both) == {"created": 2}
    assert desk.counted(one) == {"unchanged": 1, "deleted": 1}
    assert desk.rows("active", "stock") == {"A": (True, 1), "B": (False, 2)}
    assert desk.counted(one) == {"unchanged": 1}
    assert desk.counted(both) == {"unchanged": 1, "updated": 1}
    assert desk.rows("active") == {"A": True, "B": True}
    assert desk.counted(both) == {"unchanged": 2}


@pytest.mark.parametrize(("mark", "live"), [(STATE, "active"), (SoftDelete("state", deleted="archived"), None)])
def test_other_values_are_those_of_live_rows_and_are_left_alone(desk: Desk, mark: SoftDelete, live: str | None) -> None:
    desk.sync.execute(
        "INSERT INTO things (sku, stock, active, state) VALUES ('A', 1, TRUE, 'draft'), ('B', 2, TRUE, 'archived'), "
        "('C', 3, TRUE, NULL), ('D', 4, TRUE, 'Archived'), ('E', 4, TRUE, 'draft')"
    )
    target = desk.table(mark)
    assert desk.counted({"A": 9, "B": 2, "C": 3}, target) == {"updated": 2, "unchanged": 1, "deleted": 2}
    assert desk.rows("state") == {"A": "draft", "B": live, "C": None, "D": "archived", "E": "archived"}
    assert desk.counted({"A": 9, "B": 2, "C": 3}, target) == {"unchanged": 3}


def test_a_new_row_is_live(desk: Desk) -> None:
    desk.sync.execute("ALTER TABLE things ADD COLUMN kept_at DATE DEFAULT '2020-01-01'")
    desk.run({"A": 1}, desk.table(SoftDelete("kept_at"), scope={"active": True}))
    assert desk.rows("kept_at", "active") == {"A": (None, True)}


@pytest.mark.parametrize("column", ["gone_at", "day"])
def test_a_moment_says_when_it_was_deleted(desk: Desk, column: str) -> None:
    target = desk.table(SoftDelete(column), scope={"active": True})
    desk.run({"A": 1, "B": 2}, target)
    before = datetime.now(UTC).replace(tzinfo=None)
    assert desk.counted({"A": 1}, target) == {"unchanged": 1, "deleted": 1}
    with target.open(lambda item: str(item["sku"])) as opened:
        held = opened.find_many(["A", "B"])
    assert held["A"][column] is None
    told = held["B"][column]
    assert told >= before if column == "gone_at" else told >= before.date()
    again = desk.counted({"A": 1}, target)
    with target.open(lambda item: str(item["sku"])) as opened:
        assert opened.find_many(["B"])["B"][column] == told
    assert again == {"unchanged": 1}
    assert desk.counted({"A": 1, "B": 2}, target) == {"unchanged": 1, "updated": 1}
    assert desk.rows(column) == {"A": None, "B": None}


@pytest.mark.parametrize("compare", [[], ["stock"]])
def test_a_row_is_restored_whatever_is_compared(desk: Desk, compare: list[str]) -> None:
    target = desk.table(compare=compare)
    desk.run({"A": 1, "B": 2}, target)
    desk.run({"A": 1}, target)
    assert desk.counted({"A": 1, "B": 2}, target) == {"unchanged": 1, "updated": 1}
    assert desk.rows("active") == {"A": True, "B": True}


def test_a_row_is_restored_though_has_changed_sees_no_reason(desk: Desk) -> None:
    desk.run({"A": 1, "B": 2})
    desk.run({"A": 1})
    fields = {"has_changed": lambda _item, _local: False}
    assert desk.counted({"A": 5, "B": 2}, **fields) == {"unchanged": 1, "updated": 1}
    assert desk.rows("active", "stock") == {"A": (True, 1), "B": (True, 2)}


def test_an_older_item_restores_nothing(desk: Desk) -> None:
    target = desk.table(columns={"stock": "stock", "rank": "rank"})
    items = [{"sku": "A", "stock": 1, "rank": 5}, {"sku": "B", "stock": 2, "rank": 5}]
    desk.run({"A": 0}, target, items=items, get_version="rank")
    desk.run({"A": 0}, target, items=items[:1], get_version="rank")
    older = [items[0], {**items[1], "rank": 4}]
    assert desk.counted({"A": 0}, target, items=older, get_version="rank") == {"unchanged": 1, "skipped": 1}
    assert desk.rows("active")["B"] is False or desk.rows("active")["B"] == 0
    assert desk.counted({"A": 0}, target, items=items, get_version="rank") == {"unchanged": 1, "updated": 1}


def test_no_item_writes_the_mark(desk: Desk) -> None:
    target = desk.table(columns=None)
    items = [{"sku": "A", "stock": 1, "active": False}]
    assert desk.counted({"A": 1}, target, items=items) == {"created": 1}
    assert desk.rows("active") == {"A": True}
    assert desk.counted({"A": 1}, target, items=items) == {"unchanged": 1}


def test_rows_are_restored_where_the_job_does_not_delete(desk: Desk) -> None:
    desk.run({"A": 1, "B": 2})
    desk.run({"A": 1})
    assert desk.counted({"B": 2}, deletes="off") == {"updated": 1}
    assert desk.rows("active") == {"A": True, "B": True}


def test_single_items_mark_and_restore(bulk_desk: Desk) -> None:
    job = bulk_desk.job({}, deletes="off")
    sync_single_item(job, {"sku": "A", "stock": 1})
    assert sync_single_item(job, Delete("A")).action == "deleted"
    assert bulk_desk.rows("active") in ({"A": False}, {"A": 0})
    assert sync_single_item(job, Delete("A")).action == "unchanged"
    assert sync_single_item(job, {"sku": "A", "stock": 1}).action == "updated"
    assert sync_single_item(job, {"sku": "A", "stock": 1}).action == "unchanged"
    assert bulk_desk.rows("active") == {"A": True}


def test_only_rows_in_the_scope_are_deleted(desk: Desk) -> None:
    desk.sync.execute(
        "INSERT INTO things (sku, stock, active, supplier) VALUES ('A', 1, TRUE, 'acme'), ('B', 2, TRUE, 'other'), "
        "('C', 3, TRUE, NULL), ('D', 4, TRUE, 'ACME'), ('E', 5, TRUE, 'acme')"
    )
    target = desk.table(scope={"supplier": "acme"})
    assert desk.counted({"A": 1, "B": 3, "N": 1}, target) == {"created": 1, "updated": 1, "unchanged": 1, "deleted": 1}
    rows = desk.rows("active", "supplier")
    assert rows == {
        "A": (True, "acme"),
        "B": (True, "other"),
        "C": (True, None),
        "D": (True, "ACME"),
        "E": (False, "acme"),
        "N": (True, "acme"),
    }


@pytest.mark.parametrize("deletes", ["hard", "soft"])
def test_a_scope_may_have_several_values(desk: Desk, deletes: str) -> None:
    desk.sync.execute(
        "INSERT INTO things (sku, stock, active, supplier, rank) VALUES ('A', 1, TRUE, 'a', 1), "
        "('B', 2, TRUE, NULL, 1), ('C', 3, TRUE, 'c', 1), ('D', 4, TRUE, 'a', 2), ('E', 5, TRUE, NULL, NULL)"
    )
    mark = ACTIVE if deletes == "soft" else None
    scope = {"supplier": ["a", None], "rank": 1, **({} if deletes == "soft" else {"active": True})}
    assert desk.counted({"N": 1}, desk.table(mark, scope=scope), deletes=deletes) == {"created": 1, "deleted": 2}
    left = {sku for sku, active in desk.rows("active").items() if active}
    assert left == {"C", "D", "E", "N"}
    assert desk.rows("supplier", "rank")["N"] == (None, 1)


def test_what_columns_write_goes_before_the_scope(desk: Desk) -> None:
    target = desk.table(scope={"supplier": "acme"}, columns=["stock", "supplier"])
    items = [{"sku": "A", "stock": 1, "supplier": "other"}, {"sku": "B", "stock": 1, "supplier": "acme"}]
    desk.run({"A": 1}, target, items=items)
    assert desk.rows("supplier") == {"A": "other", "B": "acme"}
    assert desk.counted({"A": 1}, target, items=[{"sku": "C", "stock": 1, "supplier": "acme"}])["deleted"] == 1
    assert desk.rows("active") == {"A": True, "B": False, "C": True}


def test_a_key_column_may_be_the_scope(desk: Desk) -> None:
    desk.sync.execute(
        "CREATE TABLE offers (supplier VARCHAR(9), sku VARCHAR(9), stock INTEGER, PRIMARY KEY (supplier, sku))",
        "INSERT INTO offers VALUES ('acme', 'A', 1), ('acme', 'B', 2), ('other', 'A', 3)",
    )
    target = SqlTable(
        table="offers", key=["supplier", "sku"], columns=["stock"], scope={"supplier": "acme"},
        database=desk.sync.database,
    )  # fmt: skip
    items = [{"supplier": "acme", "sku": "A", "stock": 1}, {"supplier": "acme", "sku": "C", "stock": 1}]
    fields = {"items": items, "get_external_id": None, "deletes": "hard"}
    assert desk.counted({"A": 1}, target, **fields) == {"created": 1, "unchanged": 1, "deleted": 1}
    left = desk.sync.rows("SELECT supplier, sku FROM offers ORDER BY 1, 2")
    assert left == [("acme", "A"), ("acme", "C"), ("other", "A")]


def test_an_explicit_delete_outside_of_the_scope_fails_and_names_it(bulk_desk: Desk) -> None:
    bulk_desk.sync.execute("INSERT INTO things (sku, stock, active, supplier) VALUES ('B', 2, TRUE, 'other')")
    job = bulk_desk.job({}, bulk_desk.table(scope={"supplier": ["acme", "zen"]}))
    with pytest.raises(ItemError, match="scope of this sync: its supplier is 'other', not 'acme' or 'zen'") as raised:
        sync_single_item(job, Delete("B"))
    assert raised.value.external_id == "B"
    assert bulk_desk.rows("active") == {"B": True}


def test_a_plan_shows_the_mark_and_is_applied_or_refused(bulk_desk: Desk) -> None:
    desk = bulk_desk
    desk.run({"A": 1, "B": 2, "C": 3, "D": 4})
    desk.run({"A": 1, "B": 2, "C": 3})
    planned = desk.run({"A": 1, "D": 4}, dry_run=True)
    plan = open_plan(str(planned.plan_id), settings=desk.sync.settings)
    told = {each.external_id: (each.action.value, each.changes) for each in plan.entries()}
    assert {
        key: (what, [(name, each.old, each.new) for name, each in changes.items()])
        for key, (what, changes) in told.items()
    } == {
        "D": ("update", [("active", False, True)]),
        "B": ("delete", [("active", True, False)]),
        "C": ("delete", [("active", True, False)]),
    }
    desk.sync.execute("UPDATE things SET stock = 30 WHERE sku = 'C'")
    results = apply_plan(str(planned.plan_id), job=desk.job({}), settings=desk.sync.settings)
    assert (results.deleted, results.updated, results.error_count) == (1, 1, 1)
    assert "stock was 3, is 30" in results.errors[0].message
    assert desk.rows("active") == {"A": True, "B": False, "C": True, "D": True}


def test_a_plan_of_moments_shows_no_moment_that_is_not_there_yet(bulk_desk: Desk) -> None:
    target = bulk_desk.table(GONE_AT, scope={"active": True})
    bulk_desk.run({"A": 1, "B": 2}, target)
    planned = bulk_desk.run({"A": 1}, target, dry_run=True)
    [entry] = open_plan(str(planned.plan_id), settings=bulk_desk.sync.settings).entries()
    assert (entry.changes["gone_at"].old, entry.changes["gone_at"].new) == (None, "the moment of the delete")
    job = bulk_desk.job({}, target)
    results = apply_plan(str(planned.plan_id), job=job, settings=bulk_desk.sync.settings)
    assert (results.deleted, results.error_count) == (1, 0)
    assert bulk_desk.rows("gone_at")["B"] is not None


def test_a_plan_whose_row_was_marked_meanwhile_has_nothing_to_delete(bulk_desk: Desk) -> None:
    bulk_desk.run({"A": 1, "B": 2})
    planned = bulk_desk.run({"A": 1}, dry_run=True)
    bulk_desk.run({"A": 1})
    results = apply_plan(str(planned.plan_id), job=bulk_desk.job({}), settings=bulk_desk.sync.settings)
    assert (results.deleted, results.error_count) == (0, 0)


def test_a_row_whose_mark_the_database_refuses_stops_no_other(desk: Desk) -> None:
    desk.sync.execute("CREATE TABLE kept (sku VARCHAR(9) PRIMARY KEY, stock INTEGER, active BOOLEAN NOT NULL, "
                      "CONSTRAINT in_stock CHECK (active OR stock < 5))")  # fmt: skip
    target = desk.table(table="kept")
    desk.run({sku: number for number, sku in enumerate("ABCDEFGH")}, target)
    results = run_sync(desk.job({"A": 0}, target), settings=desk.sync.settings)
    assert (results.deleted, results.failed_deletes) == (4, 3)
    assert sorted(str(error.external_id) for error in results.errors) == ["F", "G", "H"]
    assert all("in_stock" in error.message for error in results.errors)
    live = desk.sync.rows("SELECT sku FROM kept WHERE active ORDER BY sku")
    assert [row[0] for row in live] == ["A", "F", "G", "H"]


@pytest.mark.parametrize(
    ("kind", "inside", "outside"),
    [
        ("CHAR(6)", "acme", "zen"),
        ("VARCHAR(20)", "50 % 'o''f' \\ ü :x", "zen"),
        ("INTEGER", 7, 8),
        ("NUMERIC(5, 2)", "1.50", "1.51"),
        ("DATE", "2026-01-31", "2026-02-01"),
        ("TIMESTAMP", "2026-01-31 12:00:00.000001", "2026-01-31 12:00:00.000002"),
        ("BOOLEAN", True, False),
        ("UUID", "7f1bf374-ad10-4000-8000-000000000001", "7f1bf374-ad10-4000-8000-000000000002"),
        ("mood", "happy", "sad"),
    ],
)
def test_marks_and_scopes_of_every_type_are_the_same_on_both_paths(
    desk: Desk, kind: str, inside: Any, outside: Any
) -> None:
    on_postgres = desk.sync.database.dialect.name == "postgresql"
    if on_postgres and kind == "mood":
        desk.sync.execute("CREATE TYPE mood AS ENUM ('happy', 'sad')")
    kind = "VARCHAR(40)" if kind in {"mood", "UUID"} and not on_postgres else kind
    desk.sync.execute(
        f"CREATE TABLE typed (sku VARCHAR(9) PRIMARY KEY, stock INTEGER, mark {kind}, kept {kind})",
    )
    for value, skus in ((inside, "ABC"), (outside, "XYZ"), (None, "N")):
        items = [{"sku": sku, "stock": 1, "kept": value} for sku in skus]
        desk.run({"A": 1}, desk.table(None, table="typed", columns=["stock", "kept"]), items=items, deletes="off")
    target = desk.table(SoftDelete("mark", deleted=inside, live=outside), table="typed", scope={"kept": inside})
    assert desk.counted({"A": 1, "M": 1}, target) == {"created": 1, "unchanged": 1, "deleted": 2}
    assert desk.counted({"A": 1, "M": 1}, target) == {"unchanged": 2}
    assert desk.counted({"A": 1, "B": 1, "M": 1}, target) == {"unchanged": 2, "updated": 1}
    with target.open(lambda item: str(item["sku"])) as opened:
        assert sorted(opened.list_local()) == ["A", "B", "M"]
        assert [sku for sku, row in opened.find_many(list("ABCMXYZN")).items() if opened.is_marked(row)] == ["C"]


def test_the_history_has_marks_and_what_new_rows_get(desk: Desk) -> None:
    target = desk.table(scope={"supplier": "acme"})
    for stock in ({"A": 1}, {"A": 1, "B": 2}, {"A": 1}, {"A": 1, "B": 2}, {"A": 1, "B": 3}):
        desk.run(stock, target)
    told = [
        (event.kind, {name: (change.old, change.new) for name, change in (event.changes or {}).items()})
        for event in record_history(desk.job({}, target), "B", settings=desk.sync.settings)
    ]
    assert told == [
        ("updated", {"stock": (2, 3)}),
        ("updated", {"active": (False, True)}),
        ("deleted", {"active": (True, False)}),
        ("created", {"sku": (None, "B"), "stock": (None, 2), "active": (None, True), "supplier": (None, "acme")}),
    ]


def test_the_history_says_when_a_row_was_marked(desk: Desk) -> None:
    target = desk.table(GONE_AT, scope={"active": True})
    desk.run({"A": 1, "B": 2}, target)
    desk.run({"A": 1}, target)
    [deleted, _] = record_history(desk.job({}, target), "B", settings=desk.sync.settings)
    with target.open(lambda item: str(item["sku"])) as opened:
        moment = opened.find_many(["B"])["B"]["gone_at"]
    change = (deleted.changes or {})["gone_at"]
    assert change.old is None
    assert change.new == (moment if desk.in_bulk else "the moment of the delete")


# DeleteDelay


def test_a_record_is_deleted_after_so_many_fetches_without_it(desk: Desk) -> None:
    both, one = {"A": 1, "B": 2}, {"A": 1}
    desk.run(both, delete_after=3)
    results = desk.run(one, delete_after=3)
    assert counts(results) == {"unchanged": 1}
    [note] = results.notes
    assert note == (
        "1 record is missing from the source and kept for now: deleted after 3 complete fetches in a row without it "
        "(delete_after)"
    )
    assert desk.counted(one, delete_after=3) == {"unchanged": 1}
    assert desk.counted(one, delete_after=3) == {"unchanged": 1, "deleted": 1}
    assert desk.counted(one, delete_after=3) == {"unchanged": 1}
    assert misses(desk) == {}


def test_a_record_that_comes_back_is_missed_anew(desk: Desk) -> None:
    both, one = {"A": 1, "B": 2}, {"A": 1}
    desk.run(both, delete_after=2)
    for _ in range(2):
        assert desk.counted(one, delete_after=2) == {"unchanged": 1}
        assert misses(desk) == {"B": 1}
        assert desk.counted(both, delete_after=2) == {"unchanged": 2}
        assert misses(desk) == {}


def test_fetches_that_are_not_whole_neither_count_nor_reset(desk: Desk) -> None:
    both, one = {"A": 1, "B": 2}, {"A": 1}
    desk.run(both, delete_after=2)
    desk.run(one, delete_after=2)
    for _ in range(2):
        desk.run(both, delete_after=2, limit=1)
        desk.run({}, delete_after=2)
        run_sync(
            desk.job(both, delete_after=2, items=[{"sku": None, "stock": 1}, {"sku": "A", "stock": 1}]),
            settings=desk.sync.settings,
        )
        assert misses(desk) == {"B": 1}
        desk.sync.paths.answers.clear()
    assert desk.counted(one, delete_after=2) == {"unchanged": 1, "deleted": 1}


def test_a_dry_run_looks_and_does_not_count(desk: Desk) -> None:
    both, one = {"A": 1, "B": 2}, {"A": 1}
    desk.run(both, delete_after=2)
    for _ in range(3):
        planned = desk.run(one, delete_after=2, dry_run=True).planned
        assert planned is not None
        assert planned.delete == 0
    desk.run(one, delete_after=2)
    for _ in range(3):
        planned = desk.run(one, delete_after=2, dry_run=True).planned
        assert planned is not None
        assert planned.delete == 1
    assert misses(desk) == {"B": 1}


def test_an_empty_fetch_does_not_count_even_if_it_is_the_first(desk: Desk) -> None:
    desk.sync.execute("INSERT INTO things (sku, stock, active) VALUES ('A', 1, TRUE), ('B', 2, TRUE)")
    for _ in range(3):
        desk.run({}, delete_after=2)
    desk.sync.paths.answers.clear()
    assert misses(desk) == {}
    assert desk.counted({"A": 1}, delete_after=2) == {"unchanged": 1}
    assert misses(desk) == {"B": 1}


def test_a_fetch_that_looks_broken_does_not_count(desk: Desk) -> None:
    """Its deletes are withheld anyway; but what it lacks is not known to be missing."""
    everything = {f"A{number:02}": number for number in range(40)}
    few = dict(list(everything.items())[:10])
    desk.run(everything, delete_after=2, guards=Guards())
    for _ in range(3):
        assert desk.run(few, delete_after=2, guards=Guards()).deleted == 0
        assert misses(desk) == {}
    most = dict(list(everything.items())[:35])
    assert desk.run(most, delete_after=2, guards=Guards()).deleted == 0
    assert len(misses(desk)) == 5
    assert desk.run(most, delete_after=2, guards=Guards()).deleted == 5


def test_marks_that_a_guard_withholds_are_released_as_marks(desk: Desk) -> None:
    everything = {f"A{number:02}": number for number in range(40)}
    most = dict(list(everything.items())[:25])
    desk.run(everything, guards=Guards())
    results = desk.run(most, guards=Guards())
    assert (results.outcome, results.deleted) == ("guarded", 0)
    assert results.plan_id is not None
    entries = list(open_plan(results.plan_id, settings=desk.sync.settings).entries())
    assert [(each.changes["active"].old, each.changes["active"].new) for each in entries] == [(True, False)] * 15
    desk.sync.execute("UPDATE things SET stock = 99 WHERE sku = 'A30'")
    job = desk.job(most, guards=Guards())
    released = apply_plan(results.plan_id, job=job, reason="they are gone", settings=desk.sync.settings)
    assert (released.deleted, [each.external_id for each in released.errors]) == (14, ["A30"])
    assert sum(not active for active in desk.rows("active").values()) == 14


def test_the_share_of_deletes_is_one_of_the_rows_in_the_scope(desk: Desk) -> None:
    """Neither rows of others nor marked ones make it look small."""
    with desk.sync.database.begin() as connection:
        rows = [{"sku": f"Z{number}", "supplier": "zen", "active": True} for number in range(100)]
        rows += [{"sku": f"M{number}", "supplier": "acme", "active": False} for number in range(100)]
        rows += [{"sku": f"A{number}", "supplier": "acme", "active": True} for number in range(30)]
        insert = "INSERT INTO things (sku, stock, active, supplier) VALUES (:sku, 1, :active, :supplier)"
        connection.execute(sa.text(insert), rows)
    target = desk.table(scope={"supplier": "acme"})
    results = desk.run({f"A{number}": 1 for number in range(15)}, target, guards=Guards())
    assert (results.outcome, results.deleted) == ("guarded", 0)
    assert any("15 of 30 local records would be deleted" in note for note in results.notes)


def test_what_was_counted_is_forgotten_without_grace(desk: Desk) -> None:
    both, one = {"A": 1, "B": 2}, {"A": 1}
    desk.run(both, delete_after=2)
    desk.run(one, delete_after=2)
    desk.run(both, deletes="off")
    assert desk.counted(one, delete_after=2) == {"unchanged": 1}


def test_of_many_missing_records_each_has_its_own_count(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bulk over several batches of the staging table, some of which have due and spared records."""
    monkeypatch.setattr("sync_pipelines.targets.staging.spare_deletes._ROWS_IN_BATCH", 100)
    monkeypatch.setattr("sync_pipelines.targets.staging.spare_deletes._KEYS_AT_ONCE", 7)
    all_of_them = {f"A{number:04}": number for number in range(2_000)}
    third = {sku: number for sku, number in all_of_them.items() if number % 3}
    desk.run(all_of_them, delete_after=2)
    desk.run(third, delete_after=2)
    few = {"A0001": 1}
    assert desk.counted(few, delete_after=2) == {"unchanged": 1, "deleted": 667}
    assert len(misses(desk)) == 1_999
    assert desk.counted(few, delete_after=2) == {"unchanged": 1, "deleted": 1_332}
    assert desk.counted(few, delete_after=2) == {"unchanged": 1}
    assert misses(desk) == {}


def misses(desk: Desk) -> dict[str, int]:
    ledger = sa.create_engine(desk.sync.settings.ledger_database_url())
    with ledger.connect() as connection:
        rows = connection.execute(sa.text("SELECT external_id, misses FROM sync_misses WHERE external_id <> ''")).all()
    ledger.dispose()
    return {row[0]: row[1] for row in rows}


# What is wrong with a declaration


@pytest.mark.parametrize(
    ("soft_delete", "fields", "message"),
    [
        (SoftDelete("activ", deleted=False), {}, "soft_delete names the column 'activ', .* lacks; did you mean active"),
        (
            SoftDelete("active"),
            {},
            "'active' of .*things' can't mark rows: it is of the type BOOLEAN, .* give deleted=",
        ),
        (SoftDelete("rank", deleted="many"), {}, "soft_delete of .*things': column 'rank': 'many' does not convert"),
        (
            SoftDelete("active", deleted=True, live=None),
            {},
            "column 'active' of .*things' can't be NULL, .* give live=",
        ),
        (SoftDelete("rank", deleted=1, live="1"), {}, "deleted and live are both 1"),
        (ACTIVE, {"scope": {"suplier": "a"}}, "scope names the column 'suplier', .* lacks; did you mean supplier"),
        (ACTIVE, {"scope": {"rank": "many"}}, "scope of .*things': column 'rank': 'many' does not convert"),
    ],
)
def test_a_wrong_column_or_value_is_told_when_the_table_is_opened(
    bulk_desk: Desk, soft_delete: SoftDelete, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"(?i)^bulk: SqlTable: .*{message}"):
        bulk_desk.run({"A": 1}, bulk_desk.table(soft_delete, **fields))


def test_a_generated_column_can_mark_nothing(bulk_desk: Desk) -> None:
    bulk_desk.sync.execute(
        "CREATE TABLE made (sku INTEGER PRIMARY KEY, off INTEGER GENERATED ALWAYS AS (sku + 1) STORED)"
    )
    target = bulk_desk.table(SoftDelete("off", deleted=1), table="made", columns=None)
    with pytest.raises(ConfigurationError, match=r"'off' of .*made' can't mark rows: it is generated"):
        bulk_desk.run({"A": 1}, target)


def test_several_syncs_share_a_table_by_their_scopes(desk: Desk) -> None:
    """Each deletes its own rows only, and misses are counted for each by itself."""
    targets = {name: desk.table(scope={"supplier": name}) for name in ("acme", "zen")}
    for name, target in targets.items():
        desk.run({f"{name}1": 1, f"{name}2": 2}, target, name=f"from-{name}", delete_after=2)
    desk.run({"acme1": 1}, targets["acme"], name="from-acme", delete_after=2)
    desk.run({"zen1": 1}, targets["zen"], name="from-zen", delete_after=2)
    assert set(desk.rows("active").values()) == {True}
    desk.run({"acme1": 1}, targets["acme"], name="from-acme", delete_after=2)
    assert desk.rows("active") == {"acme1": True, "acme2": False, "zen1": True, "zen2": True}


def test_an_application_s_own_type_is_marked_page_by_page(sync: Syncs, settings: Settings, paths: Paths) -> None:
    class Yes(sa.types.TypeDecorator[str]):
        impl = sa.String(3)
        cache_ok = True

        def process_bind_param(self, value: Any, dialect: Any) -> Any:
            return None if value is None else f"x{value}"

        def process_result_value(self, value: Any, dialect: Any) -> Any:
            return None if value is None else value[1:]

    table = sa.Table(
        "own",
        sa.MetaData(),
        sa.Column("sku", sa.String(9), primary_key=True),
        sa.Column("stock", sa.Integer),
        sa.Column("on", Yes),
    )
    table.create(sync.database)
    target = SqlTable(
        table=table,
        key="sku",
        columns=["stock"],
        database=sync.database,
        soft_delete=SoftDelete("on", deleted="n", live="y"),
    )

    def run(*skus: str) -> dict[str, int]:
        source = MemorySource([{"sku": sku, "stock": 1} for sku in skus])
        return counts(run_sync(sync.job(source, target=target, deletes="soft"), settings=settings))

    assert run("A", "B") == {"created": 2}
    assert run("A") == {"unchanged": 1, "deleted": 1}
    assert run("A") == {"unchanged": 1}
    assert run("A", "B") == {"unchanged": 1, "updated": 1}
    paths.assert_pages("'on' has a type that only the application knows")
    assert sync.rows('SELECT sku, "on" FROM own ORDER BY 1') == [("A", "xy"), ("B", "xy")]
