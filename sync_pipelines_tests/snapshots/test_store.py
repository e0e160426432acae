"""The folders of the snapshot store: removed when their runs are old."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from upath import UPath

from sync_pipelines.snapshots.store import SnapshotStore

NOW_S = 1_700_000_000.0


def aged(store: SnapshotStore, run_id: str, age_s: float) -> Path:
    files = store.files_of(run_id)
    with files.write_plan() as (plan, findings):
        plan.finish({})
        findings.finish({})
    for path in (files.plan, files.findings, files.folder):
        os.utime(path, (NOW_S - age_s, NOW_S - age_s))
    return files.folder


def test_files_of_old_runs_are_removed_and_young_ones_stay(tmp_path: Path) -> None:
    store = SnapshotStore(UPath(tmp_path / "snapshots"), tmp_path / "work")
    assert store.remove_older_than(NOW_S) == 0
    old, young = aged(store, "old", 1_000), aged(store, "young", 10)
    (store.root / "note.txt").write_text("not ours")
    assert store.remove_older_than(NOW_S - 100) == 1
    assert (old.exists(), young.exists(), (store.root / "note.txt").exists()) == (False, True, True)


def test_a_run_that_still_writes_is_not_old(tmp_path: Path) -> None:
    """The folder may have been made long ago; the youngest of its files counts."""
    store = SnapshotStore(UPath(tmp_path / "snapshots"), tmp_path / "work")
    folder = aged(store, "long", 1_000)
    (folder / "plan.parquet.part").write_text("x")
    os.utime(folder / "plan.parquet.part", (NOW_S, NOW_S))
    os.utime(folder, (NOW_S - 1_000, NOW_S - 1_000))
    assert store.remove_older_than(NOW_S - 100) == 0
    assert folder.exists()


def test_runs_that_end_meanwhile_do_not_disturb_the_cleaning(tmp_path: Path) -> None:
    """Every run cleans up when it begins; another one may be removing its files at that instant."""
    store = SnapshotStore(UPath(tmp_path / "snapshots"), tmp_path / "work")
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            files = store.files_of("fleeting")
            files.folder.mkdir(parents=True, exist_ok=True)
            (files.folder / "plan.parquet.part").touch()
            files.remove()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(1_500):
            assert store.remove_older_than(NOW_S) == 0
    finally:
        stop.set()
        thread.join()


def test_removing_files_that_are_gone_is_no_error(tmp_path: Path) -> None:
    SnapshotStore(UPath(tmp_path / "snapshots"), tmp_path / "work").files_of("nobody").remove()
