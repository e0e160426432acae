"""`sync_single_item`: one item through the same path as a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.results import ItemResult
from sync_pipelines.errors import ConfigurationError, ItemError, RetryableError, TargetError
from sync_pipelines.runner.changes.single_item import sync_single_item
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.testing import MemorySource, MemoryTarget
from sync_pipelines_tests.two_speeds import few_and_many

Make = Callable[..., SyncJob[Any, Any]]


def item(sku: Any, stock: int = 1) -> dict[str, Any]:
    return {"sku": sku, "stock": stock}


def test_an_item_is_created_then_unchanged_then_updated_or_skipped(job: Make, target: MemoryTarget) -> None:
    single = job(should_skip=lambda each: each["stock"] == 99)
    assert sync_single_item(single, item("A")) == ItemResult("created", "A")
    assert sync_single_item(single, item("A")) == ItemResult("unchanged", "A")
    assert sync_single_item(single, item("A", 2)) == ItemResult("updated", "A")
    assert sync_single_item(single, item("A", 99)) == ItemResult("skipped", "A")
    assert target.records == {"A": item("A", 2)}


def test_no_hook_and_no_fetch_is_called(job: Make) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("called")

    single = job(never, on_start=never, on_complete=never)
    assert sync_single_item(single, item("A")).action == "created"


@pytest.mark.parametrize("place", ["should_skip", "find", "create", "update", "has_changed"])
def test_a_failure_is_an_item_error_with_id_words_and_cause(job: Make, place: str) -> None:
    error = ValueError("no")

    def fail(*_: Any) -> Any:
        raise error

    target = MemoryTarget({} if place == "create" else {"A": item("A")})
    fields: dict[str, Any] = {}
    if place in {"should_skip", "has_changed"}:
        fields[place] = fail
    elif place == "find":
        target.fails_to_find = {"A": error}
    else:
        target.fails = {"A": error}
    with pytest.raises(ItemError, match="ValueError: no") as caught:
        sync_single_item(job(target=target, **fields), item("A", 2))
    assert caught.value.external_id == "A"
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("wrong", [item(None), item(""), {"stock": 1}, "A", None])
def test_an_item_without_an_id_is_an_item_error(job: Make, wrong: Any) -> None:
    with pytest.raises(ItemError) as caught:
        sync_single_item(job(), wrong)
    assert caught.value.external_id is None


def test_an_item_that_a_run_could_not_keep_fails_here_too(job: Make, target: MemoryTarget) -> None:
    with pytest.raises(ItemError, match=r"field 'x' holds a builtins\.object"):
        sync_single_item(job(), {"sku": "A", "x": object()})
    assert target.records == {}


@pytest.mark.usefixtures("no_waits")
def test_a_target_that_does_not_answer_is_no_fault_of_the_item(job: Make) -> None:
    class Away(MemoryTarget):
        def create_many(self, items: Any) -> None:
            raise RetryableError("no route to host")

    with pytest.raises(TargetError, match="no route to host"):
        sync_single_item(job(target=Away()), item("A"))


def test_a_target_that_does_not_fit_is_a_configuration_error(job: Make) -> None:
    class Unfit(MemoryTarget):
        def open(self, identify: Any) -> Any:
            raise ConfigurationError("the table is missing")

    with pytest.raises(ConfigurationError, match="the table is missing"):
        sync_single_item(job(target=Unfit()), item("A"))


def test_async_functions_work_from_inside_a_running_event_loop() -> None:
    records: dict[str, Any] = {}

    async def find_local(external_id: str) -> Any:
        await asyncio.sleep(0)
        return records.get(external_id)

    async def create(each: Any) -> None:
        records[each["sku"]] = each

    async def get_external_id(each: Any) -> str:
        return str(each["sku"])

    job = SyncJob[Any, Any](
        name="plain",
        fetch_external=list,
        get_external_id=get_external_id,
        find_local=find_local,
        create=create,
        update=lambda each, local: local.update(each),
    )

    async def handler() -> list[str]:
        return [sync_single_item(job, item("A")).action, sync_single_item(job, item("A", 2)).action]

    assert asyncio.run(handler()) == ["created", "updated"]
    assert records == {"A": item("A", 2)}


skus = st.sampled_from(["A", "B", "bad", "skip", "unfound", None, ""])


@few_and_many(7, 20)
def test_one_by_one_gives_the_same_records_and_outcomes_as_runs_of_one(examples: int) -> None:
    """For any series of items: `sync_single_item` and `run_sync` of that one item do the same."""
    series = st.lists(st.tuples(skus, st.integers(0, 2)), max_size=6)
    hypothesis.settings(max_examples=examples, deadline=None)(given(series)(assert_one_by_one_is_the_same))()


def assert_one_by_one_is_the_same(pairs: list[tuple[Any, int]]) -> None:

    def make(target: MemoryTarget, items: list[Any]) -> SyncJob[Any, Any]:
        return SyncJob(
            name="stock",
            fetch_external=MemorySource(items),
            get_external_id="sku",
            target=target,
            should_skip=lambda each: each["sku"] == "skip",
        )

    def fake() -> MemoryTarget:
        return MemoryTarget(fails={"bad": ValueError("no")}, fails_to_find={"unfound": KeyError("x")})

    single, whole = fake(), fake()
    with TemporaryDirectory() as folder:
        for pair in pairs:
            each = item(*pair)
            try:
                action = sync_single_item(make(single, []), each).action
            except ItemError:
                action = "failed"
            results = run_sync(make(whole, [each]), settings=Settings(data_dir=Path(folder)))
            assert results.counts()[action] == 1
            assert single.records == whole.records
