"""The receiver as a process: how it starts and ends, and that no acknowledged delivery is lost when things die."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from sync_pipelines_tests.children import run_child
from sync_pipelines_tests.two_speeds import spread
from sync_pipelines_tests.webhooks.conftest import SERVED_JOB, TOKEN, Served
from sync_pipelines_tests.webhooks.senders import Senders, assert_all_stored

Serve = Callable[..., Served]
HEAD = b"POST /webhooks/%s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer %s\r\n"
SMALL = HEAD % (b"small", TOKEN.encode())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One for all the tests that do it no harm."""
    folder = tmp_path_factory.mktemp("served")
    made = Served(folder, f"sqlite:///{folder / 'ledger.sqlite'}", SERVED_JOB)
    made.start()
    yield made
    made.close()


def status_of(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer
    return int(answer[9:12])


class TestWire:
    """What only shows over a real connection."""

    def test_it_receives_and_tells_how_it_is(self, served: Served) -> None:
        reply = served.post({"sku": "A"}, **{"X-Delivery": "1"})
        row = served.rows()[-1]
        assert (reply.status_code, reply.json()) == (202, {"delivery": row.id})
        assert served.post({"sku": "A"}, **{"X-Delivery": "1"}).status_code == 200
        assert httpx.get(f"{served.base}/readyz").json() == {"status": "ready"}
        metrics = httpx.get(f"{served.base}/metrics").text
        assert 'sync_pipelines_webhook_deliveries_total{status="202",webhook="stock"}' in metrics
        assert "server" not in reply.headers

    def test_a_body_without_a_length_is_read_up_to_the_size(self, served: Served) -> None:
        head = SMALL + b"transfer-encoding: chunked\r\n\r\n"
        chunk = b"%x\r\n%s\r\n"
        assert status_of(served.raw(head, chunk % (11, b'{"sku":"A"}'), b"0\r\n\r\n")) == 202
        assert status_of(served.raw(head, *[chunk % (300, b"x" * 300)] * 5, b"0\r\n\r\n")) == 413

    def test_an_endless_body_is_not_read_for_ever(self, served: Served) -> None:
        began_s = time.monotonic()
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
            connection.sendall(SMALL + b"transfer-encoding: chunked\r\n\r\n")
            with contextlib.suppress(OSError):
                while time.monotonic() - began_s < 20:
                    connection.sendall(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        assert time.monotonic() - began_s < 15

    def test_a_larger_body_than_announced_is_another_request(self, served: Served) -> None:
        before = len(served.rows("small"))
        answer = status_of(served.raw(SMALL + b"content-length: 11\r\n\r\n" + b'{"sku":"A"}' + b"more"))
        assert answer in {202, 400}, "the server may refuse both"
        assert len(served.rows("small")) - before >= (answer == 202)

    def test_a_large_body_is_refused_while_its_sender_still_writes(self, served: Served) -> None:
        reply = httpx.post(f"{served.base}/webhooks/small", content=b"x" * 3_000_000)
        assert (reply.status_code, reply.json()["error"]) == (413, "the body is larger than 1000 bytes")

    def test_a_sender_that_asks_first_is_told_before_it_sends(self, served: Served) -> None:
        answer = served.raw(SMALL + b"content-length: 3000000\r\nexpect: 100-continue\r\n\r\n")
        assert status_of(answer) == 413
        head = SMALL + b"content-length: 11\r\nexpect: 100-continue\r\n\r\n"
        assert status_of(served.raw(head, b'{"sku":"A"}', pause_s=0.1)) == 202

    @pytest.mark.parametrize(
        "request_head",
        [
            b"\x00\x01\x02\r\n\r\n",
            b"POST / HTTP/9.9\r\n\r\n",
            b"POST /webhooks/stock HTTP/1.1\r\nhost x\r\n\r\n",
            b"POST /webhooks/stock HTTP/1.1\r\ncontent-length: x\r\n\r\n",
            b"POST /webhooks/stock HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
            b"POST /webhooks/%ff%00 HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}",
            b"POST /webhooks/../../x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}",
            SMALL.replace(TOKEN.encode(), b"\xff\xfe" * 20_000) + b"content-length: 2\r\n\r\n{}",
        ],
    )
    def test_what_is_no_good_request_is_no_error_of_ours(self, served: Served, request_head: bytes) -> None:
        answer = served.raw(request_head)
        assert not answer or status_of(answer) in {400, 401, 404, 413}
        assert served.post({"sku": "A"}).status_code == 202

    def test_the_log_has_no_secret_no_query_and_no_body(self, serve: Serve, sqlite_url: str) -> None:
        served = serve(sqlite_url)
        httpx.post(
            f"{served.base}/webhooks/small?token=quErY", json={"a": "bOdY"}, headers={"authorization": "Bearer wRoNg"}
        )
        httpx.post(f"{served.base}/webhooks/small", content=b"bOdY", headers={"authorization": f"Bearer {TOKEN}"})
        assert served.end() == 143
        assert "webhook 'small': 401" in served.log
        assert not [each for each in ("quErY", "wRoNg", "bOdY", TOKEN) if each in served.log]


class TestStart:
    def start(self, serve: Serve, url: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
        return self.run(serve(url, now=False), **environment)

    def run(self, served: Served, **environment: str | None) -> subprocess.CompletedProcess[str]:
        changed = {**served.environment, **environment}
        command = [sys.executable, "-m", "sync_pipelines.cli", "webhooks", "serve", "--port", "0"]
        return run_child(
            command, cwd=served.folder, env={name: value for name, value in changed.items() if value is not None}
        )

    def test_its_log_says_at_once_where_it_listens(self, serve: Serve, sqlite_url: str) -> None:
        """Also through a pipe, and on a machine where nothing asks Python for it."""
        served = serve(sqlite_url, now=False)
        assert "PYTHONUNBUFFERED" not in served.environment
        served.start()
        assert served.port > 0

    def test_a_missing_secret_of_the_only_webhook_is_said_before_it_listens(
        self, serve: Serve, sqlite_url: str, tmp_path: Path
    ) -> None:
        served = serve(sqlite_url, now=False)
        file = tmp_path / "served_jobs" / "__init__.py"
        file.write_text(
            file.read_text().partition("JOBS = [")[0] + 'JOBS = [job("small", signature=BearerToken("HOOK_TOKEN"))]'
        )
        del served.environment["HOOK_TOKEN"]
        done = self.run(served)
        assert (done.returncode, done.stdout) == (2, "")
        assert "HOOK_TOKEN is not set or empty; the webhook of sync job 'small' needs it" in done.stderr

    def test_a_missing_secret_and_a_broken_file_stop_no_other_webhook(
        self, serve: Serve, sqlite_url: str, tmp_path: Path
    ) -> None:
        served = serve(sqlite_url, now=False)
        (tmp_path / "served_jobs" / "broken.py").write_text("import no_such_module_at_all")
        del served.environment["HOOK_TOKEN"]
        served.start()
        item = {"sku": "A"}
        assert [served.post(item, name).status_code for name in ("stock", "small", "broken")] == [202, 503, 503]
        assert "HOOK_TOKEN is not set or empty; the webhook of sync job 'small' needs it" in served.log
        assert "served_jobs.broken can't be imported: ModuleNotFoundError" in served.log

    def test_a_ledger_that_is_away_is_said_before_it_listens(
        self, serve: Serve, sqlite_url: str, tmp_path: Any
    ) -> None:
        done = self.start(serve, sqlite_url, SYNC_PIPELINES_LEDGER_URL=f"postgresql://me@/db?host={tmp_path}")
        assert done.returncode == 4
        assert "can't be opened" in done.stderr or "does not answer" in done.stderr

    def test_jobs_without_a_webhook_are_said(self, serve: Serve, sqlite_url: str, tmp_path: Path) -> None:
        (tmp_path / "bare_jobs").mkdir()
        (tmp_path / "bare_jobs" / "__init__.py").touch()
        done = self.start(serve, sqlite_url, SYNC_PIPELINES_JOBS="bare_jobs")
        assert done.returncode == 2
        assert "no sync job has a webhook; give one of them SyncJob(webhook=" in done.stderr

    def test_a_taken_port_is_said(self, serve: Serve, sqlite_url: str) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            served = serve(sqlite_url, now=False)
            served.port = port
            with pytest.raises(AssertionError, match=f"port {port} of 127.0.0.1 can't be had: Address already in use"):
                served.start()
            assert served.end() == 2


class TestEnd:
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
    def test_what_was_accepted_is_finished_first(
        self, serve: Serve, database_url: str, number: signal.Signals, code: int
    ) -> None:
        served = serve(database_url)
        with Senders(served.port) as senders:
            senders.wait_for(202, 100)
            assert served.end(number) == code
        assert_all_stored(senders, served.rows())
        assert senders.statuses[503] == 0
        assert len(served.rows()) == len(senders.accepted), "nothing was stored of which the sender does not know"

    def test_a_body_that_is_still_coming_is_waited_for(self, serve: Serve, sqlite_url: str) -> None:
        served = serve(sqlite_url)
        with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
            connection.sendall(HEAD % (b"stock", b"") + b'content-length: 11\r\n\r\n{"sku"')
            time.sleep(0.3)
            ended = threading.Thread(target=served.end)
            ended.start()
            time.sleep(0.3)
            connection.sendall(b':"A"}')
            assert status_of(connection.recv(1_000)) == 202
            ended.join(30)
        assert [row.external_id for row in served.rows()] == ["A"]

    def test_an_ignored_interrupt_stays_ignored(self, serve: Serve, sqlite_url: str, monkeypatch: Any) -> None:
        """As of a process that a shell has put into the background."""
        monkeypatch.setattr(
            "sync_pipelines_tests.webhooks.conftest._heed_signals", lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
        )
        served = serve(sqlite_url)
        assert served.process is not None
        served.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert served.post({"sku": "A"}).status_code == 202
        assert served.end() == 143


class TestDeath:
    @pytest.mark.parametrize("wait", [1, 150])
    def test_a_receiver_that_is_killed_has_stored_what_it_acknowledged(
        self, serve: Serve, database_url: str, wait: int
    ) -> None:
        served = serve(database_url)
        with Senders(served.port) as senders:
            senders.wait_for(202, wait)
            served.end(signal.SIGKILL)
            served.start()
            senders.wait_for(202, 50)
        assert_all_stored(senders, served.rows())
        assert senders.broken > 0

    def test_of_several_changes_in_one_delivery_a_kill_leaves_all_or_none(
        self, serve: Serve, database_url: str
    ) -> None:
        served = serve(database_url)
        with Senders(served.port, webhook="several") as senders:
            senders.wait_for(202, 50)
            served.end(signal.SIGKILL)
            served.start()
            senders.wait_for(202, 10)
        rows = served.rows("several")
        stored: dict[str, list[str]] = {}
        for row in rows:
            stored.setdefault((row.external_id or "")[2:], []).append((row.external_id or "")[:1])
        assert {tuple(each) for each in stored.values()} == {("A", "B", "C")}
        assert senders.accepted.keys() <= stored.keys()
        firsts = {row.delivery_id: row.id for row in rows if (row.external_id or "").startswith("A")}
        assert {name: firsts[name] for name in senders.accepted} == senders.accepted

    @pytest.mark.parametrize("number", spread([signal.SIGKILL, signal.SIGINT], 2))
    def test_a_database_that_dies_means_try_again_and_nothing_is_lost(
        self, serve: Serve, own_postgres: Any, number: signal.Signals
    ) -> None:
        served = serve(own_postgres.get_uri())
        with Senders(served.port) as senders:
            for _ in range(2):
                senders.wait_for(202, 100)
                end_server(own_postgres, number)
                senders.wait_for(503, 20)
                assert httpx.get(f"{served.base}/healthz").status_code == 200
                assert httpx.get(f"{served.base}/readyz", timeout=20).status_code == 503
                assert "sync_pipelines_ledger_up 0.0" in httpx.get(f"{served.base}/metrics", timeout=20).text
                own_postgres.ensure_postgres_running()
                senders.wait_for(202, 50)
        assert_all_stored(senders, served.rows())
        assert senders.broken == 0
        assert httpx.get(f"{served.base}/readyz", timeout=20).status_code == 200
        assert "the ledger answers again" in served.log

    def test_a_database_that_hangs_is_not_waited_for_long(self, serve: Serve, own_postgres: Any) -> None:
        served = serve(own_postgres.get_uri())
        postmaster = psutil.Process(own_postgres.get_pid())
        with Senders(served.port, 2) as senders:
            senders.wait_for(202, 20)
            stopped = [*postmaster.children(recursive=True), postmaster]
            for process in stopped:
                process.suspend()
            try:
                senders.wait_for(503, 2, patience_s=15)
            finally:
                for process in stopped:
                    process.resume()
            senders.wait_for(202, 20)
        assert_all_stored(senders, served.rows())
        assert senders.slowest_s < 9


def end_server(server: Any, number: signal.Signals) -> None:
    """Ends a PostgreSQL server: by a power cut, or as fast as it does in good order."""
    postmaster = psutil.Process(server.get_pid())
    family = [*postmaster.children(recursive=True), postmaster]
    os.kill(postmaster.pid, number)
    _, left = psutil.wait_procs(family, 10)
    for process in left:
        process.kill()
    psutil.wait_procs(left, 10)


def test_two_receivers_share_one_inbox(serve: Serve, postgres_url: str, tmp_path: Any) -> None:
    """The unique index decides, whichever gets a delivery first."""
    first = serve(postgres_url)
    (tmp_path / "second").mkdir()
    second = Served(tmp_path / "second", postgres_url, SERVED_JOB)
    try:
        second.start()
        answers: list[Any] = []

        def send(number: int) -> None:
            for each in range(20):
                served = (first, second)[number % 2]
                answers.append((each, served.post({"sku": "A", "n": each}, **{"X-Delivery": f"e-{each}"})))

        threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        second.close()
    numbers = {json.loads(row.item or "")["n"]: row.id for row in first.rows()}
    assert len(first.rows()) == 20
    assert sorted(answer.status_code for _, answer in answers) == [200] * 60 + [202] * 20
    assert all(answer.json()["delivery"] == numbers[each] for each, answer in answers)
