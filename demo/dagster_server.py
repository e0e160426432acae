"""`dagster dev` as a child process: started on a free port, waited for, stopped with all that it started."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from demo.child import Child

_START_TIMEOUT_S = 120.0
_LOOK_EVERY_S = 0.2


class RunningDagster(Child):
    """Dagster's web server and daemon for a folder with `workspace.yaml` and `dagster.yaml`.

    Args:
        folder: Where to start it.
        port: A free port of 127.0.0.1.
        environment: Its whole environment.
        log: The file that gets what it prints.
    """

    def __init__(self, folder: Path, port: int, environment: Mapping[str, str], log: Path) -> None:
        command = [sys.executable, "-m", "dagster", "dev", "--host", "127.0.0.1", "--port", str(port)]
        super().__init__([*command, "--workspace", "workspace.yaml"], folder, environment, log)
        self._port = port
        self.url = f"http://127.0.0.1:{port}"

    def wait_until_it_answers(self) -> None:
        """Waits until the web server has loaded the code location.

        Raises:
            RuntimeError: It ended, did not answer in two minutes, or could not load the syncs.
        """
        until = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < until:
            if self.has_ended():
                raise RuntimeError(f"Dagster ended at once; its last words, in {self._log}:\n{self.last_lines()}")
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
