"""A database in trouble while it is synced in bulk: tried again, blamed on no item, and nothing is written twice."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa
import stamina

from sync_pipelines import SyncResults, TargetError, run_sync
from sync_pipelines.database.connections import create_database
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines.targets.staging.apply_sql import BatchApplier
from sync_pipelines.targets.staging.diff_sql import Planner
from sync_pipelines.targets.staging.postgres import PostgresStaging
from sync_pipelines.targets.staging.staged_table import StagedTable
from sync_pipelines_tests.runner import bulk_child as child
from sync_pipelines_tests.runner.write.test_staged_crashes import Place, assert_whole
from sync_pipelines_tests.two_speeds import spread, spread_rows

pytestmark = pytest.mark.each_database


@pytest.fixture(autouse=True)
def no_waits() -> Iterator[None]:
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture
def place(tmp_path: Path, postgres_url: str) -> Place:
    return Place(tmp_path / "data", postgres_url)


@pytest.fixture
def other(place: Place) -> Iterator[sa.Connection]:
    """Somebody else's connection to the same database."""
    database = create_database(place.url)
    with database.connect() as connection:
        yield connection
    database.dispose()


def happens(  # noqa: PLR0913 - what, when and to whom
    patching: pytest.MonkeyPatch,
    owner: type,
    method: str,
    trouble: Callable[..., None],
    number: int = 1,
    *,
    after: bool = True,
) -> None:
    """Lets something happen before or after a method's call of that number, from 1; calls that raise do not count."""
    function = getattr(owner, method)
    calls = 0

    def troubled(*args: Any, **options: Any) -> Any:
        nonlocal calls
        if calls == number - 1 and not after:
            calls += 1
            trouble(*args)
            return function(*args, **options)
        answer = function(*args, **options)
        calls += 1
        if calls == number and after:
            trouble(*args)
        return answer

    patching.setattr(owner, method, troubled)


def run_with(place: Place, database: Any) -> SyncResults:
    """A run whose target is reached through that engine."""
    with child.in_batches():
        return run_sync(child.job(database), settings=place.settings)


def assert_exact(place: Place, results: SyncResults) -> None:
    """As if nothing had happened."""
    assert_whole(results)
    assert (results.created, results.updated, results.deleted) == (child.CREATED, child.UPDATED, child.GONE)
    assert (results.unchanged, results.recovered) == (child.UNCHANGED, 0)
    place.assert_in_step()


@pytest.mark.parametrize(
    ("owner", "method", "number", "after"),
    spread_rows(
        [
            (PostgresStaging, "_copy_rows", 1, False),
            (PostgresStaging, "_copy_rows", 2, True),
            (PostgresStaging, "finish_loading", 1, True),
            (Planner, "compare", 1, False),
            (Planner, "make_plan", 1, True),
            (BatchApplier, "batches", 1, True),
            (BatchApplier, "_write", 2, True),
            (BatchApplier, "_planned", 2, True),
            (BatchApplier, "_attempt", 3, True),
            (StagedTable, "applied", 3, True),
            (StagedTable, "drop", 1, False),
        ],
        2,
    ),
)
def test_a_lost_connection_is_made_again(  # noqa: PLR0913, PLR0917 - parametrised
    place: Place,
    other: sa.Connection,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    method: str,
    number: int,
    after: bool,  # noqa: FBT001
) -> None:
    terminate = sa.text(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    lost: list[Any] = []

    def lose(*_: Any) -> None:
        lost.extend(other.execute(terminate).all())
        other.rollback()

    happens(monkeypatch, owner, method, lose, number, after=after)
    results = place.run()
    assert lost
    assert_exact(place, results)


@pytest.mark.parametrize("state", spread(["40P01", "40001", "55P03", "53300", "57P01"], 2))
@pytest.mark.parametrize("method", ["_write", "_planned"])
def test_errors_that_pass_are_tried_again_and_blamed_on_no_item(
    place: Place, monkeypatch: pytest.MonkeyPatch, state: str, method: str
) -> None:
    """A deadlock, a serialisation failure, a lock time-out, too many connections, a server that stops."""

    def raise_it(_applier: Any, connection: sa.Connection, *_: Any) -> None:
        connection.exec_driver_sql(f"DO $$ BEGIN RAISE EXCEPTION 'it passes' USING ERRCODE = '{state}'; END $$")

    happens(monkeypatch, BatchApplier, method, raise_it, 2)
    assert_exact(place, place.run())


def test_a_target_that_never_recovers_ends_the_run_and_a_re_execution_goes_on(
    place: Place, other: sa.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.execute(sa.text("SELECT pg_advisory_lock(7)"))
    function = BatchApplier._write

    def locked(applier: BatchApplier, connection: sa.Connection, batch: Any) -> Any:
        if batch.first > 3:
            connection.exec_driver_sql("SET LOCAL lock_timeout = 1")
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7)")
        return function(applier, connection, batch)

    with monkeypatch.context() as patching:
        patching.setattr(BatchApplier, "_write", locked)
        with pytest.raises(TargetError, match=r"does not answer.*lock timeout") as caught:
            place.run()
    told = caught.value.results
    assert 0 < told.created + told.updated + told.deleted < child.PLANNED
    assert told.error_count == 0
    assert_exact(place, place.go_on())


def test_a_lock_time_out_of_the_role_is_waited_out(
    place: Place, other: sa.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = create_database(place.url).url
    impatient = sa.create_engine(url, connect_args={"options": "-c lock_timeout=50ms"})
    other.execute(sa.text("UPDATE variants SET name = name WHERE sku = 'old-7'"))  # in a transaction that stays open
    tries: list[int] = []
    attempt = BatchApplier._attempt

    def counted(applier: BatchApplier, batch: Any) -> Any:
        try:
            return attempt(applier, batch)
        except Exception:
            tries.append(1)
            if len(tries) == 2:
                other.rollback()
            raise

    monkeypatch.setattr(BatchApplier, "_attempt", counted)
    results = run_with(place, impatient)
    impatient.dispose()
    assert len(tries) == 2
    assert_exact(place, results)


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_the_isolation_level_of_an_engine_that_is_lent_is_not_ours(
    place: Place, other: sa.Connection, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    """Each transaction of ours says that it reads what is committed, so that nothing fails to be serialised."""
    strict = sa.create_engine(create_database(place.url).url, isolation_level=level)
    failures: list[Exception] = []

    def touch(applier: BatchApplier, connection: sa.Connection, *_: Any) -> None:
        other.execute(sa.text("SET session_replication_role = replica"))  # no trigger notes this
        other.execute(sa.text("UPDATE variants SET stock = 77 WHERE sku LIKE 'old-%'"))
        other.commit()

    attempt = BatchApplier._attempt

    def watched(applier: BatchApplier, batch: Any) -> Any:
        try:
            return attempt(applier, batch)
        except Exception as error:
            failures.append(error)
            raise

    monkeypatch.setattr(BatchApplier, "_attempt", watched)
    happens(monkeypatch, BatchApplier, "_planned", touch)
    results = run_with(place, strict)
    strict.dispose()
    assert failures == []
    assert_whole(results)
    assert (results.created, results.updated, results.deleted) == (child.CREATED, child.UPDATED, child.GONE)
    place.assert_in_step()


def test_a_deadlock_with_somebody_else_is_tried_again(
    place: Place, other: sa.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty = sa.create_engine(create_database(place.url).url, connect_args={"options": "-c deadlock_timeout=300ms"})
    other.execute(sa.text("SET deadlock_timeout = '20s'"))
    threads: list[threading.Thread] = []
    insert = sa.text("INSERT INTO variants (sku, stock) VALUES (:sku, 0)")

    def get_in_the_way(applier: BatchApplier, connection: sa.Connection, batch: Any) -> None:
        part = applier._plan
        rows = connection.execute(sa.select(part.c.sp_k0).where(*applier._rows(batch, 1)).order_by(part.c.sp_k0))  # type: ignore[arg-type]
        keys = [row[0] for row in rows]
        assert len(keys) > 1
        other.execute(insert, {"sku": keys[-1]})

        def want_the_first() -> None:
            time.sleep(0.1)  # the batch has inserted it by then, and waits for the last one
            other.execute(insert, {"sku": keys[0]})
            other.rollback()

        threads.append(threading.Thread(target=want_the_first))
        threads[0].start()

    happens(monkeypatch, BatchApplier, "_insert", get_in_the_way, after=False)
    results = run_with(place, hasty)
    threads[0].join()
    hasty.dispose()
    assert_exact(place, results)


def test_a_locked_sqlite_file_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "test.sqlite"
    place = Place(tmp_path / "data", f"sqlite:///{path}")
    impatient = sa.create_engine(place.url, connect_args={"timeout": 0.05})
    sa.event.listen(impatient, "connect", lambda raw, _: raw.execute("PRAGMA foreign_keys = ON").close())
    attempt = BatchApplier._attempt
    calls: list[int] = []
    with closing(sqlite3.connect(path, isolation_level=None)) as other:

        def locked_twice(applier: BatchApplier, batch: Any) -> Any:
            calls.append(1)
            if len(calls) in {2, 3}:
                other.execute("BEGIN IMMEDIATE")
            try:
                return attempt(applier, batch)
            finally:
                if other.in_transaction:
                    other.rollback()

        monkeypatch.setattr(BatchApplier, "_attempt", locked_twice)
        results = run_with(place, impatient)
    impatient.dispose()
    assert_exact(place, results)


def kill_server(server: Any) -> None:
    """Kills a PostgreSQL server with all its processes, as a power cut would."""
    postmaster = psutil.Process(server.get_pid())
    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, 10)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_server_that_crashes_and_comes_back_has_lost_the_plan_and_nothing_else(
    tmp_path: Path,
    own_postgres: Any,
    monkeypatch: pytest.MonkeyPatch,
    at_once: bool,  # noqa: FBT001 - parametrised
) -> None:
    """Unlogged tables come back empty. It comes back at once, or when the run has given up."""
    place = Place(tmp_path / "data", own_postgres.get_uri())

    def crash(*_: Any) -> None:
        kill_server(own_postgres)
        if at_once:
            own_postgres.ensure_postgres_running()

    reason = "lost the staging tables" if at_once else "does not answer"
    with monkeypatch.context() as patching:
        happens(patching, BatchApplier, "_attempt", crash, 4)
        with pytest.raises(TargetError, match=reason) as caught:
            place.run()
    own_postgres.ensure_postgres_running()
    told = caught.value.results
    assert told.created + told.updated > 0

    results = place.go_on()

    assert_whole(results)
    assert results.recovered >= told.created + told.updated
    assert results.created + results.updated + results.recovered == child.CREATED + child.UPDATED
    assert results.unchanged == child.UNCHANGED + results.recovered
    place.assert_in_step()


def test_a_lost_connection_takes_temporary_tables_with_it_and_a_new_run_mends_all(
    place: Place, other: sa.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync_pipelines.targets.staging.staged_table.temporary_or_not", lambda *_: True)

    def lose(*_: Any) -> None:
        other.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
        other.rollback()

    with monkeypatch.context() as patching:
        happens(patching, BatchApplier, "_write", lose, 3)
        with pytest.raises(TargetError, match="temporary staging tables"):
            place.run()
    results = place.run()
    assert_whole(results)
    place.assert_in_step()


def test_a_plan_is_not_applied_after_a_newer_run_has_written(place: Place) -> None:
    place.kill_at("after ledger", 2)
    with open_workspace(place.settings) as workspace:
        old = child.plan_of_last_run(workspace)
        assert old is not None
    place.run()
    with open_workspace(place.settings) as workspace, pytest.raises(Exception, match="the newer run"):
        SyncRun(child.job(place.url), workspace).apply(old)
    place.assert_in_step()
