"""The answers that a sender gets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Send

RETRY_AFTER_S = 5
"""When the database is away, the sender may ask again after so many seconds."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, and a document that explains it.

    Args:
        text: Sent in place of the document, as plain text; empty: without a body.
    """

    status: int
    document: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None

    async def send(self, send: Send, *, with_body: bool = True) -> None:
        """Sends it.

        Args:
            with_body: False for a HEAD request.
        """
        body = (json.dumps(self.document) if self.text is None else self.text).encode()
        headers = [(b"content-length", b"%d" % len(body))]
        if self.text is None:
            headers.append((b"content-type", b"application/json"))
        elif self.text:  # a browser is not to make a page of what somebody had sent back
            headers += [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]
        headers += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body if with_body else b""})


def error(status: int, message: str, *, retry_after_s: int | None = None, **headers: str) -> Answer:
    """Builds an answer that refuses, with the reason."""
    if retry_after_s is not None:
        headers["retry-after"] = str(retry_after_s)
    return Answer(status, {"error": message}, headers)


class RefusedError(Exception):
    """A delivery is not taken."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.document.get("error", ""))
        self.answer = answer


def refused(status: int, message: str, *, retry_after_s: int | None = None, **headers: str) -> RefusedError:
    """Builds the refusal of a delivery."""
    return RefusedError(error(status, message, retry_after_s=retry_after_s, **headers))
