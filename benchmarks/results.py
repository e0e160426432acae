"""Measurements as JSON lines: each run of the benchmark begins with a line about machine and versions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RESULTS_FILE = "results.jsonl"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One contestant, once.

    Args:
        run: Which run of the benchmark.
        repetition: Counted from 0. Ratios are taken within one.
        database: `postgresql` or `sqlite`.
        size: Items in the fetch.
        scenario: In which comparison it took part.
        contestant: Its name.
        variant: Its form, empty if it has one only.
        clean: True in scenario E for the same contestant without the items that fail.
        wall_s: Seconds; None if it did not end.
        peak_mb: Most memory of its process; None if it did not end.
        problem: Why its time does not count, None if it does.
        profiled: True if a profiler ran along, so that its time does not count.
    """

    run: str
    repetition: int
    database: str
    size: int
    scenario: str
    contestant: str
    variant: str = ""
    clean: bool = False
    wall_s: float | None = None
    peak_mb: float | None = None
    problem: str | None = None
    profiled: bool = False


@dataclass(frozen=True)
class Results:
    """All that a file has.

    Args:
        runs: What is known of each run, oldest first, by its name.
        measurements: In the order in which they were made.
    """

    runs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    measurements: Sequence[Measurement] = ()


def write_run(folder: Path, run: str, about: Mapping[str, Any]) -> None:
    """Adds what is known of a run: about machine and versions when it begins, how long it took when it is over."""
    _append(folder, {"kind": "run", "run": run, **about})


def write_measurement(folder: Path, measurement: Measurement) -> None:
    """Adds one line."""
    _append(folder, {"kind": "measurement", **asdict(measurement)})


def read_results(folder: Path) -> Results:
    """Reads what runs have left in a folder."""
    runs: dict[str, Mapping[str, Any]] = {}
    measurements = []
    for line in (folder / RESULTS_FILE).read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        if found.pop("kind") == "run":
            run = found.pop("run")
            runs[run] = {**runs.get(run, {}), **found}
        else:
            measurements.append(Measurement(**found))
    return Results(runs, measurements)


def _append(folder: Path, line: Mapping[str, Any]) -> None:
    with (folder / RESULTS_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
