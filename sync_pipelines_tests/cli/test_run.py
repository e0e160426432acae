"""`run`: results on stdout, the log on stderr, exit codes, what a terminal shows."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import termios
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

from sync_pipelines.engine.results import SyncResults

Invoke = Callable[..., Result]
Document = Callable[..., Any]

_STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
MANY = """
    import time
    from sync_pipelines import SyncJob

    shop = {}

    def fetch():
        for number in range(3000):
            if number % 1000 == 0:
                time.sleep(0.25)
            yield {"id": number}

    def create(item):
        if item["id"] % 1000 == 0:
            time.sleep(0.25)
        if item["id"] == 807:
            raise ValueError("seven \\x1b[31mis\\x1b[0m odd")
        shop[str(item["id"])] = item

    JOB = SyncJob(
        name="many", fetch_external=fetch, get_external_id="id", find_local=shop.get, create=create, update=max
    )
"""


def on_a_terminal(place: Any, *arguments: str) -> tuple[int, str]:
    """Runs the command on a terminal of 100 columns; gives its exit code and what the terminal was sent."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    place.environment["TERM"] = "xterm"
    process = place.start(*arguments, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    sent = b""
    try:
        while chunk := os.read(ours, 65_536):
            sent += chunk
    except OSError:  # how Linux says that nobody holds the other end any more
        pass
    finally:
        os.close(ours)
    process.finish()
    return process.returncode, sent.decode()


def test_a_clean_run_ends_with_0_and_keeps_the_streams_apart(place: Any) -> None:
    place.write_stock_job()
    done = place.run("run", "stock")
    assert done.returncode == 0
    assert re.fullmatch(r"stock: clean: 2 fetched = 2 created in \d+\.\d s\n", done.stdout)
    run = place.runs()[0]
    assert [line for line in done.stderr.splitlines() if line != "the job prints this"] == [
        "fetch: asking the source of stock",
        "fetch: 2 items",
        "diff: 2 to write, 0 unchanged, 0 skipped, 0 duplicates, 0 failed",
        "apply: writing 2 records",
        f"all about this run: sync-pipelines show {run.id[:8]}",
    ]
    assert place.sql("SELECT * FROM variants ORDER BY sku") == [("A-1", 5), ("A-2", 0)]


def test_a_run_with_failed_items_ends_with_1_and_names_them(place: Any) -> None:
    place.write_stock_job()
    place.sql(
        "CREATE TRIGGER no_zero BEFORE INSERT ON variants WHEN new.stock = 0 BEGIN SELECT RAISE(FAIL, 'zero'); END"
    )
    done = place.run("run", "stock")
    assert done.returncode == 1
    assert done.stdout.startswith("stock: partial: 2 fetched = 1 created, 1 failed in ")
    assert "warning: item 1 'A-2' failed: IntegrityError: zero" in done.stderr.splitlines()
    assert done.stdout not in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "━" not in done.stdout + done.stderr


def test_a_run_that_fails_ends_with_1_and_shows_what_is_known(place: Any, document: Document) -> None:
    place.write_job(
        "broken",
        """
        from sync_pipelines import SyncJob

        def fetch():
            yield {"id": 1}
            raise OSError("no route to api.example.com?token=geheim")

        JOB = SyncJob(name="broken", fetch_external=fetch, get_external_id="id", find_local=str, create=str, update=max)
        """,
    )
    done = place.run("run", "broken")
    assert done.returncode == 1
    assert done.stdout.startswith("broken: failed: 0 fetched in ")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: broken: the source broke off after 1 items, nothing was applied: OSError: no route")
    assert "geheim" not in done.stdout + done.stderr
    found = document("run", "broken", exit_code=1)
    assert (found["outcome"], found["counts"]["created"]) == ("failed", 0)
    assert found["failure"].startswith("fetch: FetchError: ")


def test_the_document_tells_all_of_the_results(place: Any) -> None:
    place.write_stock_job()
    place.sql("INSERT INTO variants VALUES ('A-1', 4)")
    place.sql(
        "CREATE TRIGGER no_zero BEFORE INSERT ON variants WHEN new.stock = 0 BEGIN SELECT RAISE(FAIL, 'zero'); END"
    )
    done = place.run("run", "stock", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert found["run_id"] == place.runs()[0].id
    assert found["outcome"] == "partial"
    assert {name: count for name, count in found["counts"].items() if count} == {
        "fetched": 2,
        "updated": 1,
        "failed": 1,
    }
    assert set(found["phase_ms"]) == {"fetch", "diff", "apply"}
    assert found["errors"] == [
        {"position": 1, "external_id": "A-2", "exception_type": "IntegrityError", "message": "zero"}
    ]


def test_limit_and_only_take_a_sample(place: Any, document: Document) -> None:
    place.write_stock_job()
    assert document("run", "stock", "--limit", "1")["counts"]["fetched"] == 1
    assert place.sql("SELECT sku FROM variants") == [("A-1",)]
    assert document("run", "stock", "--only", "A-2")["counts"]["created"] == 1
    assert place.runs()[0].options == {"limit": None, "only": ["A-2"]}


def test_an_id_that_the_source_does_not_have_is_told_and_ends_with_1(place: Any, invoke: Invoke) -> None:
    place.write_stock_job()
    one_of_two = invoke("run", "stock", "--only", "A-2", "--only", "A-9", "--json")
    found = json.loads(one_of_two.stdout)
    assert (one_of_two.exit_code, found["outcome"], found["counts"]["created"]) == (1, "partial", 1)
    assert (found["counts"]["not_found"], found["notes"]) == (1, ["not found in the source: A-9"])
    assert invoke("plan", "stock", "--only", "A-9").exit_code == 1
    place.sql("INSERT INTO variants VALUES ('A-9', 1)")
    none = invoke("run", "stock", "--only", "A-9")
    assert (none.exit_code, place.runs()[0].outcome) == (1, "partial")
    assert "stock: partial: 0 fetched, 1 not found in the source in " in none.stdout
    assert ("A-9", 1) in place.sql("SELECT sku, stock FROM variants")


def test_notes_are_shown(place: Any, invoke: Invoke) -> None:
    place.write_stock_job()
    assert "\nnote: not found in the source: A-9\n" in invoke("run", "stock", "--only", "A-9").stdout


def test_a_table_that_is_missing_ends_with_2(place: Any, invoke: Invoke) -> None:
    place.write_stock_job()
    place.sql("DROP TABLE variants")
    result = invoke("run", "stock")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "has no table 'variants'" in result.stderr.splitlines()[-1]


def test_an_unknown_job_ends_with_2(place: Any, invoke: Invoke) -> None:
    place.write_stock_job()
    result = invoke("run", "stok")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is no sync job 'stok'; there are: " in result.stderr


def test_a_guarded_run_ends_with_3(place: Any, invoke: Invoke, monkeypatch: Any) -> None:
    place.write_stock_job()
    monkeypatch.setattr(SyncResults, "outcome", "guarded")
    result = invoke("run", "stock")
    assert result.exit_code == 3
    assert result.stdout.startswith("stock: guarded: ")


def test_the_program_s_loggers_are_left_as_they_were(place: Any, invoke: Invoke) -> None:
    import logging

    logger = logging.getLogger("sync_pipelines")
    before = logger.level, logger.propagate, list(logger.handlers)
    place.write_stock_job()
    assert invoke("run", "stock").exit_code == 0
    assert (logger.level, logger.propagate, logger.handlers) == before


def test_a_terminal_sees_a_bar_with_rate_and_time_left(place: Any) -> None:
    place.write_job("many", MANY)
    code, sent = on_a_terminal(place, "run", "many")
    shown = _STEERING.sub("", sent)
    assert code == 1
    assert re.search(r"many: fetching ━+ 1,000 items ", shown)
    assert re.search(r"many: writing [━╸╺ ]+ 2,000 of 3,000 items [\d,]+/s \d\d:\d\d left", shown)
    assert "\rwarning: item 807 '807' failed: create: ValueError: seven �[31mis�[0m odd" in shown
    assert "3,000 fetched: 2,999 created, 1 failed" in shown
    assert "\x1b[33mpartial\x1b[0m" in sent


@pytest.mark.parametrize("command", ["list", "runs"])
def test_a_terminal_sees_tables(place: Any, invoke: Invoke, command: str) -> None:
    place.write_stock_job()
    assert invoke("run", "stock").exit_code == 0
    code, sent = on_a_terminal(place, command)
    assert code == 0
    assert "────" in sent
    assert "\x1b[32mclean" in sent
    assert max(map(len, _STEERING.sub("", sent).splitlines())) <= 100


def test_a_good_job_runs_and_takes_items_beside_a_broken_file_whose_own_error_is_told(
    place: Any, invoke: Callable[..., Result]
) -> None:
    place.write_stock_job()
    path = place.write_job("prices", "raise SystemExit(3)")
    place.write_job("crm", "from sync_pipelines import SyncJob\nJOB = SyncJob(name='customers')\n")

    assert invoke("run", "stock").exit_code == 0
    assert invoke("item", "stock", '{"sku": "A-1", "quantity": 6}').exit_code == 0

    broken = [invoke("run", name) for name in ("prices", "customers", "nope")]
    assert [each.exit_code for each in broken] == [2, 2, 2]
    told = f"the jobs module {place.package}.prices can't be imported: SystemExit: 3 ({path}:1)"
    assert broken[0].stderr == f"error: the sync job 'prices' can't be loaded: {told}\n"
    assert "error: the sync job 'customers' can't be loaded: " in broken[1].stderr
    assert "crm.py:2)" in broken[1].stderr
    assert "there is no sync job 'nope'; there are: stock; more may be in what can't be loaded: " in broken[2].stderr
