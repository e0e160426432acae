"""`dg` finds, makes and checks the component, as a person types it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from demo.child import Child
from demo.dagster_server import RunningDagster
from demo.erp import free_port
from sync_pipelines import Settings, trigger_sync
from sync_pipelines_tests.children import run_child

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


DG = (sys.executable, "-c", "from dagster_dg_cli.cli import main; main()")
COMPONENT = """
type: sync_pipelines.SyncComponent
attributes:
  name: {name}
  source: {{csv: {{path: {name}.csv}}}}
  target: {{table: {name}, key: sku, database: "sqlite:///{name}.sqlite"}}
  source_asset: erp/all
"""


def environment_of(project: Path) -> dict[str, str]:
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(project.parent),
        "PYTHONPATH": str(project / "src"),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "COLUMNS": "200",
    }


def dg(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_child([*DG, *arguments], cwd=project, env=environment_of(project), stderr=subprocess.STDOUT)


class RunningDg(RunningDagster):
    """`dg dev` for a project."""

    def __init__(self, project: Path, port: int) -> None:
        command = [*DG, "dev", "--host", "127.0.0.1", "--port", str(port)]
        Child.__init__(self, command, project, environment_of(project), project.parent / "dg.log")
        self._port = port
        self.url = f"http://127.0.0.1:{port}"


@pytest.mark.soak
def test_dg_dev_serves_two_components_and_runs_them(project: Path) -> None:
    """Both read one source, and share the sensors."""
    for name in ("bins", "moves"):
        folder = project / "src" / "my_project" / "defs" / name
        folder.mkdir()
        (folder / "defs.yaml").write_text(COMPONENT.format(name=name), encoding="utf-8")
        (project / f"{name}.csv").write_text("sku,quantity\nA-1,5\n", encoding="utf-8")
        with closing(sqlite3.connect(project / f"{name}.sqlite")) as shop:
            shop.execute(f"CREATE TABLE {name} (sku TEXT PRIMARY KEY, quantity INTEGER)")
    port = free_port()
    settings = Settings(data_dir=project / "data", dagster_url=f"http://127.0.0.1:{port}")

    with RunningDg(project, port) as dagster:
        dagster.wait_until_it_answers()
        runs = [trigger_sync(name, settings=settings) for name in ("bins", "moves")]
        assert [dagster.wait_for_run(run) for run in runs] == ["SUCCESS", "SUCCESS"], dagster.last_lines()

    for name in ("bins", "moves"):
        with closing(sqlite3.connect(project / f"{name}.sqlite")) as shop:
            assert shop.execute(f"SELECT * FROM {name}").fetchall() == [("A-1", 5)]


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
