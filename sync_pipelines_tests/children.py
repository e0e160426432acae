"""Child processes of the tests: no wait is without end, what a child said is in the message, and none outlives us."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import subprocess
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NoReturn

import psutil

PATIENCE_S = 120.0
"""How long a child may take for what takes seconds on a machine that nobody else uses."""
_LAST_WORDS_S = 10.0
_MARK = "TESTS_THAT_STARTED_THIS"
"""A variable that tells what our children started, and left behind, from the processes of others."""
_running: weakref.WeakSet[Child] = weakref.WeakSet()


class Child(subprocess.Popen[str]):
    """A program in a session of its own, which ends with the block, or with the test that started it.

    Args:
        command: What to start.
        log: A file that gets what it says, but for what is a pipe.
        options: Of `subprocess.Popen`.
    """

    def __init__(self, command: Sequence[Any], *, log: Path | None = None, **options: Any) -> None:
        self._log = log
        given = {"text": True, "encoding": "utf-8", "start_new_session": True, **options}
        if log is None:
            super().__init__(command, **given)
        else:
            with log.open("ab") as file:
                super().__init__(command, **{"stdout": file, "stderr": file, **given})
        _running.add(self)

    def __exit__(self, *error: object) -> None:
        """Ends it if it still runs."""
        self.end()
        super().__exit__(*error)

    def read_line(self, timeout_s: float = PATIENCE_S) -> str:
        """Returns its next line on stdout, or the empty text if there is none because it has ended."""
        assert self.stdout is not None
        until_s = time.monotonic() + timeout_s
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([self.stdout], [], [], max(until_s - time.monotonic(), 0))[0]:
                self.fail(f"said no line within {timeout_s:.0f} s", line.decode())
            byte = os.read(self.stdout.fileno(), 1)  # no more, so that `finish` still gets the rest
            if not byte:
                break
            line += byte
        return line.decode()

    def finish(self, given: str | None = None, timeout_s: float = PATIENCE_S) -> tuple[str, str]:
        """Waits for its end and returns what it said on stdout and stderr; empty for what is no pipe."""
        try:
            out, err = self.communicate(given, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.fail(f"did not end within {timeout_s:.0f} s")
        return out or "", err or ""

    def wait_until(self, condition: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> None:
        """Waits for a trace of what it does; no longer than it lives."""
        until_s = time.monotonic() + timeout_s
        while not condition():
            if self.poll() is not None and not condition():
                self.fail(f"ended with {self.returncode}, and {what}")
            if time.monotonic() > until_s:
                self.fail(f"took {timeout_s:.0f} s, and {what}")
            time.sleep(0.02)

    def end(self) -> None:
        """Ends it and its process group: first as Ctrl-C does, so that it ends what it started, then by force."""
        if self.poll() is None:
            self._signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self.wait(_LAST_WORDS_S)
            self._signal(signal.SIGKILL)
            self.wait(_LAST_WORDS_S)

    def fail(self, what: str, begun: str = "") -> NoReturn:
        """Ends it and raises an assertion that has what it said."""
        self.end()
        try:
            out, err = self.communicate(timeout=_LAST_WORDS_S)
        except subprocess.TimeoutExpired as still_open:  # by a process that it has left behind
            out, err = repr(still_open.stdout), repr(still_open.stderr)
        if self._log is not None:
            err = self._log.read_text(encoding="utf-8", errors="replace")
        raise AssertionError(f"{self.args} {what}.\n--- stdout ---\n{begun}{out or ''}\n--- stderr ---\n{err or ''}")

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):  # macOS does not permit to signal a zombie's group
            os.killpg(self.pid, number)


def run_child(
    command: Sequence[Any],
    given: str | None = None,
    *,
    timeout_s: float = PATIENCE_S,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end and returns what it said.

    Args:
        command: What to start.
        given: What it gets on stdin.
        timeout_s: When it must have ended.
        check: Whether to demand that it ends well.
        options: Of `subprocess.Popen`.
    """
    pipes = {"stdin": subprocess.DEVNULL if given is None else subprocess.PIPE, "stdout": subprocess.PIPE}
    with Child(command, **{**pipes, "stderr": subprocess.PIPE, **options}) as child:
        out, err = child.finish(given, timeout_s)
    assert child.returncode == 0 or not check, f"{command} ended with {child.returncode}:\n{out}\n{err}"
    return subprocess.CompletedProcess(command, child.returncode, out, err)


# Processes forked from a warm one

_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(
    [f"sync_pipelines_tests.runner.{each}" for each in ("bulk_child", "crash_child", "drain_child", "failing_child")]
    + [f"sync_pipelines_tests.runner.{each}" for each in ("instants", "soft_child")]
)


def fork(function: Callable[..., object], *given: Any) -> ForkServerProcess:
    """Starts the function in a process that has loaded what such functions need; its words go to our stderr."""
    process = _FORKED.Process(target=function, args=given, daemon=True)
    process.start()
    return process


def exit_code(process: ForkServerProcess, timeout_s: float = PATIENCE_S) -> int:
    """Waits for the end of a forked process and returns its exit code, which is negative after a signal."""
    process.join(timeout_s)
    if process.exitcode is None:
        process.kill()
        process.join(_LAST_WORDS_S)
        raise AssertionError(f"{process.name} did not end within {timeout_s:.0f} s; what it said is in our stderr")
    return process.exitcode


# Nobody outlives us


@contextmanager
def ended_with_the_test() -> Iterator[None]:
    """Ends, after the block, the children that were started in it."""
    before = set(_running)
    try:
        yield
    finally:
        for child in set(_running) - before:
            child.end()


@contextmanager
def none_left_behind() -> Iterator[None]:
    """Fails if a process of the block still runs after it, whoever started it, and ends it.

    It need not be a child: a server that makes itself independent is told by its environment.
    """
    before = os.environ.get(_MARK, "")
    mark = uuid.uuid4().hex
    os.environ[_MARK] = f"{before} {mark}"
    others = set(psutil.Process().children(recursive=True))
    try:
        yield
    finally:
        os.environ[_MARK] = before
        _, left = psutil.wait_procs(_started_under(mark) - others, timeout=_LAST_WORDS_S)
        told = [_told(process) for process in left]
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    if told:
        raise AssertionError("\n".join(["the tests left these processes behind:", *told]))


def _started_under(mark: str) -> set[psutil.Process]:
    ours = psutil.Process()
    found = {*ours.children(recursive=True), *(each for each in psutil.process_iter() if mark in _marks_of(each))}
    return {process for process in found - {ours} if not _serves_us(process, ours.pid)}


def _marks_of(process: psutil.Process) -> str:
    try:
        return process.environ().get(_MARK, "")
    except psutil.Error:
        return ""


def _serves_us(process: psutil.Process, pid: int) -> bool:
    """True for the helpers of `multiprocessing`, which end with us."""
    try:
        return process.ppid() == pid and any("from multiprocessing." in word for word in process.cmdline())
    except psutil.Error:
        return False


def _told(process: psutil.Process) -> str:
    try:
        return f"{process.pid} ({process.status()}): {' '.join(process.cmdline())}"
    except psutil.Error as error:
        return str(error)
