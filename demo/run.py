"""`make demo`: a real ERP, two syncs through Dagster, their results, and Dagster's UI until Ctrl-C.

python -m demo.run            # serves the UI until Ctrl-C or TERM
python -m demo.run --once     # ends after the runs; exit code 0 if all of them are clean or partial
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from rich import box
from rich.console import Console
from rich.table import Table

from demo.child import clean_environment
from demo.dagster_server import RunningDagster
from demo.erp import RunningErp, free_port, is_taken, set_up
from demo.shop import create_tables
from demo.webhooks import SECRET_VARIABLE, RunningReceiver, new_secret
from sync_pipelines import SyncResults, trigger_sync
from sync_pipelines.errors import SyncPipelinesError
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.runs.results import results_of_run
from sync_pipelines.settings.model import Settings

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".demo"
_NOTE = FOLDER / "running.json"
SYNCS = ("erp-products", "erp-inventory")
DEFAULT_PORT = 3000
_ALWAYS_SHOWN = ("fetched", "created", "updated", "unchanged", "failed")
_ERRORS_SHOWN = 3

console = Console(width=None if sys.stdout.isatty() else 110)


class DemoError(Exception):
    """Something that the person who started the demo can mend; one line."""


class Stopped(BaseException):
    """TERM arrived."""


def main() -> int:
    """Runs the demo. Gives the exit code."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with _only_one():
            return _demo(arguments.port, once=arguments.once)
    except (KeyboardInterrupt, Stopped):
        console.print("\nStopped.")
        return 0
    except (DemoError, RuntimeError, SyncPipelinesError) as error:
        console.print(f"[bold red]The demo can't go on:[/] {error}", highlight=False)
        return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A real ERP synced into a local database, seen in Dagster.")
    parser.add_argument("--once", action="store_true", help="end after the runs instead of serving the UI")
    parser.add_argument(
        "--port", type=int, default=int(os.environ.get("PORT", DEFAULT_PORT)), help="port of Dagster's UI [3000]"
    )
    return parser.parse_args()


def _demo(port: int, *, once: bool) -> int:
    if is_taken(port):
        raise DemoError(f"port {port} is in use by another program; choose another one: make demo PORT={port + 1}")
    erp_port = free_port()
    settings = Settings(data_dir=ROOT / ".sync_pipelines", dagster_url=f"http://127.0.0.1:{port}")
    create_tables(settings.local_url())
    began_s = time.monotonic()
    console.print("Setting up a real ERP (Tryton) with products, prices and stock in two warehouses ...")
    set_up(FOLDER)
    with RunningErp(FOLDER, erp_port) as erp:
        secret = new_secret()
        ours = {"SYNC_PIPELINES_DATA_DIR": str(settings.data_dir), SECRET_VARIABLE: secret}
        environment = clean_environment(ROOT, {**erp.environment(), **ours})
        console.print(f"The ERP answers at {erp.url} after {time.monotonic() - began_s:.0f} s. Starting Dagster ...")
        receiver = RunningReceiver(ROOT, free_port(), environment, FOLDER / "receiver.log")
        with RunningDagster(ROOT, port, environment, FOLDER / "dagster.log") as dagster, receiver:
            receiver.wait_until_it_answers()
            dagster.wait_until_it_answers()
            with _announced(Running(erp_port, port, f"{receiver.url}/webhooks/erp-products", secret)):
                results = [_run_through_dagster(dagster, name, settings) for name in SYNCS]
                console.print(_table(results))
                _tell_what_failed(results)
                if not once:
                    _serve(dagster.url, receiver.url)
    return 0 if all(each.outcome in {"clean", "partial"} for each in results) else 1


def _run_through_dagster(dagster: RunningDagster, name: str, settings: Settings) -> SyncResults:
    console.print(f"Running {name} through Dagster ...")
    run_id = trigger_sync(name, settings=settings)
    status = dagster.wait_for_run(run_id)
    with open_workspace(settings) as workspace:
        run = workspace.ledger.run_of_dagster(run_id)
        if run is None:
            raise DemoError(f"{name} ended with {status} before it began: see {dagster.url}/runs/{run_id}")
        return results_of_run(workspace, run.id)


def _table(results: list[SyncResults]) -> Table:
    counts = [each.counts() for each in results]
    shown = [name for name in counts[0] if name in _ALWAYS_SHOWN or any(each[name] for each in counts)]
    table = Table(title="What the syncs did", title_justify="left", box=box.SIMPLE_HEAVY)
    table.add_column("sync", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    for name in (*shown, "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for each, numbers in zip(results, counts, strict=True):
        seconds = sum(each.phase_ms.values()) / 1000
        table.add_row(each.name, each.outcome, *(f"{numbers[name]:,}" for name in shown), f"{seconds:.1f}")
    return table


def _tell_what_failed(results: list[SyncResults]) -> None:
    for each in results:
        if each.failure:
            console.print(f"  {each.name}: {each.failure}", highlight=False, markup=False)
        for error in each.errors[:_ERRORS_SHOWN]:
            console.print(f"  {each.name}: item {error.position}: {error.message}", highlight=False, markup=False)


def _serve(url: str, receiver: str) -> None:
    console.print(f"\nDagster's UI: [bold]{url}[/]   (asset lineage: {url}/asset-groups)")
    console.print(f"Webhooks come in at {receiver}/webhooks/erp-products")
    console.print("Change the ERP from another terminal with `make demo-change`, then run a sync again. Ctrl-C stops.")
    while True:
        signal.pause()


@contextlib.contextmanager
def _only_one() -> Iterator[None]:
    """Refuses a second demo beside the first."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DemoError(f"it is running already{_told(lock)}; use that one, or stop it first") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def is_running() -> bool:
    """True while a demo runs; one that was killed counts no more, whatever files it left."""
    try:
        with (FOLDER / "lock").open("r", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _told(lock: IO[str]) -> str:
    lock.seek(0)
    pid = lock.read().strip()
    return f" (process {pid})" if pid else ""


@dataclass(frozen=True)
class Running:
    """What `make demo-change` needs to know of the demo that runs.

    Args:
        erp_port: Of the ERP.
        dagster_port: Of Dagster's UI.
        webhook: URL of the webhook that the ERP calls.
        secret: What it signs with.
    """

    erp_port: int
    dagster_port: int
    webhook: str
    secret: str


def what_runs() -> Running | None:
    """The demo that runs, if one does and has come so far."""
    if not is_running():
        return None
    try:
        return Running(**json.loads(_NOTE.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _announced(running: Running) -> Iterator[None]:
    """Leaves a note for `make demo-change`, which only we may read, while the demo runs."""
    _NOTE.unlink(missing_ok=True)
    with os.fdopen(os.open(_NOTE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as note:
        json.dump(asdict(running), note)
    try:
        yield
    finally:
        _NOTE.unlink(missing_ok=True)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise Stopped


if __name__ == "__main__":
    sys.exit(main())
