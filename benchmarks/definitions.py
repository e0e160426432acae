"""How much CPU and memory a code location of many syncs takes to load, and how both grow with their number.

Each count is loaded in processes of its own, in turns, from as many generated job files: all that Dagster's code server
does until the web server and the daemon have what they ask for.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

COUNTS = (1, 200, 1_000)
REPETITIONS = 3
PACKAGE = "generated_jobs"
JOB_FILE = """
from sync_pipelines import SqlTable, SyncJob, csv_file, sync_intervals

JOB = SyncJob(
    name="sync-{number:04}",
    fetch_external=csv_file("stock-{number:04}.csv"),
    target=SqlTable(table="stock_{number:04}", key="sku", columns={{"sku": "sku", "stock": "qty"}}),
    schedule=sync_intervals.minutes(30),
)
"""
LOAD = """
import resource, time
from sync_pipelines.definitions import defs
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value
repository = defs.get_repository_def()
repository.load_all_definitions()
loaded_s = time.process_time()
serialize_value(RepositorySnap.from_def(repository, defer_snapshots=True))
memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(loaded_s, time.process_time(), memory_mb, len(repository.sensor_defs))
"""


@dataclass(frozen=True)
class Loading:
    """What one process took.

    Args:
        loaded_s: Seconds of CPU until all definitions were there.
        served_s: Seconds of CPU until they were written out for the web server as well.
        memory_mb: Its largest size, in MB.
        sensors: How many sensors there are.
    """

    loaded_s: float
    served_s: float
    memory_mb: float
    sensors: int


def main() -> None:
    """Prints a line per count, and what one more sync costs at both ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs=3, default=COUNTS, help="few, some and many syncs")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    options = parser.parse_args()
    taken: dict[int, list[Loading]] = {count: [] for count in options.counts}
    with TemporaryDirectory() as folder:
        for count in options.counts:
            write_jobs(Path(folder) / str(count), count)
        for _ in range(options.repetitions):
            for count in options.counts:
                taken[count].append(load(Path(folder) / str(count)))
    print("syncs  loaded (CPU s)  served (CPU s)  memory (MB)  sensors")
    for count, loadings in taken.items():
        middle = median(loadings)
        print(
            f"{count:5}  {middle.loaded_s:14.2f}  {middle.served_s:14.2f}  {middle.memory_mb:11.0f}  {middle.sensors:7}"
        )
    print_growth({count: median(loadings) for count, loadings in taken.items()})


def print_growth(taken: dict[int, Loading]) -> None:
    """Prints what one more sync costs among few and among many: a ratio of 1 is linear growth."""
    few, some, many = sorted(taken)
    among_few = (taken[some].served_s - taken[few].served_s) / (some - few)
    among_many = (taken[many].served_s - taken[some].served_s) / (many - some)
    print(f"one more sync: {1_000 * among_few:.1f} ms, then {1_000 * among_many:.1f} ms: {among_many / among_few:.2f}")


def median(loadings: list[Loading]) -> Loading:
    """Returns the middle of each figure."""
    return Loading(
        statistics.median(each.loaded_s for each in loadings),
        statistics.median(each.served_s for each in loadings),
        statistics.median(each.memory_mb for each in loadings),
        loadings[0].sensors,
    )


def write_jobs(folder: Path, count: int) -> None:
    """Writes a package with as many job files."""
    package = folder / PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for number in range(count):
        (package / f"sync_{number:04}.py").write_text(JOB_FILE.format(number=number), encoding="utf-8")


def load(folder: Path) -> Loading:
    """Loads the job files of a folder in a process of its own."""
    given = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "SYNC_PIPELINES_JOBS": PACKAGE,
        "SYNC_PIPELINES_DATA_DIR": str(folder),
    }
    line = [sys.executable, "-W", "ignore", "-c", LOAD]
    found = subprocess.run(line, env=given, cwd=folder, capture_output=True, text=True, check=True)
    loaded_s, served_s, memory_mb, sensors = found.stdout.split()
    return Loading(float(loaded_s), float(served_s), float(memory_mb), int(sensors))


if __name__ == "__main__":
    main()
