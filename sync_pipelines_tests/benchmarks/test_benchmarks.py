"""The benchmark measures what it says: right end states, ratios of one repetition, a page out of the results."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from benchmarks.contestants import CONTESTANTS, LIMIT, limit_postgres, limit_sqlite
from benchmarks.databases import Place
from benchmarks.databases.postgres import open_postgres
from benchmarks.databases.sqlite import SqlitePlace, file_of
from benchmarks.page import PAGE, PICTURE, page_of
from benchmarks.results import Measurement, Results, read_results
from benchmarks.summary import Cell, rows_of
from benchmarks.tables import expected_state
from benchmarks.task import Measured
from benchmarks.verify import problem_of
from benchmarks.work import COLUMNS, SCENARIOS, Work
from sync_pipelines_tests.children import run_child

REPOSITORY = Path(__file__).parents[2]
PUBLISHED = REPOSITORY / "benchmarks" / "results"
SIZE = 230


# The command


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run on both databases, with a PostgreSQL server of its own."""
    folder = tmp_path_factory.mktemp("bench")
    options = "--sizes 200 --scenarios A,C --contestants run_sync,limit --repetitions 1 --database both"
    command = [sys.executable, "-m", "benchmarks", *options.split(), "--out", str(folder)]
    done = run_child(command, cwd=REPOSITORY, timeout_s=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_a_run_leaves_measurements_whose_end_states_were_right(out: Path) -> None:
    results = read_results(out)

    measured = {(each.database, each.scenario, each.contestant, each.variant) for each in results.measurements}
    expected = {
        (database, scenario, name, variant)
        for database in ("postgresql", "sqlite")
        for scenario in ("A", "C")
        for name in ("run_sync", LIMIT)
        for variant in CONTESTANTS[name].forms(database, scenario)
    }
    assert measured == expected
    assert [each for each in results.measurements if each.problem] == []
    assert all(each.wall_s and each.peak_mb for each in results.measurements)
    assert set(next(iter(results.runs.values()))["versions"]) >= {"Python", "postgresql", "sqlite", "SQLAlchemy"}


def test_a_run_leaves_a_page_and_a_picture(out: Path) -> None:
    page = (out / PAGE).read_text(encoding="utf-8")

    assert "## PostgreSQL, 200 items" in page
    assert "## SQLite, 200 items" in page
    assert f"**{CONTESTANTS['run_sync'].title}**" in page
    assert "A: all new" in (out / PICTURE).read_text(encoding="utf-8")


def test_what_may_be_published_names_no_path_of_the_machine(out: Path) -> None:
    for file in ("results.jsonl", PAGE):
        assert not re.search(r"/(?:home|root|tmp|work|var|usr)/", (out / file).read_text(encoding="utf-8"))


# The work


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("size", [1, 7, 100, 1000])
def test_every_item_comes_once_and_every_count_is_explained(scenario: str, size: int) -> None:
    work = Work(scenario, size)
    skus = [item["sku"] for page in work.pages(97) for item in page]
    counts = work.expected_counts()

    assert len(skus) == len(set(skus)) == size
    assert size == sum(counts[name] for name in ("created", "updated", "unchanged", "failed"))
    assert expected_state(work).rows == work.local_rows + counts["created"] - counts["deleted"]


def test_the_items_come_in_no_order_and_are_the_same_every_time() -> None:
    skus = [item["sku"] for page in Work("A", 1000).pages() for item in page]

    assert skus not in (sorted(skus), sorted(skus, reverse=True))
    assert list(Work("A", 1000).pages()) == list(Work("A", 1000).pages())
    assert tuple(next(Work("A", 1000).pages())[0]) == COLUMNS


def test_poison_is_spread_over_the_fetch() -> None:
    bad = [
        at
        for at, item in enumerate(item for page in Work("E", 10_000).pages() for item in page)
        if item["stock"] < 0 or item["price"] < 0
    ]

    assert len(bad) == 100
    assert bad[0] < 100
    assert bad[-1] > 9_900


# The limit, and whether wrong is seen


@pytest.fixture(scope="module")
def postgres_place(postgres_server_url: str) -> Iterator[Place]:
    with open_postgres(postgres_server_url) as place:
        yield place


@pytest.mark.parametrize("scenario", ["A", "B", "C", "D"])
@pytest.mark.parametrize("variant", limit_postgres.VARIANTS)
def test_every_variant_on_postgresql_is_right_in_every_scenario(
    variant: str, scenario: str, postgres_place: Place
) -> None:
    work = Work(scenario, SIZE)
    postgres_place.prepare(work)
    with psycopg.connect(postgres_place.url) as connection:
        limit_postgres.VARIANTS[variant](connection, work)

    assert postgres_place.state(work) == expected_state(work)


@pytest.mark.parametrize("scenario", ["A", "B", "C", "D"])
@pytest.mark.parametrize("variant", limit_sqlite.VARIANTS)
def test_every_variant_on_sqlite_is_right_in_every_scenario(variant: str, scenario: str, tmp_path: Path) -> None:
    place, work = SqlitePlace(tmp_path / "sqlite"), Work(scenario, SIZE)
    place.prepare(work)
    with closing(sqlite3.connect(file_of(place.url))) as connection, connection:
        limit_sqlite.VARIANTS[variant](connection, work)

    assert place.state(work) == expected_state(work)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("DELETE FROM variants WHERE id = 3", "229 rows instead of 230"),
        ("UPDATE variants SET stock = stock + 1 WHERE id = 3", "the rows are not what they should be"),
        ("UPDATE variants SET price = price + 0.01 WHERE id = 3", "the rows are not what they should be"),
        ("UPDATE variants SET id = 999 WHERE id = 3", "1 rows have another surrogate key than before"),
    ],
)
@pytest.mark.parametrize("database", ["postgresql", "sqlite"])
def test_a_wrong_table_is_seen(
    damage: str, problem: str, database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    work = Work("B", SIZE)
    place: Place = (
        SqlitePlace(tmp_path / "sqlite") if database == "sqlite" else request.getfixturevalue("postgres_place")
    )
    place.prepare(work)
    if database == "sqlite":
        with closing(sqlite3.connect(file_of(place.url))) as connection, connection:
            connection.execute(damage)
    else:
        with psycopg.connect(place.url) as other:
            other.execute(damage)

    assert problem_of(work, database, expected_state(work), place.state(work), Measured(1.0, 1.0)) == problem


def test_wrong_counts_and_foreign_words_for_an_error_are_seen() -> None:
    work = Work("E", 4)
    right = expected_state(work)
    counts = work.expected_counts()
    own = 'new row for relation "variants" violates check constraint "variants_stock_check"'

    def told(counts: dict[str, int], *errors: str) -> str | None:
        return problem_of(work, "postgresql", right, right, Measured(1.0, 1.0, counts, errors))

    assert told(counts, own, own) is None
    assert told({**counts, "created": 3}, own, own) == "it says created 3 instead of 2"
    assert told(counts, own) == "1 errors instead of 2"
    assert told(counts, own, "something failed") == "1 errors without the database's own message"


# The numbers


def measurement(contestant: str, repetition: int, wall_s: float, **other: object) -> Measurement:
    made = Measurement(
        run="1", repetition=repetition, database="sqlite", size=10, scenario="A", contestant=contestant,
        wall_s=wall_s, peak_mb=50,
    )  # fmt: skip
    return replace(made, **other)


def test_ratios_are_taken_within_one_repetition_against_the_best_variant() -> None:
    made = [
        *(measurement(LIMIT, at, wall_s, variant="staged") for at, wall_s in enumerate([9, 9, 9])),
        *(measurement(LIMIT, at, wall_s, variant="direct") for at, wall_s in enumerate([1, 2, 4])),
        *(measurement("core", at, wall_s) for at, wall_s in enumerate([3, 4, 4])),
    ]

    limit, core = rows_of(Results({"1": {}}, made), Cell("sqlite", 10, "A"))

    assert (limit.variant, limit.ratio.middle) == ("direct", 1)
    assert (core.ratio.middle, core.ratio.least, core.ratio.most) == (2, 1, 3)
    assert core.wall.middle == 4


def test_whoever_is_wrong_has_no_time() -> None:
    made = [measurement(LIMIT, 0, 1, variant="direct"), measurement("core", 0, 3, problem="9 rows instead of 10")]
    results = Results({"1": {"machine": {}, "versions": {}}}, made)

    (_, core) = rows_of(results, Cell("sqlite", 10, "A"))

    assert (core.wall, core.ratio) == (None, None)
    assert f"| {CONTESTANTS['core'].title} | no result: 9 rows instead of 10 |" in page_of(results)


def test_errors_are_compared_with_the_same_contestant_without_them() -> None:
    made = [
        measurement("run_sync", 0, 2, scenario="E", clean=True),
        measurement("run_sync", 0, 3, scenario="E"),
    ]

    (row,) = rows_of(Results({"1": {}}, made), Cell("sqlite", 10, "E"))

    assert row.ratio.middle == 1.5


def test_the_loop_is_extrapolated_from_the_size_at_which_it_was_measured() -> None:
    made = [
        measurement("loop", 0, 5),
        measurement(LIMIT, 0, 1, variant="direct", size=100),
    ]

    (_, loop) = rows_of(Results({"1": {}}, made), Cell("sqlite", 100, "A"))

    assert (loop.wall.middle, loop.ratio.middle, loop.measured_at) == (50, 50, 10)


# What is published


def test_the_published_page_is_what_the_published_results_give() -> None:
    page = (REPOSITORY / "docs" / "benchmarks.md").read_text(encoding="utf-8")

    assert page == page_of(read_results(PUBLISHED)), "make bench-page writes it"


def test_the_published_results_name_no_machine() -> None:
    for line in (PUBLISHED / "results.jsonl").read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        assert not {"host", "hostname", "node", "user"} & {*found, *found.get("machine", {})}
        assert not re.search(r"(?<![\w.:/])/(?:home|root|tmp|work|var|usr)/", line)
