"""A real ERP for the demo and the end-to-end tests: Tryton, in a process of its own, with its data in one folder.

    set_up(folder)                          # once; again it does nothing
    with RunningErp(folder) as erp:
        print(change(erp))                  # moves stock, adds products, ...

Tryton is GPL-3.0-or-later. Nothing here imports it; erp_seed.py and erp_serve.py do, each as its own process.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from demo.erp_changes import Changes, make_changes
from sync_pipelines.sources.tryton import Tryton

__all__ = ["Changes", "RunningErp", "change", "free_port", "is_taken", "set_up"]

_HERE = Path(__file__).parent
_DATABASE = "erp"
_USER = "admin"
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 5.0
_LOOK_EVERY_S = 0.05


def set_up(folder: Path) -> None:
    """Makes an ERP with 252 products and two warehouses in `folder/erp`, in about eight seconds.

    An ERP that is there is left as it is. It gets its name only when it is complete, so a set-up that was killed
    leaves a folder `erp.*.partial`, which the next one throws away. Two set-ups at once in one folder are not
    meant to be.

    Args:
        folder: Where the data goes; nothing is written elsewhere.

    Raises:
        RuntimeError: Tryton failed or is not installed; the message has its last words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob("erp.*.partial"):
        shutil.rmtree(leftover)
    if _home(folder).is_dir():
        return
    partial = folder / f"erp.{os.getpid()}.partial"
    partial.mkdir(mode=0o700)
    _fill(partial)
    partial.rename(_home(folder))


class RunningErp:
    """The ERP of a folder, started on a port of this machine; stopped at the end of the `with` block.

    The server also ends by itself within a second when this process dies.

    Args:
        folder: The folder that `set_up` was given.
        port: A free port of 127.0.0.1; by default one is looked for.

    Attributes:
        url: Where it answers.
        database: Its database's name.
        user: The administrator's login.
        password: The administrator's password.
    """

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self._home = _home(folder)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.database = _DATABASE
        self.user = _USER
        self.password = (self._home / "password").read_text(encoding="utf-8").strip()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs, else None."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Starts the server and waits until it answers.

        Raises:
            RuntimeError: The port is taken, or it ended instead, or took longer than a minute.
        """
        if self.pid:
            return
        if is_taken(self.port):
            raise RuntimeError(f"can't start Tryton: port {self.port} is in use by another program")
        environment = {**_environment(self._home), "TRYTOND_WEB__LISTEN": f"127.0.0.1:{self.port}"}
        command = [sys.executable, str(_HERE / "erp_serve.py"), str(os.getpid()), _DATABASE]
        with (self._home / "server.log").open("wb") as log:
            # In a session of its own: Ctrl-C in the terminal reaches us, and we decide when to stop the server.
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_it_answers(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops the server, first kindly; does nothing if it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def client(self, **options: Any) -> Tryton:
        """A client that is logged in as the administrator at first use.

        Args:
            **options: Further arguments of `Tryton`, e.g. `page_size`.
        """
        return Tryton(url=self.url, database=self.database, user=self.user, password=self.password, **options)

    def environment(self) -> dict[str, str]:
        """The variables with which `Tryton()` finds this server."""
        return {
            "TRYTON_URL": self.url,
            "TRYTON_DATABASE": self.database,
            "TRYTON_USER": self.user,
            "TRYTON_PASSWORD": self.password,
        }

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < until:
            if process.poll() is not None:
                raise RuntimeError(f"Tryton ended at once:\n{_last_lines(self._home / 'server.log')}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                self._greet()
                return
            time.sleep(_LOOK_EVERY_S)
        raise RuntimeError(f"Tryton did not answer in {_START_TIMEOUT_S:g} s; see {self._home / 'server.log'}")

    def _greet(self) -> None:
        """Logs in, which succeeds at our own server only."""
        with self.client(attempts=1).connect() as connection:
            connection.call("res.user", "get_preferences", True)


def change(erp: RunningErp) -> Changes:
    """Changes the running ERP for real: moves, new products, prices, a renaming, a deactivation.

    Each call makes other changes; what they are follows from how many calls there were.

    Args:
        erp: The running ERP.
    """
    # One attempt: what writes must not be sent twice.
    with erp.client(attempts=1).connect() as connection:
        return make_changes(connection)


def free_port() -> int:
    """A port of 127.0.0.1 that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_taken(port: int) -> bool:
    """True if something answers on that port of 127.0.0.1."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _home(folder: Path) -> Path:
    return folder.resolve() / "erp"


def _fill(home: Path) -> None:
    """Makes the database, in a process of its own."""
    (home / f"{_DATABASE}.sqlite").touch()  # Tryton does not create the file
    _write_password(home / "password")
    environment = {**_environment(home), "TRYTONPASSFILE": str(home / "password")}
    command = [sys.executable, str(_HERE / "erp_seed.py"), _DATABASE]
    with (home / "set-up.log").open("wb") as log:
        code = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False
        ).returncode
    if code:
        raise RuntimeError(f"setting up Tryton failed ({code}):\n{_last_lines(home / 'set-up.log')}")


def _write_password(path: Path) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(secrets.token_urlsafe(24))


def _environment(home: Path) -> dict[str, str]:
    """The environment of a Tryton process: ours, with only those Tryton settings that we choose."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRYTOND_", "TRYTON"))}
    own = {"TRYTOND_DATABASE__URI": "sqlite://", "TRYTOND_DATABASE__PATH": str(home), "TRYTOND_WEB__ROOT": ""}
    # Tryton asks for the name of the Unix user, which in a container may have none.
    return {"USER": "erp", **kept, **own}


def _last_lines(log: Path, count: int = 15) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])
