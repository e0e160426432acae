"""`dagster dev` as a child process: started on a free port, waited for, stopped with all that it started."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil

_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 20.0
_LOOK_EVERY_S = 0.2
_PR_SET_PDEATHSIG = 1


class RunningDagster:
    """Dagster's web server and daemon for a folder with `workspace.yaml` and `dagster.yaml`.

    Args:
        folder: Where to start it.
        port: A free port of 127.0.0.1.
        environment: Its whole environment.
        log: The file that gets what it prints.
    """

    def __init__(self, folder: Path, port: int, environment: Mapping[str, str], log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._folder = folder
        self._port = port
        self._environment = dict(environment)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Starts it without waiting; see `wait_until_it_answers`."""
        command = [sys.executable, "-m", "dagster", "dev", "--host", "127.0.0.1", "--port", str(self._port)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--workspace", "workspace.yaml"],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal reaches us, and we decide when to stop it
                start_new_session=True,
                preexec_fn=_own_signals,  # noqa: PLW1509 - nothing here has threads that hold locks yet
            )
        return self

    def wait_until_it_answers(self) -> None:
        """Waits until the web server has loaded the code location.

        Raises:
            RuntimeError: It ended, did not answer in two minutes, or could not load the syncs.
        """
        until = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < until:
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"Dagster ended at once; its last words, in {self._log}:\n{self._last_lines()}")
            problem = self._problem()
            if problem == "":
                return
            if problem is not None:
                raise RuntimeError(f"Dagster can't load the syncs: {problem}")
            time.sleep(_LOOK_EVERY_S)
        raise RuntimeError(f"Dagster did not answer in {_START_TIMEOUT_S:g} s; see {self._log}")

    def run_status(self, run_id: str) -> str:
        """The status of a run as Dagster names it, e.g. `QUEUED`, `STARTED`, `SUCCESS`, `FAILURE`."""
        query = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
        found = self.ask(query, {"id": run_id})
        return str(found["runOrError"].get("status", "UNKNOWN"))

    def wait_for_run(self, run_id: str, timeout_s: float = 180.0) -> str:
        """Waits until the run has ended and gives its status, `SUCCESS`, `FAILURE` or `CANCELED`.

        Raises:
            RuntimeError: It did not end in time.
        """
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            status = self.run_status(run_id)
            if status in {"SUCCESS", "FAILURE", "CANCELED"}:
                return status
            time.sleep(_LOOK_EVERY_S)
        raise RuntimeError(f"the run {run_id} took longer than {timeout_s:g} s; see {self._log}")

    def ask(self, query: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Asks Dagster's GraphQL interface and gives the `data` of its answer."""
        body = {"query": query, "variables": dict(variables or {})}
        answer = httpx.post(f"{self.url}/graphql", json=body, timeout=60, trust_env=False).json()
        if answer.get("errors"):
            raise RuntimeError(f"Dagster refused: {answer['errors'][0]['message']}")
        data: dict[str, Any] = answer["data"]
        return data

    def _problem(self) -> str | None:
        """Empty when it is ready, None when it is not there yet, else what is wrong."""
        query = (
            "{ workspaceOrError { ... on Workspace { locationEntries "
            "{ locationOrLoadError { __typename ... on PythonError { message } } } } } }"
        )
        try:
            entries = self.ask(query)["workspaceOrError"]["locationEntries"]
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return None
        loaded = [entry["locationOrLoadError"] for entry in entries]
        if not loaded or None in loaded:
            return None
        return next((str(each["message"]) for each in loaded if each["__typename"] == "PythonError"), "")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stops it and every process it started, first kindly."""
        process, self._process = self._process, None
        if process is None:
            return
        family = _family(process.pid)
        process.send_signal(signal.SIGINT)
        _, alive = psutil.wait_procs(family, timeout=_STOP_TIMEOUT_S)
        for each in alive:
            each.kill()
        process.wait()

    def _last_lines(self, count: int = 15) -> str:
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _own_signals() -> None:
    """In the child: a shell that starts us in the background makes SIGINT ignored, and if we die, it must end too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def clean_environment(root: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """Our environment for Dagster in `root`: with its own `dagster.yaml`, whatever DAGSTER_HOME says elsewhere."""
    kept = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(root), **extra}
