"""What a person sees while a sync runs, on stderr: a bar on a terminal, the run log elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from sync_pipelines.cli.output import one_line, remark
from sync_pipelines.cli.program import is_debug
from sync_pipelines.engine.progress import OnProgress
from sync_pipelines.engine.progress import Progress as RunProgress

_PHASES = {"fetch": "fetching", "diff": "comparing", "apply": "writing"}


@contextmanager
def watch_run(name: str) -> Iterator[OnProgress | None]:
    """Shows the run log and the progress of a run on stderr; yields what the run is to call, if a bar is shown."""
    if not sys.stderr.isatty():
        with _run_log(remark, logging.DEBUG if is_debug() else logging.INFO):
            yield None
        return
    bar = _build_bar(Console(file=sys.stderr))
    with bar, _run_log(lambda line: bar.console.print(Text(line)), logging.DEBUG if is_debug() else logging.WARNING):
        yield _Bar(bar, name).show


class _Bar:
    """One bar per phase, started when the phase reports progress."""

    def __init__(self, bar: Progress, name: str) -> None:
        self._bar = bar
        self._phase = "fetch"
        self._task = bar.add_task(f"{name}: {_PHASES['fetch']}", total=None)
        self._name = name

    def show(self, progress: RunProgress) -> None:
        """Shows how far the run is."""
        if progress.phase != self._phase:
            self._bar.remove_task(self._task)
            self._phase = progress.phase
            phase = _PHASES.get(progress.phase, progress.phase)
            self._task = self._bar.add_task(f"{self._name}: {phase}", total=progress.total)
        total = None if progress.phase == "fetch" else progress.total
        self._bar.update(self._task, completed=progress.done, total=total)


class _ItemsColumn(ProgressColumn):
    """How many items, of how many."""

    def render(self, task: Task) -> Text:
        """Writes the cell."""
        of_total = f" of {task.total:,.0f}" if task.total is not None else ""
        return Text(f"{task.completed:,.0f}{of_total} items")


class _RateColumn(ProgressColumn):
    """How many items a second, of late."""

    def render(self, task: Task) -> Text:
        """Writes the cell."""
        rate = task.finished_speed or task.speed
        return Text(f"{rate:,.0f}/s" if rate is not None else "-/s")


class _TimeLeftColumn(TimeRemainingColumn):
    """How long the phase will take yet, as soon as that is known."""

    def render(self, task: Task) -> Text:
        """Writes the cell."""
        return Text.assemble(super().render(task), " left") if task.total is not None else Text()


def _build_bar(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        _ItemsColumn(),
        _RateColumn(),
        _TimeLeftColumn(compact=True),
        console=console,
        transient=True,
    )


class _Lines(logging.Handler):
    """Writes each record as a line, all but the lines of the result, which the command shows itself."""

    def __init__(self, write: Callable[[str], object], level: int) -> None:
        super().__init__(level)
        self._write_line = write

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the record."""
        line = one_line(record.getMessage())
        if not getattr(record, "is_result", False):
            self._write_line(line if record.levelno < logging.WARNING else f"warning: {line}")


@contextmanager
def _run_log(write: Callable[[str], object], level: int) -> Iterator[None]:
    logger = logging.getLogger("sync_pipelines")
    handler, before, propagates = _Lines(write, level), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(min(level, logging.INFO))
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        logger.propagate = propagates
