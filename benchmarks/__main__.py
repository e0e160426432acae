"""`python -m benchmarks`: measures, and writes the results as JSON lines, a page and a picture."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import NoReturn

from benchmarks.contestants import CONTESTANTS
from benchmarks.databases import Place
from benchmarks.databases.postgres import open_postgres, postgres_server
from benchmarks.databases.sqlite import SqlitePlace
from benchmarks.harness import Agenda, Harness
from benchmarks.machine import describe_machine, describe_versions
from benchmarks.page import write_page
from benchmarks.results import Measurement, write_run
from benchmarks.work import SCENARIOS

_UNITS = {"k": 1_000, "M": 1_000_000}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark. Gives the exit code: 1 if an end state was wrong or a contestant broke off."""
    signal.signal(signal.SIGTERM, _stop)
    asked = _parser().parse_args(arguments)
    out = Path(asked.out)
    out.mkdir(parents=True, exist_ok=True)
    agenda = Agenda(
        run=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        sizes=asked.sizes,
        scenarios=asked.scenarios,
        contestants=asked.contestants or list(CONTESTANTS),
        asked_for=asked.contestants is not None,
        repetitions=asked.repetitions,
        timeout_s=asked.timeout_s,
        profile=asked.profile,
    )
    problems = 0
    began_s = time.monotonic()
    with _places(asked.database, asked.postgres_url) as places:
        versions = {**describe_versions(), **{place.name: place.version for place in places}}
        write_run(out, agenda.run, {"machine": describe_machine(), "versions": versions})
        for place in places:
            for made in Harness(agenda, out).measure(place):
                problems += made.problem is not None
                print(_line(made), flush=True)
    took_s = round(time.monotonic() - began_s)
    write_run(out, agenda.run, {"took_s": took_s})
    write_page(out, out)
    print(f"{took_s:,} s. Results, page and picture are in {out}.")
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--sizes", type=_sizes, default=_sizes("10k,100k,1M"), help="items in the fetch [10k,100k,1M]")
    parser.add_argument("--scenarios", type=_one_of(SCENARIOS), default=list(SCENARIOS), help="[A,B,C,D,E]")
    parser.add_argument(
        "--contestants",
        type=_one_of(CONTESTANTS),
        help="named ones take part beyond their usual size; by default all of: " + ",".join(CONTESTANTS),
    )
    parser.add_argument("--repetitions", type=int, default=3, help="[3]")
    parser.add_argument("--database", choices=["postgresql", "sqlite", "both"], default="both", help="[both]")
    parser.add_argument("--postgres-url", help="of a running server, instead of one that is started for this")
    parser.add_argument("--out", default=".bench", help="folder; results are added to those that are there [.bench]")
    parser.add_argument("--timeout-s", type=float, default=3600, help="seconds for one measurement [3600]")
    parser.add_argument("--profile", action="store_true", help="profile run_sync; those times are not compared")
    return parser


@contextmanager
def _places(which: str, postgres_url: str | None) -> Iterator[list[Place]]:
    """The databases, for as long as they are needed."""
    with ExitStack() as stack:
        places: list[Place] = []
        if which in {"postgresql", "both"}:
            url = postgres_url or stack.enter_context(postgres_server())
            places.append(stack.enter_context(open_postgres(url)))
        if which in {"sqlite", "both"}:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench"))
            places.append(SqlitePlace(Path(folder) / "sqlite"))
        yield places


def _sizes(text: str) -> list[int]:
    return [int(part.rstrip("kM")) * _UNITS.get(part[-1:], 1) for part in text.split(",")]


def _one_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    def chosen(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return names

    return chosen


def _line(made: Measurement) -> str:
    what = f"{made.database:10} {made.size:>10,} {made.scenario}{'=A' if made.clean else '  '} "
    who = f"{made.contestant}{':' + made.variant if made.variant else ''}"
    took = f"{made.wall_s:8.2f} s {made.peak_mb:6.0f} MB" if made.wall_s is not None else ""
    return f"{what} {who:18} {took} {'WRONG: ' + made.problem if made.problem else ''}".rstrip()


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(143)  # leaves every `with`, so that the server is stopped


if __name__ == "__main__":
    sys.exit(main())
