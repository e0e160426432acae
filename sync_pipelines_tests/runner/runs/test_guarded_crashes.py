"""A guarded run and a release that die at any statement come to the same end as those that live."""

from __future__ import annotations

import signal
from collections import Counter
from typing import Any

import pytest

from sync_pipelines.database.plans import Plans
from sync_pipelines.database.tables import APPLY, WITHHELD
from sync_pipelines.engine.guards import Guards
from sync_pipelines.errors import PlanError
from sync_pipelines.runner.runs.comparing_run import ComparingRun
from sync_pipelines.runner.runs.dry_run import DryRun
from sync_pipelines.runner.write.record_history import Recorder
from sync_pipelines_tests.children import exit_code
from sync_pipelines_tests.runner.instants import (
    DELETED,
    FETCHED,
    MISSING,
    NEW,
    UNRELEASED,
    WRITTEN,
    Stage,
    run_and_be_killed,
)
from sync_pipelines_tests.runner.machine.world import DeathError

EVERY_WAY = [  # anew, in bulk, with versions, first instant
    (False, False, True, 0),
    (True, False, False, 2),
    (False, True, False, 4),
    (True, True, True, 5),
]


def in_bulk_or_not(monkeypatch: pytest.MonkeyPatch, *, in_bulk: bool) -> None:
    monkeypatch.setattr(ComparingRun, "_is_worth_it", lambda *_: in_bulk)


def die(*_: Any) -> None:
    raise DeathError


@pytest.mark.parametrize(("anew", "in_bulk", "has_versions", "first"), EVERY_WAY)
def test_a_guarded_run_that_dies_withholds_once_and_writes_all_else(  # noqa: PLR0913, PLR0917 - parametrised
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    anew: bool,  # noqa: FBT001 - parametrised
    in_bulk: bool,  # noqa: FBT001 - parametrised
    has_versions: bool,  # noqa: FBT001 - parametrised
    first: int,
) -> None:
    in_bulk_or_not(monkeypatch, in_bulk=in_bulk)
    stage.fields = {"get_version": "version"} if has_versions else {}
    for instant in stage.each_instant(stage.run, first=first, step=6):
        results = stage.run() if anew else stage.go_on()
        assert (results.outcome, results.accounts_balance, results.deleted) == ("guarded", True, 0), instant
        assert stage.rows() == UNRELEASED, instant
        [plan] = stage.open_plans()
        assert (plan.id, plan.kind, plan.counts["delete"]) == (results.plan_id, WITHHELD, len(MISSING)), instant
        assert stage.release(plan.id).deleted == len(MISSING)
        assert stage.rows() == NEW, instant
        told = stage.told()
        assert set(told.values()) == {1}, instant
        if in_bulk or not anew:
            assert told.keys() == WRITTEN | DELETED, instant


@pytest.mark.parametrize("instant", [16, 30])
def test_a_guarded_run_that_is_killed_is_gone_on_with(stage: Stage, instant: int) -> None:
    process = stage.in_a_process(run_and_be_killed, instant)
    assert exit_code(process) == -signal.SIGKILL
    results = stage.go_on()
    assert (results.outcome, results.accounts_balance, stage.rows()) == ("guarded", True, UNRELEASED)
    assert [each.id for each in stage.open_plans()] == [results.plan_id]
    stage.release(results.plan_id)
    assert (stage.rows(), stage.told()) == (NEW, Counter(WRITTEN | DELETED))


def dry_run(stage: Stage) -> str:
    run = DryRun(stage.job(guards=None), stage.workspace)
    return run.finish(run.diff(run.fetch())).plan_id or ""


def guarded_run(stage: Stage) -> str:
    return stage.run().plan_id or ""


@pytest.mark.parametrize("make_plan", [dry_run, guarded_run])
def test_a_release_that_dies_is_gone_on_with_and_keeps_who_said_so(stage: Stage, make_plan: Any) -> None:
    stage.fields = {"guards": Guards(few=0, max_update_share=0.1, max_shrink_share=None)}
    made: list[str] = []
    writes = WRITTEN | DELETED if make_plan is dry_run else {each for each in WRITTEN | DELETED if "new" not in each[1]}
    for instant in stage.each_instant(
        lambda: stage.release(made[-1]), lambda: made.append(make_plan(stage)), first=1, step=3
    ):
        begun = stage.workspace.ledger.latest_runs(stage.name, 1)[0]
        has_written = begun.kind == APPLY and begun.apply_started_at is not None
        plan = stage.workspace.plans.plan(made[-1])
        assert plan is not None
        if plan.state != "applied":
            results = stage.release(made[-1], "really", "bob")
            assert (results.outcome, results.accounts_balance) == ("clean", True), instant
            done = results.created + results.updated + results.deleted + results.unchanged + results.recovered
            assert done >= len(writes), instant
        with pytest.raises(PlanError, match="a plan is applied once"):
            stage.release(made[-1])
        assert stage.rows() == NEW, instant
        [run] = [each for each in stage.workspace.ledger.latest_runs(stage.name) if each.kind == APPLY]
        plan = stage.workspace.plans.plan(made[-1])
        assert plan is not None
        assert (plan.state, plan.applied_by, run.outcome) == ("applied", run.id, "clean"), instant
        assert (plan.released_by, plan.reason) == (("ann", "they are gone") if has_written else ("bob", "really"))
        assert "released by" in run.notes[0], instant
        told = stage.told()
        assert set(told.values()) == {1}, instant
        assert told.keys() >= WRITTEN, instant


def test_after_a_release_that_dies_a_new_run_withholds_what_is_left(stage: Stage) -> None:
    made: list[str] = []
    for instant in stage.each_instant(
        lambda: stage.release(made[-1]), lambda: made.append(guarded_run(stage)), first=2, step=5
    ):
        runs = [each for each in stage.workspace.ledger.latest_runs(stage.name) if each.kind == APPLY]
        is_done = bool(runs) and runs[0].outcome == "clean"
        results = stage.run()
        plan = stage.workspace.plans.plan(made[-1])
        assert plan is not None
        assert (results.accounts_balance, plan.state) == (True, "applied" if is_done else "superseded"), instant
        assert [each.id for each in stage.open_plans()] == ([results.plan_id] if results.outcome == "guarded" else [])
        assert stage.rows() == (UNRELEASED if results.outcome == "guarded" else NEW), instant
        assert set(stage.told().values()) == {1}, instant


def test_a_plan_whose_release_was_done_is_not_superseded_though_its_process_died_before_it_said_so(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_id = guarded_run(stage)
    with monkeypatch.context() as patch:
        patch.setattr(Plans, "finish", die)
        with pytest.raises(DeathError):
            stage.release(plan_id)
    stage.bury()
    assert stage.run().outcome == "clean"
    plan = stage.workspace.plans.plan(plan_id)
    assert plan is not None
    assert (plan.state, plan.released_by, plan.applied_at is not None) == ("applied", "ann", True)
    [run] = [each for each in stage.workspace.ledger.latest_runs(stage.name) if each.kind == APPLY]
    assert plan.applied_by == run.id


def die_before_the_ledger_has_it(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in bulk that dies when its rows are there, and what it says of them is not in the ledger."""
    in_bulk_or_not(monkeypatch, in_bulk=True)
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "move", die)
        with pytest.raises(DeathError):
            stage.run(deletes="off")
    stage.bury()
    assert stage.told() == Counter()
    assert stage.rows() == UNRELEASED


def test_a_run_that_is_killed_in_bulk_leaves_its_history_to_a_next_one_of_any_kind(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fetched in ([], FETCHED):  # one that goes page by page has nothing to write, or not even items
        stage.begin()
        die_before_the_ledger_has_it(stage, monkeypatch)
        in_bulk_or_not(monkeypatch, in_bulk=False)
        assert stage.run(deletes="off", fetch_external=lambda fetched=fetched: fetched).updated == 0
        assert stage.told() == Counter(WRITTEN)
        stage.run(deletes="off")
        assert stage.told() == Counter(WRITTEN)


def test_what_a_killed_run_has_left_is_forgotten_by_a_job_that_keeps_no_history_any_more(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    die_before_the_ledger_has_it(stage, monkeypatch)
    stage.run(deletes="off", keep_history_days=0)
    stage.run(deletes="off")
    assert stage.told() == Counter()
