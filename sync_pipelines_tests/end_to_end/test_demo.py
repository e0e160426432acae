"""`make demo` as a newcomer meets it, in a copy of the repository."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from demo.erp import free_port
from sync_pipelines_tests.children import Child, run_child

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def copy(seeded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's own files, with an ERP that is set up already."""
    home = tmp_path_factory.mktemp("clone") / "repository"
    for name in ("sync_pipelines", "demo"):
        shutil.copytree(REPOSITORY / name, home / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("workspace.yaml", "dagster.yaml"):
        shutil.copy(REPOSITORY / name, home)
    shutil.copytree(seeded, home / ".demo")
    return home


def command(home: Path, module: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER", "SYNC_"))}
    return [sys.executable, "-m", module, *arguments], {**environment, "PYTHONPATH": str(home)}


def call(home: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    line, environment = command(home, module, *arguments)
    return run_child(line, timeout_s=300, cwd=home, env=environment)


@contextmanager
def running_demo(home: Path, port: int) -> Iterator[Child]:
    line, environment = command(home, "demo.run", "--port", str(port))
    log = home / "demo.out"
    log.unlink(missing_ok=True)
    with Child(line, cwd=home, env=environment, log=log) as process:
        process.wait_until(
            lambda: "Ctrl-C stops" in log.read_text(encoding="utf-8"), "does not say how to stop it", 300
        )
        yield process


@pytest.mark.soak
def test_the_headless_demo_prints_results_and_the_second_one_changes_nothing(copy: Path) -> None:
    first = call(copy, "demo.run", "--once", "--port", str(free_port()))
    second = call(copy, "demo.run", "--once", "--port", str(free_port()))

    assert first.returncode == 0, first.stdout + first.stderr
    assert second.returncode == 0, second.stdout + second.stderr
    for name in ("erp-products", "erp-inventory"):
        (line,) = [line for line in second.stdout.splitlines() if line.strip().startswith(name)]
        outcome, fetched, created, updated, unchanged, failed = line.split()[1:7]
        assert (outcome, created, updated, failed) == ("clean", "0", "0", "0")
        assert fetched == unchanged
        assert int(fetched) >= 200
    assert "Warning" not in first.stdout + first.stderr


@pytest.mark.soak
def test_it_serves_until_term_and_leaves_no_process_behind(copy: Path) -> None:
    """A second start beside it, and changes in the ERP, are one clear line each."""
    port = free_port()
    with running_demo(copy, port) as process:
        family = psutil.Process(process.pid).children(recursive=True)
        beside = call(copy, "demo.run", "--once", "--port", str(free_port()))
        changed = call(copy, "demo.change")
        became = applied_deliveries(copy)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0

    _, alive = psutil.wait_procs(family, timeout=10)
    assert len(family) >= 3
    assert alive == []
    assert beside.returncode == 1
    assert beside.stdout.strip().startswith(f"The demo can't go on: it is running already (process {process.pid})")
    assert "Traceback" not in beside.stdout + beside.stderr
    assert changed.returncode == 0, changed.stdout
    assert "stock moves" in changed.stdout
    assert "10 answered 202" in changed.stdout
    assert became == {"created": 3, "updated": 7}  # the ERP's webhooks, through the sensor and the drain


def applied_deliveries(copy: Path) -> dict[str, int]:
    """What became of the deliveries once none of them waits any more."""
    until = time.monotonic() + 90
    query = "SELECT state, action, count(*) FROM sync_inbox GROUP BY state, action"
    while True:
        with closing(sqlite3.connect(copy / ".sync_pipelines" / "ledger.sqlite", timeout=30)) as ledger:
            found = ledger.execute(query).fetchall()
        if found and all(state != "waiting" for state, _, _ in found):
            return {action: count for _, action, count in found}
        assert time.monotonic() < until, found
        time.sleep(0.5)


@pytest.mark.soak
def test_everything_ends_when_the_demo_itself_is_killed(copy: Path) -> None:
    with running_demo(copy, free_port()) as process:
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait(10)
        _, alive = psutil.wait_procs(family, timeout=60)

    assert alive == []


def test_a_taken_port_is_one_clear_line(copy: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = call(copy, "demo.run", "--once", "--port", str(port))

    assert refused.returncode == 1
    told = " ".join(refused.stdout.split())
    assert told == (
        f"The demo can't go on: port {port} is in use by another program; choose another one: make demo PORT={port + 1}"
    )
    assert refused.stderr == ""


def test_a_change_without_a_demo_says_what_to_do(copy: Path) -> None:
    refused = call(copy, "demo.change")

    assert refused.returncode == 1
    assert refused.stdout.strip() == "No demo is running; start it in another terminal with `make demo`."
