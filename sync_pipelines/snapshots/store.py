"""The snapshot store: a folder per run with its snapshot, its plan and what the diff found wrong."""

from __future__ import annotations

import math
import shutil
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pyarrow as pa
from upath import UPath

from sync_pipelines.snapshots.durable_files import is_local, make_work_folder, write_json
from sync_pipelines.snapshots.parquet_pages import PageWriter

PLAN = pa.schema(
    [
        ("position", pa.int64()),
        ("action", pa.string()),
        ("external_id", pa.string()),  # as the target's key gives it back; the item is in the snapshot
        ("changes", pa.string()),  # the engine's JSON: field -> [old, new]
        ("before", pa.string()),  # the engine's JSON: field -> value; of a dry run without changes by field
    ]
)
FINDINGS = pa.schema(
    [
        ("position", pa.int64()),
        ("kind", pa.string()),  # failed or duplicate
        ("external_id", pa.string()),
        ("exception_type", pa.string()),
        ("message", pa.string()),
        ("kept_position", pa.int64()),
        ("trace", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The files of one run.

    Args:
        work: A folder of this machine for working files, which may go at any time between the steps.
        prefix: What the names of plan and findings begin with.
    """

    folder: UPath
    work: Path
    prefix: str = ""

    @property
    def plan(self) -> UPath:
        """What the diff decided to write."""
        return self.folder / f"{self.prefix}plan.parquet"

    @property
    def findings(self) -> UPath:
        """Items that failed before anything was written, and duplicates."""
        return self.folder / f"{self.prefix}findings.parquet"

    @property
    def withheld(self) -> RunFiles:
        """The same run's files, but for the plan: what guards have withheld of it."""
        return replace(self, prefix="withheld-")

    @contextmanager
    def working_file(self, name: str) -> Iterator[Path]:
        """Opens a path for a working file, which is removed at the end."""
        make_work_folder(self.work)
        path = self.work / name
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextmanager
    def write_plan(self) -> Iterator[tuple[PageWriter, PageWriter]]:
        """Opens plan and findings for writing."""
        with PageWriter(self.plan, PLAN) as plan, PageWriter(self.findings, FINDINGS) as findings:
            yield plan, findings

    def remove(self) -> None:
        """Removes all files of the run."""
        _remove(self.folder)
        shutil.rmtree(self.work, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class SnapshotStore:
    """The folder of all runs, with a folder for each run.

    Args:
        root: A folder, of this machine or in an object store; it is made when the first run needs it.
        work: A folder of this machine for working files.
    """

    root: UPath
    work: Path

    def files_of(self, run_id: str) -> RunFiles:
        """Returns the files of one run."""
        return RunFiles(self.root / run_id, self.work / run_id)

    def try_out(self) -> None:
        """Writes a small file, and removes it again."""
        folder = self.root / f"tried-{uuid.uuid4()}"
        try:
            write_json(folder / "tried.json", {})
        finally:
            _remove(folder)
        make_work_folder(self.work)

    def remove_older_than(self, oldest_at_s: float, keep: Collection[str] = ()) -> int:
        """Removes the files of runs last touched before that time (seconds since 1970), and returns how many runs.

        Args:
            keep: Runs whose files stay, however old.
        """
        old = 0
        for root in (self.root, UPath(self.work)):
            folders = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
            stale = [path for path in folders if path.name not in keep and _touched_at_s(path) < oldest_at_s]
            for folder in stale:
                _remove(folder)
            old += len(stale) if root is self.root else 0
        return old


def _remove(folder: UPath) -> None:
    if is_local(folder):
        shutil.rmtree(str(folder), ignore_errors=True)
    elif folder.exists():
        folder.fs.rm(folder.path, recursive=True)


def _touched_at_s(folder: UPath) -> float:
    """Returns when a folder or a file in it was last written; never, of one that is being removed just now."""
    try:
        paths = list(folder.iterdir()) if not is_local(folder) else [folder, *folder.iterdir()]
        return max(map(_written_at_s, paths), default=math.inf)
    except FileNotFoundError:
        return math.inf


def _written_at_s(path: UPath) -> float:
    """Returns when a file was last written; a file whose age the store does not know is never old."""
    if is_local(path):
        return path.stat().st_mtime
    try:
        written_at: datetime = path.fs.modified(path.path)
    except FileNotFoundError:
        raise
    except Exception:  # noqa: BLE001 - stores differ in what they raise, and rather keep too much than too little
        return math.inf
    return written_at.timestamp()
