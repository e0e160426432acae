"""Any sequence of runs, plans, single items, broken fetches, others' writes and deaths leaves what a model says.

`STATE_MACHINE_EXAMPLES=1000` makes it look for longer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy.engine import make_url

from sync_pipelines.database.connections import create_database
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.settings.model import Settings
from sync_pipelines_tests.runner.machine.outages import Outages
from sync_pipelines_tests.runner.machine.walks import EVERY, take_walks
from sync_pipelines_tests.runner.machine.world import World

pytestmark = pytest.mark.each_database


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few items make several chunks and batches; nobody waits for the disk, for nobody pulls its plug."""
    monkeypatch.setattr("sync_pipelines.snapshots.durable_files._make_durable", lambda _path: None)
    monkeypatch.setattr("sync_pipelines.runner.plans.plan_file.PAGE_SIZE", 3)
    monkeypatch.setattr("sync_pipelines.targets.staging.apply_sql.ROWS_IN_BATCH", 3)


def examples_of(default: int) -> settings:
    return settings(
        max_examples=int(os.environ.get("STATE_MACHINE_EXAMPLES", default)),
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


@pytest.fixture(params=EVERY)
def world(request: pytest.FixtureRequest, database_url: str, settings: Settings) -> Iterator[World]:
    """Where there is a PostgreSQL, the ledger is in it too: what belongs together is then one transaction."""
    ledger = database_url if make_url(database_url).get_backend_name() == "postgresql" else None
    own = Settings(data_dir=settings.data_dir, ledger_url=ledger)
    database = create_database(database_url)
    try:
        with open_workspace(own) as looking, open_workspace(own) as working:
            yield World(database, looking, working, kind=request.param)
    finally:
        database.dispose()


def test_known_dangers_leave_what_the_model_says(world: World) -> None:
    take_walks(world)


@pytest.mark.soak
def test_any_sequence_of_events_leaves_what_the_model_says(world: World) -> None:
    """What chance finds."""
    run_state_machine_as_test(lambda: Outages(world), settings=examples_of(3 if world.kind == "grace" else 4))
