"""The errors of items: kept with their own words, whatever the exception is like, and all of them in the ledger."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sync_pipelines.database.batches import BatchKey
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import AccountsError, RetryableError, TargetError
from sync_pipelines.runner.calls.target_driver import describe_target
from sync_pipelines.runner.context.workspace import Workspace, open_workspace
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines.runner.runs.results import results_of_run
from sync_pipelines.settings.model import Settings
from sync_pipelines.testing import MemoryTarget

Make = Callable[..., SyncJob[Any, Any]]
Sync = Callable[..., SyncResults]
Count = Callable[[SyncResults], dict[str, int]]


def item(sku: Any, stock: int = 1) -> dict[str, Any]:
    return {"sku": sku, "stock": stock}


class WordlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class UnpicklableError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")
        self.handle = open(Path(__file__), encoding="utf-8")  # noqa: SIM115, PTH123 - something that can't be pickled
        self.handle.close()

    def __reduce__(self) -> Any:
        raise TypeError("can't be pickled")


@pytest.mark.parametrize("place", ["should_skip", "create", "get_external_id"])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (WordlessError(), "WordlessError"),
        (UnpicklableError("two", "words"), "two words"),
        (ValueError("first line\nsecond line"), "first line\nsecond line"),
        (ValueError(""), "ValueError"),
        (ValueError("nul \x00 and half a pair \ud800"), "nul \\x00 and half a pair ?"),
        (
            ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
            "several (2 sub-exceptions): ValueError: one; KeyError: 'two'",
        ),
        (ValueError("token=abcdefghij"), "token=***"),
        (RecursionError("too deep"), "too deep"),
        (MemoryError(), "MemoryError"),
        (AssertionError("never"), "never"),
        (TimeoutError("late"), "late"),
    ],
)
def test_an_exception_of_any_kind_fails_its_item_and_keeps_its_words(
    sync: Sync, place: str, error: Exception, message: str
) -> None:
    vars(error).pop("_sync_pipelines_place", None)  # one object is raised in each of the cases, and knows from where

    def check(each: Any) -> Any:
        if each["sku"] == "bad":
            raise error
        return each["sku"] if place == "get_external_id" else False

    fields: dict[str, Any] = {place: check}
    if place == "create":
        fields = {"target": MemoryTarget(fails={"bad": error})}
    results = sync([item("A"), item("bad"), item("B")], **fields)
    assert (results.created, results.error_count) == (2, 1)
    [kept] = results.errors
    name = type(error).__name__
    if place == "create":
        assert kept.message == message
    else:
        told = message if message == name else f"{name}: {message}"
        assert kept.message.partition(" (test_item_errors.py:")[0] == f"{place}: {told}"
    assert (kept.exception_type, kept.position) == (name, 1)


def test_a_message_of_megabytes_is_cut(sync: Sync) -> None:
    results = sync([item("A")], target=MemoryTarget(fails={"A": ValueError("x" * 5_000_000)}))
    assert len(results.errors[0].message) == 2_000


def test_a_thousand_errors_are_listed_all_are_counted_and_the_ledger_has_them(sync: Sync, workspace: Workspace) -> None:
    """Some fail in the diff and some in apply; listed are the first of the fetch, wherever they failed."""
    fails = {f"A{number}": ValueError(f"no {number}") for number in range(0, 4_000, 2)}
    results = sync(
        [item(f"A{number}" if number % 4 else None) for number in range(4_000)], target=MemoryTarget(fails=fails)
    )
    assert (results.error_count, results.created) == (2_000, 2_000)
    assert [error.position for error in results.errors] == list(range(0, 2_000, 2))
    assert len(results.to_frame()) == 1_000
    rows = workspace.ledger.errors(results.run_id)
    assert [row.position for row in rows] == list(range(0, 4_000, 2))
    assert workspace.ledger.count_errors(results.run_id) == 2_000


@pytest.mark.parametrize("url", ["sqlite_url", "postgres_url"])
def test_an_id_that_no_database_can_keep_does_not_break_the_ledger(
    tmp_path: Path, url: str, request: pytest.FixtureRequest, job: Make
) -> None:
    """PostgreSQL keeps no NUL in a text; the error is shown with an escape instead of failing the run."""
    settings = Settings(data_dir=tmp_path, database_url=None, ledger_url=request.getfixturevalue(url))
    target = MemoryTarget(fails={"A\x00B": ValueError("no\x00t")})
    results = run_sync(job([item("A\x00B"), item("C"), item("D\x00")], target=target), settings=settings)
    assert (results.created, results.error_count) == (2, 1)
    assert (results.errors[0].external_id, results.errors[0].message) == ("A\\x00B", "no\\x00t")
    assert "D\x00" in target.records


def test_the_log_reads_as_a_report(sync: Sync, caplog: pytest.LogCaptureFixture) -> None:
    items = [item(f"A{number}") for number in range(30)]
    target = MemoryTarget(fails={f"A{number}": ValueError("no") for number in range(25)})
    with caplog.at_level(logging.INFO, "sync_pipelines"):
        sync(items, target=target)
    lines = [record.getMessage() for record in caplog.records if record.name == "sync_pipelines"]
    assert lines[0] == "fetch: asking the source of stock"
    assert lines[1] == "fetch: 30 items"
    assert lines[2] == "diff: 30 to write, 0 unchanged, 0 skipped, 0 duplicates, 0 failed"
    assert lines[3] == "apply: writing 30 records"
    assert lines[4] == "item 0 'A0' failed: ValueError: no"
    assert len([line for line in lines if "failed: ValueError" in line]) == 20
    assert lines[-3] == "further items failed; they are counted, and the ledger lists them all"
    assert lines[-2] == "errors by cause: 25 x ValueError: no (e.g. A0, A1, A2, A3, A4)"
    assert lines[-1].startswith("stock: partial: 30 fetched = 5 created, 25 failed in ")


class TestRetries:
    @pytest.mark.usefixtures("no_waits")
    def test_what_answers_at_the_third_attempt_is_no_failure(self, settings: Settings) -> None:
        attempts: list[str] = []

        def create(each: Any) -> None:
            attempts.append(each["sku"])
            if len(attempts) < 3:
                raise RetryableError("busy", retry_after_s=1_000)

        job = _per_record(create)
        results = run_sync(job, settings=settings)
        assert (results.created, results.error_count, len(attempts)) == (2, 0, 4)

    @pytest.mark.usefixtures("no_waits")
    def test_a_record_that_never_answers_fails_alone(self, settings: Settings) -> None:
        attempts: list[str] = []

        def create(each: Any) -> None:
            attempts.append(each["sku"])
            if each["sku"] == "A":
                raise RetryableError("busy")

        results = run_sync(_per_record(create), settings=settings)
        assert (results.created, results.error_count) == (1, 1)
        assert attempts == ["A"] * 4 + ["B"]
        assert (results.errors[0].message, results.errors[0].exception_type) == ("busy", "RetryableError")

    @pytest.mark.usefixtures("no_waits")
    @pytest.mark.parametrize("method", ["find_many", "create_many", "update_many", "delete_many"])
    def test_a_table_that_does_not_answer_ends_the_run_and_a_further_run_goes_on(
        self, sync: Sync, job: Make, settings: Settings, method: str, counts: Count
    ) -> None:
        class Shaky(MemoryTarget):
            broken = False

            def __getattribute__(self, name: str) -> Any:
                if name == method and object.__getattribute__(self, "broken"):
                    return _unreachable
                return object.__getattribute__(self, name)

        target = Shaky({"old": item("old"), "gone": item("gone")})
        items = [item("new"), item("old", 2)]
        target.broken = True
        with pytest.raises(TargetError, match="stock: the target does not answer: no route to host") as caught:
            run_sync(job(items, target=target, deletes="hard"), settings=settings)
        assert caught.value.results.outcome == "failed"
        target.broken = False
        sync(items, target=target, deletes="hard")
        assert target.records == {"new": item("new"), "old": item("old", 2)}
        assert counts(sync(items, target=target, deletes="hard")) == {"fetched": 2, "unchanged": 2}

    @pytest.mark.usefixtures("no_waits")
    def test_a_run_that_the_target_broke_off_goes_on_with_the_same_plan(
        self, job: Make, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Chunks that were applied are not applied again; the counts are those of the whole."""
        monkeypatch.setattr("sync_pipelines.runner.plans.plan_file.PAGE_SIZE", 10)

        class Shaky(MemoryTarget):
            good_for = 3

            def create_many(self, items: Any) -> None:
                self.good_for -= 1
                if self.good_for < 0:
                    raise RetryableError("no route to host")
                super().create_many(items)

        target = Shaky()
        run = SyncRun(job([item(f"A{number:02}") for number in range(95)], target=target), workspace)
        plan = run.diff(run.fetch())
        with pytest.raises(TargetError) as caught:
            run.apply(plan)
        assert (caught.value.results.created, len(target.records)) == (30, 30)
        target.good_for = 1_000
        results = run.apply(plan)
        assert (results.created, results.recovered, results.accounts_balance) == (95, 0, True)
        assert (results.outcome, results.failure) == ("clean", None)
        assert target.writes == 95

    @pytest.mark.usefixtures("no_waits")
    def test_a_target_that_cannot_be_reached_is_a_target_error(self, sync: Sync) -> None:
        class Away(MemoryTarget):
            def open(self, identify: Any) -> Any:
                from contextlib import contextmanager

                @contextmanager
                def opening() -> Any:
                    raise RetryableError("no route to host")
                    yield

                return opening()

        with pytest.raises(TargetError, match="stock: the target can't be reached: no route to host"):
            sync([item("A")], target=Away())


def _unreachable(*_: Any) -> Any:
    raise RetryableError("no route to host")


def _per_record(create: Callable[[Any], Any]) -> SyncJob[Any, Any]:
    return SyncJob(
        name="plain",
        fetch_external=lambda: [item("A"), item("B")],
        get_external_id="sku",
        find_local=lambda external_id: None,
        create=create,
        update=lambda each, local: None,
    )


def test_accounts_that_do_not_balance_are_never_green(job: Make, workspace: Workspace) -> None:
    """A defect, here forged in the ledger, fails the run and says so."""
    run = SyncRun(job([item("A"), item("B")]), workspace)
    plan = run.diff(run.fetch())
    workspace.batches.save(plan.run_id, BatchKey(number=99), {"created": 5}, [], workspace.clock())
    with pytest.raises(AccountsError, match=r"stock: the accounts of run .* do not balance") as caught:
        run.apply(plan)
    assert caught.value.results.outcome == "failed"


def test_the_results_of_a_run_are_the_same_when_its_files_are_gone(job: Make, workspace: Workspace) -> None:
    target = MemoryTarget({"gone": item("gone"), "kept": item("kept"), "same": item("same")}, fails={
        "bad": ValueError("no"), "kept": ValueError("no delete")
    })  # fmt: skip
    items = [item("A"), item("A"), item("bad"), item(None), item("skip"), item("same")]
    run = SyncRun(
        job(items[:3] + items[4:], target=target, deletes="hard", should_skip=lambda each: each["sku"] == "skip"),
        workspace,
    )
    results = run.apply(run.diff(run.fetch()))
    assert (results.deleted, results.failed_deletes, results.skipped, results.duplicate_count) == (1, 1, 1, 1)
    workspace.store.files_of(results.run_id).remove()
    later = results_of_run(workspace, results.run_id)
    assert later.counts() == results.counts()
    assert later.accounts_balance
    assert (later.failed_deletes, later.errors) == (results.failed_deletes, results.errors)


@pytest.mark.parametrize("error", [RetryableError("busy"), ValueError("no idea")])
def test_a_target_that_cannot_describe_itself_just_now_has_no_description(job: Make, error: Exception) -> None:
    class Shy(MemoryTarget):
        def describe(self) -> Any:
            raise error

    assert describe_target(job(target=Shy())) is None
    described = describe_target(job(target=MemoryTarget({"A": item("A")})))
    assert described is not None
    assert described.row_count == 1


def test_a_run_is_in_the_ledger_with_what_it_was_asked_and_what_it_did(sync: Sync, settings: Settings) -> None:
    results = sync([item("A"), item("B")], limit=1, only=["A"])
    with open_workspace(settings) as workspace:
        run = workspace.ledger.run(results.run_id)
    assert run is not None
    assert (run.job, run.kind, run.outcome) == ("stock", "full", "clean")
    assert run.options == {"limit": 1, "only": ["A"]}
    assert run.counts == results.counts()
    assert set(run.phase_ms) == {"fetch", "diff", "apply"}
    assert run.completed_at == results.completed_at
    assert run.started_at.tzinfo is not None
