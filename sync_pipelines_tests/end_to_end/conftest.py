"""Real servers for the end-to-end tests: Tryton, and Dagster with its web server and daemon."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.erp import RunningErp, set_up


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set-up ERP that nobody starts; tests copy it."""
    folder = tmp_path_factory.mktemp("seeded")
    set_up(folder)
    return folder


@pytest.fixture(scope="session")
def folder(seeded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the ERP that the tests of the Tryton source share."""
    folder = tmp_path_factory.mktemp("erp") / "shared"
    shutil.copytree(seeded, folder)
    return folder


@pytest.fixture(scope="session")
def server(folder: Path) -> Iterator[RunningErp]:
    """That ERP, running."""
    with RunningErp(folder) as server:
        yield server
