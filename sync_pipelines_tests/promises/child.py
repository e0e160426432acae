"""A sync in a process of its own, for the promises that are about processes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from sync_pipelines import Settings, SqlTable, SyncJob, run_sync

Item = dict[str, Any]


def items(count: int) -> list[Item]:
    """What the source has."""
    return [{"sku": f"A{number:06}", "stock": number % 7} for number in range(count)]


def job(url: str, fetch: Any, **fields: Any) -> SyncJob[Any, Any]:
    """The sync, into the table `variants`."""
    target = SqlTable(table="variants", key="sku", columns=["stock"], database=url)
    return SyncJob(**{"name": "stock", "fetch_external": fetch, "target": target, **fields})


def killed_at_statement(url: str, settings: Settings, number: int) -> None:
    """Ends as by a power cut when it is about to send its n-th statement or commit, to whatever database."""
    left = number

    def live(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", live)
    event.listen(Engine, "commit", live)
    run_sync(job(url, lambda: items(1_200), deletes="hard"), settings=settings)


def waiting_for_a_line(url: str, settings: Settings, count: int) -> None:
    """Says that it fetches, and goes on when it is told to."""

    def fetch() -> Iterator[Item]:
        print("fetching", flush=True)  # noqa: T201 - heard by the test
        sys.stdin.readline()
        yield from items(count)

    run_sync(job(url, fetch), settings=settings)


def measured(url: str, settings: Settings, count: int) -> None:
    """Prints the most memory that the process has had, in kB."""

    def fetch() -> Iterator[list[Item]]:
        for start in range(0, count, 500):
            yield [{"sku": f"A{number:07}", "stock": number} for number in range(start, start + 500)]

    results = run_sync(job(url, fetch), settings=settings)
    assert results.created == count
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))  # noqa: T201 - heard by the test


if __name__ == "__main__":
    acts = {"kill": killed_at_statement, "wait": waiting_for_a_line, "measure": measured}
    given = Settings(data_dir=Path(sys.argv[3]))
    acts[sys.argv[1]](sys.argv[2], given, int(sys.argv[4]))
