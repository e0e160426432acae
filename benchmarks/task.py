"""What goes to the process of a contestant, and what comes back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from benchmarks.work import Work


@dataclass(frozen=True)
class Task:
    """One measurement to make.

    Args:
        contestant: Its name in `benchmarks.contestants`.
        variant: Which of its forms, empty if it has one only.
        database: `postgresql` or `sqlite`.
        url: Of that database, as a user writes it.
        scenario: A letter of `benchmarks.work.SCENARIOS`.
        size: Items in the fetch.
        folder: An empty folder of the contestant's own.
        profile: Where to write a profile; None for none. A profiled run is slower and not compared.
    """

    contestant: str
    variant: str
    database: str
    url: str
    scenario: str
    size: int
    folder: str
    profile: str | None = None

    @property
    def work(self) -> Work:
        """The items."""
        return Work(self.scenario, self.size)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads what `write` has written."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, path: Path) -> None:
        """Leaves it for another process."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


@dataclass(frozen=True)
class Report:
    """What a contestant says when it is done.

    Args:
        counts: Its own counts by outcome, if it has any.
        errors: The messages of the items that failed.
        wall_s: Its own time, where the clock around it would measure too much; None for that clock's.
    """

    counts: Mapping[str, int] | None = None
    errors: tuple[str, ...] = ()
    wall_s: float | None = None


Run = Callable[[], Report]
"""What a contestant's `prepare(task)` gives: everything is imported and connected, the call does the work."""


@dataclass(frozen=True)
class Measured:
    """What came of a task.

    Args:
        wall_s: Seconds from the first item asked for to the last row committed.
        peak_mb: Most memory that the process had at any time, in MB.
        counts: As in `Report`.
        errors: As in `Report`.
    """

    wall_s: float
    peak_mb: float
    counts: Mapping[str, int] | None = None
    errors: tuple[str, ...] = field(default=())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads what `write` has written."""
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**values, "errors": tuple(values["errors"])})

    def write(self, path: Path) -> None:
        """Leaves it for another process."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")
