"""Measures: repetitions interleaved, one process at a time, every end state verified."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.contestants import CONTESTANTS
from benchmarks.databases import Place
from benchmarks.results import Measurement, write_measurement
from benchmarks.tables import State, expected_state
from benchmarks.task import Measured, Task
from benchmarks.verify import problem_of
from benchmarks.work import Work

_ROOT = Path(__file__).resolve().parent.parent
_AN_ERROR = re.compile(r"[\w.]+(?:Error|Exception|Exit|Interrupt)\b|dlt\.[\w.]+:")
_A_PATH = re.compile(r"(?:/[^\s/:'\"]+){2,}")


@dataclass(frozen=True, kw_only=True)
class Agenda:
    """What to measure.

    Args:
        run: The name of this run of the benchmark.
        sizes: Items in the fetch.
        scenarios: Letters.
        contestants: Names.
        asked_for: True if the contestants were named, so that they take part beyond their usual size.
        repetitions: How often.
        timeout_s: Seconds after which a contestant is stopped.
        profile: True to profile this engine instead of comparing it.
    """

    run: str
    sizes: Sequence[int]
    scenarios: Sequence[str]
    contestants: Sequence[str]
    asked_for: bool
    repetitions: int
    timeout_s: float
    profile: bool = False

    def entries(self, database: str, scenario: str, size: int) -> list[Measurement]:
        """Who takes part in one comparison, as measurements that are yet to be made."""
        found = []
        for name in self.contestants:
            contestant = CONTESTANTS[name]
            largest = contestant.largest_size if self.asked_for else contestant.usual_size
            if database not in contestant.databases or scenario not in contestant.scenarios or size > largest:
                continue
            entry = Measurement(
                run=self.run, repetition=0, database=database, size=size, scenario=scenario, contestant=name
            )
            found += [replace(entry, variant=variant) for variant in contestant.forms(database, scenario)]
            if scenario == "E":
                found.append(replace(entry, clean=True))
        return found


class Harness:
    """Carries an agenda out.

    Args:
        agenda: What to measure.
        out: The folder of the results.
    """

    def __init__(self, agenda: Agenda, out: Path) -> None:
        self._agenda = agenda
        self._out = out
        self._expected: dict[Work, State] = {}

    def measure(self, place: Place) -> Iterator[Measurement]:
        """Makes all measurements in one database and gives each when it is made and written down."""
        for size in self._agenda.sizes:
            for scenario in self._agenda.scenarios:
                entries = self._agenda.entries(place.name, scenario, size)
                for repetition in range(self._agenda.repetitions):
                    first = repetition % max(1, len(entries))
                    for entry in (*entries[first:], *entries[:first]):
                        made = self._measure(place, replace(entry, repetition=repetition))
                        write_measurement(self._out, made)
                        yield made

    def _measure(self, place: Place, entry: Measurement) -> Measurement:
        work = Work("A" if entry.clean else entry.scenario, entry.size)
        place.prepare(work, CONTESTANTS[entry.contestant].extra_columns)
        with tempfile.TemporaryDirectory(prefix="bench") as folder:
            task = self._task(place, entry, work, Path(folder))
            measured = self._run(task, Path(folder))
        entry = replace(entry, profiled=task.profile is not None)
        if isinstance(measured, str):
            return replace(entry, problem=measured)
        problem = problem_of(work, place.name, self._expected_state(work), place.state(work), measured)
        return replace(entry, wall_s=round(measured.wall_s, 4), peak_mb=round(measured.peak_mb, 1), problem=problem)

    def _task(self, place: Place, entry: Measurement, work: Work, folder: Path) -> Task:
        own_folder = folder / "own"
        own_folder.mkdir()
        profile = self._out / f"profile-{entry.contestant}-{place.name}-{work.scenario}-{work.size}"
        return Task(
            contestant=entry.contestant,
            variant=entry.variant,
            database=place.name,
            url=place.url,
            scenario=work.scenario,
            size=work.size,
            folder=str(own_folder),
            profile=str(profile.resolve()) if self._agenda.profile and entry.contestant == "run_sync" else None,
        )

    def _run(self, task: Task, folder: Path) -> Measured | str:
        """Gives what the process of the contestant measured, or why it did not."""
        task_file, result_file = folder / "task.json", folder / "result.json"
        task.write(task_file)
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.measure", str(task_file), str(result_file)]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                timeout=self._agenda.timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"stopped after {self._agenda.timeout_s:.0f} s"
        if done.returncode != 0:
            (self._out / "last-failure.log").write_text(done.stderr, encoding="utf-8")
            return f"it failed: {_last_line(done.stderr)}"
        return Measured.read(result_file)

    def _expected_state(self, work: Work) -> State:
        if work not in self._expected:
            self._expected[work] = expected_state(work)
        return self._expected[work]


def _environment() -> dict[str, str]:
    """The environment of a contestant: nobody's settings of this engine, and the repository to import from."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SYNC_PIPELINES_", "DAGSTER_"))}
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, "DAGSTER_DISABLE_TELEMETRY": "1"}


def _last_line(text: str) -> str:
    """The end of a trace, without any path: the results may be published."""
    lines = [line for line in text.splitlines() if line.strip()]
    named = [line for line in lines if _AN_ERROR.match(line)] or lines
    return _A_PATH.sub("...", named[-1])[:300] if named else "without a word"
