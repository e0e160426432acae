"""Writes the page of the documentation: `python -m benchmarks.page benchmarks/results --docs docs`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.contestants import CONTESTANTS, LIMIT
from benchmarks.plot import cells_to_draw, draw
from benchmarks.results import Results, read_results
from benchmarks.summary import Cell, Row, Spread, cells_of, rows_of, variants_of
from benchmarks.work import POISONED_ITEMS, SCENARIOS

PAGE = "benchmarks.md"
PICTURE = "images/benchmarks.svg"
_DATABASES = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}
_OWN = ("run_sync", "dagster")

_BEGINNING = """\
# Benchmarks

How long a sync takes, beside other ways to do the same work on the same machine. This page is written by a command
from the measurements; [below](#how-to-repeat-it) stands how to repeat them.

The yardstick is **the limit**: the fastest of several scripts written by hand for this one table (COPY into a temporary
table, then set-based SQL; on SQLite `executemany`), in one transaction, with nothing kept if it is killed, and with
not a single row if one row is bad. A sync of this project also keeps a durable snapshot, a plan, a ledger, exact counts
and the error of every item that fails. A ratio of 1.5 means that it takes one and a half times as long as the limit.
"""

_PICTURE_TEXT = "![How many times as long as the best hand-written script each takes]({picture})\n"

_METHOD = """\
## How it is measured

- The table `variants` has a surrogate key, a unique `sku`, name, stock, price `numeric(12,2)`, a timestamp with time
  zone, four short texts, two CHECKs, and NOT NULL everywhere. Items are dicts of about 200 bytes, in no order of the
  key, made by a generator page by page. Making them (some 2 to 3 s per million) is part of everybody's time.
- Each measurement has a process of its own. Imports, connections and each tool's own tables are there before the clock
  starts; the clock stops when the last row is committed. For the Dagster job it is the time from the start of the first
  step to the end of the run, as Dagster's events say.
- Before each measurement the table is filled from a template table, indexed, vacuumed, analysed, and everything is
  brought to disk. After it, the number of rows and a checksum over all columns are compared with what the generator
  says, and no row may have got another surrogate key. What this project reports is checked as well: all counts, and in
  E that each error is the database's own message. Whoever leaves a wrong table has no time here.
- In E {poisoned} items, spread over the fetch, break a CHECK. The others must land, and each error must be kept; the
  time is compared with that of the same contestant without these errors.
- Contestants take turns within one repetition, and their order rotates. Ratios are taken within one repetition; shown
  are the median and, in brackets, least and most. Memory is the peak of the client's process.
- PostgreSQL is in its default configuration, `fsync` on, reached through a Unix socket.

What the others do:

| Contestant | What it is |
|---|---|
| the limit | the best of the variants listed at the end; those that compare in Python hold the whole table in memory |
| dlt | `merge` with the strategy `upsert`, in C `cdc`, equal rows skipped; into the same table, files as CSV |
| SQLAlchemy Core, ORM | pages of 1,000: one SELECT by key, comparison in Python, bulk INSERT, bulk UPDATE |
| DiffSync | both sides as objects in memory, its own diff, written in bulk at the end; up to 100,000 items |
| per-item loop | find, create or update, a transaction per item; measured with 10,000 items, else extrapolated |
"""

_REPEAT = """\
## How to repeat it

```console
make bench
make bench SIZES=1M SCENARIOS=A,C CONTESTANTS=run_sync,limit REPETITIONS=5 DATABASE=postgresql
```

The first measures everybody with 10,000 and 100,000 items, and with a million the limit, `run_sync` and dlt with Arrow;
allow some hours on two cores (how long each run took stands above). For a first look there is
`make bench SIZES=10k REPETITIONS=1`. Results are added to `.bench/`, with a page and a picture like these.
`make bench OUT=benchmarks/results` adds them to the published ones instead, and `make bench-page` then writes this
page. Without make:

```console
python -m benchmarks --help
python -m benchmarks --sizes 100k --scenarios C --contestants run_sync,limit --profile
```

With `--postgres-url` a server of yours is measured, in a database that is made for it and dropped in the end.
10 million items are an option (`SIZES=10M`) that nobody has tried yet.
"""


def write_page(results_folder: Path, docs: Path) -> None:
    """Writes the page and its picture into a folder, from the results in another one."""
    results = read_results(results_folder)
    drawn = cells_to_draw(results)
    if drawn:
        (docs / PICTURE).parent.mkdir(parents=True, exist_ok=True)
        draw(results, drawn, docs / PICTURE)
    (docs / PAGE).write_text(page_of(results, with_picture=bool(drawn)), encoding="utf-8")


def page_of(results: Results, *, with_picture: bool = True) -> str:
    """The page as Markdown."""
    parts = [_BEGINNING, *_at_a_glance(results)]
    if with_picture:
        parts.append(_PICTURE_TEXT.format(picture=PICTURE))
    parts += _tables(results)
    parts += [_METHOD.format(poisoned=POISONED_ITEMS), *_conditions(results), _REPEAT, *_variants(results)]
    return "\n".join(parts)


def _at_a_glance(results: Results) -> Iterator[str]:
    """This engine alone, at the largest size of each database: what an operator wants to know."""
    lines = []
    for database, title in _DATABASES.items():
        found = [(cell, row) for cell in cells_of(results) for row in rows_of(results, cell) if row.wall]
        own = [(cell, row) for cell, row in found if cell.database == database and row.contestant == "run_sync"]
        if own:
            largest = max(cell.size for cell, _ in own)
            lines += [_glance(title, cell, row) for cell, row in own if cell.size == largest]
    if lines:
        yield "## At a glance\n"
        yield _table("`run_sync`|items|takes|items per second|peak MB|times the limit", lines)


def _glance(title: str, cell: Cell, row: Row) -> str:
    seconds = row.wall.middle if row.wall else 0.0
    ratio = f"{row.ratio.middle:.2f}" if row.ratio and cell.scenario != "E" else "-"
    what = f"{title}: {SCENARIOS[cell.scenario]}"
    return f"{what}|{cell.size:,}|{seconds:.1f} s|{_rate(cell, row)}|{row.peak_mb:.0f}|{ratio}"


def _tables(results: Results) -> Iterator[str]:
    for database, title in _DATABASES.items():
        cells = [cell for cell in cells_of(results) if cell.database == database]
        for size in sorted({cell.size for cell in cells}):
            yield f"## {title}, {size:,} items\n"
            for cell in cells:
                if cell.size == size:
                    yield from _comparison(results, cell)


def _comparison(results: Results, cell: Cell) -> Iterator[str]:
    compared = "as long as without them" if cell.scenario == "E" else "as long as the limit"
    lines = [_line(cell, row) for row in rows_of(results, cell)]
    yield f"**{cell.scenario}: {SCENARIOS[cell.scenario]}**\n"
    yield _table(f"contestant|times {compared}|seconds|items per second|peak MB|repetitions", lines)


def _line(cell: Cell, row: Row) -> str:
    name = CONTESTANTS[row.contestant].title + (f" (`{row.variant}`)" if row.variant else "")
    if row.contestant in _OWN:
        name = f"**{name}**"
    if row.wall is None:
        return f"{name}|no result: {_shown(row.problem)}||||"
    if row.measured_at:
        name += f", from {row.measured_at:,}"
    ratio = "1" if row.contestant == LIMIT else _spread(row.ratio)
    if row.problem:
        name += f" (a repetition went wrong: {_shown(row.problem)})"
    return f"{name}|{ratio}|{row.wall.middle:,.2f}|{_rate(cell, row)}|{row.peak_mb:.0f}|{row.repetitions}"


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    if spread.least == spread.most:
        return f"{spread.middle:.2f}"
    return f"{spread.middle:.2f} ({spread.least:.2f} to {spread.most:.2f})"


def _shown(problem: str | None) -> str:
    return (problem or "unknown").replace("|", "/")


def _rate(cell: Cell, row: Row) -> str:
    return f"{cell.size / row.wall.middle:,.0f}" if row.wall else "-"


def _variants(results: Results) -> Iterator[str]:
    """What the limit is made of."""
    lines = []
    for cell in cells_of(results):
        for row in variants_of(results, cell):
            seconds = f"{row.wall.middle:,.2f}" if row.wall else _shown(row.problem)
            place = f"{_DATABASES[cell.database]}, {cell.size:,}, {cell.scenario}"
            lines.append(f"{place}|`{row.variant}`|{seconds}|{_spread(row.ratio)}|{row.peak_mb:.0f}")
    if lines:
        yield "## The variants of the limit\n"
        yield (
            "Each gives the right end state whatever the table held before. `benchmarks/contestants/limit_postgres.py` "
            "and `limit_sqlite.py` have them.\n"
        )
        yield _table("where|variant|seconds|times the best|peak MB", lines)


def _conditions(results: Results) -> Iterator[str]:
    yield "## Machine and versions\n"
    lines = []
    for run, about in results.runs.items():
        if any(each.run == run and not each.profiled for each in results.measurements):
            took = f"{about['took_s'] / 60:.0f}" if "took_s" in about else "broken off"
            lines.append(f"{run}|{took}|{_listed(about['machine'])}|{_listed(about['versions'])}")
    yield _table("run|minutes|machine|versions", lines)


def _listed(about: Mapping[str, Any]) -> str:
    return "; ".join(f"{name} {value}" for name, value in about.items())


def _table(heading: str, lines: list[str]) -> str:
    columns = heading.count("|")
    rule = "|".join(["---", *["--:"] * columns])
    return "\n".join(f"| {line.replace('|', ' | ')} |" for line in (heading, rule, *lines)) + "\n"


def main() -> None:
    """Writes the page again without measuring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("results", type=Path, help="folder with results.jsonl")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the page [docs]")
    asked = parser.parse_args()
    write_page(asked.results, asked.docs)


if __name__ == "__main__":
    main()
