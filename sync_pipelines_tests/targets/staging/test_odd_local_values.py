"""A local value that Python has no value for is overwritten, and never an item's failure: on both paths."""

from __future__ import annotations

import enum
import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.targets.open_table import OpenedSqlTable
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines_tests.targets.staging.conftest import Item, Syncs, counts
from sync_pipelines_tests.targets.types.own_types import Shouting

UTC_2024 = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["page", "bulk"], autouse=True)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "page":
        monkeypatch.setattr(OpenedSqlTable, "open_staged", lambda _self, _request: None)


Held = list[tuple[str, str, Any]]
"""Type of a column, SQL of what others have left in it, and the value of the item."""


def assert_overwritten(sync: Syncs, held: Held) -> None:
    """What is held is another value than the item's, even than none; the second run changes nothing."""
    names = [f"v{number}" for number in range(len(held))]
    columns = ", ".join(f"{name} {kind}" for name, (kind, _, _) in zip(names, held, strict=True))
    left = ", ".join(literal for _, literal, _ in held)
    sync.execute(
        f"CREATE TABLE things (sku TEXT PRIMARY KEY, {columns})",
        *(f"INSERT INTO things VALUES ('{sku}', {left})" for sku in "abc"),
    )
    values = dict(zip(names, (value for _, _, value in held), strict=True))
    items = [{"sku": "a", **values}, {"sku": "b", **dict.fromkeys(names)}, {"sku": "d", **values}]
    fields: dict[str, Any] = {"columns": names, "deletes": "hard"}
    _, lines = sync.dry_run(items, **fields)
    assert {line.action: line.external_id for line in lines if line.action != "update"} == {
        "create": "d",
        "delete": "c",
    }
    for line in lines:
        if line.action == "update":
            assert set(json.loads(line.changes or "{}")) == {*names}
    assert counts(sync.run(items, **fields)) == {"created": 1, "updated": 2, "deleted": 1}
    assert counts(sync.run(items, **fields)) == {"unchanged": 3}
    for name in names:
        assert sync.rows(f"SELECT {name} FROM things WHERE sku = 'b'") == [(None,)]
        same = f"SELECT count(*) FROM things a JOIN things d ON a.sku = 'a' AND d.sku = 'd' AND a.{name} = d.{name}"
        assert sync.rows(same) == [(1,)], name


def test_a_value_of_postgresql_alone_is_overwritten(postgres_sync: Syncs) -> None:
    held: Held = [
        ("DATE", "'infinity'", date(2024, 1, 1)),
        ("DATE", "'0044-03-15 BC'", "2024-01-01"),
        ("TIMESTAMP", "'-infinity'", UTC_2024),
        ("TIMESTAMP", "'20000-01-01'", UTC_2024),
        ("TIMESTAMPTZ", "'infinity'", UTC_2024),
        ("TIMESTAMPTZ(3)", "'294276-01-01'", UTC_2024),
        ("TIMESTAMPTZ", "'0044-03-15 BC'", UTC_2024),
        ("TIME", "'24:00'", "10:00"),
        ("TIMETZ", "'24:00+00'", "10:00+00:00"),
        ("INTERVAL", "'170000000 years'", timedelta(1)),
        ("INTERVAL", "'1 year -2 mons +3 days -04:05:06.7'", timedelta(1)),
        ("DATE[]", "'{infinity,2024-01-01}'", [date(2024, 1, 1)]),
        ("TIMESTAMPTZ[]", "'{0044-03-15 BC}'", [UTC_2024]),
        ("INTERVAL[]", "'{170000000 years}'", [timedelta(1)]),
        ("NUMERIC", "'NaN'", 1),
        ("DOUBLE PRECISION", "'NaN'", 1.5),
        ("REAL", "'NaN'", 1.5),
        ("NUMERIC(5, 1)[]", "'{NaN}'", [1]),
        ("TSTZRANGE", "'[infinity,infinity]'", "[2024-01-01 00:00:00+00,)"),
    ]
    assert_overwritten(postgres_sync, held)


def test_a_value_that_sqlite_took_from_others_is_overwritten(sqlite_sync: Syncs) -> None:
    held: Held = [
        ("INTEGER", "'many'", 1),
        ("NUMERIC(5, 1)", "x'00'", 1.5),
        ("DATE", "'never'", "2024-01-01"),
        ("TIMESTAMP", "7", UTC_2024),
        ("BOOLEAN", "'perhaps'", True),
        ("JSON", "'{'", {"a": 1}),
        ("TEXT", "x'00'", "a"),
        ("TEXT", "CAST(x'4dfc' AS TEXT)", "M\u00fc"),
    ]
    assert_overwritten(sqlite_sync, held)


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("declared", "held", "value"),
    [
        (sa.Enum(Colour, native_enum=False), "'MAUVE'", "red"),
        (sa.Uuid(native_uuid=False), "'no uuid'", "00000000-0000-0000-0000-000000000007"),
        (sa.PickleType(), "'no pickle'", [1]),
        (Shouting(20), "7", "hey"),
    ],
)
def test_a_value_that_the_applications_type_fails_on_is_overwritten(
    sqlite_sync: Syncs, declared: Any, held: str, value: Any
) -> None:
    sync = sqlite_sync
    table = sa.Table("things", sa.MetaData(), sa.Column("sku", sa.Text, primary_key=True), sa.Column("v", declared))
    table.create(sync.database)
    sync.execute(f"INSERT INTO things VALUES ('a', {held})")
    items = [{"sku": "a", "v": value}]
    assert counts(sync.run(items, table=table, columns=["v"])) == {"updated": 1}
    assert counts(sync.run(items, table=table, columns=["v"])) == {"unchanged": 1}


@pytest.mark.parametrize(
    ("kind", "odd", "plain"), [("DATE", "'infinity'", "2024-01-01"), ("DOUBLE PRECISION", "'NaN'", "1.5")]
)
def test_a_record_whose_key_no_item_can_have_is_left_alone(
    postgres_sync: Syncs, kind: str, odd: str, plain: str
) -> None:
    sync = postgres_sync
    sync.execute(
        f"CREATE TABLE things (sku {kind} PRIMARY KEY, n INTEGER)",
        f"INSERT INTO things VALUES ({odd}, 0), ('{plain}', 0), ('{plain.replace('1', '2')}', 0)",
    )
    fields: dict[str, Any] = {"columns": ["n"], "deletes": "hard"}
    assert counts(sync.run([{"sku": plain, "n": 1}], **fields)) == {"updated": 1, "deleted": 1}
    assert counts(sync.run([{"sku": plain, "n": 1}], **fields)) == {"unchanged": 1}
    assert sync.rows(f"SELECT count(*) FROM things WHERE sku = {odd}") == [(1,)]


@pytest.mark.parametrize("held", ["'infinity'", "'20000-01-01'"])
def test_a_version_that_can_not_be_read_keeps_no_item_out(postgres_sync: Syncs, held: str) -> None:
    sync = postgres_sync
    sync.execute(
        "CREATE TABLE things (sku TEXT PRIMARY KEY, at TIMESTAMPTZ)", f"INSERT INTO things VALUES ('a', {held})"
    )
    items = [{"sku": "a", "at": UTC_2024}]
    assert counts(sync.run(items, columns=["at"], get_version="at")) == {"updated": 1}
    assert counts(sync.run(items, columns=["at"], get_version="at")) == {"unchanged": 1}


ROLE_SETTINGS = (
    (
        "DateStyle = 'German'",
        "IntervalStyle = 'iso_8601'",
        "TimeZone = 'America/St_Johns'",
        "bytea_output = 'escape'",
        "extra_float_digits = -15",
        "standard_conforming_strings = off",
        "client_encoding = 'LATIN1'",
        "row_security = off",
        "array_nulls = off",
        "default_transaction_isolation = 'serializable'",
    ),
    ("DateStyle = 'SQL, DMY'", "IntervalStyle = 'sql_standard'", "default_transaction_isolation = 'repeatable read'"),
    ("DateStyle = 'Postgres, DMY'", "IntervalStyle = 'postgres_verbose'", "client_encoding = 'EUC_JP'"),
)


@pytest.mark.parametrize("settings_of_database", ROLE_SETTINGS, ids=lambda each: each[0])
def test_what_is_set_for_the_database_changes_no_value(
    postgres_sync: Syncs, settings_of_database: tuple[str, ...]
) -> None:
    sync = postgres_sync
    sync.execute(
        "CREATE TABLE things (sku TEXT PRIMARY KEY, day DATE, at TIMESTAMPTZ, length INTERVAL, raw BYTEA, n FLOAT8, "
        "days DATE[], span TSTZRANGE, words TEXT[])",
        *(f"ALTER DATABASE {sync.database.url.database} SET {each}" for each in settings_of_database),
    )
    sync.database.dispose()
    item = {
        "sku": "\u4e2d\\'",
        "day": "2024-02-03",
        "at": "2024-02-03T04:05:06.7+00:00",
        "length": timedelta(days=-40, seconds=7),
        "raw": b"\x00\xff\\",
        "n": 1 / 3,
        "days": [date(2024, 2, 3)],
        "span": "[2024-02-03 04:05,)",
        "words": ["NULL", None, "\\"],
    }
    theirs = sa.create_engine(sync.database.url, pool_size=2, max_overflow=0)  # the application's, with its own state
    for database in (sync.database, theirs):
        target = SqlTable(table="things", key="sku", database=database)
        sync.execute("DELETE FROM things")
        results = [run_sync(sync.job([item], target=target), settings=sync.settings) for _ in range(2)]
        assert [counts(each) for each in results] == [{"created": 1}, {"unchanged": 1}]
    theirs.dispose()
    stored = sync.rows(
        "SELECT day::text, at::text, extract(epoch FROM length)::float, encode(raw, 'hex'), n, days::text, span::text, "
        "to_jsonb(words) FROM things"
    )
    assert stored == [
        (
            "2024-02-03",
            "2024-02-03 04:05:06.7+00",
            timedelta(days=-40, seconds=7).total_seconds(),
            "00ff5c",
            1 / 3,
            "{2024-02-03}",
            '["2024-02-03 04:05:00+00",)',
            ["NULL", None, "\\"],
        )
    ]


def test_tables_are_found_where_the_search_path_says(postgres_sync: Syncs) -> None:
    sync = postgres_sync
    sync.execute(
        "CREATE SCHEMA shop",
        "CREATE DOMAIN shop.code AS varchar(3)",
        "CREATE TABLE shop.things (sku shop.code PRIMARY KEY, n INTEGER)",
        f"ALTER DATABASE {sync.database.url.database} SET search_path = 'shop'",
    )
    sync.database.dispose()
    items = [{"sku": "ABC", "n": 1}, {"sku": "ABC1", "n": 1}]
    assert counts(sync.run(items, columns=["n"])) == {"created": 1, "failed": 1}
    assert counts(sync.run(items, columns=["n"])) == {"unchanged": 1, "failed": 1}


@pytest.mark.parametrize("in_bulk", [True, False])
def test_an_array_that_does_not_begin_at_1_is_another_one_than_a_list_of_the_same(
    postgres_sync: Syncs,
    monkeypatch: pytest.MonkeyPatch,
    in_bulk: bool,  # noqa: FBT001
) -> None:
    """As to the database itself: it is written once, as an UPDATE would write it."""
    sync = postgres_sync
    if not in_bulk:
        monkeypatch.setattr(OpenedSqlTable, "open_staged", lambda *_: None)
    kinds = {"a": "int[]", "b": "text[]", "c": "json[]", "d": "jsonb[]", "e": "numeric(5, 2)[]", "f": "int[][]"}
    sync.execute(f"CREATE TABLE things (sku TEXT PRIMARY KEY, {', '.join(f'{n} {kind}' for n, kind in kinds.items())})")
    plain = "'{1,2}', '{1,2}', '{1,2}', '{1,2}', '{1,2}', '{{1,2},{3,4}}'"
    sync.execute(
        f"INSERT INTO things VALUES ('plain', {plain}), ('null', NULL, NULL, NULL, NULL, NULL, NULL), "
        "('empty', '{}', '{}', '{}', '{}', '{}', '{}')",
        "INSERT INTO things (sku, f) VALUES ('deep', '[1:2][0:1]={{1,2},{3,4}}')",
    )
    same = {"a": [1, 2], "b": ["1", "2"], "c": [1, 2], "d": [1, 2], "e": [1, 2], "f": [[1, 2], [3, 4]]}
    items: list[Item] = [
        {"sku": "plain", **same},
        {"sku": "null", **dict.fromkeys(kinds)},
        {"sku": "empty", **{name: [] for name in kinds}},
        {"sku": "deep", **dict.fromkeys(kinds), "f": [[1, 2], [3, 4]]},
    ]
    for name in "abcde":
        sync.execute(f"INSERT INTO things (sku, {name}) VALUES ('{name}', '[0:1]={{1,2}}')")
        items.append({"sku": name, **dict.fromkeys(kinds), name: same[name]})
    assert counts(sync.run(items, columns=list(kinds))) == {"updated": 6, "unchanged": 3}
    assert counts(sync.run(items, columns=list(kinds))) == {"unchanged": 9}
    assert sync.rows("SELECT DISTINCT array_dims(f) FROM things WHERE f IS NOT NULL AND f <> '{}'") == [("[1:2][1:2]",)]
    assert sync.rows("SELECT a FROM things WHERE sku = 'a' AND a = '{1,2}'") == [([1, 2],)]
