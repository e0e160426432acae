"""Which keys are equal is what the server says, on both paths: `citext`, blanks, numbers and addresses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.database.connections import create_database
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.open_table import OpenedSqlTable
from sync_pipelines_tests.postgres_with_extensions import running_postgres_with_extensions
from sync_pipelines_tests.targets.staging.conftest import Paths, Syncs, counts

GREEK = "\u039f\u0394\u039f\u03a3"
"""Whose last letter has two small ones: Python's `lower` takes the final one, the server's the other."""


@pytest.fixture(scope="module")
def server() -> Iterator[sa.Engine]:
    with running_postgres_with_extensions() as url:
        engine = create_database(url)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE EXTENSION citext")
            connection.exec_driver_sql("CREATE DOMAIN code AS citext CHECK (length(VALUE) < 9)")
        yield engine
        engine.dispose()


@pytest.fixture
def citext_sync(server: sa.Engine, settings: Settings, paths: Paths) -> Iterator[Syncs]:
    sync = Syncs(server, settings, paths)
    yield sync
    sync.execute("DROP TABLE IF EXISTS things")


@pytest.fixture(params=["page", "bulk"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "page":
        monkeypatch.setattr(OpenedSqlTable, "open_staged", lambda _self, _request: None)


@pytest.mark.parametrize("kind", ["citext", "code"])
def test_citext_keys_are_the_records_that_the_server_finds(citext_sync: Syncs, kind: str) -> None:
    sync = citext_sync
    sync.execute(f"CREATE TABLE things (sku {kind} PRIMARY KEY, n INTEGER)")
    held = [GREEK, "Stra\u00dfe", "\u0130stanbul", "ABC"]
    for each in held:
        sync.execute(f"INSERT INTO things VALUES (lower('{each}'), 0)")
    # by Python's rules the first would be another record, and 'strasse' the second one
    items = [{"sku": each, "n": 1} for each in (*held, GREEK.lower(), "strasse", "STRA\u00dfE")]
    results = sync.run(items, columns=["n"], deletes="hard")
    assert counts(results) == {"created": 2, "updated": 4, "duplicate": 1}
    assert sync.rows("SELECT count(*) FROM things") == [(6,)]
    again = sync.run(items, columns=["n"], deletes="hard")
    assert counts(again) == {"unchanged": 6, "duplicate": 1}


def test_a_part_of_a_composite_key_may_be_citext(citext_sync: Syncs) -> None:
    sync = citext_sync
    sync.execute(
        "CREATE TABLE things (sku citext, place INTEGER, n INTEGER, PRIMARY KEY (sku, place))",
        f"INSERT INTO things VALUES (lower('{GREEK}'), 1, 0), ('gone', 1, 0)",
    )
    items = [{"sku": GREEK, "place": "1", "n": 1}]
    fields: dict[str, Any] = {"key": ["sku", "place"], "columns": ["n"], "deletes": "hard", "get_external_id": None}
    assert counts(sync.run(items, **fields)) == {"updated": 1, "deleted": 1}
    assert counts(sync.run(items, **fields)) == {"unchanged": 1}


def test_an_item_that_breaks_the_condition_of_a_domain_over_citext_fails_alone(citext_sync: Syncs) -> None:
    sync = citext_sync
    sync.execute("CREATE TABLE things (sku code PRIMARY KEY, n INTEGER)")
    results = sync.run([{"sku": "much too long", "n": 1}, {"sku": "short", "n": 1}], columns=["n"])
    assert counts(results) == {"created": 1, "failed": 1}
    assert "violates check constraint" in results.errors[0].message


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(
    ("kind", "held", "given"),
    [
        ("CHAR(5)", "'a'", "a  "),
        ("NUMERIC", "1.50", "01.5"),
        ("NUMERIC", "0", "-0.00"),
        ("DOUBLE PRECISION", "'-0'", "0.0"),
        ("REAL", "0.1", "0.10"),
        ("TIMESTAMPTZ", "'2024-01-01 12:00+02'", "2024-01-01T10:00:00Z"),
        ("UUID", "'00000000-0000-0000-0000-00000000000a'", "{0000000000000000000000000000000A}"),
        ("INET", "'10.0.0.1'", "10.0.0.1/32"),
        ("NUMRANGE", "'[1.0,2]'", "[1,2.00]"),
        ("INTERVAL", "'1 mon'", "30 days, 0:00:00"),
        ("BYTEA", "'\\x0a'", "\\x0A"),
    ],
)
def test_a_key_spelled_in_another_way_is_the_same_record(
    postgres_sync: Syncs, kind: str, held: str, given: str
) -> None:
    sync = postgres_sync
    sync.execute(f"CREATE TABLE things (sku {kind} PRIMARY KEY, n INTEGER)", f"INSERT INTO things VALUES ({held}, 0)")
    assert counts(sync.run([{"sku": given, "n": 1}], columns=["n"])) == {"updated": 1}
    assert counts(sync.run([{"sku": given, "n": 1}], columns=["n"])) == {"unchanged": 1}
    assert sync.rows("SELECT count(*) FROM things") == [(1,)]
