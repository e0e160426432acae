"""Whoever comes between: a plan is applied once and whole, by one process, or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import LeaseLostError, PlanError, SyncBusyError, TargetError
from sync_pipelines.runner.runs import session
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines.runner.write.plan_writer import PlanWriter
from sync_pipelines_tests.children import exit_code
from sync_pipelines_tests.runner.desk import Clock
from sync_pipelines_tests.runner.instants import (
    APPLIED_BEFORE,
    FETCHED,
    MISSING,
    NEW,
    UNRELEASED,
    Stage,
    release_at_once,
)

pytestmark = pytest.mark.each_database


@pytest.fixture
def clock(stage: Stage) -> Clock:
    """The clock of the stage."""
    clock = Clock()
    stage.workspace = replace(stage.workspace, clock=clock, keep_plans=timedelta(hours=1), keep_snapshots=timedelta(0))
    return clock


@pytest.fixture
def guarded(stage: Stage) -> SyncResults:
    """A run of which deletes are withheld."""
    results = stage.run()
    assert (results.outcome, stage.rows()) == ("guarded", UNRELEASED)
    return results


def outcomes(stage: Stage) -> list[tuple[str, str | None]]:
    """Kind and outcome of all runs, oldest first."""
    return [(run.kind, run.outcome) for run in reversed(stage.workspace.ledger.latest_runs(stage.name))]


def before_the_lease(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> None:
    """Does something after a release has found its plan and before it has the lease."""
    real = session.take_lease

    def first(*given: Any) -> Any:
        monkeypatch.setattr(session, "take_lease", real)
        act()
        return real(*given)

    monkeypatch.setattr(session, "take_lease", first)


def test_of_several_releases_at_once_one_applies_the_plan(stage: Stage, guarded: SyncResults) -> None:
    told: list[str] = []

    def release(number: int) -> None:
        try:
            told.append(stage.release(guarded.plan_id, by=f"person {number}", wait_s=60).outcome)
        except PlanError as error:
            told.append(str(error))

    threads = [threading.Thread(target=release, args=(number,)) for number in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert [each for each in told if "a plan is applied once" not in each] == ["clean"]
    assert len(told) == len(threads)
    assert stage.rows() == NEW
    assert outcomes(stage) == [("full", "guarded"), ("apply", "clean")]


def test_of_several_processes_one_applies_the_plan(stage: Stage, guarded: SyncResults) -> None:
    processes = [stage.in_a_process(release_at_once, guarded.plan_id) for _ in range(3)]
    assert sorted(map(exit_code, processes)) == [0, APPLIED_BEFORE, APPLIED_BEFORE]
    assert stage.rows() == NEW
    assert outcomes(stage) == [("full", "guarded"), ("apply", "clean")]


def test_a_release_waits_for_no_run_that_is_under_way(stage: Stage, guarded: SyncResults) -> None:
    def fetch() -> Any:
        with pytest.raises(SyncBusyError):
            stage.release(guarded.plan_id)
        return FETCHED

    run = SyncRun(stage.job(fetch_external=fetch), stage.workspace)
    snapshot = run.fetch()
    with pytest.raises(SyncBusyError):
        stage.release(guarded.plan_id)
    plan = run.diff(snapshot)
    with pytest.raises(SyncBusyError):
        stage.release(guarded.plan_id)
    newer = run.apply(plan)

    with pytest.raises(PlanError, match="superseded"):
        stage.release(guarded.plan_id)
    assert stage.rows() == UNRELEASED
    stage.release(newer.plan_id)
    assert stage.rows() == NEW


def test_a_run_does_not_begin_while_a_plan_is_released(stage: Stage, guarded: SyncResults) -> None:
    def begin() -> None:
        with pytest.raises(SyncBusyError):
            stage.run()
        with pytest.raises(SyncBusyError):
            stage.release(guarded.plan_id)

    assert stage.release(guarded.plan_id, on_start=begin).deleted == len(MISSING)
    assert stage.plan_of(guarded).state == "applied"


def test_a_plan_that_a_run_supersedes_before_its_release_has_the_lease_is_not_applied(
    stage: Stage, guarded: SyncResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_the_lease(monkeypatch, stage.run)
    with pytest.raises(PlanError, match="superseded"):
        stage.release(guarded.plan_id)
    assert stage.rows() == UNRELEASED
    assert [each.state for each in stage.open_plans()] == ["open"]


def test_a_plan_that_expires_before_its_release_has_the_lease_is_not_applied(
    stage: Stage, clock: Clock, guarded: SyncResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_the_lease(monkeypatch, lambda: clock.advance(3_600))
    with pytest.raises(PlanError, match="has expired"):
        stage.release(guarded.plan_id)
    assert stage.rows() == UNRELEASED


def test_a_plan_that_expires_while_it_is_applied_keeps_its_files_and_is_applied_whole(
    stage: Stage, clock: Clock, guarded: SyncResults
) -> None:
    clock.advance(3_599)

    def expire() -> None:
        clock.advance(2)
        for path in stage.workspace.store.root.rglob("*"):
            os.utime(str(path), (0, 0))
        stage.workspace.clean_up()

    assert stage.release(guarded.plan_id, on_start=expire).deleted == len(MISSING)
    assert (stage.rows(), stage.plan_of(guarded).state) == (NEW, "applied")


def test_a_release_that_stalled_does_not_undo_what_is_told_of_the_one_that_went_on(
    stage: Stage, guarded: SyncResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = PlanWriter.apply_plan

    def stall(*given: Any) -> None:
        monkeypatch.setattr(PlanWriter, "apply_plan", real)
        stage.bury()
        assert stage.release(guarded.plan_id).outcome == "clean"
        real(*given)

    monkeypatch.setattr(PlanWriter, "apply_plan", stall)
    with pytest.raises((LeaseLostError, TargetError)):  # its write is refused, or the note that it has written
        stage.release(guarded.plan_id)
    assert stage.rows() == NEW
    assert stage.plan_of(guarded).state == "applied"
    assert outcomes(stage) == [("full", "guarded"), ("apply", "clean")]
