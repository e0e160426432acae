"""Senders that go on whatever happens, and remember what they were told."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from typing import Any, Self

PAUSE_S = 0.02


class Senders:
    """Several threads, each with a connection that stays open, sending deliveries with names of their own.

    Args:
        port: The receiver's.
        count: How many threads.
        webhook: Its name; of `several` each delivery carries three items.
    """

    def __init__(self, port: int, count: int = 6, webhook: str = "stock") -> None:
        self._port = port
        self._webhook = webhook
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.accepted: dict[str, int] = {}
        self.statuses: Counter[int] = Counter()
        self.broken = 0
        self.slowest_s = 0.0
        self._threads = [threading.Thread(target=self._send, args=(number,), daemon=True) for number in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def wait_for(self, status: int, more: int = 1, patience_s: float = 30) -> None:
        """Waits until so many more answers of that status have come."""
        until, until_s = self.statuses[status] + more, time.monotonic() + patience_s
        while self.statuses[status] < until:
            assert time.monotonic() < until_s, self.statuses
            time.sleep(0.005)

    def _send(self, sender: int) -> None:
        number, connection = 0, self._connect()
        while not self._stop.is_set():
            name = f"{sender}-{number}"
            number += 1
            try:
                status, document = self._post(connection, name)
            except (OSError, http.client.HTTPException):
                connection.close()
                connection = self._connect()
                with self._lock:
                    self.broken += 1
                time.sleep(PAUSE_S)
                continue
            with self._lock:
                self.statuses[status] += 1
                if status < 300:
                    self.accepted[name] = document["delivery"]
            if status >= 300:
                time.sleep(PAUSE_S)
        connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)

    def _post(self, connection: http.client.HTTPConnection, name: str) -> tuple[int, Any]:
        began_s = time.monotonic()
        item = {"sku": f"A-{name}", "quantity": 5}
        body = json.dumps(item if self._webhook == "stock" else [item, {"sku": f"B-{name}"}, {"sku": f"C-{name}"}])
        headers = {"content-type": "application/json", "x-delivery": name}
        connection.request("POST", f"/webhooks/{self._webhook}", body, headers)
        with connection.getresponse() as response:
            document = json.loads(response.read())
        self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
        return response.status, document


def assert_all_stored(senders: Senders, rows: Any) -> None:
    """Every delivery that was answered with 2xx is in the inbox, once, under the number that was told."""
    stored = {row.delivery_id: row.id for row in rows}
    assert len(stored) == len(rows)
    lost = {name for name, number in senders.accepted.items() if stored.get(name) != number}
    assert lost == set()
    assert set(senders.statuses) <= {200, 202, 503}
