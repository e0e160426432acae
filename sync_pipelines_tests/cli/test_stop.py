"""Ctrl-C and TERM: a run stops cleanly, the ledger says so, and the next run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

from sync_pipelines.cli.stop_signals import Stopped, stop_on_signals
from sync_pipelines_tests.children import Child

SLOW = """
    import asyncio, time
    from pathlib import Path
    from sync_pipelines import SyncJob

    shop, hang = Path("shop"), Path("hang")
    shop.mkdir(exist_ok=True)

    def dawdle(where):
        if hang.exists() and hang.read_text() == where:
            Path("hangs").touch()
            return True
        return False

    def fetch():
        for number in range(100):
            yield {"id": str(number)}
        if dawdle("fetch"):
            time.sleep(60)

    async def fetch_async():
        yield [{"id": str(number)} for number in range(100)]
        if dawdle("async fetch"):
            await asyncio.sleep(60)

    def create(item):
        if item["id"] == "50" and dawdle("create"):
            time.sleep(60)
        with (shop / item["id"]).open("x"):
            pass

    async def create_async(item):
        if item["id"] == "50" and dawdle("async create"):
            await asyncio.sleep(60)
        (shop / item["id"]).touch()

    def find(external_id):
        return external_id if (shop / external_id).exists() else None

    FIELDS = {"get_external_id": "id", "find_local": find, "update": max, "has_changed": lambda item, local: False}
    JOB = SyncJob(name="slow", fetch_external=fetch, create=create, **FIELDS)
    ASYNC = SyncJob(name="slow-async", fetch_external=fetch_async, create=create_async, **FIELDS)
"""


def start_hanging(place: Any, where: str, job: str, *options: str) -> Child:
    place.write_job("slow", SLOW)
    (place.root / "hang").write_text(where)
    # a shell may have the tests ignore Ctrl-C, which a child would inherit
    process: Child = place.start("run", job, *options, preexec_fn=_heed_signals)
    place.wait_for("hangs", process)
    return process


def _heed_signals() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("where", "job", "number", "phase"),
    [
        ("fetch", "slow", signal.SIGINT, "fetch"),
        ("create", "slow", signal.SIGTERM, "apply"),
        ("async fetch", "slow-async", signal.SIGTERM, "fetch"),
        ("async create", "slow-async", signal.SIGINT, "apply"),
    ],
)
def test_a_stopped_run_is_noted_and_the_next_one_goes_on(
    place: Any, where: str, job: str, number: signal.Signals, phase: str
) -> None:
    process = start_hanging(place, where, job)
    process.send_signal(number)
    stdout, stderr = process.finish(timeout_s=15)
    assert (process.returncode, stdout) == (128 + number, "")
    cause = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert stderr.splitlines()[-1] == (
        f"stopped by {cause}. What {job} had applied stays; run it again to go on from a consistent state."
    )
    assert "Traceback" not in stderr
    (run,) = place.runs(job)
    assert (run.outcome, run.failure) == ("failed", f"{phase}: interrupted")
    written = len(list((place.root / "shop").iterdir()))
    assert written == (50 if phase == "apply" else 0)

    (place.root / "hang").unlink()
    done = place.run("run", job)
    assert done.returncode == 0, done.stderr
    again = place.runs(job)[0].counts
    assert (again["created"], again["unchanged"]) == (100 - written, written)
    assert len(list((place.root / "shop").iterdir())) == 100


def test_a_stopped_run_with_json_leaves_stdout_empty(place: Any) -> None:
    process = start_hanging(place, "fetch", "slow", "--json")
    process.send_signal(signal.SIGINT)
    stdout, _ = process.finish(timeout_s=15)
    assert (process.returncode, stdout) == (130, "")


def test_a_second_run_says_that_one_is_under_way_or_waits_for_it(place: Any) -> None:
    first = start_hanging(place, "fetch", "slow")
    (place.root / "hang").unlink()
    refused = place.run("run", "slow")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("error: slow: another run of this sync is under way")
    with place.start("run", "slow", "--wait", "30") as waiting:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=2)
        first.send_signal(signal.SIGTERM)
        first.finish(timeout_s=15)
        stdout, _ = waiting.finish(timeout_s=15)
    assert stdout.startswith("slow: clean: 100 fetched = 100 created")


def test_a_job_that_swallows_the_first_signal_ends_at_the_second(place: Any) -> None:
    place.write_job(
        "stubborn",
        """
        import time
        from pathlib import Path
        from sync_pipelines import SyncJob

        def fetch():
            try:
                Path("hangs").touch()
                time.sleep(60)
            finally:
                Path("swallowed").touch()
                time.sleep(60)

        FIELDS = {"get_external_id": "id", "find_local": str, "create": str, "update": max}
        JOB = SyncJob(name="stubborn", fetch_external=fetch, **FIELDS)
        """,
    )
    process = place.start("run", "stubborn", preexec_fn=_heed_signals)
    place.wait_for("hangs", process)
    process.send_signal(signal.SIGINT)
    place.wait_for("swallowed", process)
    time.sleep(1.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.finish(timeout_s=15)
    assert process.returncode == -signal.SIGINT
    assert "stopping; once more stops at once" in stderr


def test_other_commands_stop_with_the_same_codes(place: Any) -> None:
    place.write_job("waiting", "import time, pathlib\npathlib.Path('hangs').touch()\ntime.sleep(60)\n")
    process = place.start("list", preexec_fn=_heed_signals)
    place.wait_for("hangs", process)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.finish(timeout_s=15)
    assert process.returncode == 143
    assert stderr.splitlines()[-1] == "stopped by SIGTERM."


def test_handlers_are_put_back_and_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    interrupt = signal.default_int_handler
    at_start = signal.signal(signal.SIGINT, interrupt)  # a job in the background of a shell ignores it
    try:
        with stop_on_signals():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGINT) is not interrupt
        assert signal.getsignal(signal.SIGINT) is interrupt
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, at_start)


def test_a_signal_raises_in_the_main_thread() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(Stopped) as stopped, stop_on_signals():
            os.kill(os.getpid(), signal.SIGTERM)
        assert (stopped.value.exit_code, stopped.value.cause) == (143, "SIGTERM")
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_same_ctrl_c_sent_twice_is_one_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal and a wrapper such as `make` may both send it."""
    monkeypatch.setattr("sync_pipelines.cli.stop_signals.time.monotonic", lambda: 7.0)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with stop_on_signals():
            with pytest.raises(Stopped):
                os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_commands_work_outside_the_main_thread(place: Any, invoke: Callable[..., Result]) -> None:
    """Only the main thread may set signal handlers; elsewhere there are none, and no error."""
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(invoke("runs").exit_code))
    thread.start()
    thread.join()
    assert codes == [0]
