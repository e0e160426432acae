"""A full sync and a drain of one sync: one goes at a time, and the newest state wins whichever comes last."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.database.batches import Batches
from sync_pipelines.database.ledger import Ledger
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.errors import RunError, SyncBusyError
from sync_pipelines.runner.changes.drain import Drain
from sync_pipelines.runner.context.workspace import Workspace, open_workspace
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines_tests.runner.desk import AT_ONCE, Clock, Desk


def item(sku: str, stock: int) -> dict[str, Any]:
    """The stock is the version as well."""
    return {"sku": sku, "stock": stock, "version": stock}


class Source:
    """A system whose items change while they are read.

    Args:
        stock: What it has.
    """

    def __init__(self, stock: dict[str, int]) -> None:
        self.stock = stock
        self.meanwhile: list[Callable[[], object]] = []
        self.asked: list[str] = []

    def fetch_external(self) -> Iterator[Any]:
        """Gives what it has now; then something happens."""
        yield [item(sku, stock) for sku, stock in self.stock.items()]
        for action in self.meanwhile:
            action()

    def fetch_one(self, sku: str) -> Any:
        """Gives the item as it is now."""
        self.asked.append(sku)
        return item(sku, self.stock[sku]) if sku in self.stock else None


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings.model_validate({"data_dir": tmp_path / "data", "database_url": None, "ledger_url": database_url})


@pytest.fixture
def workspace(settings: Settings, clock: Clock) -> Iterator[Workspace]:
    with open_workspace(settings, clock) as opened:
        yield opened


@pytest.fixture
def desk(workspace: Workspace) -> Desk:
    return Desk(workspace)


@pytest.fixture
def make(database: sa.Engine) -> Callable[..., SyncJob[Any, Any]]:
    with database.begin() as connection:
        connection.execute(sa.text("CREATE TABLE variants (sku TEXT PRIMARY KEY, stock INTEGER)"))

    def job(source: Source, **fields: Any) -> SyncJob[Any, Any]:
        url = database.url.render_as_string(hide_password=False)
        target = SqlTable(table="variants", key="sku", columns=["stock"], database=url)
        given = {"name": "stock", "fetch_external": source.fetch_external, "target": target}
        return SyncJob(**{**given, **fields})

    return job


Make = Callable[..., SyncJob[Any, Any]]


@pytest.fixture
def stock(database: sa.Engine) -> Callable[[], dict[str, int]]:
    def read() -> dict[str, int]:
        with database.begin() as connection:
            return {row[0]: row[1] for row in connection.execute(sa.text("SELECT sku, stock FROM variants"))}

    return read


Stock = Callable[[], dict[str, int]]


def full_sync(job: SyncJob[Any, Any], workspace: Workspace) -> Any:
    run = SyncRun(job, workspace)
    return run.apply(run.diff(run.fetch()))


@pytest.mark.parametrize("how", ["versions", "fetch_one", "both"])
def test_what_arrives_while_a_full_sync_runs_is_applied_after_it_and_the_newest_state_wins(
    make: Make, desk: Desk, stock: Stock, clock: Clock, how: str
) -> None:
    """One delivery was sent before the item was read, one after it."""
    source = Source({"early": 5, "late": 5, "gone": 5, "same": 5})

    def arrive() -> None:
        clock.advance()
        desk.upsert(item("early", 4), item("late", 6))
        source.stock["late"] = 6
        desk.delete("gone")
        del source.stock["gone"]
        with pytest.raises(SyncBusyError):
            desk.drain(job)
        clock.advance()

    source.meanwhile = [arrive]
    fields: dict[str, Any] = {} if how == "versions" else {"fetch_one": source.fetch_one}
    job = make(source, **fields, **({} if how == "fetch_one" else {"get_version": "version"}))
    full_sync(job, desk.workspace)
    assert stock() == {"early": 5, "late": 5, "gone": 5, "same": 5}
    desk.drain(job)
    assert stock() == {"early": 5, "late": 6, "same": 5}
    assert desk.workspace.inbox.count("stock") == 0
    assert source.asked == {"versions": [], "fetch_one": ["early", "late", "gone"], "both": ["gone"]}[how]


def test_what_arrives_after_a_full_sync_is_not_asked_for(make: Make, desk: Desk, clock: Clock) -> None:
    source = Source({"A": 5})
    job = make(source, fetch_one=source.fetch_one)
    full_sync(job, desk.workspace)
    clock.advance()
    desk.upsert(item("A", 6))
    desk.drain(job)
    assert source.asked == []


def test_what_came_before_a_full_sync_that_was_killed_while_it_applied_is_asked_for(
    make: Make, desk: Desk, stock: Stock, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has written, and nobody knows when it ended."""

    class KilledError(BaseException):
        pass

    def killed(*_: Any, **__: Any) -> None:
        raise KilledError

    source = Source({"A": 5})
    job = make(source, fetch_one=source.fetch_one)
    desk.upsert(item("A", 4))
    clock.advance()
    with monkeypatch.context() as patched:
        patched.setattr(Batches, "save", killed)
        patched.setattr(Ledger, "finish_run", lambda *_, **__: None)
        with pytest.raises(KilledError):
            full_sync(job, desk.workspace)
    assert stock() == {"A": 5}
    clock.advance()
    desk.drain(job)
    assert (stock(), source.asked) == ({"A": 5}, ["A"])
    clock.advance()
    desk.upsert(item("A", 6))
    desk.drain(job)
    assert (stock(), source.asked) == ({"A": 6}, ["A"])  # what came after that drain began is beyond doubt


def test_a_full_sync_that_did_not_come_to_apply_makes_nothing_doubtful(make: Make, desk: Desk, clock: Clock) -> None:
    source = Source({"A": 5})
    job = make(source, fetch_one=source.fetch_one)
    run = SyncRun(job, desk.workspace)
    desk.upsert(item("A", 6))
    clock.advance()
    ref = run.fetch()
    desk.workspace.leases.release(next(iter(desk.workspace.leases.held())))
    clock.advance()
    desk.drain(job)
    assert source.asked == []
    assert ref.items == 1


def test_an_older_full_sync_that_waited_for_a_drain_takes_nothing_back(
    make: Make, desk: Desk, stock: Stock, clock: Clock
) -> None:
    """What it applies was fetched before the drain's item came."""
    source = Source({"A": 5})
    job = make(source, get_version="version")
    run = SyncRun(job, desk.workspace)
    snapshot = run.fetch()
    desk.workspace.leases.release(next(iter(desk.workspace.leases.held())))
    desk.upsert(item("A", 6), item("B", 1))
    desk.drain(job)
    results = run.apply(run.diff(snapshot))
    assert (stock(), results.skipped) == ({"A": 6, "B": 1}, 1)


def test_nor_does_one_whose_plan_was_made_before_the_drain(make: Make, desk: Desk, stock: Stock) -> None:
    source = Source({"A": 5, "C": 1})
    job = make(source, get_version="version")
    run = SyncRun(job, desk.workspace)
    plan = run.diff(run.fetch())
    desk.workspace.leases.release(next(iter(desk.workspace.leases.held())))
    desk.upsert(item("A", 6))
    desk.drain(job)
    results = run.apply(plan)
    assert (stock(), results.skipped, results.created) == ({"A": 6, "C": 1}, 1, 1)


@pytest.mark.parametrize("phase", ["diff", "apply"])
def test_without_versions_a_run_that_is_gone_on_with_after_a_drain_writes_nothing_older(
    make: Make, desk: Desk, stock: Stock, clock: Clock, phase: str
) -> None:
    """As a re-execution from failure asks for: what it fetched may be older than what the drain has written."""
    source = Source({"A": 5})
    job = make(source)
    desk.upsert(item("A", 1))
    desk.drain(job)
    clock.advance()
    run = SyncRun(job, desk.workspace)
    snapshot = run.fetch()
    plan = run.diff(snapshot) if phase == "apply" else None
    desk.workspace.leases.release(next(iter(desk.workspace.leases.held())))
    clock.advance()
    desk.upsert(item("A", 6))
    desk.drain(job)
    with pytest.raises(RunError, match="single items have been applied since this run fetched"):
        run.apply(plan if plan is not None else run.diff(snapshot))
    assert stock() == {"A": 6}


def test_a_run_may_be_gone_on_with_where_a_drain_has_written_nothing(
    make: Make, desk: Desk, stock: Stock, clock: Clock
) -> None:
    source = Source({"A": 5})
    job = make(source)
    run = SyncRun(job, desk.workspace)
    plan = run.diff(run.fetch())
    desk.workspace.leases.release(next(iter(desk.workspace.leases.held())))
    clock.advance()
    desk.delete("B")
    desk.drain(job)
    run.apply(plan)
    assert stock() == {"A": 5}


def test_a_drain_that_may_wait_begins_when_the_full_sync_has_ended(make: Make, desk: Desk, stock: Stock) -> None:
    source = Source({"A": 5})
    job = make(source, get_version="version")
    began, go_on = threading.Event(), threading.Event()
    desk.upsert(item("A", 6))
    drained: list[Any] = []

    def wait() -> None:
        began.set()
        assert go_on.wait(30)

    source.meanwhile = [wait]
    full = threading.Thread(target=lambda: full_sync(job, desk.workspace))
    drain = threading.Thread(target=lambda: drained.append(Drain(job, desk.workspace, wait_s=30).run(AT_ONCE)))
    full.start()
    assert began.wait(30)
    drain.start()
    assert stock() == {}
    go_on.set()
    full.join(30)
    drain.join(30)
    assert (stock(), drained[0].updated) == ({"A": 6}, 1)


def test_what_a_full_sync_deleted_is_not_brought_back_by_an_older_delivery(
    make: Make, desk: Desk, stock: Stock, clock: Clock
) -> None:
    source = Source({"A": 5})
    job = make(source, get_version="version", deletes="hard")
    full_sync(job, desk.workspace)
    clock.advance()
    desk.upsert(item("B", 1))
    desk.drain(job)
    source.stock["B"] = 1
    clock.advance()
    full_sync(job, desk.workspace)
    assert stock() == {"A": 5, "B": 1}
    del source.stock["B"]
    clock.advance()
    full_sync(job, desk.workspace)
    assert stock() == {"A": 5}
    late = desk.upsert(item("B", 0))
    desk.drain(job)
    assert (stock(), desk.actions(*late)) == ({"A": 5}, ["skipped"])
