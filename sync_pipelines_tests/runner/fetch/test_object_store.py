"""Snapshots and plans in an object store: the same runs, the same cleaning, nothing that looks complete too early."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
from upath import UPath

from sync_pipelines import ConfigurationError, FetchError, run_sync
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines.settings.model import Settings, load_settings
from sync_pipelines.snapshots.snapshot import Snapshot
from sync_pipelines_tests.runner import bulk_child as child
from sync_pipelines_tests.runner.crash_child import page_by_page
from sync_pipelines_tests.runner.write.test_staged_crashes import Place, assert_whole

URL = "memory://bucket/sync"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setenv("SYNC_PIPELINES_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SYNC_PIPELINES_SNAPSHOT_URL", URL)
    yield load_settings()
    fsspec.filesystem("memory").store.clear()
    fsspec.filesystem("memory").pseudo_dirs[:] = [""]


@pytest.fixture
def place(tmp_path: Path, database_url: str, settings: Settings) -> Place:
    made = Place(tmp_path / "data", database_url)
    made.settings = settings
    return made


def files() -> list[str]:
    return sorted(path.rpartition("/")[2] for path in fsspec.filesystem("memory").store)


def test_a_run_in_bulk_keeps_its_files_there_and_removes_them(place: Place) -> None:
    with child.in_batches(), open_workspace(place.settings) as workspace:
        run = SyncRun(child.job(place.url), workspace)
        plan = run.diff(run.fetch())
        assert files() == ["findings.parquet", "plan.parquet", "snapshot-00000.parquet", "snapshot.json"]
        assert not (place.folder / "snapshots").exists()
        results = run.apply(plan)
        workspace.store.files_of(results.run_id).remove()
    assert_whole(results)
    place.assert_in_step()
    assert files() == []
    assert place.run().unchanged == child.FETCHED - child.FAILING


def test_a_run_page_by_page_does_as_well(place: Place) -> None:
    with page_by_page():
        results = place.run()
    assert_whole(results)
    place.assert_in_step()
    assert files() == []


def test_a_fetch_that_breaks_off_leaves_nothing_that_looks_complete(settings: Settings) -> None:
    def source() -> Iterator[dict[str, Any]]:
        yield from child.items()[:1_100]
        raise ConnectionError("hung up")

    with child.in_batches(), pytest.raises(FetchError):
        run_sync(child.job("sqlite://", fetch_external=source), settings=settings)
    assert files() == []


def test_a_new_fetch_into_the_same_folder_makes_the_old_snapshot_incomplete(settings: Settings) -> None:
    from sync_pipelines.snapshots.snapshot import FetchedPage, SnapshotWriter

    folder = settings.snapshot_dir() / "run"
    for value in (1, 2):
        with SnapshotWriter(folder) as writer:
            assert not Snapshot(folder).is_complete()
            writer.write(FetchedPage([0], ["A"], [{"v": value}]))
            writer.finish({"items": 1, "complete": True})
        assert [row.item for page in Snapshot(folder).pages() for row in page.rows()] == [{"v": value}]


def test_files_of_old_runs_are_removed_there_too(settings: Settings) -> None:
    with open_workspace(settings) as workspace:
        for run_id in ("one", "two"):
            files = workspace.store.files_of(run_id)
            with files.write_plan() as (plan, findings):
                plan.finish({})
                findings.finish({})
        now = datetime.now(UTC)
        assert workspace.store.remove_older_than((now - timedelta(minutes=1)).timestamp()) == 0
        assert workspace.store.remove_older_than((now + timedelta(minutes=1)).timestamp()) == 2
        assert not files.plan.exists()


def test_what_a_store_cannot_tell_the_age_of_is_never_old(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any) -> datetime:
        raise NotImplementedError

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "modified", unknown)
    with open_workspace(settings) as workspace:
        (workspace.store.files_of("one").folder / "plan.parquet").write_text("x")
        assert workspace.store.remove_older_than(datetime.now(UTC).timestamp() + 1e6) == 0


@pytest.mark.parametrize(
    ("url", "reason"), [("shelf://bucket/sync", "Protocol not known: shelf"), ("s3://bucket/sync", "Install s3fs")]
)
def test_a_store_that_cannot_be_reached_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, url: str, reason: str
) -> None:
    monkeypatch.setenv("SYNC_PIPELINES_SNAPSHOT_URL", url)
    with pytest.raises(ConfigurationError, match=f"SYNC_PIPELINES_SNAPSHOT_URL is wrong: .*{reason}"):
        load_settings()


def test_a_folder_may_be_given_in_any_way_and_is_absolute_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = UPath(tmp_path / "shelf")
    for url in ("shelf", str(tmp_path / "shelf"), f"file://{tmp_path}/shelf"):
        assert Settings(snapshot_url=url).snapshot_dir() == wanted
        assert isinstance(Settings(snapshot_url=url).snapshot_dir(), Path)  # and so is made durable
    assert Settings(snapshot_url="").snapshot_dir() == UPath(Settings().data_dir.resolve() / "snapshots")
