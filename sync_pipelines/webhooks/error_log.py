"""Problems in the log: one line each, without a trace, which may show what was sent."""

from __future__ import annotations

import logging

from sync_pipelines.engine.redaction import exception_type, message_of

logger = logging.getLogger("sync_pipelines.webhooks")


def told(error: Exception) -> str:
    """Returns the error's type and message, without secrets."""
    return f"{exception_type(error)}: {message_of(error)}"


def log_problem(what: str, error: Exception) -> None:
    """Notes what went wrong."""
    logger.error("%s: %s", what, told(error))
