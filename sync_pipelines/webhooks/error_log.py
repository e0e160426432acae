"""Problems in the log: one line each, without a trace, which may show what was sent."""

from __future__ import annotations

import logging

from sync_pipelines.engine.redaction import described

logger = logging.getLogger("sync_pipelines.webhooks")


def log_problem(what: str, error: Exception) -> None:
    """Logs what went wrong."""
    logger.error("%s: %s", what, described(error))
