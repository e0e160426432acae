"""Reads the body of a request, up to a size, within a time, within the memory there is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.types import Receive

from sync_pipelines.webhooks.responses import RefusedError, refused

BODY_TIMEOUT_S = 30.0
_DISCARDED_BYTES = 8_000_000
_DISCARDED_S = 2.0
_LONGEST_LENGTH = 18


class DisconnectedError(Exception):
    """The sender has gone; there is nobody to answer."""


class Memory:
    """What all bodies that are being read or stored may take together."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes

    def take(self, count: int) -> None:
        """Takes memory, or refuses the body if there is none left."""
        if count > self._left:
            raise refused(503, "the receiver is busy", retry_after_s=1)
        self._left -= count

    def give_back(self, count: int) -> None:
        """Returns memory back."""
        self._left += count


def check_length(headers: Mapping[str, str], max_bytes: int) -> None:
    """Refuses a body whose size, as the sender announces it, is too large."""
    length = headers.get("content-length", "")
    if length.isdecimal() and (len(length) > _LONGEST_LENGTH or int(length) > max_bytes):
        raise too_large(max_bytes)


def too_large(max_bytes: int) -> RefusedError:
    """Refuses a large body. The connection ends with it, because the rest of the body is not read."""
    return refused(413, f"the body is larger than {max_bytes} bytes", connection="close")


class Body:
    """The body of one request.

    Args:
        memory: What it is taken from; given back by `release`.
    """

    def __init__(self, receive: Receive, max_bytes: int, memory: Memory) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._memory = memory
        self._taken = 0
        self._ended = False

    async def read(self) -> bytes:
        """Returns the body.

        Raises:
            RefusedError: It is too large, too slow, or there is no memory.
            DisconnectedError: The sender has gone.
        """
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                chunks = [await self._chunk()]
                while not self._ended:
                    chunks.append(await self._chunk())
        except TimeoutError:
            raise refused(408, "the body did not come in time", connection="close") from None
        return b"".join(chunks)

    async def _chunk(self) -> bytes:
        message = await self._receive()
        if message["type"] != "http.request":
            self._ended = True
            raise DisconnectedError
        self._ended = not message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        if self._taken + len(chunk) > self._max_bytes:
            raise too_large(self._max_bytes)
        self._memory.take(len(chunk))
        self._taken += len(chunk)
        return chunk

    async def discard(self, headers: Mapping[str, str]) -> None:
        """Reads on for a while, so that a sender who is still writing gets to read its refusal."""
        if "expect" in headers:
            return  # the sender waits to be asked for the body
        left = _DISCARDED_BYTES
        try:
            async with asyncio.timeout(_DISCARDED_S):
                while not self._ended and left > 0:
                    message = await self._receive()
                    self._ended = message["type"] != "http.request" or not message.get("more_body", False)
                    left -= len(message.get("body", b""))
        except TimeoutError:
            return

    def release(self) -> None:
        """Returns back the memory."""
        self._memory.give_back(self._taken)
        self._taken = 0
