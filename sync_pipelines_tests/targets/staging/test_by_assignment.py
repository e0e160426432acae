"""Values go in as a plain INSERT would take them: what it refuses fails its item, and nothing is cut or converted."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from sync_pipelines.errors import ConfigurationError
from sync_pipelines.targets.open_table import OpenedSqlTable
from sync_pipelines.targets.table.soft_delete import SoftDelete
from sync_pipelines_tests.targets.staging.conftest import Item, Syncs, counts


@pytest.fixture(params=["page", "bulk"], autouse=True)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "page":
        monkeypatch.setattr(OpenedSqlTable, "open_staged", lambda _self, _request: None)


DOMAINS = (
    "CREATE DOMAIN code AS varchar(3)",
    "CREATE DOMAIN flags AS bit(3)",
    "CREATE DOMAIN amount AS numeric(4, 1)",
    "CREATE DOMAIN second AS timestamp(0)",
    "CREATE DOMAIN inner_code AS code CHECK (VALUE <> 'bad')",
)


@pytest.mark.parametrize("kind", ["code", "inner_code", "varchar(3)", "char(3)"])
def test_ids_that_are_too_long_for_a_key_fail_and_meet_no_other_record(postgres_sync: Syncs, kind: str) -> None:
    sync = postgres_sync
    sync.execute(*DOMAINS, f"CREATE TABLE things (sku {kind} PRIMARY KEY, n INTEGER)")
    sync.execute("INSERT INTO things VALUES ('ABC', 0)")
    items = [{"sku": "ABC123", "n": 1}, {"sku": "ABC999", "n": 2}, {"sku": "XYZ", "n": 3}]
    for expected in ({"created": 1, "failed": 2}, {"unchanged": 1, "failed": 2}):
        results = sync.run(items, columns=["n"])
        assert counts(results) == expected
        assert all("value too long for type" in error.message for error in results.errors)
    assert sync.rows("SELECT sku, n FROM things ORDER BY 1") == [("ABC", 0), ("XYZ", 3)]


Values = list[tuple[str, Any, Any]]
"""Type of a column, a value for it, and what comes of it."""


def one_each(sync: Syncs, values: Values, suffix: str = "") -> list[Item]:
    """Makes a table with a column for each value, and gives items that have one value each."""
    names = [f"v{number}" for number in range(len(values))]
    columns = ", ".join(f"{name} {kind}" for name, (kind, _, _) in zip(names, values, strict=True))
    sync.execute(f"CREATE TABLE things (sku TEXT PRIMARY KEY, {columns}) {suffix}")
    return [
        {"sku": name, **dict.fromkeys(names), name: value} for name, (_, value, _) in zip(names, values, strict=True)
    ]


def test_what_a_plain_insert_refuses_fails_its_item_alone(postgres_sync: Syncs) -> None:
    sync = postgres_sync
    sync.execute(*DOMAINS)
    values: Values = [
        ("code", "abcd", "value too long"),
        ("code[]", ["a", "abcd"], "value too long"),
        ("varchar(3)[]", ["abcd"], "value too long"),
        ("char(3)", "abcd", "value too long"),
        ("flags", "1011", "bit string length 4"),
        ("bit(3)", "1011", "bit string length 4"),
        ("varbit(3)", "1011", "too long"),
        ("amount", "12345", "numeric field overflow"),
        ("amount[]", [12345], "numeric field overflow"),
        ("inner_code", "bad", "violates check constraint"),
        ("numeric(4, 1)[]", [12345], "numeric field overflow"),
        ("real", "1e39", "out of range"),
        ("real", "1e-46", "out of range"),
        ("real", "1e400", "out of range"),
        ("double precision", "1e400", "out of range"),
        ("double precision", Decimal("-1e400"), "out of range"),
        ("double precision", "1e-400", "out of range"),
        ("double precision[]", ["1e400"], "out of range"),
        ("smallint", 40_000, "out of range"),
        ("money", "99999999999999999999", "out of range"),
    ]
    items = [*one_each(sync, values), {"sku": "good", **{f"v{number}": None for number in range(len(values))}}]
    for expected in ({"created": 1, "failed": len(values)}, {"unchanged": 1, "failed": len(values)}):
        results = sync.run(items)
        assert counts(results) == expected
        messages = {error.external_id: error.message for error in results.errors}
        for number, (_, _, message) in enumerate(values):
            assert message in messages[f"v{number}"]


def test_what_a_plain_insert_stores_is_stored(postgres_sync: Syncs) -> None:
    values: Values = [
        ("amount", "1.25", "1.3"),
        ("second", "2024-01-01T00:00:00.5", "2024-01-01 00:00:01"),
        ("code", "ab   ", "ab "),
        ("double precision", "1e308", "1e+308"),
        ("real", "1e-45", "1e-45"),
        ("numeric", "1e400", "1" + "0" * 400),
        ("money", "1.005", "$1.01"),
        ("money", "$1,000.50", "$1,000.50"),
        ("money", 1000.5, "$1,000.50"),
    ]
    postgres_sync.execute(*DOMAINS)
    assert_stored(postgres_sync, values, "{}::text")


def assert_stored(sync: Syncs, values: Values, shown: str, suffix: str = "") -> None:
    items = one_each(sync, values, suffix)
    assert counts(sync.run(items)) == {"created": len(values)}
    assert counts(sync.run(items)) == {"unchanged": len(values)}
    for number, (_, _, stored) in enumerate(values):
        name = f"v{number}"
        row = sync.rows(f"SELECT {shown.format(name)} FROM things WHERE sku = '{name}'")[0]
        assert row == (stored if isinstance(stored, tuple) else (stored,)), values[number]


def test_sqlite_keeps_what_it_is_given_as_it_would_by_itself(sqlite_sync: Syncs) -> None:
    values: Values = [
        ("ANY", "007", (7, "integer")),
        ("", "007", ("007", "text")),
        ("", 7.0, (7.0, "real")),
        ("BLOB", "007", ("007", "text")),
        ("BLOB", "text", ("text", "text")),
        ("BLOB", b"\x00", (b"\x00", "blob")),
        ("BLOB", 7, (7, "integer")),
        ("STRING", " 7 ", (7, "integer")),
        ("STRING", "1e400", (float("inf"), "real")),
        ("STRING", "\x1c7", ("\x1c7", "text")),
        ("REAL", "1e400", (float("inf"), "real")),
    ]
    assert_stored(sqlite_sync, values, "{0}, typeof({0})")


def test_text_stays_text_in_a_strict_table(sqlite_sync: Syncs) -> None:
    values: Values = [
        ("ANY", "007", ("007", "text")),
        ("ANY", "+5", ("+5", "text")),
        ("ANY", "1e5", ("1e5", "text")),
        ("ANY", 7, (7, "integer")),
        ("ANY", 7.0, (7.0, "real")),
    ]
    assert_stored(sqlite_sync, values, "{0}, typeof({0})", "STRICT")


@pytest.mark.parametrize("kind", ["", "BLOB", "ANY", "STRING", "INTEGER", "NUMERIC", "REAL", "TEXT"])
@pytest.mark.parametrize("mapped", ["key in columns", "key from the id"])
def test_second_run_changes_nothing_whatever_the_key_is_declared_as(sqlite_sync: Syncs, kind: str, mapped: str) -> None:
    sync = sqlite_sync
    sync.execute(f"CREATE TABLE things (sku {kind} PRIMARY KEY, n INTEGER)")
    items = [{"sku": number, "n": number} for number in (1, 2, 3)]
    columns = ["sku", "n"] if mapped == "key in columns" else ["n"]
    fields: dict[str, Any] = {"columns": columns, "deletes": "hard"}
    assert counts(sync.run(items, **fields)) == {"created": 3}
    assert counts(sync.run(items, **fields)) == {"unchanged": 3}
    assert counts(sync.run(items[:2], **fields)) == {"unchanged": 2, "deleted": 1}


def test_keys_of_all_kinds_in_a_column_without_a_type_are_found_again(sqlite_sync: Syncs) -> None:
    sync = sqlite_sync
    sync.execute("CREATE TABLE things (sku PRIMARY KEY, n INTEGER)", "INSERT INTO things VALUES (5, 0), ('6', 0)")
    items = [{"sku": key, "n": 1} for key in (1, "2", "03", 1.5, 4.0, b"\x00\xff", "x", 5, 6)]
    fields: dict[str, Any] = {"columns": ["sku", "n"], "deletes": "hard", "get_external_id": None}
    assert counts(sync.run(items, **fields)) == {"created": 7, "updated": 2}
    assert counts(sync.run(items, **fields)) == {"unchanged": 9}


MARKS = ["BOOLEAN", "INTEGER", "SMALLINT NOT NULL DEFAULT 1", "NUMERIC(3, 1)", "TEXT", "CHAR(5)", "VARCHAR(9) NOT NULL"]


@pytest.mark.parametrize("kind", MARKS)
def test_live_rows_of_a_mark_that_is_false_are_true(sync: Syncs, kind: str) -> None:
    is_text = kind.startswith(("TEXT", "CHAR", "VARCHAR"))
    false, true = ("'false'", "'true'") if is_text else ("'0'", "'1'")
    sync.execute(
        f"CREATE TABLE things (sku TEXT PRIMARY KEY, n INTEGER, active {kind})",
        f"INSERT INTO things VALUES ('back', 1, {false}), ('gone', 1, {true})",
    )
    items = [{"sku": "new", "n": 1}, {"sku": "back", "n": 1}]
    fields: dict[str, Any] = {
        "columns": ["n"], "deletes": "soft", "soft_delete": SoftDelete("active", deleted=False)
    }  # fmt: skip
    assert counts(sync.run(items, **fields)) == {"created": 1, "updated": 1, "deleted": 1}
    assert counts(sync.run(items, **fields)) == {"unchanged": 2}
    marked = f"CASE WHEN active = {true} THEN 'live' WHEN active = {false} THEN 'deleted' END"
    assert sync.rows(f"SELECT sku, {marked} FROM things ORDER BY 1") == [
        ("back", "live"), ("gone", "deleted"), ("new", "live")
    ]  # fmt: skip


def test_a_mark_that_its_column_can_not_hold_is_refused_beforehand(sync: Syncs) -> None:
    sync.execute("CREATE TABLE things (sku TEXT PRIMARY KEY, n INTEGER, active CHAR(1))")
    with pytest.raises(ConfigurationError, match=r"'active'.*holds 1 characters"):
        sync.run([{"sku": "a", "n": 1}], columns=["n"], soft_delete=SoftDelete("active", deleted=False))


TEXTS = ("CHAR(4)", "CHARACTER(4)", "NCHAR(4)", "VARCHAR(4)", "NVARCHAR(4)", "TEXT", "CLOB", "BLOB", "")


def test_blanks_stay_in_every_column_of_text_on_sqlite(sqlite_sync: Syncs) -> None:
    """To SQLite the names of types with a length are text, and blanks at the end are characters like any others."""
    sync = sqlite_sync
    names = [f"v{number}" for number in range(len(TEXTS))]
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(names, TEXTS, strict=True))
    sync.execute(f"CREATE TABLE things (sku TEXT PRIMARY KEY, {columns})")
    given = {"a": "", "b": "    ", "c": "ab  ", "d": "abcd  ", "e": "ab"}
    for held in ("    ", "", "ab  ", "ab", "abcd"):
        values = ", ".join([f"'{held}'"] * len(names))
        sync.execute("DELETE FROM things", *(f"INSERT INTO things VALUES ('{sku}', {values})" for sku in given))
        items: list[Item] = [{"sku": sku, **dict.fromkeys(names, text)} for sku, text in given.items()]
        differing = sum(text != held for text in given.values())
        expected = {"updated": differing, "unchanged": len(given) - differing}
        assert counts(sync.run(items, columns=names)) == {what: number for what, number in expected.items() if number}
        assert sync.rows("SELECT * FROM things ORDER BY sku") == [(sku, *[text] * 9) for sku, text in given.items()]
        assert counts(sync.run(items, columns=names)) == {"unchanged": len(given)}


@pytest.mark.parametrize("kind", ["CHAR(4)", "NCHAR(4)", "VARCHAR(4)", "TEXT"])
def test_ids_with_blanks_at_the_end_are_others_on_sqlite(sqlite_sync: Syncs, kind: str) -> None:
    sync = sqlite_sync
    sync.execute(f"CREATE TABLE things (sku {kind} PRIMARY KEY, n INTEGER)", "INSERT INTO things VALUES ('ab', 0)")
    items: list[Item] = [{"sku": "ab", "n": 1}, {"sku": "ab  ", "n": 2}]
    assert counts(sync.run(items, columns=["n"], deletes="hard")) == {"created": 1, "updated": 1}
    assert counts(sync.run(items, columns=["n"], deletes="hard")) == {"unchanged": 2}
    assert sync.rows("SELECT sku, n FROM things ORDER BY n") == [("ab", 1), ("ab  ", 2)]
