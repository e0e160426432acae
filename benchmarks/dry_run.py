"""`python -m benchmarks.dry_run`: the diff of a dry run beside that of a plain run, on the same rows, in turns."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.databases import Place
from benchmarks.databases.postgres import open_postgres, postgres_server
from benchmarks.databases.sqlite import SqlitePlace
from benchmarks.tables import TABLE
from benchmarks.work import FIELDS, KEY, Item, Work
from sync_pipelines import Settings, SqlTable, SyncJob, run_sync

_CHANGED_EVERY = 100
_MOST = 1.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, and prints one JSON line for each database. Gives 1 if a dry run takes more than 1.5 times as long."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dry_run", description=__doc__)
    parser.add_argument("--items", type=int, default=100_000, help="of which 1 %% have changed [100000]")
    parser.add_argument("--repetitions", type=int, default=5, help="of each of both, by turns [5]")
    asked = parser.parse_args(arguments)
    ratios: list[float] = []
    for place in _places():
        measured = measure(place, asked.items, asked.repetitions)
        print(json.dumps(measured), flush=True)
        ratios.append(measured["ratio"])
    return int(max(ratios) > _MOST)


def _places() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        yield SqlitePlace(Path(name) / "sqlite")
    with postgres_server() as server_url, open_postgres(server_url) as place:
        yield place


def measure(place: Place, items: int, repetitions: int) -> dict[str, Any]:
    """Times the diffs of dry and plain runs by turns; the table is in the same state before each of them."""
    work = Work("B", items)
    took: dict[bool, list[int]] = {True: [], False: []}
    for repetition in range(-1, repetitions):
        for is_dry in (True, False) if repetition % 2 else (False, True):
            place.prepare(work)
            with _settings() as settings:
                results = run_sync(_job(place, work), settings=settings, dry_run=is_dry)
            if repetition >= 0:  # the first of each loads what is imported late
                took[is_dry].append(results.phase_ms["diff"])
    dry, plain = (median(took[is_dry]) / 1000 for is_dry in (True, False))
    return {
        "database": place.name,
        "items": items,
        "dry_s": round(dry, 2),
        "plain_s": round(plain, 2),
        "ratio": round(dry / plain, 2),
        "all_ms": {"dry": took[True], "plain": took[False]},
    }


@contextmanager
def _settings() -> Iterator[Settings]:
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        yield Settings(data_dir=Path(name), database_url=None, ledger_url=None)


def _job(place: Place, work: Work) -> SyncJob[Any, Any]:
    def changed() -> Iterator[list[Item]]:
        number = 0
        for page in work.pages():
            for item in page:
                number += 1
                if number % _CHANGED_EVERY == 0:
                    item["stock"] += 1
            yield page

    target = SqlTable(table=TABLE, key=KEY, columns={field: field for field in FIELDS}, database=place.url)
    return SyncJob(name="bench-dry-run", fetch_external=changed, target=target, guards=None)


if __name__ == "__main__":
    sys.exit(main())
