"""Whatever a plain INSERT or UPDATE refuses fails its item, and what it stores is what a sync stores: both paths.

A failure says its seed: `AS_AN_INSERT_SEED=1234` with `-m soak` begins there. `AS_AN_INSERT_S` is how long it looks.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import ItemError
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.runner.runs import comparing_run
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.testing import MemorySource
from sync_pipelines_tests.targets.plain_insert.cases import Case, differences, insert_plainly, make_case
from sync_pipelines_tests.targets.plain_insert.columns import POSTGRESQL_TYPES

QUICK = range(6)
BUDGET_S = float(os.environ.get("AS_AN_INSERT_S", "600"))
ODD_SETTINGS = (
    "DateStyle = 'German'",
    "IntervalStyle = 'sql_standard'",
    "TimeZone = 'Asia/Kolkata'",
    "extra_float_digits = -5",
    "bytea_output = 'escape'",
    "standard_conforming_strings = off",
    "client_encoding = 'LATIN1'",
    "default_transaction_isolation = 'serializable'",
)
TABLE, EXPECTED = "things", "expected"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", database_url=None, ledger_url=None)


@pytest.fixture
def typed(database: sa.Engine) -> sa.Engine:
    """A database with the types that the tables need, whose role is set up in another way than ours."""
    if database.dialect.name == "postgresql":
        execute(database, POSTGRESQL_TYPES)
        name = database.url.database
        execute(database, [f"ALTER DATABASE {name} SET {each}" for each in ODD_SETTINGS])
        database.dispose()
    return database


def execute(database: sa.Engine, statements: Any) -> None:
    with database.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


@pytest.mark.parametrize("seed", QUICK)
def test_what_a_sync_stores_is_what_a_plain_insert_stores(
    typed: sa.Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    check(make_case(seed, typed.dialect.name), typed, settings, monkeypatch)


@pytest.mark.soak
def test_what_a_sync_stores_is_what_a_plain_insert_stores_for_minutes(
    typed: sa.Engine,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    first = int(os.environ.get("AS_AN_INSERT_SEED") or random.SystemRandom().randrange(10**6))
    end = time.monotonic() + BUDGET_S / 2  # of each kind of database
    number = 0
    while number == 0 or time.monotonic() < end:
        with monkeypatch.context() as patched:
            check(make_case(first + number, typed.dialect.name), typed, settings, patched)
        number += 1
    record_property("cases", f"{number} from seed {first} on")


def check(case: Case, database: sa.Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a case on both paths, twice each, beside plain statements."""
    execute(database, case.create(EXPECTED))
    refused = insert_plainly(database, case, EXPECTED)
    for in_bulk in (False, True):
        where = f"{'in bulk' if in_bulk else 'page by page'}\n{case}"
        execute(database, case.create(TABLE))
        first = sync(case, database, settings, monkeypatch, in_bulk=in_bulk)
        failed = {error.external_id: error.message for error in first.errors}
        expected = canonical_ids(database, case, refused)
        assert set(failed) == expected, f"only one of them refuses {set(failed) ^ expected}: {failed}, {where}"
        assert not (rows := differences(database, case, TABLE, EXPECTED)), f"{rows}, {where}"
        second = sync(case, database, settings, monkeypatch, in_bulk=in_bulk)
        written = second.created + second.updated + second.deleted
        assert (written, second.error_count) == (0, first.error_count), f"{second.counts()}, {where}"


def canonical_ids(database: sa.Engine, case: Case, numbers: Collection[int]) -> set[str]:
    table = SqlTable(table=TABLE, key=case.key_names, database=database)
    ids: set[str] = set()
    with table.open(table.external_id) as target:
        for number in numbers:
            given = table.external_id(case.items[number][0])
            try:
                ids.add(target.canonical_id(given))
            except ItemError:
                ids.add(given)
    return ids


def sync(
    case: Case, database: sa.Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, *, in_bulk: bool
) -> SyncResults:
    monkeypatch.setattr(comparing_run, "FROM_ITEMS", 0 if in_bulk else 10**9)
    key: Any = case.key_names if len(case.keys) > 1 else case.key_names[0]
    job: SyncJob[Any, Any] = SyncJob(
        name="plain",
        fetch_external=MemorySource([item for item, _ in case.items]),
        target=SqlTable(table=TABLE, key=key, database=database),
        guards=None,
    )
    results = run_sync(job, settings=settings)
    assert results.accounts_balance
    return results


def test_a_case_is_made_again_from_its_seed() -> None:
    assert str(make_case(7, "sqlite")) == str(make_case(7, "sqlite"))
