"""`dg` finds, makes and checks the component, as a person types it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sync_pipelines_tests.children import run_child

pytest.importorskip("dagster_dg_cli")

PYPROJECT = """
[project]
name = "my_project"
version = "0.1.0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "my_project"
"""
DEFINITIONS = """
from pathlib import Path
from dagster import definitions, load_from_defs_folder

@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project as `create-dagster` makes it, as far as `dg` needs it."""
    package = tmp_path / "my-project" / "src" / "my_project"
    (package / "defs").mkdir(parents=True)
    (tmp_path / "my-project" / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    (package / "__init__.py").touch()
    (package / "defs" / "__init__.py").touch()
    (package / "definitions.py").write_text(DEFINITIONS, encoding="utf-8")
    return tmp_path / "my-project"


def dg(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(project.parent),
        "PYTHONPATH": str(project / "src"),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "COLUMNS": "200",
    }
    code = "from dagster_dg_cli.cli import main; main()"
    return run_child([sys.executable, "-c", code, *arguments], cwd=project, env=environment, stderr=subprocess.STDOUT)


@pytest.mark.soak
def test_dg_lists_scaffolds_and_checks(project: Path) -> None:
    file = project / "src" / "my_project" / "defs" / "erp_stock" / "defs.yaml"

    assert "sync_pipelines.SyncComponent" in dg(project, "list", "components").stdout
    made = dg(project, "scaffold", "defs", "sync_pipelines.SyncComponent", "erp_stock")
    assert made.returncode == 0, made.stdout
    assert "name: erp-stock" in file.read_text(encoding="utf-8")
    for what in ("yaml", "defs"):
        checked = dg(project, "check", what)
        assert checked.returncode == 0, checked.stdout

    file.write_text(file.read_text(encoding="utf-8").replace("path:", "pth:"), encoding="utf-8")
    wrong = dg(project, "check", "yaml")
    assert wrong.returncode == 1
    assert "defs.yaml:7" in wrong.stdout

    file.write_text(file.read_text(encoding="utf-8").replace("pth:", "path:").replace("1 hour", "soon"), "utf-8")
    wrong = dg(project, "check", "defs")
    assert wrong.returncode == 1
    assert "defs.yaml:17: attributes.schedule.every: 'soon' is no length of time" in wrong.stdout
