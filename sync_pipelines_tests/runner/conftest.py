"""What the runner's tests are written with: settings in a folder of their own, and a job over in-memory fakes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import stamina

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.runner.context.workspace import Workspace, open_workspace
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.testing import MemorySource, MemoryTarget
from sync_pipelines_tests.empty_databases import EmptyDatabases
from sync_pipelines_tests.runner.desk import Clock, Desk
from sync_pipelines_tests.runner.instants import Stage, open_stage

Item = dict[str, Any]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings that keep everything in a folder of the test."""
    return Settings(data_dir=tmp_path / "data", database_url=None, ledger_url=None)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def built_stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A stage for all tests of a module, for a ledger is not made in no time: in PostgreSQL it is beside the table."""
    folder = tmp_path_factory.mktemp("stage")
    if request.param == "sqlite":
        with open_stage(f"sqlite:///{folder / 'local.sqlite'}", None, folder / "data") as stage:
            yield stage
        return
    databases: EmptyDatabases = request.getfixturevalue("postgres_databases")
    with databases.one() as url, open_stage(url, url, folder) as stage:
        yield stage


@pytest.fixture
def stage(built_stage: Stage) -> Stage:
    """The stage for one test."""
    return built_stage.as_new()


@pytest.fixture
def workspace(settings: Settings) -> Iterator[Workspace]:
    """The ledger and snapshot store of those settings."""
    with open_workspace(settings) as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def desk(workspace: Workspace, clock: Clock) -> Desk:
    """Where deliveries of the job `stock` come in, by that clock."""
    return Desk(replace(workspace, clock=clock))


@pytest.fixture
def target() -> MemoryTarget:
    """An empty target."""
    return MemoryTarget()


@pytest.fixture
def job(target: MemoryTarget) -> Callable[..., SyncJob[Any, Any]]:
    """Makes a job of items (or a `fetch_external`) into the target."""

    def make(items: Any = (), **fields: Any) -> SyncJob[Any, Any]:
        fetch = items if callable(items) else MemorySource(items)
        given = {"name": "stock", "fetch_external": fetch, "get_external_id": "sku", "target": target}
        given["guards"] = None  # they have tests of their own
        return SyncJob(**{**given, **fields})

    return make


@pytest.fixture
def sync(job: Callable[..., SyncJob[Any, Any]], settings: Settings) -> Callable[..., SyncResults]:
    """Runs a sync of items into the target; checks that its accounts balance."""

    def run(items: Iterable[Item] | Callable[[], Any] = (), **fields: Any) -> SyncResults:
        options = {name: fields.pop(name) for name in ("limit", "only", "on_progress", "log") if name in fields}
        results = run_sync(job(items, **fields), settings=settings, **options)
        assert results.accounts_balance
        return results

    return run


@pytest.fixture
def counts() -> Callable[[SyncResults], dict[str, int]]:
    """The counts of a result that are not zero."""
    return lambda results: {name: count for name, count in results.counts().items() if count}


@pytest.fixture
def no_waits() -> Iterator[None]:
    """Tries again as often as ever, but without waiting."""
    with stamina.set_testing(True, attempts=100, cap=True):
        yield
