"""A MariaDB server for the tests: one of their own, in a temporary folder, on a Unix socket only."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

PATIENCE_S = 60.0
# No file of the machine's own server is read or touched, and nothing has to survive a power cut.
OPTIONS = (
    "--skip-networking",
    "--innodb-buffer-pool-size=64M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--innodb-doublewrite=0",
    "--max-allowed-packet=4M",
    "--character-set-server=utf8mb4",
)


@dataclass(frozen=True)
class RunningMariadb:
    """A server that runs.

    Args:
        url: Of the server, with no database chosen.
        pid: Of its process.
    """

    url: sa.URL
    pid: int


def programs() -> tuple[str, str]:
    """The server and what makes its data folder. Without them, tests fail in CI and are skipped elsewhere."""
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    server, install = (shutil.which(name, path=places) for name in ("mariadbd", "mariadb-install-db"))
    if server and install:
        return server, install
    reason = "these tests need MariaDB's server (Debian: apt-get install mariadb-server-core mariadb-client-core)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@contextmanager
def running_mariadb(*options: str) -> Iterator[RunningMariadb]:
    """A fresh server; it is stopped by its process id at the end.

    Args:
        options: Further options of `mariadbd`.
    """
    server, install = programs()
    # The path of a socket may be 107 bytes long at most, which pytest's own folders exceed.
    folder = Path(tempfile.mkdtemp(prefix="my"))
    data, socket = folder / "data", folder / "socket"
    common = ["--no-defaults", f"--datadir={data}", f"--user={getpass.getuser()}"]
    method = "--auth-root-authentication-method=normal"
    try:
        subprocess.run(
            [install, *common, method, "--skip-test-db"], check=True, capture_output=True, timeout=PATIENCE_S
        )
        arguments = [server, *common, f"--socket={socket}", f"--pid-file={folder / 'pid'}", *OPTIONS, *options]
        with (folder / "log").open("wb") as log, subprocess.Popen(arguments, stdout=log, stderr=log) as process:
            try:
                url = sa.URL.create("mysql+pymysql", "root", query={"unix_socket": str(socket)})
                _wait(socket, process, folder / "log")
                yield RunningMariadb(url, process.pid)
            finally:
                process.terminate()
                process.wait(PATIENCE_S)
    finally:
        shutil.rmtree(folder)


def _wait(socket: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until the server listens; a driver that called earlier would leave a socket open."""
    began_s = time.monotonic()
    while not socket.exists():
        if process.poll() is not None or time.monotonic() - began_s > PATIENCE_S:
            raise AssertionError(f"MariaDB did not start: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)
