"""What waits for a child process ends, says what the child said, and leaves none behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sync_pipelines_tests.children import Child, ended_with_the_test, exit_code, fork, none_left_behind, run_child

SLEEPS = "import sys, time; print('half a line', end='', flush=True); print('oh', file=sys.stderr); time.sleep(600)"
LEAVES = """
import subprocess, sys
left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True,
                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(left.pid)
left.returncode = 0
"""
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


def test_a_line_that_does_not_come_is_told_with_what_came() -> None:
    child = Child([sys.executable, "-c", SLEEPS], **PIPES)
    with pytest.raises(AssertionError, match=r"said no line within 2 s(.|\n)*half a line\n--- stderr ---\noh"):
        child.read_line(timeout_s=2)
    assert child.returncode is not None


def test_an_end_that_does_not_come_is_told_with_what_came(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"did not end within 2 s(.|\n)*half a line\n--- stderr ---\noh"):
        run_child([sys.executable, "-c", SLEEPS], timeout_s=2)
    child = Child([sys.executable, "-c", SLEEPS], log=tmp_path / "log")
    with pytest.raises(AssertionError, match=r"took 2 s, and it is late(.|\n)*half a line"):
        child.wait_until(lambda: False, "it is late", timeout_s=2)


def test_a_child_that_ends_too_early_is_not_waited_for() -> None:
    child = Child([sys.executable, "-c", "print('bye')"], **PIPES)
    with pytest.raises(AssertionError, match=r"ended with 0, and it did nothing(.|\n)*bye"):
        child.wait_until(lambda: False, "it did nothing")


def test_what_is_left_after_a_line_is_there_as_well() -> None:
    with Child([sys.executable, "-c", "print('one'); print('two')"], **PIPES) as child:
        assert child.read_line() == "one\n"
        assert child.finish() == ("two\n", "")


def test_a_child_ends_with_its_test() -> None:
    with ended_with_the_test():
        child = Child([sys.executable, "-c", SLEEPS])
    assert child.poll() is not None


def test_a_fork_that_hangs_is_ended() -> None:
    process = fork(input_that_never_comes)
    with pytest.raises(AssertionError, match="did not end within 1 s"):
        exit_code(process, timeout_s=1)
    assert process.exitcode is not None


def input_that_never_comes() -> None:
    import time

    time.sleep(600)


def test_a_process_that_a_child_leaves_behind_is_found_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync_pipelines_tests.children._LAST_WORDS_S", 0.1)
    with pytest.raises(AssertionError, match="left these processes behind") as told, none_left_behind():
        pid = int(run_child([sys.executable, "-c", LEAVES]).stdout)
    assert f"\n{pid} (" in str(told.value)
    psutil.wait_procs([process for process in psutil.process_iter() if process.pid == pid], timeout=10)
    assert not psutil.pid_exists(pid)
