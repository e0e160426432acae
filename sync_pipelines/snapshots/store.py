"""The snapshot store: a folder per run with its snapshot, its plan and what the diff found wrong."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from sync_pipelines.snapshots.files import PageWriter

SNAPSHOT = pa.schema(
    [
        ("position", pa.int64()),
        ("external_id", pa.string()),  # as the source gave it; null where it can't be read
        ("item", pa.string()),  # the engine's JSON; null where the item can't be kept
        ("exception_type", pa.string()),  # why the item failed already
        ("message", pa.string()),
    ]
)
PLAN = pa.schema(
    [
        ("position", pa.int64()),
        ("action", pa.string()),
        ("external_id", pa.string()),  # as the target's key gives it back
        ("item", pa.string()),
        ("changes", pa.string()),  # the engine's JSON: field -> [old, new]
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
    ]
)


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The files of one run."""

    folder: Path

    @property
    def snapshot(self) -> Path:
        """What the fetch brought."""
        return self.folder / "snapshot.parquet"

    @property
    def plan(self) -> Path:
        """What the diff decided to write."""
        return self.folder / "plan.parquet"

    @property
    def findings(self) -> Path:
        """Items that failed before anything was written, and duplicates."""
        return self.folder / "findings.parquet"

    @property
    def scratch(self) -> Path:
        """A working file of the diff; may go at any time between the steps."""
        return self.folder / "ids.scratch"

    @contextmanager
    def write_snapshot(self) -> Iterator[PageWriter]:
        """Opens the snapshot for writing."""
        with PageWriter(self.snapshot, SNAPSHOT) as writer:
            yield writer

    @contextmanager
    def write_plan(self) -> Iterator[tuple[PageWriter, PageWriter]]:
        """Opens plan and findings for writing."""
        with PageWriter(self.plan, PLAN) as plan, PageWriter(self.findings, FINDINGS) as findings:
            yield plan, findings

    def remove(self) -> None:
        """Removes all files of the run."""
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class SnapshotStore:
    """Where the files of all runs are.

    Args:
        root: The folder; it is made when the first run needs it.
    """

    root: Path

    def files_of(self, run_id: str) -> RunFiles:
        """The files of one run."""
        return RunFiles(self.root / run_id)

    def remove_older_than(self, oldest_at_s: float) -> int:
        """Removes the files of runs last touched before that time (seconds since 1970). Gives how many runs."""
        if not self.root.is_dir():
            return 0
        old = [folder for folder in self.root.iterdir() if folder.is_dir() and _touched_at_s(folder) < oldest_at_s]
        for folder in old:
            shutil.rmtree(folder, ignore_errors=True)
        return len(old)


def _touched_at_s(folder: Path) -> float:
    """When a folder or a file in it was last written; of one that another process is removing just now, never."""
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except FileNotFoundError:
        return math.inf
