"""A company's own repository: the wheel, one job file and a `workspace.yaml`, and nothing of this repository."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import zipfile
from collections.abc import Mapping
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from demo.child import clean_environment
from demo.dagster_server import RunningDagster
from demo.erp import free_port
from sync_pipelines_tests.children import run_child

REPOSITORY = Path(__file__).parents[2]
OLDEST_SETUPTOOLS = 77  # as pyproject.toml asks

# The two files of docs/how-to/own-repository.md; a test below holds them against it.
JOB_FILE = '''\
"""What lies in our warehouse, into our shop's table `stock`."""

from sync_pipelines import SqlTable, SyncJob, sync_intervals


def articles():
    yield [{"number": "A-1", "pieces": 5}, {"number": "A-2", "pieces": 0}]


JOB: SyncJob[dict, dict] = SyncJob(
    name="our-stock",
    fetch_external=articles,
    target=SqlTable(table="stock", key="number", columns=["number", "pieces"]),
    schedule=sync_intervals.hours(1),
)
'''
WORKSPACE = """\
load_from:
  - python_module:
      module_name: sync_pipelines.definitions
      location_name: our_syncs
"""
RUN_NOW = """
from our_jobs.our_stock import JOB
from sync_pipelines import run_sync
results = run_sync(JOB)
print(results.outcome, results.created, results.updated, results.unchanged)
"""
WITHOUT = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0].startswith({names!r}):
            raise ModuleNotFoundError(f"{{name}} is not installed here", name=name)

sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: building leaves folders behind."""
    copy = tmp_path_factory.mktemp("build") / "repository"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, copy)
    for name in ("sync_pipelines", "sync_pipelines_tests", "demo", "deploy", "docs"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip("wheel", "--no-deps", *build_options(), "--wheel-dir", str(copy.parent), str(copy))
    (built,) = copy.parent.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the wheel is installed; what it depends on comes from the environment of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--no-deps", "--target", str(folder), str(wheel))
    return folder


@pytest.fixture
def company(tmp_path: Path) -> Path:
    """The company's repository, and its shop's table."""
    folder = tmp_path / "company"
    (folder / "our_jobs").mkdir(parents=True)
    (folder / "our_jobs" / "our_stock.py").write_text(JOB_FILE, encoding="utf-8")
    (folder / "workspace.yaml").write_text(WORKSPACE, encoding="utf-8")
    with closing(sqlite3.connect(tmp_path / "shop.sqlite")) as shop:
        shop.execute("CREATE TABLE stock (number TEXT PRIMARY KEY, pieces INTEGER NOT NULL)")
    return folder


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = run_child(command)
    assert done.returncode == 0, done.stderr


def build_options() -> list[str]:
    """Without the network where setuptools is here and new enough."""
    try:
        here = int(version("setuptools").partition(".")[0])
    except PackageNotFoundError:
        return []
    return ["--no-build-isolation"] if here >= OLDEST_SETUPTOOLS else []


def environment_of(company: Path, installed: Path) -> dict[str, str]:
    """As in a virtual environment with the wheel: the repository of these tests is on no path."""
    own = {
        "PYTHONPATH": str(installed),
        "SYNC_PIPELINES_JOBS": "our_jobs",
        "SYNC_PIPELINES_DATA_DIR": str(company.parent / "data"),
        "SYNC_PIPELINES_DATABASE_URL": f"sqlite:///{company.parent / 'shop.sqlite'}",
    }
    return clean_environment(installed, own)


def python(code: str, company: Path, environment: Mapping[str, str]) -> str:
    done = run_child([sys.executable, "-c", code], cwd=company, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(company: Path) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(company.parent / "shop.sqlite")) as shop:
        return shop.execute("SELECT number, pieces FROM stock ORDER BY number").fetchall()


def test_the_wheel_holds_the_package_whole_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())

    sources = (REPOSITORY / "sync_pipelines").rglob("*")
    wanted = {str(path.relative_to(REPOSITORY)) for path in sources if path.suffix in {".py", ".mako", ".typed"}}
    assert {"sync_pipelines/py.typed", "sync_pipelines/database/migrations/env.py"} <= wanted
    assert any(name.startswith("sync_pipelines/database/migrations/versions/0001") for name in wanted)
    assert wanted - files == set()
    others = {name for name in files - wanted if ".dist-info/" not in name}
    assert others == set()
    assert any(name.endswith("licenses/LICENSE") for name in files)


def test_one_job_file_and_a_workspace_are_enough_to_sync_through_dagster(company: Path, installed: Path) -> None:
    port = free_port()
    environment = environment_of(company, installed)
    environment["SYNC_PIPELINES_DAGSTER_URL"] = f"http://127.0.0.1:{port}"
    trigger = "from sync_pipelines import trigger_sync; print(trigger_sync('our-stock'))"
    query = """{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {
        ... on RepositoryLocation { repositories { jobs { name } schedules { name } } } } } } } }"""
    with RunningDagster(company, port, environment, company.parent / "dagster.log") as dagster:
        dagster.wait_until_it_answers()
        (location,) = dagster.ask(query)["workspaceOrError"]["locationEntries"]
        statuses = [dagster.wait_for_run(python(trigger, company, environment).strip()) for _ in range(2)]

    (repository,) = location["locationOrLoadError"]["repositories"]
    assert location["name"] == "our_syncs"
    assert {job["name"] for job in repository["jobs"]} >= {"our_stock", "our_stock_items"}
    assert [job["name"] for job in repository["jobs"] if "erp" in job["name"]] == []
    assert [each["name"] for each in repository["schedules"]] == ["our_stock_every_hour"]
    assert statuses == ["SUCCESS", "SUCCESS"]
    assert rows(company) == [("A-1", 5), ("A-2", 0)]
    with closing(sqlite3.connect(company.parent / "data" / "ledger.sqlite")) as ledger:
        counts = ledger.execute("SELECT outcome, count(*) FROM sync_runs GROUP BY outcome").fetchall()
    assert counts == [("clean", 2)]
    kept = {path.name for path in company.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert {"our_stock.py", "workspace.yaml"} <= kept


def test_what_runs_there_is_the_wheel_and_not_this_repository(company: Path, installed: Path) -> None:
    """Else the test above would prove nothing."""
    found = python("import sync_pipelines; print(sync_pipelines.__file__)", company, environment_of(company, installed))

    assert Path(found.strip()) == installed / "sync_pipelines" / "__init__.py"


@pytest.mark.parametrize(
    "names",
    [
        ("dagster", "graphene", "grpc", "starlette", "uvicorn", "psycopg2"),
        ("dagster", "pandas", "psycopg", "httpx", "typer", "rich", "dlt"),
    ],
    ids=["no Dagster", "none of the extras"],
)
def test_run_sync_needs_nothing_of_dagster(names: tuple[str, ...], company: Path, installed: Path) -> None:
    """A core install is enough for those who only call `run_sync`."""
    environment = environment_of(company, installed)
    code = WITHOUT.format(names=names) + RUN_NOW

    assert python(code, company, environment) == "clean 2 0 0\n"
    assert python(code, company, environment) == "clean 0 0 2\n"
    assert rows(company) == [("A-1", 5), ("A-2", 0)]


def test_without_dagster_what_needs_it_says_which_package_is_missing(company: Path, installed: Path) -> None:
    """Also shows that the blocker of the test above blocks."""
    code = WITHOUT.format(names=("dagster",)) + "import sync_pipelines.definitions"
    done = run_child([sys.executable, "-c", code], cwd=company, env=environment_of(company, installed))

    assert done.returncode == 1
    assert done.stderr.strip().endswith("dagster is not installed here")


def test_the_how_to_shows_the_files_that_the_tests_use() -> None:
    told = (REPOSITORY / "docs" / "how-to" / "own-repository.md").read_text(encoding="utf-8")

    assert f"```python\n{JOB_FILE}```" in told
    assert f"```yaml\n{WORKSPACE}```" in told
    assert "SYNC_PIPELINES_JOBS=our_jobs" in told


def test_a_jobs_package_that_is_not_there_is_named(company: Path, installed: Path) -> None:
    environment = {**environment_of(company, installed), "SYNC_PIPELINES_JOBS": "thier_jobs"}
    code = "from sync_pipelines.registry.registry import find_jobs; find_jobs()"
    done = run_child([sys.executable, "-c", code], cwd=company, env=environment)

    assert done.returncode == 1
    assert "the jobs module thier_jobs can't be imported" in done.stderr.replace(os.linesep, "\n")
