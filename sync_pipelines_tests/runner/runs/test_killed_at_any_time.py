"""SIGKILL at random instants of a timer: what a run leaves is right, whatever it was doing."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines import record_history
from sync_pipelines.database.connections import create_database
from sync_pipelines.engine.history import HistoryEvent
from sync_pipelines_tests.children import exit_code, fork
from sync_pipelines_tests.runner import killed_child
from sync_pipelines_tests.runner.killed_child import SKUS, World

pytestmark = pytest.mark.each_database

Rows = Mapping[str, tuple[Any, ...]]
KILLS = 19
"""In each of eight worlds."""
_MOST_ATTEMPTS = 5
"""For each kill: a run may be done before its time has come."""


def rows_of(world: World) -> dict[str, tuple[int, str, bool]]:
    """The records by their id: stock, name, and whether they are not marked as deleted."""
    database = create_database(world.url)
    try:
        with database.connect() as connection:
            found = connection.execute(sa.text("SELECT sku, stock, name, active FROM things"))
            return {sku: (stock, name, bool(active)) for sku, stock, name, active in found}
    finally:
        database.dispose()


def expected(world: World, number: int, before: Rows) -> dict[str, tuple[int, str, bool]]:
    """The records after a round: refused items leave their record as it was, and what is gone is deleted or marked."""
    fetched = world.source(number)
    after = {
        sku: (item["stock"], item["name"], True) if item["stock"] >= 0 else before.get(sku)
        for sku, item in fetched.items()
    }
    if world.soft:
        after |= {sku: (row[0], row[1], False) for sku, row in before.items() if sku not in fetched}
    return {sku: row for sku, row in after.items() if row is not None}


def assert_counts_say_what_was_written(world: World, number: int) -> None:
    """Runs a round to its end; what it says is the difference between the records before and after."""
    before = rows_of(world)
    results = world.run(number)
    after = rows_of(world)
    assert results.accounts_balance
    assert after == expected(world, number, before)
    live = {sku for sku, row in before.items() if row[2]}
    fetched = world.source(number)
    failed = {sku for sku, item in fetched.items() if item["stock"] < 0}
    assert {error.external_id for error in results.errors} == failed
    assert results.created == len(set(after) - set(before))
    assert results.updated == sum(before[sku] != after[sku] for sku in set(before) & set(after) & set(fetched))
    assert results.deleted == len(live - set(fetched))
    assert results.recovered == 0


def told_wrongly(world: World, rows: Rows) -> dict[str, Any]:
    """Returns the records whose events do not each begin where the one before has ended, or end elsewhere."""
    wrong: dict[str, Any] = {}
    for place in range(SKUS):
        sku = f"S{place}"
        if place % 200 == 7:
            continue  # refused whenever it comes
        known: dict[str, Any] = {}
        gaps = 0
        for event in reversed(events_of(world, sku)):
            gaps += any(known.get(name, change.old) != change.old for name, change in (event.changes or {}).items())
            known |= {name: change.new for name, change in (event.changes or {}).items()}
        stock, name, _ = rows.get(sku, (None, None, None))
        if gaps or (known.get("stock"), known.get("name")) != (stock, name):
            wrong[sku] = (known, rows.get(sku), [(each.kind, each.changes) for each in events_of(world, sku)])
    return wrong


def events_of(world: World, sku: str) -> list[HistoryEvent]:
    try:
        return record_history(killed_child.NAME, sku, settings=world.settings)
    except Exception as error:
        if "no " in str(error) or "nothing" in str(error):
            return []
        raise


def files_of(world: World) -> set[str]:
    """The kinds of files in the data folder, with what differs from run to run left out."""
    names = (str(path.relative_to(world.folder)) for path in world.folder.rglob("*") if path.is_file())
    return {re.sub(r"[0-9a-f]{8,}(-[0-9a-f]{4,})*|\d+", "*", name) for name in names}


def work_tables(world: World) -> list[str]:
    if not world.url.startswith("postgresql"):
        return []
    database = create_database(world.url)
    query = "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind = 'r' "
    try:
        with database.connect() as connection:
            found = connection.execute(sa.text(query + "AND nspname = 'sync_pipelines_work' AND relname <> 'progress'"))
            return sorted(row[0] for row in found)
    finally:
        database.dispose()


@pytest.fixture(params=[True, False], ids=["in bulk", "page by page"])
def in_bulk(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=[False, True], ids=["hard", "soft"])
def world(request: pytest.FixtureRequest, tmp_path: Path, database_url: str, in_bulk: bool) -> World:  # noqa: FBT001
    database = create_database(database_url)
    with database.begin() as connection:
        connection.exec_driver_sql(killed_child.TABLE)
        connection.exec_driver_sql(killed_child.THERE)
    database.dispose()
    return World(tmp_path / "data", database_url, in_bulk=in_bulk, soft=bool(request.param), seed=5)


@pytest.mark.soak
def test_kills_at_any_time_leave_target_counts_history_and_files_right(world: World) -> None:
    """Every fifth one is followed by a run that is let live."""
    chance = random.Random(f"{world.in_bulk} {world.soft} {world.url.partition(':')[0]}")
    began_s = time.monotonic()
    assert exit_code(fork(killed_child.run_whole, world, 0)) == 0
    whole_s = time.monotonic() - began_s
    kinds_of_files, number, kills = files_of(world), 0, 0
    while kills < KILLS:
        number += 1
        assert number < _MOST_ATTEMPTS * KILLS, "too few runs were still there when their time had come"
        process = fork(killed_child.run_whole, world, number)
        time.sleep(chance.uniform(0, whole_s))
        process.kill()
        kills += exit_code(process) != 0
        if kills % 5 == 4:
            number += 1
            assert_counts_say_what_was_written(world, number)
    assert_counts_say_what_was_written(world, number + 1)
    rows = rows_of(world)
    again = world.run(number + 1)
    assert (again.created, again.updated, again.deleted, again.recovered) == (0, 0, 0, 0)
    assert rows_of(world) == rows
    wrong = told_wrongly(world, rows)
    # page by page, what a kill between the commit and its note leaves is written and not told: a batch at most
    assert wrong == {} or (not world.in_bulk and len(wrong) <= kills * 100)
    assert work_tables(world) == []
    assert files_of(world) <= kinds_of_files
