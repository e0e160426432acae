"""What a sync writes is in the history of its record, whichever way it goes; and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sync_pipelines import (
    Delete,
    HistoryEvent,
    SoftDelete,
    SqlTable,
    SyncJob,
    apply_item,
    apply_plan,
    record_history,
    run_sync,
)
from sync_pipelines.database.connections import create_database
from sync_pipelines.delivery import single_items
from sync_pipelines.engine.plan import FieldChange
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.runner.changes.drain import Drain, DrainLimits
from sync_pipelines.runner.changes.single_item import sync_single_item
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.decide import staged_diff as bulk
from sync_pipelines.runner.run_sync import run_sync as run
from sync_pipelines.settings.model import Settings
from sync_pipelines.testing import MemoryTarget
from sync_pipelines_tests.runner.desk import AT_ONCE, Clock, Desk
from sync_pipelines_tests.two_speeds import few_and_many

pytestmark = pytest.mark.each_database

Item = dict[str, Any]


class Shop:
    """A table `things` with a sync into it, and the records' history.

    Args:
        url: Of the table's database.
        folder: Of the ledger.
        ledger_url: Of the ledger, by default a file.
    """

    def __init__(self, url: str, folder: Path, ledger_url: str | None = None) -> None:
        self.url = url
        self.settings = Settings(data_dir=folder, database_url=None, ledger_url=ledger_url)
        self.items: list[Item] = []
        self.execute("CREATE TABLE things (sku varchar(40) PRIMARY KEY, stock integer CHECK (stock >= 0), name text)")

    def job(self, **fields: Any) -> SyncJob[Any, Any]:
        target = SqlTable(table="things", key="sku", columns=["stock", "name"], database=self.url)
        given = {
            "name": "things",
            "fetch_external": lambda: self.items,
            "target": target,
            "deletes": "hard",
            "guards": None,
        }
        return SyncJob(**{**given, **fields})

    def sync(self, *items: tuple[str, int, str], **fields: Any) -> None:
        self.items = [{"sku": sku, "stock": stock, "name": name} for sku, stock, name in items]
        results = run(self.job(**fields), settings=self.settings)
        assert results.accounts_balance

    def history(self, sku: str, **fields: Any) -> list[HistoryEvent]:
        return record_history(self.job(**fields), sku, settings=self.settings)

    def told(self, sku: str) -> list[tuple[str, dict[str, tuple[Any, Any]] | None]]:
        """Oldest first: what happened, and the fields."""
        return [(each.kind, pairs(each)) for each in reversed(self.history(sku))]

    def execute(self, statement: str) -> list[Any]:
        database = create_database(self.url)
        try:
            with database.begin() as connection:
                result = connection.execute(sa.text(statement))
                return [tuple(row) for row in result] if result.returns_rows else []
        finally:
            database.dispose()


def pairs(event: HistoryEvent) -> dict[str, tuple[Any, Any]] | None:
    return None if event.changes is None else {name: (each.old, each.new) for name, each in event.changes.items()}


def types_of(told: list[Any]) -> list[type]:
    """The types of all values of events, as `pairs` gives them."""
    return [type(value) for _, changes in told for _, pair in sorted((changes or {}).items()) for value in pair]


@pytest.fixture
def shop(database_url: str, tmp_path: Path) -> Shop:
    return Shop(database_url, tmp_path / "data")


@pytest.fixture(params=["in bulk", "page by page"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways that a table is synced in."""
    if request.param == "page by page":
        monkeypatch.setattr("sync_pipelines.runner.runs.comparing_run.ComparingRun._is_worth_it", lambda *_: False)
    return str(request.param)


OLD = ("old", 0, "there before")


def test_creates_updates_and_deletes_are_told_with_old_and_new_values(shop: Shop, way: str) -> None:
    shop.execute("INSERT INTO things VALUES ('old', 0, 'there before')")
    shop.sync(OLD, ("A", 1, "a"), ("B", 2, "b"))
    shop.sync(OLD, ("A", 5, "a"), ("B", 2, "b"))
    shop.sync(("B", 2, "b"))
    assert shop.told("A") == [
        ("created", {"sku": (None, "A"), "stock": (None, 1), "name": (None, "a")}),
        ("updated", {"stock": (1, 5)}),
        ("deleted", {"sku": ("A", None), "stock": (5, None), "name": ("a", None)}),
    ]
    assert [kind for kind, _ in shop.told("B")] == ["created"]
    assert shop.told("old") == [("deleted", {"sku": ("old", None), "stock": (0, None), "name": ("there before", None)})]
    assert {each.via for each in shop.history("A")} == {"full"}, way
    with open_workspace(shop.settings) as workspace:
        runs = [each.id for each in workspace.ledger.latest_runs("things")]
    assert [each.run_id for each in shop.history("A")] == runs


@pytest.mark.parametrize(
    ("kind", "mark"),
    [("boolean", SoftDelete("gone", deleted=False)), ("timestamp", SoftDelete("gone"))],
    ids=["a value", "a moment"],
)
def test_a_record_that_comes_back_says_that_its_mark_was_taken_off(
    shop: Shop, way: str, kind: str, mark: SoftDelete
) -> None:
    shop.execute(f"ALTER TABLE things ADD gone {kind}")
    shop.execute("INSERT INTO things (sku, stock, name) VALUES ('old', 0, 'there before')")
    target = SqlTable(table="things", key="sku", columns=["stock", "name"], database=shop.url, soft_delete=mark)
    for items in ([OLD, ("A", 1, "a"), ("B", 1, "b")], [OLD], [OLD, ("A", 1, "a"), ("B", 2, "b")]):
        shop.sync(*items, deletes="soft", target=target)
    held = mark.live_for(mark.deleted)
    restored, changed = shop.told("A")[2], shop.told("B")[2]
    assert (restored[0], list(restored[1] or {})) == ("updated", ["gone"])
    assert (restored[1] or {})["gone"][1] is held
    assert (restored[1] or {})["gone"][0] is not held
    assert (changed[0], set(changed[1] or {})) == ("updated", {"gone", "stock"})
    assert (changed[1] or {})["stock"] == (1, 2)


def test_of_a_first_load_into_an_empty_table_only_the_fact_is_kept(shop: Shop) -> None:
    """A million new records would fill the ledger with what the table says itself."""
    shop.sync(("A", 1, "a"))
    shop.sync(("A", 1, "b"))
    assert shop.told("A") == [("created", None), ("updated", {"name": ("a", "b")})]


def test_a_second_run_that_changes_nothing_adds_nothing(shop: Shop, way: str) -> None:
    for _ in range(3):
        shop.sync(("A", 1, "a"))
    assert [kind for kind, _ in shop.told("A")] == ["created"], way


def test_rows_that_the_database_refuses_have_failed_and_nothing_else(shop: Shop, way: str) -> None:
    shop.sync(("A", 1, "a"), ("C", 1, "c"))
    shop.execute("INSERT INTO things VALUES ('gone', 0, 'x')")
    shop.sync(("A", -1, "a"), ("B", -2, "b"), ("C", 2, "c"))
    assert [kind for kind, _ in shop.told("A")] == ["created", "failed"], way
    assert [kind for kind, _ in shop.told("B")] == ["failed"]
    assert [kind for kind, _ in shop.told("C")] == ["created", "updated"]
    [failure] = shop.history("B")
    assert failure.message is not None
    assert "check" in failure.message.lower()
    assert (failure.via, failure.at.tzinfo is not None) == ("full", True)


def test_rows_that_only_a_trigger_refuses_are_recorded_once_they_are_written(shop: Shop) -> None:
    """The batch is tried again in halves: nothing of the attempts that were undone stays."""
    shop.sync(*((f"A{number:03}", 1, "a") for number in range(200)))
    if shop.url.startswith("postgresql"):
        shop.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF new.name = 'bad' THEN RAISE EXCEPTION 'no'; END IF; RETURN new; END $$"
        )
        shop.execute("CREATE TRIGGER refuse BEFORE UPDATE ON things FOR EACH ROW EXECUTE FUNCTION refuse()")
    else:
        shop.execute(
            "CREATE TRIGGER refuse BEFORE UPDATE ON things WHEN new.name = 'bad' BEGIN SELECT raise(ABORT, 'no'); END"
        )
    shop.sync(*((f"A{number:03}", 1, "bad" if number == 77 else "b") for number in range(200)))
    assert [kind for kind, _ in shop.told("A077")] == ["created", "failed"]
    for number in (0, 76, 78, 199):
        assert shop.told(f"A{number:03}")[1:] == [("updated", {"name": ("a", "b")})]


def test_rows_that_a_trigger_leaves_out_are_not_recorded(shop: Shop) -> None:
    shop.sync(("A", 1, "a"), ("B", 1, "a"), ("C", 1, "a"))
    if shop.url.startswith("postgresql"):
        shop.execute(
            "CREATE FUNCTION ignore() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF new.sku = 'B' THEN RETURN NULL; END IF; RETURN new; END $$"
        )
        shop.execute("CREATE TRIGGER ignore BEFORE UPDATE ON things FOR EACH ROW EXECUTE FUNCTION ignore()")
    else:
        shop.execute("CREATE TRIGGER ignore BEFORE UPDATE ON things WHEN new.sku = 'B' BEGIN SELECT raise(IGNORE); END")
    shop.sync(("A", 2, "a"), ("B", 2, "a"), ("C", 2, "a"))
    assert [[kind for kind, _ in shop.told(sku)] for sku in "ABC"] == [
        ["created", "updated"],
        ["created", "failed"],
        ["created", "updated"],
    ]


def test_rows_that_somebody_else_has_changed_since_the_diff_say_what_was_replaced(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.sync(("A", 1, "a"), ("B", 1, "b"), ("C", 1, "c"))
    batches = bulk.StagedDiff.run

    def interfere(self: Any) -> Any:
        planned = batches(self)
        shop.execute("UPDATE things SET stock = 7 WHERE sku = 'A'")
        shop.execute("UPDATE things SET stock = 2 WHERE sku = 'B'")
        return planned

    monkeypatch.setattr(bulk.StagedDiff, "run", interfere)
    shop.sync(("A", 2, "a"), ("B", 2, "b"), ("C", 2, "c"))
    assert shop.told("A")[1:] == [("updated", {"stock": (7, 2)})]
    assert shop.told("C")[1:] == [("updated", {"stock": (1, 2)})]
    assert [changes for _, changes in shop.told("B")[1:]] in ([], [{}])  # it was up to date when its turn came


def test_history_can_be_off(shop: Shop, way: str) -> None:
    shop.sync(("A", 1, "a"), keep_history_days=0)
    shop.sync(("A", 2, "a"), keep_history_days=0)
    assert shop.history("A") == [], way


def test_old_history_goes_with_the_next_run_by_the_days_of_each_job(shop: Shop, way: str) -> None:
    shop.sync(("A", 1, "a"))
    with open_workspace(shop.settings) as workspace:
        for table in (workspace.ledger.tables.history, workspace.ledger.tables.history_blocks):
            with workspace.ledger.transaction() as connection:
                connection.execute(sa.update(table).values(at=datetime.now(UTC) - timedelta(days=40)))
    shop.sync(("A", 2, "a"), keep_history_days=41)
    assert [kind for kind, _ in shop.told("A")] == ["created", "updated"]
    shop.sync(("A", 3, "a"), keep_history_days=39)
    assert [kind for kind, _ in shop.told("A")] == ["updated", "updated"]
    shop.sync(("A", 4, "a"), keep_history_days=0)
    assert shop.history("A") == [], way


def test_the_ledger_may_be_in_the_same_postgres(postgres_url: str, tmp_path: Path) -> None:
    shop = Shop(postgres_url, tmp_path, postgres_url)
    shop.sync(("A", 1, "a"))
    shop.sync(("A", 2, "a"), ("B", 1, "b"))
    assert [kind for kind, _ in shop.told("A")] == ["created", "updated"]
    assert [kind for kind, _ in shop.told("B")] == ["created"]


def test_two_connections_record_as_one_would(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync_pipelines.targets.staging.apply_sql.ROWS_IN_BATCH", 100)
    shop = Shop(postgres_url, tmp_path)
    names = [f"A{number:04}" for number in range(3_000)]
    shop.sync(*((each, 1, "a") for each in names))
    shop.sync(*((each, 2, "a") for each in names))
    assert {tuple(kind for kind, _ in shop.told(each)) for each in names[::77]} == {("created", "updated")}
    with open_workspace(shop.settings) as workspace, workspace.ledger.transaction() as connection:
        blocks = workspace.ledger.tables.history_blocks
        assert connection.scalar(sa.select(sa.func.sum(blocks.c.records))) == 6_000


def test_a_role_that_may_make_temporary_tables_only_records_as_well(
    postgres_admin: sa.Engine, postgres_url: str, tmp_path: Path
) -> None:
    shop = Shop(postgres_url, tmp_path)
    name = f"poor_{UUID(int=id(shop)).hex[-12:]}"
    database = sa.engine.make_url(postgres_url)
    with postgres_admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {name} LOGIN")
    shop.execute(f"GRANT ALL ON things TO {name}")
    shop.url = database.set(username=name).render_as_string(hide_password=False)
    try:
        shop.sync(("A", 1, "a"))
        shop.sync(("A", 2, "a"))
        assert [kind for kind, _ in shop.told("A")] == ["created", "updated"]
    finally:
        shop.url = postgres_url
        shop.execute(f"REVOKE ALL ON things FROM {name}")
        with postgres_admin.connect() as connection:
            connection.exec_driver_sql(f"DROP ROLE {name}")


# Other ways to write


def test_a_plan_says_that_it_was_one(shop: Shop) -> None:
    shop.sync(("A", 1, "a"), ("C", 1, "c"))
    shop.items = [{"sku": "A", "stock": 3, "name": "a"}, {"sku": "B", "stock": 1, "name": "b"}]
    planned = run_sync(shop.job(), settings=shop.settings, dry_run=True)
    assert len(shop.history("A")) == 1
    applied = apply_plan(planned.plan_id or "", job=shop.job(), settings=shop.settings)
    newest = shop.history("A")[0]
    assert (newest.kind, newest.via, newest.run_id) == ("updated", "apply", applied.run_id)
    assert pairs(newest) == {"stock": (1, 3)}
    assert [each.kind for each in (*shop.history("B"), *shop.history("C")[:1])] == ["created", "deleted"]


@pytest.mark.parametrize("same_database", [False, True])
def test_what_a_drain_writes_is_recorded_and_its_deliveries_are_shown(
    database_url: str,
    tmp_path: Path,
    clock: Clock,
    same_database: bool,  # noqa: FBT001 - parametrised
) -> None:
    ledger_url = database_url if same_database and database_url.startswith("postgresql") else None
    shop = Shop(database_url, tmp_path, ledger_url)
    with open_workspace(shop.settings) as workspace:
        at = replace(workspace, clock=clock)
        desk = Desk(at, "things")
        desk.upsert({"sku": "A", "stock": 1, "name": "a"})
        [number] = desk.upsert({"sku": "A", "stock": -1, "name": "a"}, external_id="B")
        Drain(shop.job(), at).run(AT_ONCE)
        clock.advance()
        desk.upsert({"sku": "A", "stock": 2, "name": "a"})
        clock.advance()
        Drain(shop.job(), at).run(AT_ONCE)
        clock.advance()
        desk.delete("A")
        clock.advance()
        Drain(shop.job(), at).run(AT_ONCE)
    told = [(each.kind, each.via) for each in reversed(shop.history("A")) if each.kind != "webhook"]
    assert ("deleted", "drain") in told
    assert ("updated", "drain") in told or ("created", "drain") in told
    hooks = [each for each in shop.history("A") if each.kind == "webhook"]
    assert {each.state for each in hooks} <= {"applied", "waiting", "duplicate"}
    assert number not in {each.delivery for each in shop.history("nobody")}
    assert all(each.delivery is not None for each in hooks)


def test_single_items_are_recorded_where_a_ledger_is_open(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    job = shop.job()
    monkeypatch.setattr(single_items, "find_job", lambda _: job)
    apply_item("things", {"sku": "A", "stock": 1, "name": "a"}, settings=shop.settings)
    apply_item("things", {"sku": "A", "stock": 2, "name": "a"}, settings=shop.settings)
    apply_item("things", {"sku": "A", "stock": 2, "name": "a"}, settings=shop.settings)
    apply_item("things", Delete("A"), settings=shop.settings)
    written = [each for each in reversed(shop.history("A")) if each.kind != "webhook"]
    assert [(each.kind, each.via, each.run_id) for each in written] == [
        ("created", "single", None),
        ("updated", "single", None),
        ("deleted", "single", None),
    ]
    assert pairs(written[1]) == {"stock": (1, 2)}
    assert [each.action for each in shop.history("A") if each.kind == "webhook"] == [
        "deleted",
        "unchanged",
        "updated",
        "created",
    ]


def test_sync_single_item_records_where_it_opens_the_ledger_for_versions(shop: Shop) -> None:
    item = {"sku": "A", "stock": 1, "name": "a"}
    sync_single_item(shop.job(), item, settings=shop.settings)
    assert shop.history("A") == []
    sync_single_item(shop.job(get_version="stock"), item | {"stock": 2}, settings=shop.settings)
    assert [(each.kind, each.via) for each in shop.history("A")] == [("updated", "single")]


# Targets that are no tables


@pytest.fixture
def sync_into(tmp_path: Path) -> Callable[..., list[HistoryEvent]]:
    """Runs a job of functions (or of a memory target) and gives the history of A."""

    def sync(items: list[Item], **fields: Any) -> list[HistoryEvent]:
        given = {"name": "fake", "fetch_external": lambda: items, "get_external_id": "sku"}
        job: SyncJob[Any, Any] = SyncJob(**{**given, **fields})
        settings = Settings(data_dir=tmp_path / "fake", database_url=None, ledger_url=None)
        run(job, settings=settings)
        return record_history(job, "A", settings=settings)

    return sync


def test_a_record_that_an_update_changes_itself_is_compared_before_and_after(
    sync_into: Callable[..., list[HistoryEvent]],
) -> None:
    records: dict[str, Item] = {"A": {"sku": "A", "stock": 1, "tags": ["x"]}}

    def update(item: Item, local: Item) -> None:
        local["stock"] = item["stock"]
        local["tags"].append("y")

    functions: Item = {"find_local": records.get, "create": lambda item: None, "update": update}
    [event] = sync_into([{"sku": "A", "stock": 2}], **functions)
    assert pairs(event) == {"stock": (1, 2), "tags": (["x"], ["x", "y"])}


def test_of_functions_that_write_elsewhere_only_the_fact_is_known(
    sync_into: Callable[..., list[HistoryEvent]],
) -> None:
    functions: Item = {"find_local": lambda sku: object(), "create": print, "update": lambda item, local: None}
    [event] = sync_into([{"sku": "A", "stock": 2}], **functions)
    assert (event.kind, event.changes) == ("updated", None)


def test_a_target_that_names_its_changes_has_them_recorded(sync_into: Callable[..., list[HistoryEvent]]) -> None:
    target = MemoryTarget()
    sync_into([{"sku": "A", "stock": 1}], target=target)
    events = sync_into([{"sku": "A", "stock": 2}], target=target)
    assert [each.kind for each in events] == ["updated", "created"]


# Looking


def test_the_id_is_taken_as_the_source_or_as_the_target_writes_it(database_url: str, tmp_path: Path) -> None:
    shop = Shop(database_url, tmp_path)
    shop.execute("CREATE TABLE numbers (id integer PRIMARY KEY, name text)")
    target = SqlTable(table="numbers", key="id", columns=["name"], database=database_url)
    fields = {"name": "numbers", "target": target, "get_external_id": "id"}
    shop.items = [{"id": "007", "name": "a"}, {"id": "008", "name": 1j}]
    run(shop.job(**fields), settings=shop.settings)
    assert [each.kind for each in shop.history("007", **fields)] == ["created"]
    assert [each.kind for each in shop.history("7", **fields)] == ["created"]
    assert record_history(shop.job(**fields), 7, settings=shop.settings) == shop.history("7", **fields)


def test_a_target_that_can_not_be_reached_is_no_reason_to_show_nothing(shop: Shop) -> None:
    shop.sync(("A", 1, "a"))
    away = SqlTable(table="things", key="sku", columns=["stock"], database="postgresql://nobody@127.0.0.1:1/none")
    assert len(record_history(shop.job(target=away), "A", settings=shop.settings)) == 1


def test_a_job_that_is_gone_is_remembered_by_name(shop: Shop) -> None:
    shop.sync(("A", 1, "a"))
    assert len(record_history("things", "A", settings=shop.settings)) == 1
    with pytest.raises(ConfigurationError, match="things"):
        record_history("things", "nobody", settings=shop.settings)
    with pytest.raises(ConfigurationError, match=r"things.*external id"):
        record_history(shop.job(), None, settings=shop.settings)


# For any sequence of syncs

stocks = st.dictionaries(st.sampled_from("ABCDEF"), st.tuples(st.integers(-1, 3), st.sampled_from("xyz")), max_size=6)


@few_and_many(4, 12)
@pytest.mark.parametrize("in_bulk", [True, False])
def test_replaying_its_history_gives_the_record(
    tmp_path_factory: pytest.TempPathFactory,
    in_bulk: bool,  # noqa: FBT001 - parametrised
    examples: int,
) -> None:
    """From its first create, through every old -> new; also past syncs in which some fail."""

    @hypothesis_settings(max_examples=examples, deadline=None)
    @given(states=st.lists(stocks, min_size=1, max_size=5))
    def replay_any(states: list[dict[str, tuple[int, str]]]) -> None:
        folder = tmp_path_factory.mktemp("replay")
        replayed(Shop(f"sqlite:///{folder / 'shop.sqlite'}", folder / "data"), states, in_bulk=in_bulk)

    replay_any()


@pytest.mark.soak
@hypothesis_settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(states=st.lists(stocks, min_size=1, max_size=4))
def test_replaying_its_history_gives_the_record_on_postgres(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, states: list[dict[str, tuple[int, str]]]
) -> None:
    shop_url = postgres_url
    Shop.execute(_Bare(shop_url), "DROP TABLE IF EXISTS things")
    replayed(Shop(shop_url, tmp_path_factory.mktemp("replay")), states, in_bulk=True)


class _Bare(Shop):
    def __init__(self, url: str) -> None:
        self.url = url


def replayed(shop: Shop, states: list[dict[str, tuple[int, str]]], *, in_bulk: bool) -> None:
    shop.execute("INSERT INTO things VALUES ('there', 1, 'so that the table is not empty')")
    keep = ("there", 1, "so that the table is not empty")
    with pytest.MonkeyPatch.context() as patch:
        if not in_bulk:
            patch.setattr("sync_pipelines.runner.runs.comparing_run.ComparingRun._is_worth_it", lambda *_: False)
        for state in states:
            shop.sync(keep, *((sku, stock, name) for sku, (stock, name) in state.items()))
    rows = {row[0]: row for row in shop.execute("SELECT sku, stock, name FROM things")}
    for sku in "ABCDEF":
        record: dict[str, Any] | None = None
        for event in reversed(shop.history(sku)):
            record = replay(record, event)
        assert record == (dict(zip(("sku", "stock", "name"), rows[sku], strict=True)) if sku in rows else None)


def replay(record: dict[str, Any] | None, event: HistoryEvent) -> dict[str, Any] | None:
    if event.kind == "failed":
        return record
    assert event.changes is not None
    assert (record is None) == (event.kind == "created")
    assert {name: (record or {}).get(name) for name in event.changes} == {
        name: change.old for name, change in event.changes.items()
    }
    if event.kind == "deleted":
        return None
    return (record or {}) | {name: change.new for name, change in event.changes.items()}


# Values

LATE, EARLY = datetime(2026, 1, 31, 12, 0, 0, 5, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)
KINDS: dict[str, tuple[str, Any, Any]] = {
    "text": ("varchar(30)", 'größe "\\\t\n\x01', "z"),
    "char": ("char(5)", "ab", "abc"),
    "whole": ("integer", 7, -7),
    "large": ("bigint", 2**60, -1),
    "exact": ("numeric(12,2)", Decimal("1.10"), Decimal("-0.05")),
    "free": ("numeric", Decimal("1.10"), Decimal("1E+20")),
    "double": ("double precision", 0.1, 1e300),
    "single": ("real", 0.1, 2.5),
    "truth": ("boolean", True, False),
    "day": ("date", date(2026, 1, 31), date(1, 1, 1)),
    "moment": ("timestamp with time zone", LATE, EARLY),
    "wall": ("timestamp", LATE.replace(tzinfo=None), EARLY.replace(tzinfo=None)),
    "id": ("uuid", UUID(int=1), UUID(int=2**127)),
    "tree": ("jsonb", {"a": [1, {"$": "x"}]}, ["ü"]),
    "text_tree": ("json", {"a": 1}, None),
    "list": ("integer[]", [1, 2], []),
    "batch": ("interval", timedelta(days=1), timedelta(seconds=1)),
    "raw": ("bytea", b"\x00\xff", b""),
    "net": ("inet", "10.0.0.1", "::1"),
    '"$"': ("integer", 1, 2),
    '"per%cent ""q"""': ("text", "100 %", "50 %"),
}  # fmt: skip


def test_in_bulk_the_values_are_those_that_a_look_at_each_gives(postgres_url: str, tmp_path: Path) -> None:
    """Written as JSON by the database or by the codec, with and without null: the very same."""
    fields = {kind: kind[1:-1].replace('""', '"') if kind.startswith('"') else kind for kind in KINDS}
    columns = ", ".join(f"{kind} {KINDS[kind][0]}" for kind in KINDS)
    firsts, seconds = ({fields[kind]: KINDS[kind][number] for kind in KINDS} for number in (1, 2))
    nothing = dict.fromkeys(fields.values())
    told: dict[str, list[Any]] = {}
    shop = Shop(postgres_url, tmp_path)
    for name in ("bulk", "pages"):
        shop.execute(f"CREATE TABLE {name} (sku text PRIMARY KEY, {columns})")
        shop.execute(f"INSERT INTO {name} (sku) VALUES ('other')")
        target = SqlTable(table=name, key="sku", columns=[*nothing], database=postgres_url)
        job = shop.job(name=name, target=target)
        with pytest.MonkeyPatch.context() as patch:
            if name == "pages":
                patch.setattr("sync_pipelines.runner.runs.comparing_run.ComparingRun._is_worth_it", lambda *_: False)
            for values in (firsts, seconds, nothing, firsts):
                shop.items = [{"sku": "A", **values}, {"sku": "other", **nothing}]
                run(job, settings=shop.settings)
            shop.items = [{"sku": "other", **nothing}]
            run(job, settings=shop.settings)
        told[name] = [(each.kind, pairs(each)) for each in record_history(job, "A", settings=shop.settings)]
    assert told["bulk"] == told["pages"]
    assert [kind for kind, _ in told["bulk"]] == ["deleted", "updated", "updated", "updated", "created"]
    assert told["bulk"][3][1].keys() == nothing.keys(), "the first update changes every field"
    assert types_of(told["bulk"]) == types_of(told["pages"])


def test_what_lies_beyond_pythons_dates_is_shown_as_it_was_kept(postgres_url: str, tmp_path: Path) -> None:
    shop = Shop(postgres_url, tmp_path)
    shop.execute("CREATE TABLE days (sku text PRIMARY KEY, day date, number double precision, amount numeric)")
    shop.execute("INSERT INTO days VALUES ('A', 'infinity', 'Infinity', 'NaN')")
    target = SqlTable(table="days", key="sku", columns=["day", "number", "amount"], database=postgres_url)
    job = shop.job(name="days", target=target, deletes="off")
    shop.items = [{"sku": "A", "day": date(2026, 1, 1), "number": 1.5, "amount": 2}]
    shop.items += [{"sku": f"B{number}", "day": None, "number": None, "amount": None} for number in range(1_000)]
    run(job, settings=shop.settings)
    [event] = record_history(job, "A", settings=shop.settings)
    assert event.changes is not None
    assert event.changes["number"] == FieldChange(float("inf"), 1.5)
    assert event.changes["amount"].new == Decimal(2)
    assert event.changes["day"].new == date(2026, 1, 1)


def test_a_drain_may_be_limited_and_records_all_the_same(shop: Shop) -> None:
    with open_workspace(shop.settings) as workspace:
        Desk(workspace, "things").upsert({"sku": "A", "stock": 1, "name": "a"})
        Drain(shop.job(), workspace).run(DrainLimits(idle_wait_s=0, longest_s=5))
    assert [each.kind for each in shop.history("A") if each.kind != "webhook"] == ["created"]
