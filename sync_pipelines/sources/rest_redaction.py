"""Keeps the secrets of a REST source out of error texts and logs."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, quote_plus

import httpx

from sync_pipelines.engine.redaction import HIDDEN, SENSITIVE_NAMES, redact

_LONGEST_TEXT = 300
_LOOKED_AT = 4_000
_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy", "httpcore.socks")
# Query parameters that hold secrets by their names, such as the signatures of next links.
_SECRET_PARAMETER = re.compile(
    rf"(?P<name>[?&][^=&\s]*(?:{SENSITIVE_NAMES}|key|auth|sig|signature|credentials?|session)=)[^&\s'\"<>]+",
    re.IGNORECASE,
)


class Secrets:
    """What must not be shown: passwords, keys, and tokens as they are given to us."""

    def __init__(self) -> None:
        self._forms: set[str] = set()

    def add(self, *secrets: str) -> None:
        """Remembers secrets, in all the forms in which they travel."""
        for secret in filter(None, secrets):
            self._forms |= {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)}
            self._forms |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}

    def redact(self, text: str) -> str:
        """Replaces every secret in the text, the longest first since one may hold another; and what looks like one."""
        for form in sorted(self._forms, key=len, reverse=True):
            text = text.replace(form, HIDDEN)
        return _SECRET_PARAMETER.sub(rf"\g<name>{HIDDEN}", text)

    def excerpt(self, text: str) -> str:
        """Cuts a text from outside to what may be shown: on one line, without secrets, at most 300 characters."""
        # Redacted before it is cut, since half a secret would not be known as one. Of megabytes the beginning will
        # do; what of a secret lies across the first cut goes with the second.
        text = self.redact(text[: 2 * _LOOKED_AT])[:_LOOKED_AT]
        text = " ".join(redact(text).split())
        return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."

    def shown(self, url: httpx.URL) -> str:
        """Returns what may be shown of a URL."""
        return self.excerpt(str(url.copy_with(userinfo=b"", fragment=None)))

    @contextmanager
    def kept_out_of_logs(self) -> Iterator[None]:
        """Redacts secrets in what the HTTP client logs, which is every URL with its query, while the block runs."""
        hiding = _Hiding(self)
        loggers = [logging.getLogger(name) for name in _LOGGERS]
        for logger in loggers:
            logger.addFilter(hiding)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(hiding)


class _Hiding(logging.Filter):
    def __init__(self, secrets: Secrets) -> None:
        super().__init__()
        self._secrets = secrets

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        hidden = self._secrets.redact(text)
        if hidden != text:
            record.msg, record.args = hidden, ()
        return True
