"""Folders and files that nobody else on this machine can read: they hold what is fetched, and the ledger.

Those that are there already are left as somebody made them; `sync-pipelines check` tells of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

_FOLDER, _FILE, _OTHERS = 0o700, 0o600, 0o077


def make_private_folder(folder: Path) -> None:
    """Makes a folder, and those above it that are missing, for this user alone."""
    if not folder.is_dir():
        make_private_folder(folder.parent)
        folder.mkdir(mode=_FOLDER, exist_ok=True)


def make_private_file(file: Path) -> None:
    """Makes an empty file for this user alone, unless there is one."""
    if not file.exists():
        file.touch(mode=_FILE)


def open_to_others(paths: Iterable[Path]) -> Iterator[str]:
    """Yields the commands that close those of the paths to others that are there and which others can read or write."""
    for path in paths:
        with suppress(OSError):
            mode = path.stat().st_mode
            if mode & _OTHERS:
                yield f"chmod {_FOLDER if path.is_dir() else _FILE:o} {path}"
