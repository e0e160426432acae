"""A PostgreSQL server with extensions and ICU for the tests: the machine's own programs, in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa

PATIENCE_S = 60.0


def programs() -> Path:
    """The folder of a server's programs that has `citext`. Without one, tests fail in CI and are skipped elsewhere."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        extensions = Path("/usr/share/postgresql") / folder.parent.name / "extension"
        if (folder / "initdb").exists() and (extensions / "citext.control").exists():
            return folder
    reason = "these tests need a PostgreSQL with citext (Debian: apt-get install postgresql)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _user() -> str | None:
    """Whom the server runs as: it refuses root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return None


@contextmanager
def running_postgres_with_extensions() -> Iterator[sa.URL]:
    """A fresh server, which listens on a Unix socket only and is stopped by its process at the end."""
    binaries, user = programs(), _user()
    # The path of a socket may be 107 bytes long at most, which pytest's own folders exceed.
    folder = Path(tempfile.mkdtemp(prefix="pgx"))
    if user is not None:
        shutil.chown(folder, user)
    data, log = folder / "data", folder / "log"
    make = [
        str(binaries / "initdb"),
        "-D",
        str(data),
        "-A",
        "trust",
        "-U",
        "postgres",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
    ]
    options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
    try:
        subprocess.run(make, check=True, capture_output=True, timeout=PATIENCE_S, user=user, cwd=folder)
        with log.open("wb") as file, subprocess.Popen(
            [str(binaries / "postgres"), "-D", str(data), *options], stdout=file, stderr=file, user=user, cwd=folder
        ) as process:  # fmt: skip
            try:
                url = sa.URL.create("postgresql+psycopg", "postgres", database="postgres", query={"host": str(folder)})
                _wait(url, process, log)
                yield url
            finally:
                process.terminate()
                process.wait(PATIENCE_S)
    finally:
        shutil.rmtree(folder)


def _wait(url: sa.URL, process: subprocess.Popen[bytes], log: Path) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    began_s = time.monotonic()
    while True:
        try:
            with engine.connect():
                return
        except sa.exc.OperationalError:
            if process.poll() is not None or time.monotonic() - began_s > PATIENCE_S:
                raise AssertionError(f"PostgreSQL did not start: {log.read_text(errors='replace')[-2000:]}") from None
            time.sleep(0.05)
