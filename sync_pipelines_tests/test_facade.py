"""The package's front door: everything a user needs, and nothing loaded that is not used."""

from __future__ import annotations

import ast
import inspect
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

import sync_pipelines
from sync_pipelines import errors
from sync_pipelines_tests.children import run_child

REPOSITORY = Path(__file__).parents[1]
HEAVY = ("dagster", "sqlalchemy", "pandas", "pyarrow", "alembic", "httpx", "numpy")


def run_code(code: str) -> str:
    """Runs the code in a fresh process and gives what it printed."""
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": os.defpath}
    ran = run_child([sys.executable, "-c", code], env=environment)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sync_pipelines, sys; print([name for name in {HEAVY} if name in sys.modules])"
    assert run_code(code).strip() == "[]"


def test_declaring_a_job_loads_nothing_heavy() -> None:
    """A file that only declares is read in every process that lists the jobs."""
    code = (
        "import sys; from sync_pipelines import SyncJob, sync_intervals, SyncResults, ItemError\n"
        "SyncJob(name='x', fetch_external=list, get_external_id='sku', find_local=id, create=id, update=print,\n"
        "        schedule=sync_intervals.hours(1))\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert run_code(code).strip() == "[]"


def test_nothing_but_triggering_and_definitions_needs_dagster() -> None:
    of_dagster = {"SyncComponent", "sync_definitions", "trigger_sync"}
    names = [name for name in sync_pipelines.__all__ if name not in of_dagster]
    code = (
        "import sync_pipelines, sys\n"
        f"for name in {names}: getattr(sync_pipelines, name)\n"
        "print('dagster' in sys.modules)"
    )
    assert run_code(code).strip() == "False"


def test_running_a_sync_needs_no_dagster(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from sync_pipelines import SyncJob, Settings, run_sync\n"
        "job = SyncJob(name='x', fetch_external=lambda: [{'sku': 'A'}], get_external_id='sku',\n"
        "              find_local=lambda sku: None, create=lambda item: None, update=lambda item, local: None)\n"
        f"print(run_sync(job, settings=Settings(data_dir={str(tmp_path)!r})).created, 'dagster' in sys.modules)"
    )
    assert run_code(code).strip() == "1 False"


def test_the_engine_works_without_dagster_sqlalchemy_and_pandas() -> None:
    """They are blocked, as if they were not installed."""
    code = f"""
import importlib, pkgutil, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {(*HEAVY, "psycopg", "stamina")!r}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Blocked())
import sync_pipelines.engine
for module in pkgutil.iter_modules(sync_pipelines.engine.__path__, "sync_pipelines.engine."):
    importlib.import_module(module.name)
from sync_pipelines.engine.codec import decode, encode
from sync_pipelines.engine.pages import stream_pages
pages = stream_pages(lambda: [[1], [2]] and [[{{"a": 1}}]], iter, lambda: 9)
print(decode(encode([item for page in pages for item in page])))
"""
    assert run_code(code).strip() == "[{'a': 1}]"


@pytest.mark.parametrize("name", sync_pipelines.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(sync_pipelines, name)
    assert value is getattr(sync_pipelines, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert inspect.getdoc(value), f"{name} has no docstring"


def test_the_three_lists_of_public_names_agree() -> None:
    """`__all__` for people and tools, the places for the lazy import, the imports for type checkers."""
    tree = ast.parse(Path(inspect.getfile(sync_pipelines)).read_text(encoding="utf-8"))
    [checked] = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {
        alias.name: str(node.module).removeprefix("sync_pipelines.")
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == sync_pipelines._PLACES
    assert sync_pipelines.__all__ == sorted(sync_pipelines._PLACES)


def test_the_names_of_the_design_are_there() -> None:
    promised = {
        "SyncJob", "run_sync", "sync_single_item", "register_sync_job", "trigger_sync", "schedule_sync_job",
        "sync_intervals", "SyncResults", "SyncError", "SqlTable", "ItemResult", "trigger_item",
    }  # fmt: skip
    assert promised <= set(sync_pipelines.__all__)
    assert promised <= set(dir(sync_pipelines))


def test_every_error_is_exported() -> None:
    """Whoever calls must be able to catch."""
    ours = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert ours <= set(sync_pipelines.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'sync_pipelines' has no attribute 'run_snyc'"):
        sync_pipelines.run_snyc  # noqa: B018 - the access is the test


def error_samples() -> list[Any]:
    samples: list[Any] = []
    for value in vars(errors).values():
        if inspect.isclass(value) and issubclass(value, Exception):
            error = value("what happened")
            for name, told in (
                ("external_id", "A"),
                ("retry_after_s", 3.5),
                ("items_fetched", 7),
                ("results", {"a": 1}),
            ):
                if hasattr(error, name):
                    setattr(error, name, told)
            samples.append(error)
    return samples


@pytest.mark.parametrize("error", error_samples(), ids=lambda error: type(error).__name__)
def test_errors_survive_pickling(error: Exception) -> None:
    """They cross from one process to another."""
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (type(error), str(error))
    assert vars(copy) == vars(error)
    assert isinstance(error, errors.SyncPipelinesError)
