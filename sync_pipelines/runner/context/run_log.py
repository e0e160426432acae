"""Writes the run log: a line per phase, progress now and then, the first errors, one summary."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from sync_pipelines.engine.calls import call
from sync_pipelines.engine.progress import OnProgress, Progress
from sync_pipelines.engine.redaction import typed
from sync_pipelines.engine.results import SyncError, SyncResults

PROGRESS_EVERY_S = 10.0
ERRORS_SHOWN = 20
CAUSES_SHOWN = 10


class RunReport:
    """Writes the run log and calls the progress callback.

    Args:
        on_progress: Called after every page and batch; what it raises ends the run.
    """

    def __init__(
        self,
        log: logging.Logger | None = None,
        on_progress: OnProgress | None = None,
        elapsed_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log or logging.getLogger("sync_pipelines")
        self._on_progress = on_progress
        self._elapsed_s = elapsed_s
        self._reported_at_s = elapsed_s()
        self._errors = 0

    def line(self, text: str) -> None:
        """Writes a line."""
        self._log.info(text)
        self._reported_at_s = self._elapsed_s()

    def warning(self, text: str) -> None:
        """Writes a line that should catch the eye."""
        self._log.warning(text)

    def result(self, text: str, level: int = logging.INFO) -> None:
        """Writes a line of the run's result, marked as such for whoever shows the result otherwise."""
        self._log.log(level, text, extra={"is_result": True})

    def progress(self, progress: Progress) -> None:
        """Reports to the callback at once, to the log every ten seconds."""
        if self._on_progress is not None:
            call(self._on_progress, progress)
        if self._elapsed_s() - self._reported_at_s >= PROGRESS_EVERY_S:
            of_total = f" of {progress.total:,}" if progress.total is not None else ""
            self.line(f"{progress.phase}: {progress.done:,}{of_total} done")

    def item_failed(self, error: SyncError) -> None:
        """Shows one of the first errors; further ones are only counted."""
        self._errors += 1
        if self._errors <= ERRORS_SHOWN:
            item = f"item {error.position}" if error.position >= 0 else "local record"
            shown = f"{item} {error.external_id!r}" if error.external_id is not None else f"{item} (no external id)"
            self._log.warning("%s failed: %s", shown, typed(error.exception_type, error.message))
            for line in error.trace.splitlines():
                self._log.debug(line)
        elif self._errors == ERRORS_SHOWN + 1:
            self._log.warning("further items failed; they are counted, and the ledger lists them all")

    def finished(self, results: SyncResults) -> None:
        """Writes the errors by cause, and the summary line."""
        self._tell_causes(results)
        is_good = results.outcome in {"clean", "planned"} and not (results.error_count or results.not_found)
        self.result(results.summary(), logging.INFO if is_good else logging.WARNING)

    def _tell_causes(self, results: SyncResults) -> None:
        for each in results.causes[:CAUSES_SHOWN]:
            self._log.warning("errors by cause: %s", each.line())
        if len(results.causes) > CAUSES_SHOWN:
            left = len(results.causes) - CAUSES_SHOWN
            self._log.warning("errors by cause: %s more causes, which the ledger has", f"{left:,}")
        for each in results.gone_causes[:CAUSES_SHOWN]:
            self._log.info("gone since the last run: %s", each.line())
