"""One run of a sync at a time: the lease, its expiry, its fencing."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from sync_pipelines import (
    ConfigurationError,
    LeaseLostError,
    RunError,
    Settings,
    SqlTable,
    SyncBusyError,
    SyncJob,
    run_sync,
)
from sync_pipelines.database.connections import create_database
from sync_pipelines.database.leases import Holder
from sync_pipelines.engine.codec import encode
from sync_pipelines.runner.changes.drain import Drain, DrainLimits
from sync_pipelines.runner.context.lease import HeldLease, is_dead, own_process, take_lease
from sync_pipelines.runner.context.workspace import Workspace, open_workspace
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines_tests.children import Child

pytestmark = pytest.mark.each_database

REPOSITORY = Path(__file__).parents[3]
MINUTE = timedelta(minutes=1)


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    """Ledger on SQLite and on PostgreSQL."""
    return Settings(data_dir=tmp_path / "data", ledger_url=database_url, database_url=database_url)


@pytest.fixture
def workspace(settings: Settings) -> Iterator[Workspace]:
    with open_workspace(settings) as workspace:
        yield workspace


def job_over(records: dict[str, Any], **options: Any) -> SyncJob[Any, Any]:
    given: dict[str, Any] = {
        "name": "leased",
        "fetch_external": lambda: [{"id": f"A-{number}"} for number in range(5)],
        "get_external_id": "id",
        "find_local": records.get,
        "create": lambda item: records.update({item["id"]: item}),
        "update": lambda item, local: records.update({item["id"]: item}),
        "has_changed": lambda item, local: item != local,
    }
    return SyncJob(**{**given, **options})


def test_a_second_holder_gets_the_lease_only_when_the_first_gives_it_back(workspace: Workspace) -> None:
    first = workspace.leases.acquire("leased", Holder("run-1"), MINUTE)
    assert first is not None
    assert workspace.leases.acquire("leased", Holder("run-2"), MINUTE) is None
    assert workspace.leases.acquire("other", Holder("run-2"), MINUTE) is not None

    workspace.leases.release(first)

    second = workspace.leases.acquire("leased", Holder("run-2"), MINUTE)
    assert second is not None
    assert second.token > first.token


def test_an_expired_lease_is_taken_over_and_its_old_holder_can_neither_renew_nor_release_it(
    workspace: Workspace,
) -> None:
    stalled = workspace.leases.acquire("leased", Holder("run-1"), timedelta(milliseconds=1))
    assert stalled is not None
    time.sleep(0.02)
    assert [lease.job for lease in workspace.leases.expired()] == ["leased"]

    taken = workspace.leases.acquire("leased", Holder("run-2"), MINUTE)

    assert taken is not None
    assert not workspace.leases.renew(stalled, MINUTE)
    workspace.leases.release(stalled)
    assert workspace.leases.of_job("leased") == taken
    with pytest.raises(LeaseLostError, match="stops without writing"):
        HeldLease(workspace.leases, stalled, timedelta(0)).check()


def test_many_that_want_it_at_once_get_it_one_after_the_other(workspace: Workspace) -> None:
    inside, most, errors = [0], [0], []
    lock = threading.Lock()

    def work(number: int) -> None:
        try:
            held = take_lease(workspace, "leased", f"run-{number}", None, wait_s=30)
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            time.sleep(0.02)
            with lock:
                inside[0] -= 1
            workspace.leases.release(held.lease)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert most == [1]


def test_a_second_run_says_who_is_at_work_and_does_nothing(settings: Settings, workspace: Workspace) -> None:
    workspace.leases.acquire("leased", Holder("run-1", described="process 7 on shop-2"), MINUTE)
    records: dict[str, Any] = {}

    with pytest.raises(SyncBusyError, match=r"leased: another run .* in process 7 on shop-2 \(run run-1\)"):
        run_sync(job_over(records), settings=settings)

    assert records == {}
    assert workspace.ledger.latest_runs("leased") == []


def test_a_second_run_that_may_wait_runs_when_the_first_is_done(settings: Settings, workspace: Workspace) -> None:
    lease = workspace.leases.acquire("leased", Holder("run-1"), MINUTE)
    assert lease is not None
    threading.Timer(0.5, workspace.leases.release, [lease]).start()
    records: dict[str, Any] = {}

    results = run_sync(job_over(records), settings=settings, wait_s=30)

    assert results.created == 5


def test_the_lease_is_given_back_after_success_and_after_every_kind_of_failure(
    settings: Settings, workspace: Workspace
) -> None:
    def broken() -> Any:
        raise ConnectionError("down")

    for options in ({}, {"fetch_external": broken}, {"on_start": broken}, {"on_complete": lambda _: broken()}):
        job = job_over({}, **options)
        if options:
            with pytest.raises(RunError):
                run_sync(job, settings=settings)
        else:
            run_sync(job, settings=settings)
        assert workspace.leases.held() == []


def test_a_run_that_lost_its_lease_writes_nothing_more(settings: Settings, workspace: Workspace) -> None:
    """The stalled run notices at its next write, whatever it was doing."""
    records: dict[str, Any] = {}

    def create(item: dict[str, Any]) -> None:
        records[item["id"]] = item
        if len(records) == 2:  # now it stalls, its lease expires, and somebody else takes over
            (lease,) = workspace.leases.held()
            workspace.leases.release(lease)
            workspace.leases.acquire("leased", Holder("run-2"), MINUTE)
            time.sleep(0.3)

    short = settings.model_copy(update={"lease_s": 0.2})
    with pytest.raises(LeaseLostError):
        run_sync(job_over(records, create=create), settings=short)

    assert len(records) == 2
    (lease,) = workspace.leases.held()
    assert lease.holder.run_id == "run-2"


def test_where_target_and_ledger_are_one_postgresql_the_write_itself_is_fenced(
    postgres_url: str, tmp_path: Path
) -> None:
    """Even a run that stalls between its check and its write can't write: the transaction asks for the token."""
    settings = Settings(data_dir=tmp_path / "data", database_url=postgres_url)
    database = create_database(postgres_url)
    with database.begin() as connection:
        connection.execute(text("CREATE TABLE variants (sku text PRIMARY KEY, stock integer)"))
    job: SyncJob[Any, Any] = SyncJob(
        name="leased",
        fetch_external=lambda: [{"sku": "A-1", "stock": 1}],
        target=SqlTable(table="variants", key="sku", columns=["sku", "stock"], database=postgres_url),
    )
    with open_workspace(settings) as workspace:
        run = SyncRun(job, workspace)
        plan = run.diff(run.fetch())
        original = HeldLease.check

        def check_then_stall(held: HeldLease) -> None:
            original(held)
            workspace.leases.release(held.lease)
            workspace.leases.acquire("leased", Holder("run-2"), MINUTE)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(HeldLease, "check", check_then_stall)
            with pytest.raises(LeaseLostError):
                run.apply(plan)
    with database.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM variants")).scalar() == 0
    database.dispose()


def test_an_older_plan_is_refused_once_a_newer_run_has_applied(settings: Settings, workspace: Workspace) -> None:
    """Re-executing last week's run must not bring last week's stock back."""
    records: dict[str, Any] = {}
    stock = [1]
    job = job_over(records, fetch_external=lambda: [{"id": "A-1", "stock": stock[0]}])
    old = SyncRun(job, workspace)
    plan = old.diff(old.fetch())
    (lease,) = workspace.leases.held()
    workspace.leases.release(lease)
    stock[0] = 2
    run_sync(job, settings=settings)

    with pytest.raises(RunError, match="Start a new run instead of re-executing this one"):
        old.apply(plan)

    assert records["A-1"]["stock"] == 2


def test_a_drain_waits_for_its_turn_and_loses_nothing(workspace: Workspace) -> None:
    records: dict[str, Any] = {}
    workspace.inbox.store("leased", encode({"id": "A-1"}), workspace.clock())
    lease = workspace.leases.acquire("leased", Holder("run-1"), MINUTE)
    assert lease is not None

    with pytest.raises(SyncBusyError):
        Drain(job_over(records), workspace).run(DrainLimits(idle_wait_s=0))
    assert workspace.inbox.count("leased") == 1

    workspace.leases.release(lease)
    assert Drain(job_over(records), workspace).run(DrainLimits(idle_wait_s=0)).created == 1


RUN = """
import sys, time
from pathlib import Path
from sync_pipelines import Settings, SyncJob, run_sync
folder = Path(sys.argv[1])
def create(item):
    with (folder / "written").open("a") as log:
        log.write(f"{sys.argv[2]} {item['id']}\\n")
    time.sleep(0.05)
known = lambda: {line.split()[1] for line in (folder / "written").read_text().splitlines()} \\
    if (folder / "written").exists() else set()
job = SyncJob(name="leased", fetch_external=lambda: [{"id": f"A-{n}"} for n in range(20)], get_external_id="id",
              find_local=lambda i: i if i in known() else None, create=create, update=print,
              has_changed=lambda item, local: False)
run_sync(job, settings=Settings(data_dir=folder), wait_s=60)
"""


def start(folder: Path, name: str) -> Child:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return Child([sys.executable, "-c", RUN, str(folder), name], env=environment, log=folder.parent / "said")


def written(folder: Path) -> list[list[str]]:
    log = folder / "written"
    return [line.split() for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


def test_two_processes_that_fight_for_one_sync_never_both_write(tmp_path: Path) -> None:
    processes = [start(tmp_path, name) for name in ("one", "two")]

    for process in processes:
        process.finish()
    assert [process.returncode for process in processes] == [0, 0]
    lines = written(tmp_path)
    assert len(lines) == 20
    assert len({who for who, _ in lines}) == 1


def test_a_killed_run_keeps_the_next_one_waiting_no_longer_than_it_must(tmp_path: Path) -> None:
    """On the same machine its death is known at once; elsewhere the next run waits for the lease to expire."""
    killed = start(tmp_path, "one")
    killed.wait_until(lambda: len(written(tmp_path)) >= 5, "has not written 5 records")
    killed.send_signal(signal.SIGKILL)
    killed.wait(10)

    began = time.monotonic()
    second = start(tmp_path, "two")
    second.finish()
    assert second.returncode == 0

    assert {item for _, item in written(tmp_path)} == {f"A-{number}" for number in range(20)}
    assert time.monotonic() - began < 30  # the lease alone would last 60 s


def test_a_live_process_is_never_taken_for_dead() -> None:
    assert not is_dead(own_process())
    assert not is_dead("")
    assert not is_dead("another-machine/pid:[1] 1 1")


def test_a_process_number_that_is_used_again_is_not_taken_for_the_old_process() -> None:
    machine, pid, started = own_process().rsplit(" ", 2)

    assert is_dead(f"{machine} {pid} {int(started) - 1}")


@pytest.mark.parametrize(("dagster_run_id", "told"), [(None, True), ("d-1", False)])
def test_between_two_phases_of_one_process_its_death_can_still_be_told(
    workspace: Workspace,
    dagster_run_id: str | None,
    told: bool,  # noqa: FBT001 - parametrised
) -> None:
    """Under Dagster the next phase may be another process, and the end of this one means nothing."""
    SyncRun(job_over({}), workspace, dagster_run_id=dagster_run_id).fetch()

    lease = workspace.leases.of_job("leased")
    assert lease is not None
    assert (lease.holder.process == own_process()) is told


@pytest.mark.parametrize("wait_s", [-1, float("nan"), "5", None])
def test_a_wait_that_is_no_number_of_seconds_is_refused_by_name(settings: Settings, wait_s: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^leased: wait_s=.* must be a number of seconds, 0 or more"):
        run_sync(job_over({}), settings=settings, wait_s=wait_s)
