"""A program as a child process: started in a session of its own, stopped with all that it started."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

_STOP_TIMEOUT_S = 20.0
_PR_SET_PDEATHSIG = 1


class Child:
    """A running program.

    Args:
        command: What to start.
        folder: Where to start it.
        environment: Its whole environment.
        log: The file that gets what it prints.
    """

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> None:
        self._command = list(command)
        self._folder = folder
        self._environment = dict(environment)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Starts it without waiting."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal reaches us, and we decide when to stop it
                start_new_session=True,
                preexec_fn=own_signals,  # noqa: PLW1509 - nothing here has threads that hold locks yet
            )
        return self

    def has_ended(self) -> bool:
        """True if it runs no more."""
        return self._process is None or self._process.poll() is not None

    def last_lines(self, count: int = 15) -> str:
        """What it printed last."""
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])

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


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def own_signals() -> None:
    """In the child: a shell that starts us in the background makes SIGINT ignored, and if we die, it must end too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def clean_environment(root: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """Our environment for a child in `root`: with its own `dagster.yaml`, whatever DAGSTER_HOME says elsewhere."""
    kept = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(root), **extra}
