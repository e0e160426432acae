"""A ledger that the version before migration 0010 wrote goes on: what sentences and numbers said is in columns now.

`ledgers/make_0009.py` made the file.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.database.applied_since import AppliedSince
from sync_pipelines.database.batches import BATCH, COMPLETE, EARLIER, REFUSED, STAGED, Batches, BatchKey
from sync_pipelines.database.connections import create_database
from sync_pipelines.database.failures import Failures
from sync_pipelines.database.inbox import Inbox
from sync_pipelines.database.ledger import Ledger, open_ledger
from sync_pipelines.database.plans import Plans
from sync_pipelines.database.run_queries import RunQueries
from sync_pipelines_tests.database.migrating import migrate_to, take_back

OLD = Path(__file__).parent / "ledgers" / "0009.sqlite"
UNSORTED = "unsorted"


def copy_to_postgresql(url: str) -> None:
    """The same rows in the tables that version had there."""
    database = create_database(url)
    with sqlite3.connect(OLD) as old, database.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA sync_pipelines")
        migrate_to(connection, "0009")
        tables = sa.MetaData()
        tables.reflect(connection, schema="sync_pipelines")
        for table in tables.sorted_tables:
            if "alembic" not in table.name:
                found = old.execute(f"SELECT * FROM sync_{table.name}")
                names = [each[0] for each in found.description]
                if rows := [_as_in(table, dict(zip(names, row, strict=True))) for row in found]:
                    connection.execute(table.insert(), rows)
    database.dispose()


def _as_in(table: sa.Table, row: dict[str, Any]) -> dict[str, Any]:
    """A row of SQLite, which has JSON as text."""
    is_json = {name for name, value in row.items() if isinstance(table.c[name].type, sa.JSON) and value is not None}
    return {name: json.loads(value) if name in is_json else value for name, value in row.items()}


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    """That ledger, opened by this version, on both kinds of database."""
    if database_url.startswith("sqlite"):
        shutil.copyfile(OLD, sa.make_url(database_url).database or "")
    else:
        copy_to_postgresql(database_url)
    with open_ledger(database_url) as opened:
        yield opened


def runs_of(ledger: Ledger, job: str) -> list[Any]:
    """The runs of a sync, oldest first."""
    return ledger.latest_runs(job)[::-1]


def test_nothing_is_lost(ledger: Ledger) -> None:
    with sqlite3.connect(OLD) as old, ledger.transaction() as connection:
        for name in ("runs", "run_errors", "run_causes", "failures", "inbox", "plans", "history", "history_blocks"):
            before = old.execute(f"SELECT count(*) FROM sync_{name}").fetchone()
            table = getattr(ledger.tables, name)
            assert connection.execute(sa.select(sa.func.count()).select_from(table)).one() == before, name
        [chunks] = old.execute("SELECT count(*) FROM sync_run_chunks").fetchone()
        assert connection.scalar(sa.select(sa.func.count()).select_from(ledger.tables.run_batches)) == chunks
    assert not [name for name in sa.inspect(ledger.database).get_table_names() if "chunks" in name]


def test_what_was_applied_is_known_whatever_the_run_failed_of(ledger: Ledger) -> None:
    found = {job: [run.applied_all for run in runs_of(ledger, job)] for job in ("shop", "hooks", "starts", "guarded")}
    assert found == {
        "shop": [True, True, True, True, True, True],  # one failed of too many failures; the last is a drain
        "hooks": [True],  # on_complete failed
        "starts": [False],  # on_start failed
        "guarded": [True, True, False],  # a dry run applies nothing
    }
    broken = ("off", "stopped", "pages", "spans", "odd", "refused", "done", "again")
    assert [run.applied_all for job in broken for run in runs_of(ledger, job)] == [False] * len(broken)


def test_only_runs_that_broke_off_leave_unknown_what_they_have_applied(ledger: Ledger) -> None:
    in_doubt = ("off", "stopped", "pages", "spans", "odd", "refused", "done", "again")
    for job in in_doubt:
        assert AppliedSince(ledger, job).uncertain_since() == runs_of(ledger, job)[-1].started_at, job
    assert [AppliedSince(ledger, job).uncertain_since() for job in ("shop", "hooks", "starts", "guarded", "noted")] == [
        None
    ] * 5


def test_deletes_were_withheld_where_we_said_so_and_not_where_a_target_did(ledger: Ledger) -> None:
    assert [run.no_deletes for run in runs_of(ledger, "shop")] == [False, True, False, False, True, False]
    noted = runs_of(ledger, "noted")
    assert [run.notes for run in noted] == [("no deletes: of the archive",)] * 2
    assert [run.no_deletes for run in noted] == [False, False]


def test_each_batch_is_in_its_part(ledger: Ledger) -> None:
    batches = Batches(ledger)

    def keys(job: str, number: int = -1) -> list[tuple[str, int]]:
        return sorted((key.part, key.number) for key in batches.of_run(runs_of(ledger, job)[number].id))

    assert keys("shop", 0) == [(COMPLETE, 0), (STAGED, 0)]
    assert keys("shop", 3) == [(BATCH, 0), (BATCH, 1)]
    assert keys("shop") == [(BATCH, 0)]  # a drain
    assert keys("refused") == [(BATCH, 0), (REFUSED, 0), (STAGED, 0)]
    assert keys("done") == [(BATCH, 0), (COMPLETE, 0), (REFUSED, 0), (STAGED, 0)]
    assert keys("again") == [(EARLIER, 0)]
    for job, count in (("pages", 3), ("spans", 1), ("odd", 2), ("stopped", 2)):  # their plans will say it
        assert keys(job) == [(UNSORTED, number) for number in range(count)]


def test_the_plan_of_a_run_that_is_gone_on_with_says_what_its_batches_are(ledger: Ledger) -> None:
    batches = Batches(ledger)
    pages, odd, stopped = (runs_of(ledger, job)[-1].id for job in ("pages", "odd", "stopped"))
    batches.sort(pages, is_staged=False)
    batches.sort(odd, is_staged=True)
    batches.sort(stopped, is_staged=False)
    assert batches.of_run(pages).done() == {0, 1, 2}
    assert batches.of_run(odd).keys() == {BatchKey(BATCH), BatchKey(STAGED)}
    assert (batches.of_run(odd).written(STAGED), batches.of_run(odd).written(BATCH)) == (23, 0)
    assert batches.of_run(stopped)[BatchKey(number=1)].left == (2, 3, 4)
    assert batches.of_run(stopped).done() == {0}


def test_the_counts_are_what_they_were(ledger: Ledger) -> None:
    with sqlite3.connect(OLD) as old:
        before: dict[str, Counter[str]] = {}
        for run_id, counts in old.execute("SELECT run_id, counts FROM sync_run_chunks"):
            numbers = {name: count for name, count in json.loads(counts).items() if name != "left"}
            before.setdefault(run_id, Counter()).update(numbers)
    assert {run_id: Batches(ledger).of_run(run_id).total() for run_id in before} == before


def test_failures_plans_and_deliveries_go_on(ledger: Ledger) -> None:
    assert Failures(ledger).count("shop", ["open"]) == 2
    withheld = Plans(ledger).still_withheld("guarded")
    assert withheld is not None
    assert withheld.id == runs_of(ledger, "guarded")[1].id
    assert [each.item for each in Inbox(ledger).oldest_waiting("shop", 10)] != []
    assert RunQueries(ledger).last_fetched("shop", []) == [12, 11, 12]


def test_taken_back_and_made_again_it_is_the_same(ledger: Ledger) -> None:
    def batches() -> list[Any]:
        table = ledger.tables.run_batches
        with ledger.transaction() as connection:
            return list(connection.execute(sa.select(table).order_by(table.c.run_id, table.c.part, table.c.number)))

    before = batches()
    take_back(ledger, "0009")
    url = ledger.database.url.render_as_string(hide_password=False)
    with open_ledger(url.replace("+psycopg", "")):
        assert batches() == before
