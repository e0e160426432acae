"""The fetch: what it takes, when it breaks off, and what is wrong with an item already there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.external_ids import external_id_of
from sync_pipelines.engine.progress import Progress
from sync_pipelines.engine.results import Duplicate, SyncResults
from sync_pipelines.errors import ConfigurationError, FetchError, ItemError, RetryableError
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.fetch.fetch import identified
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.testing import MemorySource, MemoryTarget

Make = Callable[..., SyncJob[Any, Any]]
Sync = Callable[..., SyncResults]
Count = Callable[[SyncResults], dict[str, int]]


def item(sku: Any, **fields: Any) -> dict[str, Any]:
    return {"sku": sku, "stock": 1, **fields}


def some(number: int) -> list[dict[str, Any]]:
    return [item(f"A{each:05}") for each in range(number)]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("page_size", "breaks_after", "came"), [(None, 7, 7), (3, 7, 7), (None, 0, 0), (1000, 2500, 2500)]
)
def test_a_source_that_breaks_off_applies_nothing_and_says_how_far_it_came(  # noqa: PLR0913, PLR0917
    job: Make,
    target: MemoryTarget,
    settings: Settings,
    asynchronous: bool,  # noqa: FBT001 - parametrised
    page_size: int | None,
    breaks_after: int,
    came: int,
) -> None:
    error = RetryableError("504 from https://me:hunter22@erp/items")
    source = MemorySource(
        some(3_000), page_size=page_size, breaks_after=breaks_after, error=error, asynchronous=asynchronous
    )
    with pytest.raises(FetchError) as caught:
        run_sync(job(source), settings=settings)
    assert caught.value.items_fetched == came
    assert caught.value.__cause__ is error
    assert f"broke off after {came:,} items, nothing was applied: RetryableError: 504" in str(caught.value)
    assert "hunter22" not in str(caught.value)
    assert (target.records, target.calls) == ({}, {})
    assert source.closed == 1
    assert caught.value.results.outcome == "failed"


def test_a_fetch_that_broke_off_leaves_no_snapshot(job: Make, settings: Settings) -> None:
    with pytest.raises(FetchError):
        run_sync(job(MemorySource(some(3), breaks_after=2)), settings=settings)
    assert [path for path in settings.snapshot_dir().rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("shape", [None, {"sku": "A"}, "A", 5, ["A"], [None]])
def test_a_wrong_shape_is_a_configuration_error_that_names_the_job(job: Make, settings: Settings, shape: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"stock: fetch_external: .*(got|yielded) "):
        run_sync(job(lambda: shape), settings=settings)


@pytest.mark.parametrize("source", ["plain", "pages", "async", "async pages", "frame", "frames"])
def test_every_form_of_source_gives_the_same_records(sync: Sync, target: MemoryTarget, source: str) -> None:
    import pandas as pd

    items = some(1_200)
    forms: dict[str, Any] = {
        "plain": items,
        "pages": MemorySource(items, page_size=7),
        "async": MemorySource(items, asynchronous=True),
        "async pages": MemorySource(items, page_size=7, asynchronous=True),
        "frame": lambda: pd.DataFrame(items),
        "frames": lambda: (pd.DataFrame(items[start : start + 500]) for start in range(0, 1_200, 500)),
    }
    assert sync(forms[source]).created == 1_200
    assert target.records == {each["sku"]: each for each in items}
    assert sync(forms[source]).unchanged == 1_200


class TestIds:
    """An item whose id can't be read fails with its position; the others land."""

    def test_missing_empty_and_impossible_ids_fail_with_their_position(self, sync: Sync, target: MemoryTarget) -> None:
        wrong = [None, "", "  ", float("nan"), True, b"A", ["A"], "a\ud800"]
        items = [item("first"), *map(item, wrong), {"stock": 1}, ["x"], item("last")]
        results = sync(lambda: iter([items[:-2], [items[-1]]]))
        assert sorted(target.records) == ["first", "last"]
        assert [error.position for error in results.errors] == list(range(1, 10))
        assert all(error.external_id is None and error.message for error in results.errors)
        assert results.errors[-1].message == "the item has no field 'sku'; it has: stock"
        assert {error.exception_type for error in results.errors} == {"ItemError", "UnicodeEncodeError"}

    def test_a_get_external_id_that_raises_fails_its_item(self, sync: Sync) -> None:
        results = sync([item("A"), {}, item("B")], get_external_id=lambda each: each["sku"])
        [error] = results.errors
        assert (error.external_id, error.exception_type, error.position) == (None, "KeyError", 1)
        assert re.fullmatch(r"get_external_id: KeyError: 'sku' \(test_fetch\.py:\d+, in <lambda>\)", error.message)
        assert results.created == 2

    @pytest.mark.parametrize("error", [StopIteration("x"), StopAsyncIteration("x")])
    def test_even_an_exception_that_generators_use_fails_only_its_item(self, sync: Sync, error: Any) -> None:
        def get_external_id(each: Any) -> str:
            if each["sku"] == "bad":
                raise error
            return str(each["sku"])

        results = sync([item("A"), item("bad"), item("B")], get_external_id=get_external_id)
        assert (results.created, results.error_count) == (2, 1)

    def test_numbers_become_text(self, sync: Sync, target: MemoryTarget) -> None:
        sync([item(7), item(8.0), item(Decimal("9.50"))])
        assert sorted(target.records) == ["7", "8", "9.50"]

    def test_an_item_that_cannot_be_kept_fails_with_its_id_and_still_counts_as_seen(
        self, sync: Sync, target: MemoryTarget
    ) -> None:
        sync([item("A"), item("B")])
        results = sync([item("A", extra=object()), item("B")], deletes="hard")
        assert (results.error_count, results.deleted) == (1, 0)
        assert results.errors[0].external_id == "A"
        assert "field 'extra' holds a builtins.object" in results.errors[0].message
        assert sorted(target.records) == ["A", "B"]

    def test_an_item_that_cannot_be_restored_fails_alone(self, sync: Sync) -> None:
        """A set of flags has no name of its own; whatever goes wrong there must not end the run."""
        import enum

        class Right(enum.Flag):
            READ = 1
            WRITE = 2

        class Moody(enum.Enum):
            ONE = 1

            @classmethod
            def _missing_(cls, value: object) -> Any:
                raise RuntimeError("not today")

        odd = object.__new__(Moody)
        odd._name_, odd._value_ = "TWO", 2
        results = sync([item("A", rights=Right.READ | Right.WRITE), item("B", mood=odd), item("C")])
        assert results.created == 2
        assert [(each.external_id, each.exception_type) for each in results.errors] == [("B", "RuntimeError")]


class TestDuplicates:
    def test_the_last_item_of_an_id_counts_and_the_others_are_listed(self, sync: Sync, target: MemoryTarget) -> None:
        items = [item("A", stock=1), item("B"), item("A", stock=2), item("A", stock=3)]
        results = sync(items)
        assert results.duplicates == (Duplicate("A", 0, 3), Duplicate("A", 2, 3))
        assert (results.duplicate_count, results.created) == (2, 2)
        assert target.records["A"]["stock"] == 3

    def test_duplicates_are_found_across_pages(self, sync: Sync, target: MemoryTarget) -> None:
        items = [item("A", stock=1), *some(2_500), item("A", stock=2)]
        results = sync(MemorySource(items, page_size=100))
        assert results.duplicates == (Duplicate("A", 0, 2_501),)
        assert target.records["A"]["stock"] == 2

    def test_only_the_first_thousand_are_listed_but_all_are_counted(self, sync: Sync) -> None:
        results = sync([item("A") for _ in range(3_000)])
        assert (results.duplicate_count, results.created) == (2_999, 1)
        assert [each.position for each in results.duplicates] == list(range(1_000))

    def test_if_the_last_item_of_an_id_fails_no_earlier_one_takes_its_place(
        self, sync: Sync, target: MemoryTarget
    ) -> None:
        results = sync([item("A", stock=1), item("A", extra=object())])
        assert (results.duplicate_count, results.error_count, results.created) == (1, 1, 0)
        assert target.records == {}


class TestSelection:
    def test_a_limit_takes_the_first_items_and_asks_for_no_more(self, sync: Sync, target: MemoryTarget) -> None:
        source = MemorySource(some(5_000), page_size=10)
        results = sync(source, limit=25)
        assert (results.fetched, results.created) == (25, 25)
        assert sorted(target.records) == [each["sku"] for each in some(25)]
        assert source.given == 30
        assert source.closed == 1

    def test_only_takes_items_by_their_ids_as_the_source_gives_them(self, sync: Sync, target: MemoryTarget) -> None:
        items = [item("007"), item("8"), item(9), {"stock": 1}]
        results = sync(items, only=["007", "9", "absent"])
        assert (results.fetched, results.created) == (2, 2)
        assert sorted(target.records) == ["007", "9"]
        assert results.notes == ("not found in the source: absent",)

    def test_only_and_limit_together_take_the_first_of_those_named(self, sync: Sync, target: MemoryTarget) -> None:
        sync(some(100), only=["A00050", "A00060", "A00070"], limit=2)
        assert sorted(target.records) == ["A00050", "A00060"]

    def test_only_keeps_every_item_of_an_id_so_that_the_last_one_counts(self, sync: Sync, target: MemoryTarget) -> None:
        results = sync([item("A", stock=1), item("B"), item("A", stock=2)], only={"A"})
        assert (results.fetched, results.duplicate_count) == (2, 1)
        assert target.records["A"]["stock"] == 2
        assert results.duplicates == (Duplicate("A", 0, 2),)

    @pytest.mark.parametrize("limit", [0, -1, True, 2.5, "5"])
    def test_a_limit_that_makes_no_sense_is_refused(self, sync: Sync, limit: Any) -> None:
        with pytest.raises(ConfigurationError, match="limit: "):
            sync(some(3), limit=limit)

    @pytest.mark.parametrize("only", ["A", [1], 5])
    def test_only_must_be_a_list_of_texts(self, sync: Sync, only: Any) -> None:
        with pytest.raises(ConfigurationError, match="only: "):
            sync(some(3), only=only)


def test_an_empty_choice_is_not_a_choice_of_everything(job: Make, settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="only is empty"):
        run_sync(job(MemorySource(some(3))), settings=settings, only=[])


def test_progress_is_told_after_every_page_and_chunk(sync: Sync) -> None:
    told: list[Progress] = []
    sync(some(2_500), on_progress=told.append)
    assert [each.done for each in told if each.phase == "fetch"] == [1_000, 2_500]
    assert [(each.done, each.total) for each in told if each.phase == "diff"] == [
        (1_000, 2_500),
        (2_000, 2_500),
        (2_500, 2_500),
    ]
    assert [(each.done, each.total) for each in told if each.phase == "apply"] == [
        (1_000, 2_500),
        (2_000, 2_500),
        (2_500, 2_500),
    ]
    assert all(each.total is None for each in told if each.phase == "fetch")
    assert {each.fetched for each in told if each.phase != "fetch"} == {2_500}


def test_what_the_progress_callback_raises_ends_the_run(sync: Sync, target: MemoryTarget) -> None:
    class EnoughError(Exception):
        pass

    def on_progress(progress: Progress) -> None:
        raise EnoughError

    with pytest.raises(EnoughError):
        sync(some(3), on_progress=on_progress)
    assert target.writes == 0


def test_a_data_folder_that_cannot_be_made_names_the_setting(job: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    settings = Settings(data_dir=tmp_path / "file" / "data")
    with pytest.raises(ConfigurationError, match="SYNC_PIPELINES_DATA_DIR"):
        run_sync(job([item("A")]), settings=settings)


def test_a_snapshot_folder_that_cannot_be_made_names_the_setting(job: Make, settings: Settings) -> None:
    settings.data_dir.mkdir()
    (settings.data_dir / "snapshots").write_text("in the way")
    with pytest.raises(ConfigurationError, match="SYNC_PIPELINES_DATA_DIR"):
        run_sync(job([item("A")]), settings=settings)


def test_a_run_leaves_no_files_behind(sync: Sync, settings: Settings) -> None:
    sync(some(10))
    assert list(settings.snapshot_dir().iterdir()) == []


def test_old_runs_are_removed_when_a_new_one_begins(sync: Sync, settings: Settings, workspace: Workspace) -> None:
    import os

    files = workspace.store.files_of("old")
    files.folder.mkdir(parents=True)
    left = files.folder / "snapshot.json"
    left.write_text("x")
    long_ago = workspace.clock().timestamp() - 8 * 24 * 3600
    for path in (left, files.folder):
        os.utime(path, (long_ago, long_ago))
    young = workspace.store.files_of("young")
    young.folder.mkdir()
    sync(some(1))
    assert [folder.name for folder in settings.snapshot_dir().iterdir()] == ["young"]


def test_a_slow_page_is_not_asked_for_before_it_is_needed(sync: Sync) -> None:
    """With a limit, a page that would fail is never asked for."""

    def fetch() -> Iterator[list[Any]]:
        yield some(5)
        raise AssertionError("asked for too much")

    assert sync(fetch, limit=5).created == 5


texts = st.sampled_from(["A-1", " A-1 ", "007", "ΟΔΟΣ", "a\nb"])
oddities = st.sampled_from(["", " ", "\ud800", None, 7, 7.0, True, [1]])
fields_of_an_item = st.fixed_dictionaries({"sku": texts | oddities}) | st.just({"title": "no id"})


@hypothesis.settings(deadline=None)
@given(st.lists(st.fixed_dictionaries({"sku": texts}), max_size=4), st.lists(fields_of_an_item, max_size=2))
def test_ids_of_a_page_are_those_of_its_items_one_by_one(
    plain: list[dict[str, Any]], odd: list[dict[str, Any]]
) -> None:
    """A page whose ids are all text is read in one go, whoever names the field."""
    items = [*plain, *odd]
    key_as_field = SqlTable(table="things", key="sku", columns=["title"])
    key_mapped = SqlTable(table="things", key="key", columns={"key": "sku"})
    key_from_function = SqlTable(table="things", key="key", columns=lambda item: {"key": item.get("sku")})
    for target in (key_as_field, key_mapped, key_from_function):
        job = SyncJob[Any, Any](name="things", fetch_external=list, target=target)
        page = identified(job, 0, items)
        for place, item in enumerate(items):
            try:
                alone: str | Exception = external_id_of(job, item)
            except (ItemError, ValueError) as error:
                alone = error
            if isinstance(alone, str):
                assert page.external_ids[place] == alone
            else:
                assert page.external_ids[place] is None
                assert str(page.errors[place]) == str(alone)
