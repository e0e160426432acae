"""A receiver in this process, spoken to as a server speaks to it, byte by byte; and one in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import httpx
import pytest
from anyio.from_thread import start_blocking_portal

import sync_pipelines
from sync_pipelines.database.inbox import Delivery, Inbox
from sync_pipelines.database.ledger import open_ledger
from sync_pipelines.delivery.apply_or_store import apply_or_store
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.results import ItemResult
from sync_pipelines.engine.webhook_signatures import BearerToken, Unsigned
from sync_pipelines.engine.webhooks import Webhook
from sync_pipelines.webhooks.application import WebhookApp
from sync_pipelines.webhooks.delivery_writer import DeliveryWriter
from sync_pipelines.webhooks.ledger_access import LedgerAccess
from sync_pipelines.webhooks.receiver import hooks_of
from sync_pipelines_tests.children import Child

ROOT = Path(sync_pipelines.__file__).resolve().parent.parent
TOKEN = "t0ken-for-tests"
JSON = {"content-type": "application/json"}
PATIENCE_S = 30


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


class Client:
    """Speaks ASGI with an application; each request on the event loop of a thread."""

    def __init__(self, app: Any, portal: Any, inbox: Callable[[], Inbox]) -> None:
        self._app = app
        self._portal = portal
        self.inbox = inbox

    def post(self, name: str, body: Any, headers: Mapping[str, str] | None = None, **given: Any) -> Reply:
        """Sends a document, or bytes as they are."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        pairs = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in {**JSON, **(headers or {})}.items()]
        pairs.append((b"content-length", str(len(raw)).encode()))
        return self.send("POST", f"/webhooks/{name}", pairs, [raw], **given)

    def send(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[bytes, bytes]] = (),
        chunks: Sequence[bytes] = (b"",),
        **scope: Any,
    ) -> Reply:
        return self._portal.call(self.call, method, path, headers, chunks, scope)

    def together(self, requests: Sequence[tuple[str, Any, Mapping[str, str]]]) -> list[Reply]:
        """Sends requests at the same time."""

        async def all_of_them() -> list[Reply]:
            calls = []
            for name, body, headers in requests:
                pairs = [(key.encode(), value.encode()) for key, value in {**JSON, **headers}.items()]
                calls.append(self.call("POST", f"/webhooks/{name}", pairs, [json.dumps(body).encode()], {}))
            return list(await asyncio.gather(*calls))

        return self._portal.call(all_of_them)

    async def call(
        self, method: str, path: str, headers: Sequence[tuple[bytes, bytes]], chunks: Sequence[bytes], more: Any
    ) -> Reply:
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
            "raw_path": path.encode("utf-8", "surrogatepass"), "root_path": "", "query_string": b"", "scheme": "http",
            "headers": list(headers), "client": ("127.0.0.1", 9), "server": ("127.0.0.1", 80), **more,
        }  # fmt: skip
        left = list(chunks)
        sent: list[Any] = []

        async def receive() -> Any:
            if left:
                return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        if not sent:
            return Reply(0, {}, b"")
        found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Reply(sent[0]["status"], found, b"".join(each.get("body", b"") for each in sent[1:]))

    def rows(self, job: str = "stock") -> list[Delivery]:
        """What is in the inbox, oldest first."""
        return self.inbox().newest(job, limit=100_000)[::-1]


def make_job(name: str = "stock", signature: Any = None, **webhook: Any) -> SyncJob[Any, Any]:
    """A job of items with a `sku`, whose webhook is unsigned unless said otherwise."""
    fields = {
        each: webhook.pop(each) for each in ("get_external_id", "create", "update", "find_local") if each in webhook
    }
    given = {"get_external_id": "sku", "find_local": never, "create": never, "update": never, **fields}
    return SyncJob(
        name=name, fetch_external=list, webhook=Webhook(signature=signature or Unsigned(), **webhook), **given
    )


def never(*_: Any) -> None:
    raise AssertionError("called")


@contextmanager
def receiving(
    url: str, *jobs: SyncJob[Any, Any], apply: Any = never, report: Any = None, answers_within_s: float = PATIENCE_S
) -> Iterator[Client]:
    """A receiver of the jobs' webhooks over the ledger at that URL; it is patient, for a disk of tests may be busy."""
    access = LedgerAccess(url, answers_within_s)
    with patch.dict(cast("dict[str, Any]", DeliveryWriter.__init__.__kwdefaults__), timeout_s=PATIENCE_S):
        app = WebhookApp(hooks_of(jobs), access, apply_or_store(access, apply), report)
    with start_blocking_portal() as portal:
        try:
            yield Client(app, portal, access.inbox)
        finally:
            app.close()


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """The header of a sender who knows the token of `BearerToken("HOOK_TOKEN")`."""
    monkeypatch.setenv("HOOK_TOKEN", TOKEN)
    return {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def client(token: Mapping[str, str], sqlite_url: str) -> Iterator[Client]:
    """A receiver of two webhooks: `stock`, which is unsigned, and `secret`, which wants a token."""
    jobs = make_job(max_body_bytes=2_000), make_job("secret", BearerToken("HOOK_TOKEN"), max_body_bytes=2_000)
    with receiving(sqlite_url, *jobs) as made:
        yield made


def updated(_job: Any, change: Any) -> ItemResult:
    """Stands for the runner."""
    return ItemResult("updated", change.item["sku"])


class Served:
    """`sync-pipelines webhooks serve` in a process of its own."""

    def __init__(self, folder: Path, url: str, job: str) -> None:
        self.folder = folder
        self.url = url
        package = folder / "served_jobs"
        package.mkdir()
        (package / "__init__.py").write_text(textwrap.dedent(job))
        # what it says must come through a pipe at once, on a machine that does not ask Python for it as well
        left_out = ("SYNC_PIPELINES_", "PYTHONUNBUFFERED")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        self.environment = {
            **inherited,
            "PYTHONPATH": str(ROOT),
            "SYNC_PIPELINES_JOBS": "served_jobs",
            "SYNC_PIPELINES_DATA_DIR": str(folder / "data"),
            "SYNC_PIPELINES_LEDGER_URL": url,
            "HOOK_TOKEN": TOKEN,
        }
        self.port = 0
        self.process: Child | None = None

    def start(self) -> None:
        """Starts it, on the port that it had before if there was one."""
        command = [sys.executable, "-m", "sync_pipelines.cli", "webhooks", "serve", "--port", str(self.port)]
        self.process = Child(
            command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, log=self.folder / "log",
            preexec_fn=_heed_signals,
        )  # fmt: skip
        told = self.process.read_line() + self.process.read_line()
        found = re.search(r":(\d+)/webhooks/", told)
        if not found:
            self.process.fail("does not say where it listens", told)
        self.port = int(found[1])
        self.wait_until_alive()

    def wait_until_alive(self) -> None:
        until_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                assert httpx.get(f"{self.base}/healthz").status_code == 200
            except httpx.TransportError:
                assert time.monotonic() < until_s, self.log
                time.sleep(0.02)
            else:
                return

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def post(self, body: Any, name: str = "stock", **headers: str) -> httpx.Response:
        return httpx.post(f"{self.base}/webhooks/{name}", json=body, headers=headers, timeout=PATIENCE_S)

    def raw(self, *parts: bytes, pause_s: float = 0) -> bytes:
        """Writes bytes as they are and gives all that comes back until the receiver closes, or has answered."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as connection:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause_s)
            held = b""
            while data := connection.recv(65_536):
                held += data
                held = held.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
                head, found, body = held.partition(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head)
                if found and length and len(body) >= int(length[1]):
                    break
            return held

    def rows(self, job: str = "stock") -> list[Delivery]:
        with open_ledger(self.url) as ledger:
            return Inbox(ledger).newest(job, limit=1_000_000)[::-1]

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends it by that signal and gives its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(PATIENCE_S + 10)  # it may take 30 s for what it has accepted
        except subprocess.TimeoutExpired:
            self.process.fail(f"does not end after {number.name}")
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def close(self) -> None:
        if self.process is not None:
            self.end(signal.SIGKILL)


def _heed_signals() -> None:
    """Lets a child heed what its parent may ignore or block, as whoever runs the tests in the background does."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


SERVED_JOB = """
    from sync_pipelines import BearerToken, SyncJob, Unsigned, Webhook

    def job(name, **webhook):
        return SyncJob(name=name, fetch_external=list, get_external_id="sku", find_local=id, create=id, update=print,
                       webhook=Webhook(**webhook))

    JOBS = [
        job("stock", signature=Unsigned(), delivery_id="X-Delivery"),
        job("several", signature=Unsigned(), delivery_id="X-Delivery", parse=lambda event: event.body),
        job("small", signature=BearerToken("HOOK_TOKEN"), max_body_bytes=1_000),
    ]
"""


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Serves webhooks with the ledger at a URL."""
    made: list[Served] = []

    def start(url: str, *, now: bool = True) -> Served:
        served = Served(tmp_path, url, SERVED_JOB)
        made.append(served)
        if now:
            served.start()
        return served

    yield start
    for each in made:
        each.close()
