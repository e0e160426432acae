"""Nobody waits without a limit for a run that has stopped, or whose host is gone from the network."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa
from dagster import DagsterInstance, build_sensor_context

from sync_pipelines.database.connections import create_database
from sync_pipelines.database.leases import Holder
from sync_pipelines.errors import SyncBusyError
from sync_pipelines.orchestration import recovery
from sync_pipelines.orchestration.location import HELD_WORKSPACE
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines_tests.black_hole import black_hole
from sync_pipelines_tests.children import PATIENCE_S, exit_code, fork
from sync_pipelines_tests.runner.stopping_child import (
    ENDED_BY_ITSELF,
    TABLE,
    run_and,
    settings_of,
    stopping_job,
)

pytestmark = pytest.mark.each_database  # locks of rows are PostgreSQL's matter
LATER_S = 20.0
"""How long after its lease a run may hold up the next one."""
each_path = pytest.mark.parametrize("count", [20, 1_500], ids=["page by page", "in bulk"])


def wait_for(condition: Any) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.02)


def count_of(database: sa.Engine) -> int:
    with database.connect() as connection:
        return int(connection.scalar(sa.text("SELECT count(*) FROM things")) or 0)


@each_path
def test_a_run_that_has_stopped_in_a_transaction_is_waited_for_no_longer_than_wait_s(
    postgres: sa.Engine, postgres_url: str, tmp_path: Path, count: int
) -> None:
    """And the next run takes over soon after its lease; once it goes on again it writes nothing more."""
    with postgres.begin() as connection:
        connection.execute(sa.text(TABLE))
    job, settings = stopping_job(postgres_url, count), settings_of(postgres_url, tmp_path)
    child = fork(run_and, "stop", postgres_url, tmp_path, count)
    assert child.pid is not None
    try:
        wait_for(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED)
        began_s = time.monotonic()
        with pytest.raises(SyncBusyError, match="process"):
            run_sync(job, settings=settings, wait_s=0.1)
        assert time.monotonic() - began_s < 5

        results = run_sync(job, settings=settings, wait_s=60)

        assert time.monotonic() - began_s < settings.lease_s + LATER_S
        assert (results.outcome, results.created, count_of(postgres)) == ("clean", count, count)
    finally:
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGCONT)
    assert exit_code(child) == ENDED_BY_ITSELF
    assert count_of(postgres) == count


@pytest.mark.parametrize("waits_for_its_end", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_a_run_whose_network_swallows_everything_is_followed_by_the_next_and_ends_by_itself(
    postgres: sa.Engine, postgres_url: str, tmp_path: Path, *, waits_for_its_end: bool
) -> None:
    with postgres.begin() as connection:
        connection.execute(sa.text(TABLE))
    sign, job, settings = tmp_path / "sign", stopping_job(postgres_url, 20), settings_of(postgres_url, tmp_path)
    with black_hole(postgres_url) as (proxy, url):
        child = fork(run_and, str(sign), url.render_as_string(hide_password=False), tmp_path, 20)
        wait_for(sign.exists)
        proxy.swallows.set()
        (tmp_path / "sign.lost").touch()
        began_s = time.monotonic()

        results = run_sync(job, settings=settings, wait_s=60)

        assert time.monotonic() - began_s < settings.lease_s + LATER_S
        assert (results.created, count_of(postgres)) == (20, 20)
        if not waits_for_its_end:
            child.kill()
        assert exit_code(child) == (ENDED_BY_ITSELF if waits_for_its_end else -signal.SIGKILL)


def test_the_recovery_sensor_does_not_wait_for_a_run_that_has_stopped(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNC_PIPELINES_DATABASE_URL", postgres_url)
    monkeypatch.setenv("SYNC_PIPELINES_DATA_DIR", str(tmp_path))
    database = create_database(postgres_url)
    with open_workspace() as workspace, DagsterInstance.ephemeral() as instance:
        workspace.leases.acquire("stopping", Holder("run-1", None, "a process", "elsewhere 1 2"), -workspace.lease)
        with database.begin() as connection:
            connection.exec_driver_sql("SELECT FROM sync_pipelines.leases FOR SHARE")
            began_s = time.monotonic()
            recovery.build_recovery_sensor().evaluate_tick(build_sensor_context(instance))
            assert time.monotonic() - began_s < 10
            assert workspace.leases.held()
        recovery.build_recovery_sensor().evaluate_tick(build_sensor_context(instance))
        assert not workspace.leases.held(), "it is given back as soon as that can be"
    HELD_WORKSPACE.close()
    database.dispose()
