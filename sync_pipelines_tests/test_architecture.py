"""The rules of the house that a machine can hold."""

from __future__ import annotations

import ast
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from sync_pipelines_tests.children import run_child

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "sync_pipelines"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONG_MODULE_LINES = 400
"""Think from here on, but never cut one thing in two to stay below."""
LONGEST_MODULE_LINES = 600


class LongModuleWarning(UserWarning):
    """A module is so long that it may be more than one thing. pytest shows it, and it fails nothing."""


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_there_is_something_to_look_at() -> None:
    assert len(MODULES) > 50


def test_the_rooms_import_only_from_below() -> None:
    """The contracts are in pyproject.toml."""
    ran = run_child(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "0 broken" in ran.stdout


@pytest.mark.parametrize("name", ["utils", "util", "helpers", "helper", "common", "misc", "shared"])
def test_no_module_is_a_drawer_for_everything(name: str) -> None:
    found = [named(path) for path in PACKAGE.rglob("*") if path.stem == name and "__pycache__" not in path.parts]
    assert found == []


@pytest.mark.filterwarnings("default::UserWarning")
def test_no_module_is_longer_than_one_can_hold_in_mind() -> None:
    long = {named(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: lines for name, lines in long.items() if lines > LONGEST_MODULE_LINES} == {}
    for name, lines in long.items():
        if lines > LONG_MODULE_LINES:
            warnings.warn(LongModuleWarning(f"{name} has {lines} lines"), stacklevel=1)


def test_annotations_are_real_where_dagster_reads_them() -> None:
    """`from __future__ import annotations` breaks Dagster's ops and configs."""
    looked_at = [*(PACKAGE / "orchestration").glob("*.py"), PACKAGE / "definitions.py"]
    assert len(looked_at) > 5
    assert [named(path) for path in looked_at if "__future__.annotations" in imports_of(path)] == []


def test_only_the_settings_read_the_environment() -> None:
    def reads(path: Path) -> bool:
        names = {node.attr for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}
        return bool({"environ", "getenv", "environb"} & names) or bool(
            {"os.environ", "os.getenv"} & set(imports_of(path))
        )

    assert [named(path) for path in MODULES if reads(path) and path.parent.name != "settings"] == []


def test_nothing_inside_imports_the_facade() -> None:
    """A name of the front door would load half the house, and in a circle."""
    facade = {f"sync_pipelines.{name}" for name in __import__("sync_pipelines").__all__}
    assert {named(path): sorted(found) for path in MODULES if (found := facade & set(imports_of(path)))} == {}


def test_job_files_import_no_dagster_and_no_other_job() -> None:
    for path in (PACKAGE / "jobs").glob("[!_]*.py"):
        imported = set(imports_of(path))
        assert not [name for name in imported if name.partition(".")[0].startswith("dagster")], named(path)
        assert not [name for name in imported if name.startswith("sync_pipelines.jobs")], named(path)


def test_the_package_imports_no_test_tool() -> None:
    """The contract checks that ship are inherited by test classes; they need no pytest themselves."""
    tools = {"pytest", "hypothesis", "unittest"}
    found = {named(path) for path in MODULES for name in imports_of(path) if name.partition(".")[0] in tools}
    assert found == set()


def test_every_module_says_what_it_is_for() -> None:
    assert [named(path) for path in MODULES if not ast.get_docstring(tree_of(path))] == []


def test_test_folders_are_no_packages() -> None:
    assert [named(path) for path in (REPOSITORY / "sync_pipelines_tests").rglob("__init__.py")] == []


def test_tests_start_processes_in_one_place() -> None:
    """`children.py` has the time-outs, the children's last words and the end of them all; servers have their own."""
    servers = {"mariadb_server.py", "postgres_with_extensions.py", "test_postgres_real.py"}
    own = {"children.py", "test_children.py", *servers}
    begins = re.compile(r"\b(subprocess\.(run|Popen|call|check_\w+)|get_context|create_subprocess_\w+)\(")
    files = (REPOSITORY / "sync_pipelines_tests").rglob("*.py")
    assert [named(path) for path in files if path.name not in own and begins.search(path.read_text("utf-8"))] == []
