"""The README does what it says."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

import sync_pipelines
from sync_pipelines.settings.model import Settings
from sync_pipelines_tests.children import run_child

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)

PREPARE = """
import sqlite3, pathlib
pathlib.Path(".sync_pipelines").mkdir()
with sqlite3.connect(".sync_pipelines/local.sqlite") as shop:
    shop.execute("CREATE TABLE variants (sku TEXT PRIMARY KEY, stock INTEGER)")
shop.close()
"""


@pytest.mark.parametrize(("number", "printed"), [(0, "2 0 0\n"), (1, "1 None the item has no external id (None)\n")])
def test_the_examples_run_as_they_stand(number: int, printed: str, tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": os.defpath}
    found = run_child([sys.executable, "-c", PREPARE + BLOCKS[number]], cwd=tmp_path, env=environment)

    assert found.returncode == 0, found.stderr
    assert found.stdout == printed


def test_it_has_two_examples_and_stays_short() -> None:
    assert len(BLOCKS) == 2
    assert len(README.split()) <= 550


def test_every_setting_that_is_named_exists() -> None:
    named = set(re.findall(r"SYNC_PIPELINES_([A-Z_]+)", README))

    assert named <= {field.upper() for field in Settings.model_fields}


def test_every_command_that_is_named_exists() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")

    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z][a-z-]+)  ", README))
    assert {"demo", "demo-change", "test"} <= named <= targets


def test_every_function_and_class_in_backticks_is_public() -> None:
    called = set(re.findall(r"`([A-Za-z_]+)\(", README))

    assert {"trigger_sync", "trigger_item", "sync_single_item"} <= called
    assert called <= set(sync_pipelines.__all__)


def test_every_place_on_the_map_is_there() -> None:
    rooms = re.findall(r"`((?:sync_pipelines|docs|deploy)/[a-z_/]*)`", README)

    assert len(rooms) >= 7
    assert [room for room in rooms if not (REPOSITORY / room).is_dir()] == []
    assert all((REPOSITORY / link).is_file() for link in re.findall(r"\]\((docs/[^)]+)\)", README))
