"""One measurement in a process of its own: `python -m benchmarks.measure task.json result.json`."""

from __future__ import annotations

import cProfile
import gc
import io
import pstats
import resource
import sys
import time
from importlib import import_module
from pathlib import Path

from benchmarks.contestants import CONTESTANTS
from benchmarks.task import Measured, Report, Run, Task

_PROFILED_LINES = 60


def main() -> None:
    """Prepares the contestant, starts the clock, lets it work, and leaves the result in a file."""
    task_file, result_file = map(Path, sys.argv[1:])
    task = Task.read(task_file)
    run: Run = import_module(CONTESTANTS[task.contestant].module_for(task.database)).prepare(task)
    gc.collect()
    profiler = cProfile.Profile() if task.profile else None
    began_s = time.perf_counter()
    report = profiler.runcall(run) if profiler else run()
    wall_s = time.perf_counter() - began_s
    if profiler and task.profile:
        _write_profile(profiler, Path(task.profile))
    _measured(report, wall_s).write(result_file)


def _measured(report: Report, wall_s: float) -> Measured:
    return Measured(report.wall_s if report.wall_s is not None else wall_s, peak_mb(), report.counts, report.errors)


def peak_mb() -> float:
    """The most memory this process had at any time, in MB.

    `ru_maxrss` alone would not do: Linux hands a parent's peak on to the child that it starts. `VmHWM` is the same
    number of this program alone; elsewhere there is only the first.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1000
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _write_profile(profiler: cProfile.Profile, path: Path) -> None:
    profiler.dump_stats(path.with_suffix(".prof"))
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).strip_dirs().sort_stats("tottime").print_stats(_PROFILED_LINES)
    path.with_suffix(".txt").write_text(text.getvalue(), encoding="utf-8")


if __name__ == "__main__":
    main()
