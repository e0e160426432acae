"""A sender of webhooks that costs little: signed beforehand, sent over connections that stay open, each timed.

`python -m benchmarks.receiver_load PORT CONNECTIONS DELIVERIES START` prints one JSON document.
The secret is in the environment.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from standardwebhooks.webhooks import Webhook

SECRET = "BENCH_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable
PATH = "/webhooks/bench-stock"
_END = b"\r\n\r\n"


def signed_requests(count: int, start: int = 0) -> list[bytes]:
    """Whole requests, each a delivery of its own for one of a fifth as many items."""
    webhook = Webhook(os.environ[SECRET])
    moment = datetime.now(UTC)
    stamp = int(moment.timestamp())
    made = []
    for number in range(start, start + count):
        name = f"msg_{number:020d}"
        item = {"sku": f"SKU-{number % max(1, count // 5):06d}", "quantity": number % 997, "warehouse": "north"}
        body = json.dumps(item)
        head = (
            f"POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nwebhook-id: {name}\r\nwebhook-timestamp: {stamp}\r\n"
            f"webhook-signature: {webhook.sign(name, moment, body)}\r\nuser-agent: bench\r\n\r\n"
        )
        made.append((head + body).encode())
    return made


class Sender(asyncio.Protocol):
    """One connection: sends the next request when the last one is answered."""

    def __init__(self, requests: Sequence[bytes]) -> None:
        self._requests = iter(requests)
        self._held = b""
        self._sent_s = 0.0
        self.latencies_s: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """The connection stands."""
        self._transport = transport

    def start(self) -> None:
        """Sends the next request, if there is one."""
        request = next(self._requests, None)
        if request is None:
            self._transport.close()
            if not self.done.done():
                self.done.set_result(None)
            return
        self._sent_s = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """A response, or a part of one."""
        self._held += data
        head, found, body = self._held.partition(_END)
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self.latencies_s.append(time.perf_counter() - self._sent_s)
        self.statuses[head[9:12].decode()] += 1
        self._held = b""
        self.start()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ended."""
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the receiver closed the connection"))


async def send(port: int, connections: int, deliveries: int, start: int) -> dict[str, Any]:
    """Sends all deliveries, as many at a time as there are connections, and gives what was measured."""
    requests = signed_requests(deliveries, start)
    loop = asyncio.get_running_loop()
    senders = []
    for number in range(connections):
        own = requests[number::connections]
        _, sender = await loop.create_connection(lambda own=own: Sender(own), "127.0.0.1", port)  # type: ignore[misc]
        senders.append(sender)
    gc.freeze()
    gc.disable()
    began_s = time.perf_counter()
    for sender in senders:
        sender.start()
    await asyncio.gather(*(sender.done for sender in senders))
    took_s = time.perf_counter() - began_s
    latencies = sorted(each for sender in senders for each in sender.latencies_s)
    statuses: Counter[str] = sum((sender.statuses for sender in senders), Counter())
    return {
        "deliveries": len(latencies),
        "wall_s": round(took_s, 3),
        "per_s": round(len(latencies) / took_s),
        "p50_ms": round(latencies[len(latencies) // 2] * 1000, 2),
        "p99_ms": round(latencies[int(len(latencies) * 0.99)] * 1000, 2),
        "statuses": dict(statuses),
    }


def main(arguments: Sequence[str]) -> None:
    """Sends, and prints what was measured."""
    port, connections, deliveries, start = map(int, arguments)
    try:
        import uvloop  # noqa: PLC0415 - a cheaper sender disturbs less
    except ImportError:
        measured = asyncio.run(send(port, connections, deliveries, start))
    else:
        measured = uvloop.run(send(port, connections, deliveries, start))
    print(json.dumps(measured))


if __name__ == "__main__":
    main(sys.argv[1:])
