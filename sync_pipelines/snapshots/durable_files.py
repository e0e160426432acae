"""Files of the snapshot store, on this machine or in an object store: they have their name once they are complete."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from upath import UPath

from sync_pipelines.database.private_files import make_private_file, make_private_folder
from sync_pipelines.errors import ConfigurationError, RunError


def is_local(path: Path | UPath) -> bool:
    """True for a path of this machine's file system, False for one in an object store."""
    return isinstance(path, Path)


def write_json(path: UPath, form: Mapping[str, Any]) -> None:
    """Writes a small file that appears under its name only when it is complete."""
    make_folder(path.parent)
    unfinished = path.with_name(path.name + ".part")
    make_file(unfinished)
    unfinished.write_text(json.dumps(form), encoding="utf-8")
    give_name(unfinished, path)


def read_json(path: UPath) -> dict[str, Any]:
    """Reads what `write_json` wrote.

    Raises:
        RunError: The file is not there (any more).
    """
    try:
        form: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise missing_file(path) from error
    return form


def missing_file(path: UPath) -> RunError:
    """Makes the error for a file of a run that is gone."""
    return RunError(
        f"{path.name} of run {path.parent.name} is not in the snapshot store; it was cleaned up, or this process "
        "has another data folder (SYNC_PIPELINES_DATA_DIR). Start a new run instead of re-executing this one."
    )


def make_folder(folder: UPath) -> None:
    """Makes a folder in the snapshot store."""
    _make(folder, f"snapshot folder {folder}", "SYNC_PIPELINES_DATA_DIR and SYNC_PIPELINES_SNAPSHOT_URL")


def make_work_folder(folder: Path) -> None:
    """Makes the local folder of a run's working files."""
    _make(folder, f"folder {folder} of working files", "SYNC_PIPELINES_DATA_DIR")


def make_file(path: UPath) -> None:
    """Makes an empty file that nobody else on this machine can read; an object store has rights of its own."""
    if is_local(path):
        make_private_file(Path(str(path)))


def _make(folder: Path | UPath, shown: str, settings: str) -> None:
    try:
        if is_local(folder):
            make_private_folder(Path(str(folder)))
        else:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"the {shown} can't be made: {error.strerror or error}. Check {settings}.") from error


def give_name(unfinished: UPath, path: UPath) -> None:
    """Gives a finished file its name, durably; an object store keeps what it has taken."""
    if is_local(path):
        _make_durable(unfinished)
    else:
        with suppress(FileNotFoundError):
            path.unlink()
    unfinished.rename(path)
    if is_local(path):
        _make_durable(path.parent)


def _make_durable(path: UPath) -> None:
    descriptor = os.open(str(path), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
