"""Where ledger and table are one PostgreSQL, rows and what is noted of them are there together or not at all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.database.batches import Batches
from sync_pipelines.database.inbox import Inbox
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.errors import LeaseLostError, RetryableError, TargetError
from sync_pipelines.runner.changes.drain_batch import DrainBatch
from sync_pipelines.runner.context.lease import HeldLease
from sync_pipelines.runner.context.workspace import Workspace, open_workspace
from sync_pipelines.runner.decide.stale_check import StaleCheck
from sync_pipelines.runner.write.batch_writer import BatchWriter
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.open_table import OpenedSqlTable
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines_tests.runner.desk import Desk

pytestmark = pytest.mark.each_database

SKUS = [f"A{number}" for number in range(20)]


@pytest.fixture
def settings(tmp_path: Path, postgres_url: str) -> Settings:
    return Settings(data_dir=tmp_path / "data", database_url=postgres_url, ledger_url=postgres_url)


@pytest.fixture
def workspace(settings: Settings) -> Iterator[Workspace]:
    with open_workspace(settings) as opened:
        yield opened


@pytest.fixture
def desk(workspace: Workspace) -> Desk:
    return Desk(workspace)


@pytest.fixture
def table(postgres: sa.Engine) -> Callable[[str], Any]:
    """Executes a statement in the database of the table `variants`."""

    def execute(statement: str) -> Any:
        with postgres.begin() as connection:
            result = connection.execute(sa.text(statement))
            return result.all() if result.returns_rows else None

    execute("CREATE TABLE variants (sku TEXT PRIMARY KEY, stock INTEGER CHECK (stock >= 0), parent TEXT)")
    return execute


Table = Callable[[str], Any]


def make_job(database: Any, **fields: Any) -> SyncJob[Any, Any]:
    target = SqlTable(table="variants", key="sku", columns=["stock", "parent"], database=database)
    given = {"name": "stock", "fetch_external": list, "target": target, "get_version": "version"}
    return SyncJob(**{**given, **fields})


def item(sku: str, stock: int = 1, version: int = 1, parent: str | None = None) -> dict[str, Any]:
    return {"sku": sku, "stock": stock, "version": version, "parent": parent}


def stock_of(table: Table) -> dict[str, int]:
    return dict(tuple(row) for row in table("SELECT sku, stock FROM variants"))


def count_of(table: Table, name: str) -> int:
    return int(table(f"SELECT count(*) FROM {name}")[0][0])


def test_rows_deliveries_versions_and_counts_are_one_transaction(desk: Desk, table: Table, postgres_url: str) -> None:
    table("CREATE TABLE written (id TEXT DEFAULT txid_current())")
    table(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO written DEFAULT VALUES; RETURN new; END $$"
    )
    for name in ("variants", "sync_pipelines.inbox", "sync_pipelines.versions", "sync_pipelines.run_batches"):
        event = "UPDATE" if name.endswith("inbox") else "INSERT OR UPDATE"
        table(f"CREATE TRIGGER note AFTER {event} ON {name} FOR EACH ROW EXECUTE FUNCTION note()")
    desk.upsert(*(item(sku) for sku in SKUS), item("bad", -1))
    desk.upsert(item("A0", 2, 2))
    results = desk.drain(make_job(postgres_url))
    assert (results.created, results.duplicate_count, results.error_count) == (20, 1, 1)
    assert len(table("SELECT DISTINCT id FROM written")) == 1
    assert count_of(table, "written") == 20 + 22 + 20 + 1


def test_a_row_that_a_constraint_refuses_leaves_the_others_in_the_same_transaction(
    desk: Desk, table: Table, postgres_url: str
) -> None:
    given = desk.upsert(*(item(sku, -1 if sku in {"A3", "A11"} else 1) for sku in SKUS))
    results = desk.drain(make_job(postgres_url))
    assert (results.created, results.error_count) == (18, 2)
    assert desk.actions(*given) == ["waiting" if sku in {"A3", "A11"} else "created" for sku in SKUS]
    assert "variants_stock_check" in str(desk.show(given[3]).message)
    assert count_of(table, "sync_pipelines.versions") == 18


def test_updates_and_deletes_are_narrowed_down_in_it_as_well(desk: Desk, table: Table, postgres_url: str) -> None:
    table("CREATE TABLE sold (sku TEXT REFERENCES variants)")
    desk.upsert(*(item(sku) for sku in SKUS))
    desk.drain(make_job(postgres_url))
    table("INSERT INTO sold VALUES ('A0')")
    given = [*desk.delete("A0", "A1", "A2"), *desk.upsert(item("A3", -1, 2), item("A4", 7, 2))]
    desk.drain(make_job(postgres_url))
    assert desk.actions(*given) == ["waiting", "deleted", "deleted", "waiting", "updated"]
    assert stock_of(table) == {**{sku: 1 for sku in SKUS if sku not in {"A1", "A2"}}, "A4": 7}


@pytest.mark.parametrize("deferred", ["INITIALLY DEFERRED", "INITIALLY IMMEDIATE"])
def test_a_deferred_constraint_that_one_row_breaks_is_that_rows_own_error(
    desk: Desk, table: Table, postgres_url: str, deferred: str
) -> None:
    table(f"ALTER TABLE variants ADD FOREIGN KEY (parent) REFERENCES variants DEFERRABLE {deferred}")
    given = desk.upsert(item("A"), item("orphan", parent="nobody"), item("B", parent="A"))
    results = desk.drain(make_job(postgres_url))
    assert (desk.actions(*given), results.created) == (["created", "waiting", "created"], 2)
    assert "variants_parent_fkey" in str(desk.show(given[1]).message)
    assert stock_of(table) == {"A": 1, "B": 1}


def test_rows_that_refer_to_each_other_land_where_the_constraint_is_deferred(
    desk: Desk, table: Table, postgres_url: str
) -> None:
    """As they do in a full sync: neither could come first."""
    table("ALTER TABLE variants ADD FOREIGN KEY (parent) REFERENCES variants DEFERRABLE INITIALLY DEFERRED")
    given = desk.upsert(item("child", parent="A"), item("A", parent="B"), item("B", parent="A"))
    desk.drain(make_job(postgres_url))
    assert desk.actions(*given) == ["created"] * 3


def test_a_trigger_that_breaks_at_the_commit_is_its_own_rows_error(desk: Desk, table: Table, postgres_url: str) -> None:
    table(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF new.stock = 13 THEN RAISE 'unlucky'; END IF; RETURN new; END $$"
    )
    table(
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON variants DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    given = desk.upsert(item("A", 1), item("B", 13), item("C", 2))
    desk.drain(make_job(postgres_url))
    assert desk.actions(*given) == ["created", "waiting", "created"]
    assert "unlucky" in str(desk.show(given[1]).message)


class KilledError(BaseException):
    """Stands for a process that ends there and then."""


@pytest.mark.parametrize("at", [(Inbox, "complete"), (Batches, "save"), (StaleCheck, "keep_written")])
def test_what_breaks_off_before_the_commit_leaves_nothing_behind(
    desk: Desk, table: Table, postgres_url: str, monkeypatch: pytest.MonkeyPatch, at: tuple[type, str]
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KilledError

    given = desk.upsert(*(item(sku) for sku in SKUS))
    with monkeypatch.context() as patched:
        patched.setattr(*at, killed)
        with pytest.raises(KilledError):
            desk.drain(make_job(postgres_url))
    assert (stock_of(table), count_of(table, "sync_pipelines.versions")) == ({}, 0)
    assert {(each.state, each.attempts) for each in map(desk.show, given)} == {("waiting", 0)}
    assert desk.drain(make_job(postgres_url)).created == 20


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize(
    "at",
    [(Inbox, "complete"), (Batches, "save"), (StaleCheck, "keep_written"), (BatchWriter, "write")],
)
def test_a_connection_lost_on_the_way_has_the_whole_batch_written_again_and_blames_nobody(
    desk: Desk, table: Table, postgres_url: str, monkeypatch: pytest.MonkeyPatch, at: tuple[type, str]
) -> None:
    original, calls = getattr(*at), []

    def losing(*given: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            end_connections(table)
        return original(*given, **options)

    monkeypatch.setattr(*at, losing)
    given = desk.upsert(*(item(sku) for sku in SKUS), item("bad", -1))
    results = desk.drain(make_job(postgres_url))
    assert (results.created, results.error_count, len(calls)) == (20, 1, 2)
    assert [each.attempts for each in map(desk.show, given)] == [1] * 21
    assert stock_of(table) == dict.fromkeys(SKUS, 1)


def end_connections(table: Table) -> None:
    """Those of the writer that have a transaction open; the lease goes on."""
    table(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid() AND state = 'idle in transaction'"
    )


@pytest.mark.usefixtures("no_waits")
def test_a_connection_lost_while_rows_are_written_blames_nobody(desk: Desk, table: Table, postgres_url: str) -> None:
    """The server ends the session in the middle of a statement, once."""
    table("CREATE SEQUENCE attempts")
    table(
        "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF new.sku = 'A7' AND nextval('attempts') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; "
        "RETURN new; END $$"
    )
    table("CREATE TRIGGER lose BEFORE INSERT ON variants FOR EACH ROW EXECUTE FUNCTION lose()")
    given = desk.upsert(*(item(sku) for sku in SKUS))
    assert desk.drain(make_job(postgres_url)).created == 20
    assert [each.attempts for each in map(desk.show, given)] == [1] * 20


@pytest.mark.usefixtures("no_waits")
def test_a_database_that_always_breaks_off_ends_the_drain_and_costs_nobody_an_attempt(
    desk: Desk, table: Table, postgres_url: str
) -> None:
    table(
        "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF new.sku = 'A7' THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN new; END $$"
    )
    table("CREATE TRIGGER lose BEFORE INSERT ON variants FOR EACH ROW EXECUTE FUNCTION lose()")
    given = desk.upsert(*(item(sku) for sku in SKUS))
    with pytest.raises(TargetError):
        desk.drain(make_job(postgres_url))
    assert {(each.state, each.attempts) for each in map(desk.show, given)} == {("waiting", 0)}
    assert stock_of(table) == {}


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize("state", ["40P01", "40001", "55P03"])
def test_a_deadlock_on_the_way_has_the_whole_batch_written_again(
    desk: Desk, table: Table, postgres_url: str, state: str
) -> None:
    table("CREATE SEQUENCE attempts")
    table(
        "CREATE FUNCTION lock() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF new.sku = 'A7' AND nextval('attempts') = 1 THEN RAISE 'locked' USING ERRCODE = '{state}'; END IF; "
        "RETURN new; END $$"
    )
    table("CREATE TRIGGER lock BEFORE INSERT ON variants FOR EACH ROW EXECUTE FUNCTION lock()")
    given = desk.upsert(*(item(sku) for sku in SKUS), item("bad", -1))
    results = desk.drain(make_job(postgres_url))
    assert (results.created, results.error_count) == (20, 1)
    assert {each.attempts for each in map(desk.show, given)} == {1}


@pytest.mark.usefixtures("no_waits")
def test_a_commit_whose_answer_is_lost_is_not_counted_twice(
    desk: Desk, table: Table, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has committed, and the connection breaks before it can say so."""
    original = OpenedSqlTable.together
    lost: list[int] = []

    @contextmanager
    def losing(target: OpenedSqlTable) -> Iterator[Any]:
        with original(target) as connection:
            yield connection
        if not lost:
            lost.append(1)
            raise RetryableError("the answer to the commit was lost")

    monkeypatch.setattr(OpenedSqlTable, "together", losing)
    given = desk.upsert(*(item(sku) for sku in SKUS), item("bad", -1))
    results = desk.drain(make_job(postgres_url))
    assert lost
    assert (results.created, results.error_count, results.fetched) == (20, 1, 21)
    assert desk.actions(*given) == ["created"] * 20 + ["waiting"]
    assert {each.attempts for each in map(desk.show, given)} == {1}


def test_a_drain_that_has_lost_its_lease_writes_nothing(
    desk: Desk, table: Table, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = DrainBatch.decide_deliveries

    def stalled(batch: DrainBatch) -> None:
        original(batch)
        table("UPDATE sync_pipelines.leases SET token = token + 1, holder = 'another run'")

    monkeypatch.setattr(DrainBatch, "decide_deliveries", stalled)
    given = desk.upsert(*(item(sku) for sku in SKUS))
    with pytest.raises(LeaseLostError):
        desk.drain(make_job(postgres_url))
    assert (stock_of(table), count_of(table, "sync_pipelines.versions")) == ({}, 0)
    assert {(each.state, each.attempts) for each in map(desk.show, given)} == {("waiting", 0)}


def test_nobody_takes_the_lease_while_the_transaction_is_open(
    desk: Desk, table: Table, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever wants it waits for the row until what was written is there."""
    original, seen = Inbox.complete, []

    def settle(inbox: Inbox, *given: Any) -> None:
        original(inbox, *given)
        try:
            table("SET LOCAL lock_timeout = '50ms'; UPDATE sync_pipelines.leases SET token = token + 1")
        except sa.exc.OperationalError as error:
            seen.append(getattr(error.orig, "sqlstate", None))

    monkeypatch.setattr(Inbox, "complete", settle)
    desk.upsert(item("A"))
    assert desk.drain(make_job(postgres_url)).created == 1
    assert seen == ["55P03"]


def test_a_transaction_that_outlasts_half_its_lease_does_not_wait_for_itself(
    desk: Desk, table: Table, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has locked the lease's row, which a renewal would wait for."""
    original, elapsed_s = HeldLease.__init__, count(step=100)

    def hurried(held: HeldLease, *given: Any) -> None:
        original(held, *given, elapsed_s=lambda: next(elapsed_s))

    monkeypatch.setattr(HeldLease, "__init__", hurried)
    desk.upsert(*(item(sku) for sku in SKUS[:7]), item("bad", -1))
    ended = threading.Event()
    results: list[Any] = []

    def drain() -> None:
        try:
            results.append(desk.drain(make_job(postgres_url)))
        finally:
            ended.set()

    thread = threading.Thread(target=drain)
    thread.start()
    if not ended.wait(20):
        end_connections(table)
        pytest.fail("the drain waits for a lock of its own")
    thread.join()
    assert (results[0].created, results[0].error_count) == (7, 1)


def test_a_pool_of_one_connection_is_enough(desk: Desk, table: Table, postgres_url: str) -> None:
    url = sa.make_url(postgres_url).set(drivername="postgresql+psycopg")
    database = sa.create_engine(url, pool_size=1, max_overflow=0, pool_timeout=1)
    try:
        desk.upsert(item("A"), item("B"), item("bad", -1))
        desk.drain(make_job(database))
        desk.upsert(item("A", 2, 2))
        desk.delete("B")
        desk.drain(make_job(database))
    finally:
        database.dispose()
    assert stock_of(table) == {"A": 2}


def test_a_table_whose_database_commits_each_statement_is_written_all_the_same(
    desk: Desk, table: Table, postgres_url: str
) -> None:
    url = sa.make_url(postgres_url).set(drivername="postgresql+psycopg")
    database = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        given = desk.upsert(*(item(sku) for sku in SKUS[:5]), item("bad", -1))
        desk.drain(make_job(database))
    finally:
        database.dispose()
    assert desk.actions(*given) == ["created"] * 5 + ["waiting"]
    assert stock_of(table) == dict.fromkeys(SKUS[:5], 1)


@pytest.mark.parametrize("level", ["SERIALIZABLE", "REPEATABLE READ"])
def test_stricter_isolation_does_not_matter(desk: Desk, table: Table, postgres_url: str, level: Any) -> None:
    url = sa.make_url(postgres_url).set(drivername="postgresql+psycopg")
    database = sa.create_engine(url, isolation_level=level)
    try:
        for version in (1, 2):
            desk.upsert(*(item(sku, version, version) for sku in SKUS), item("bad", -1, version))
            desk.drain(make_job(database))
    finally:
        database.dispose()
    assert stock_of(table) == dict.fromkeys(SKUS, 2)
