"""When the hooks of a job are called, and what their errors do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import ConfigurationError, FetchError, HookError
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.testing import MemorySource, MemoryTarget

Make = Callable[..., SyncJob[Any, Any]]
Sync = Callable[..., SyncResults]
A, B = {"sku": "A", "stock": 1}, {"sku": "B", "stock": 2}


class Journal:
    """Per-record functions and hooks that note when they are called, plain or `async`."""

    def __init__(self, *, asynchronous: bool) -> None:
        self.lines: list[str] = []
        self.records: dict[str, Any] = {"B": {"sku": "B", "stock": 0}}
        self._asynchronous = asynchronous

    def noting(self, name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
        def plain(*args: Any) -> Any:
            self.lines.append(name)
            return answer(*args)

        async def other(*args: Any) -> Any:
            await asyncio.sleep(0)
            return plain(*args)

        return other if self._asynchronous else plain

    def job(self, **fields: Any) -> SyncJob[Any, Any]:
        answers: dict[str, Callable[..., Any]] = {
            "on_start": lambda: None,
            "fetch_external": lambda: [A, B, {"sku": "C"}],
            "get_external_id": lambda item: item["sku"],
            "should_skip": lambda item: item["sku"] == "C",
            "find_local": self.records.get,
            "create": lambda item: self.records.update({item["sku"]: item}),
            "update": lambda item, local: local.update(item),
            "on_complete": lambda results: None,
        }
        hooks = {name: self.noting(name, answer) for name, answer in answers.items()}
        return SyncJob(**{"name": "journal", **hooks, **fields})


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("inside_a_loop", [False, True])
def test_hooks_are_called_in_order_plain_or_async(settings: Settings, asynchronous: bool, inside_a_loop: bool) -> None:  # noqa: FBT001
    journal = Journal(asynchronous=asynchronous)

    async def handler() -> SyncResults:
        return run_sync(journal.job(), settings=settings)

    results = asyncio.run(handler()) if inside_a_loop else run_sync(journal.job(), settings=settings)
    assert journal.lines[:2] == ["on_start", "fetch_external"]
    assert journal.lines[2:8] == ["get_external_id"] * 3 + ["should_skip"] * 3
    assert journal.lines[-1] == "on_complete"
    first_write = journal.lines.index("create")
    assert "should_skip" not in journal.lines[first_write:]
    assert journal.lines.count("create") == journal.lines.count("update") == 1
    assert (results.created, results.updated, results.skipped) == (1, 1, 1)
    assert journal.records == {"A": A, "B": B}


def test_on_complete_gets_the_results_that_run_sync_returns(sync: Sync) -> None:
    told: list[SyncResults] = []
    results = sync([A, {"sku": None}], on_complete=told.append)
    assert told == [results]
    assert (results.created, results.error_count, results.outcome) == (1, 1, "partial")


def test_on_complete_runs_after_a_fetch_that_broke_off(job: Make, settings: Settings) -> None:
    told: list[SyncResults] = []
    broken = job(MemorySource([A, B], breaks_after=1), on_complete=told.append)
    with pytest.raises(FetchError) as caught:
        run_sync(broken, settings=settings)
    assert [each.outcome for each in told] == ["failed"]
    assert told[0].failure is not None
    assert "the source broke off" in told[0].failure
    assert caught.value.results == told[0]


def test_on_complete_runs_after_a_target_that_does_not_fit(job: Make, settings: Settings) -> None:
    class Unfit(MemoryTarget):
        def open(self, identify: Any) -> Any:
            raise ConfigurationError("the table is missing")

    told: list[SyncResults] = []
    with pytest.raises(ConfigurationError, match="the table is missing"):
        run_sync(job([A], target=Unfit(), on_complete=told.append), settings=settings)
    assert [each.failure for each in told] == ["diff: ConfigurationError: stock: the table is missing"]
    assert told[0].fetched == 1


def test_an_error_of_on_complete_fails_the_run_after_everything_was_applied(
    job: Make, target: MemoryTarget, settings: Settings, workspace: Workspace
) -> None:
    def on_complete(results: SyncResults) -> None:
        raise KeyError("mail server password=hunter22")

    with pytest.raises(HookError, match="stock: on_complete failed after the applying was done: KeyError") as caught:
        run_sync(job([A, B], on_complete=on_complete), settings=settings)
    assert sorted(target.records) == ["A", "B"]
    assert isinstance(caught.value.__cause__, KeyError)
    results: SyncResults = caught.value.results
    assert (results.created, results.outcome, results.accounts_balance) == (2, "failed", True)
    run = workspace.ledger.run(results.run_id)
    assert run is not None
    assert (run.outcome, run.counts["created"]) == ("failed", 2)
    assert run.failure is not None
    assert "on_complete" in run.failure
    assert "hunter22" not in run.failure + str(caught.value)


def test_an_error_of_on_complete_after_a_failure_does_not_hide_the_failure(job: Make, settings: Settings) -> None:
    def on_complete(results: SyncResults) -> None:
        raise ValueError("and now this")

    with pytest.raises(FetchError, match="the source broke off") as caught:
        run_sync(job(MemorySource([], breaks_after=0), on_complete=on_complete), settings=settings)
    assert any("on_complete failed as well: ValueError: and now this" in note for note in caught.value.__notes__)


def test_an_error_of_on_start_ends_the_run_before_anything_is_fetched(
    job: Make, target: MemoryTarget, settings: Settings, workspace: Workspace
) -> None:
    def on_start() -> None:
        raise RuntimeError("the shop is closed")

    source, told = MemorySource([A]), list[SyncResults]()
    with pytest.raises(HookError, match="on_start failed, nothing was fetched: RuntimeError: the shop is closed"):
        run_sync(job(source, on_start=on_start, on_complete=told.append), settings=settings)
    assert (source.calls, target.calls) == (0, {})
    assert [each.outcome for each in told] == ["failed"]
    assert [run.outcome for run in workspace.ledger.latest_runs("stock")] == ["failed"]


def test_an_interrupted_run_is_noted_as_interrupted(job: Make, settings: Settings, workspace: Workspace) -> None:
    """Ctrl-C goes through, and the ledger does not show a run that is still going on."""

    def fetch() -> Iterator[Any]:
        yield A
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sync(job(fetch), settings=settings)
    [run] = workspace.ledger.latest_runs("stock")
    assert (run.outcome, run.failure) == ("failed", "fetch: interrupted")


def test_an_async_hook_may_run_another_sync(job: Make, settings: Settings) -> None:
    """The hook blocks its own event loop; the inner sync, `async` as well, must not wait for that loop."""
    inner = Journal(asynchronous=True)

    async def on_complete(results: SyncResults) -> None:
        await asyncio.sleep(0)
        run_sync(inner.job(), settings=settings)

    run_sync(job(MemorySource([A], asynchronous=True), on_complete=on_complete), settings=settings)
    assert inner.lines[-1] == "on_complete"
    assert inner.records == {"A": A, "B": B}


def test_a_hook_that_is_no_function_of_the_results_says_so(job: Make, settings: Settings) -> None:
    with pytest.raises(HookError, match="TypeError"):
        run_sync(job([A], on_complete=lambda: None), settings=settings)
