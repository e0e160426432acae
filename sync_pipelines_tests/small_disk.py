"""A small disk of the tests, which is full soon. It takes root; without, tests fail in CI and are skipped elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sync_pipelines_tests.children import run_child


@contextmanager
def small_disk(folder: Path, size: str = "1m") -> Iterator[Path]:
    """Mounts a file system of that size over a folder."""
    folder.mkdir(exist_ok=True)
    try:
        mounted = run_child(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)])
        problem = mounted.stderr if mounted.returncode else ""
    except OSError as error:
        problem = str(error)
    if problem:
        reason = f"this test mounts a small disk, which takes root: {problem}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    try:
        yield folder
    finally:
        run_child(["umount", "--lazy", str(folder)], check=True)
