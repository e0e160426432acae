"""A REST server in another process, for the tests of REST sources."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from sync_pipelines_tests.children import Child


@dataclass(frozen=True)
class RestServer:
    """The server as one test sees it.

    Args:
        port: Where it listens on 127.0.0.1.
        other_port: Where a second server listens.
        run: Tells the requests of this test from those of others.
    """

    port: int
    other_port: int
    run: str = field(default_factory=lambda: uuid.uuid4().hex)

    def url(self, behaviour: str, **options: Any) -> str:
        """A URL where the server behaves in that way."""
        return f"http://127.0.0.1:{self.port}/{self.run}/{behaviour}/{quote(json.dumps(options), safe='')}"

    def seen(self) -> list[dict[str, Any]]:
        """What this test asked of both servers, in order."""
        found: list[dict[str, Any]] = httpx.get(f"http://127.0.0.1:{self.port}/seen/{self.run}", trust_env=False).json()
        return found


@pytest.fixture(scope="session")
def _rest_ports() -> Iterator[list[int]]:
    script = Path(__file__).with_name("rest_server.py")
    with Child([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield [int(port) for port in process.read_line().split()]
        process.finish("")


@pytest.fixture
def rest_server(_rest_ports: list[int]) -> RestServer:
    """A REST server in another process that misbehaves as told."""
    return RestServer(*_rest_ports)
