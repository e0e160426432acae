"""A place to work in: a folder with job files of its own, a data folder, and the real command in a process."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import sync_pipelines
from sync_pipelines.cli.app import app
from sync_pipelines.database.ledger import Ledger, RunRow, open_ledger
from sync_pipelines_tests.children import Child

ROOT = Path(sync_pipelines.__file__).resolve().parent.parent

_STOCK = """
    from sync_pipelines import SqlTable, SyncJob, sync_intervals

    def inventory():
        print("the job prints this")
        yield [{"sku": "A-1", "quantity": 5}, {"sku": "A-2", "quantity": 0}]

    JOB = SyncJob(
        name="stock",
        fetch_external=inventory,
        get_external_id="sku",
        target=SqlTable(table="variants", key="sku", columns={"stock": "quantity"}),
        schedule=sync_intervals.hours(1),
        source_asset="erp/stock",
    )
"""


class Place:
    """A repository of a company, with the real command."""

    def __init__(self, root: Path, package: str) -> None:
        self.root = root
        self.package = package
        self.jobs = root / package
        self.repository = ROOT
        self.data = root / "data"
        self.jobs.mkdir()
        self.data.mkdir()
        (self.jobs / "__init__.py").write_text('"""Jobs."""\n')
        self.environment = {"SYNC_PIPELINES_JOBS": package, "SYNC_PIPELINES_DATA_DIR": str(self.data)}

    def write_job(self, name: str, text: str) -> Path:
        path = self.jobs / f"{name}.py"
        path.write_text(textwrap.dedent(text))
        return path

    def write_stock_job(self, started_by: str = "schedule=sync_intervals.hours(1)") -> None:
        """A job into the table `variants`, which is there."""
        self.write_job("stock", _STOCK.replace("schedule=sync_intervals.hours(1)", started_by))
        self.sql("CREATE TABLE variants (sku TEXT PRIMARY KEY, stock INTEGER CHECK (stock >= 0))")

    def sql(self, statement: str) -> list[Any]:
        with closing(sqlite3.connect(self.data / "local.sqlite")) as connection, connection:
            return connection.execute(statement).fetchall()

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        with open_ledger(f"sqlite:///{self.data / 'ledger.sqlite'}") as ledger:
            yield ledger

    def runs(self, job: str = "stock") -> list[RunRow]:
        with self.ledger() as ledger:
            return ledger.latest_runs(job)

    def start(self, *arguments: str, program: Sequence[str] = ("-m", "sync_pipelines.cli"), **options: Any) -> Child:
        """Starts the command in a process of its own; both streams are pipes unless said otherwise."""
        known = ("SYNC_PIPELINES_", "PYTHONPATH", "NO_COLOR", "COLUMNS")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(known)}
        given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return Child(
            [sys.executable, *program, *arguments],
            cwd=self.root,
            env={**inherited, "PYTHONPATH": str(ROOT), **self.environment},
            **given,
        )

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs the command to its end."""
        options = {} if stdin is None else {"stdin": subprocess.PIPE}
        with self.start(*arguments, **options) as process:
            stdout, stderr = process.finish(stdin)
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)

    def wait_for(self, name: str, process: Child) -> None:
        """Waits until a job of that process has made this file."""
        process.wait_until((self.root / name).exists, f"{name} was not made")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty place; its package has a name of its own, because a process imports a name only once."""
    return Place(tmp_path, f"jobs_{uuid.uuid4().hex}")


@pytest.fixture
def invoke(place: Place, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Calls a command in this process, in that place."""
    for name in [name for name in os.environ if name.startswith("SYNC_PIPELINES_")]:
        monkeypatch.delenv(name)
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(place.root)
    monkeypatch.syspath_prepend(place.root)
    runner = CliRunner()
    return lambda *arguments, stdin=None: runner.invoke(app, arguments, input=stdin)


@pytest.fixture
def document(invoke: Callable[..., Result]) -> Callable[..., Any]:
    """Calls a command that must succeed with `--json`, and gives its document."""

    def call(*arguments: str, exit_code: int = 0) -> Any:
        result = invoke(*arguments, "--json")
        assert result.exit_code == exit_code, result.output
        return json.loads(result.stdout)

    return call
