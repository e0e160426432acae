"""A proxy of the tests that can swallow what both sides say, as a network does that has lost a host."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from selectors import EVENT_READ, DefaultSelector

from sqlalchemy.engine import URL, make_url


class BlackHole:
    """Listens on a TCP port of this machine, and passes on to a Unix socket until it is told to swallow.

    Args:
        path: Of the server's Unix socket.
    """

    def __init__(self, path: str) -> None:
        self.swallows = threading.Event()
        """Set it, and nobody hears of anybody any more, not even of an end."""
        self._path = path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._peers: dict[socket.socket, socket.socket] = {}
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="black hole", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with DefaultSelector() as selector:
            selector.register(self._listener, EVENT_READ)
            while not self._ends.is_set():
                for key, _ in selector.select(0.05):
                    self._pass_on(selector, key.fileobj)  # type: ignore[arg-type]
        for each in (self._listener, *self._peers):
            each.close()

    def _pass_on(self, selector: DefaultSelector, source: socket.socket) -> None:
        if source is self._listener:
            client, server = self._listener.accept()[0], socket.socket(socket.AF_UNIX)
            server.connect(self._path)
            self._peers |= {client: server, server: client}
            for each in (client, server):
                selector.register(each, EVENT_READ)
            return
        data = b""
        with suppress(ConnectionError):
            data = source.recv(65536)
        if data and not self.swallows.is_set():
            with suppress(OSError):
                self._peers[source].sendall(data)
        elif not data:
            selector.unregister(source)
            if not self.swallows.is_set():
                with suppress(OSError):
                    self._peers[source].shutdown(socket.SHUT_WR)

    def stop(self) -> None:
        """Ends all connections."""
        self._ends.set()
        self._thread.join(10)


@contextmanager
def black_hole(server_url: str) -> Iterator[tuple[BlackHole, URL]]:
    """A proxy in front of a server on a Unix socket, and the URL of the same database by way of it."""
    url = make_url(server_url)
    proxy = BlackHole(f"{url.query['host']}/.s.PGSQL.5432")
    try:
        yield proxy, url.set(host="127.0.0.1", port=proxy.port).difference_update_query(["host"])
    finally:
        proxy.stop()
