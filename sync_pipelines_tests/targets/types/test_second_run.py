"""Promise 1: the second run changes nothing, whatever the types."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from sync_pipelines.errors import ConfigurationError, ItemError
from sync_pipelines.targets.open_table import OpenedSqlTable
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines_tests.targets.types.own_types import Shouting

COMMON = {
    "small": "SMALLINT",
    "whole": "INTEGER",
    "big": "BIGINT",
    "price": "NUMERIC(12, 2)",
    "exact": "NUMERIC",
    "digits": "NUMERIC(30, 5)",
    "ratio": "DOUBLE PRECISION",
    "single": "REAL",
    "flag": "BOOLEAN",
    "note": "TEXT",
    "code": "VARCHAR(12)",
    "padded": "CHAR(6)",
    "guid": "CHAR(36)",
    "hex": "VARCHAR(32)",
    "day": "DATE",
    "naive": "TIMESTAMP",
    "clock": "TIME",
    "extra": "JSON",
}
POSTGRES = COMMON | {
    "rounded": "TIMESTAMP(0)",
    "millis": "TIMESTAMPTZ(3)",
    "aware": "TIMESTAMPTZ",
    "clock2": "TIME(2)",
    "zoned": "TIMETZ",
    "length": "INTERVAL",
    "length1": "INTERVAL(1)",
    "jsonb": "JSONB",
    "id": "UUID",
    "raw": "BYTEA",
    "tens": "NUMERIC(10, -1)",
    "tags": "TEXT[]",
    "codes": "VARCHAR(12)[]",
    "prices": "NUMERIC(12, 2)[]",
    "moments": "TIMESTAMPTZ[]",
    "objects": "JSONB[]",
    "host": "INET",
    "span": "INT4RANGE",
    "money": "MONEY",
    "mood": "MOOD",
    "moods": "MOOD[]",
    "cost": "COST",
    "name": "NAME",
}
SQLITE = COMMON | {"raw": "BLOB", "flexible": "STRING", "untyped": ""}

text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
zones: Any = st.sampled_from([UTC, None, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-11))])
moments: st.SearchStrategy[Any] = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=zones)  # noqa: DTZ001 - bounds must be naive
binary: st.SearchStrategy[Any] = st.binary(max_size=9)
clocks = st.times(max_value=time(23, 59, 58), timezones=zones)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_infinity=False)
    | text
    | st.decimals(-(10**9), 10**9, allow_infinity=False, places=4)
    | moments
    | st.uuids()
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=8
)
decimals: st.SearchStrategy[Any] = st.decimals(-(10**9), 10**9, allow_infinity=False)
numbers: st.SearchStrategy[Any] = decimals | st.floats(-1e9, 1e9) | st.integers(-(10**9), 10**9)


def not_tiny(value: Any) -> bool:
    """False for what single precision can't hold."""
    return not 0 < abs(value) < 1e-30


def also_text(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return strategy | strategy.map(lambda value: None if value is None else str(value))


def whole(bits: int) -> st.SearchStrategy[Any]:
    exact = st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    rounded = st.integers(-(2**14), 2**14)
    return also_text(exact) | exact.map(Decimal) | rounded.map(float) | rounded.map(np.int64) | st.booleans()


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "small": whole(16),
    "whole": whole(32),
    "big": whole(64),
    "price": also_text(numbers) | numbers.map(float),
    "exact": numbers | st.decimals(-(10**25), 10**25, allow_infinity=False),
    "digits": numbers | st.decimals(-(10**24), 10**24, allow_infinity=False),
    "ratio": also_text(st.floats()) | decimals | st.integers(-(10**15), 10**15),
    "single": st.floats(width=32, allow_subnormal=False) | numbers.filter(not_tiny),
    "flag": st.booleans() | st.sampled_from([0, 1, 1.0, "true", "False", "t", "no", np.True_]),
    "note": text | numbers | moments | json_values | st.booleans(),
    "code": text | st.sampled_from(["a" * 12 + "  ", "12 characters   "[:12]]),
    "padded": st.text("aä😀 ", max_size=6),
    "guid": st.uuids() | st.uuids().map(str),
    "hex": st.uuids() | st.uuids().map(str) | st.uuids().map(lambda value: value.hex),
    "day": st.dates() | moments | st.dates().map(str) | moments.map(pd.Timestamp),
    "naive": also_text(moments)
    | st.dates(date(1, 1, 3), date(9999, 12, 29))
    | st.datetimes(datetime(1900, 1, 1)).map(np.datetime64),  # noqa: DTZ001
    "clock": also_text(clocks),
    "extra": json_values,
    "rounded": also_text(moments),
    "millis": also_text(moments),
    "aware": also_text(moments),
    "clock2": also_text(clocks),
    "zoned": also_text(clocks),
    "length": also_text(st.timedeltas(timedelta(-(10**5)), timedelta(10**5))) | st.just("P1DT2H"),
    "length1": st.timedeltas(timedelta(-(10**5)), timedelta(10**5)),
    "jsonb": json_values,
    "id": st.uuids() | st.uuids().map(str) | st.uuids().map(lambda value: value.bytes),
    "raw": binary
    | binary.map(lambda value: memoryview(value))  # noqa: PLW0108 - mypy wants it
    | binary.map(bytearray),
    "tens": numbers,
    "tags": st.lists(text | st.none(), max_size=3) | st.just(("a", "b")) | st.just([[], []]) | st.just([["a"], ["b"]]),
    "codes": st.lists(text, max_size=3),
    "prices": st.lists(numbers | st.none(), max_size=3) | st.just(np.array([1.5, float("nan")])),
    "moments": st.lists(moments, max_size=3),
    "objects": st.lists(json_values, max_size=3),
    "host": st.ip_addresses() | st.sampled_from(["10.0.0.0/8", "10.0.0.1/32"]),
    "span": st.sampled_from(["[1,5]", "(1,5)", "[5,)", "empty"]),
    "money": st.sampled_from(["1", "$1,000.50", 2, Decimal("3.456")]),
    "mood": st.sampled_from(["good", "so so"]),
    "moods": st.lists(st.sampled_from(["good", "so so", None]), max_size=3),
    "cost": st.decimals(0, 10**6, allow_nan=False),
    "name": text,
    "flexible": text
    | numbers
    | st.sampled_from(["0012", "1e3", "-5.50", "nan", ".", "7 "])
    | json_values
    | st.binary(),
    "untyped": text | numbers | st.booleans() | st.binary() | moments,
}
MISSING = st.sampled_from([None, float("nan"), pd.NaT, pd.NA, np.float64("nan"), np.datetime64("NaT"), Decimal("NaN")])


def columns_of(database: sa.Engine) -> dict[str, str]:
    return SQLITE if database.dialect.name == "sqlite" else POSTGRES


@contextmanager
def opened(database: sa.Engine, **fields: Any) -> Iterator[OpenedSqlTable]:
    given_fields: dict[str, Any] = {"table": "things", "key": "sku", "database": database}
    table = SqlTable(**given_fields | fields)
    with table.open(table.external_id) as target:
        yield target


def make_table(database: sa.Engine, columns: dict[str, str]) -> None:
    with database.begin() as connection:
        if database.dialect.name == "postgresql":
            connection.exec_driver_sql("CREATE TYPE mood AS ENUM ('good', 'so so')")
            connection.exec_driver_sql("CREATE DOMAIN cost AS NUMERIC(9, 2) CHECK (VALUE >= 0)")
            connection.exec_driver_sql(f"ALTER DATABASE {database.url.database} SET timezone = 'Asia/Kolkata'")
        wanted = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        connection.exec_driver_sql(f"CREATE TABLE things (sku VARCHAR(9) PRIMARY KEY, {wanted})")
    database.dispose()


@pytest.fixture
def things(database: sa.Engine) -> sa.Engine:
    """A database with a table that has a column of every type."""
    make_table(database, columns_of(database))
    return database


@pytest.mark.parametrize("column", VALUES)
def test_second_run_changes_nothing(database: sa.Engine, column: str) -> None:
    """For any values of any type, right after a create and right after an update."""
    kind = columns_of(database).get(column)
    if kind is None:
        return  # the other database's type
    make_table(database, {column: kind})
    values = st.lists(st.tuples(VALUES[column] | MISSING, VALUES[column] | MISSING), min_size=1, max_size=8)

    with opened(database, columns=[column]) as target:

        @given(pairs=values)
        @settings(max_examples=25, deadline=None, database=None)
        def run_twice(pairs: list[tuple[Any, Any]]) -> None:
            first = [{"sku": f"S{number}", column: pair[0]} for number, pair in enumerate(pairs)]
            second = [{"sku": f"S{number}", column: pair[1]} for number, pair in enumerate(pairs)]
            ids = [item["sku"] for item in first]
            target.create_many(first)
            try:
                assert_up_to_date(target, first)
                found = target.find_many(ids)
                target.update_many([(item, found[item["sku"]]) for item in second])
                assert_up_to_date(target, second)
            finally:
                target.delete_many(list(target.find_many(ids).values()))

        run_twice()


def assert_up_to_date(target: OpenedSqlTable, items: list[dict[str, Any]]) -> None:
    found = target.find_many([each["sku"] for each in items])
    assert [target.changes(each, found[each["sku"]]) for each in items] == [{}] * len(items)


def written(database: sa.Engine, kind: str, value: Any) -> Any:
    """What a column of that type holds after a create, and the second run finds up to date."""
    with database.begin() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS one")
        connection.exec_driver_sql(f"CREATE TABLE one (sku VARCHAR(9) PRIMARY KEY, v {kind})")
    item = {"sku": "A", "v": value}
    with opened(database, table="one", columns=["v"]) as target:
        target.create(item)
        local = target.find_local("A")
        assert local is not None
        assert target.changes(item, local) == {}
    return local["v"]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Part:
    sku: str
    length: timedelta
    size: float


BOTH = [
    ("INTEGER", "007", 7),
    ("INTEGER", 7.0, 7),
    ("INTEGER", Decimal(7), 7),
    ("INTEGER", np.int8(7), 7),
    ("INTEGER", True, 1),
    ("NUMERIC(10, 2)", 0.125, Decimal("0.13")),
    ("NUMERIC(10, 2)", "-0.125", Decimal("-0.13")),
    ("NUMERIC(10, 2)", Decimal("1E+2"), Decimal(100)),
    ("NUMERIC", 0.1, Decimal("0.1")),
    ("NUMERIC(20, 0)", 2**53 + 1, Decimal(2**53 + 1)),
    ("DOUBLE PRECISION", "0.1", 0.1),
    ("DOUBLE PRECISION", Decimal("0.1"), 0.1),
    ("BOOLEAN", "false", False),
    ("BOOLEAN", 1.0, True),
    ("TEXT", "", ""),
    ("TEXT", "e\u0301 \U0001f600 \u00e9", "e\u0301 \U0001f600 \u00e9"),
    ("TEXT", 7.0, "7"),
    ("TEXT", Decimal("7.50"), "7.50"),
    ("TEXT", True, "true"),
    ("TEXT", Colour.RED, "red"),
    ("TEXT", {"b": 1, "a": None}, '{"a": null, "b": 1}'),
    ("CHAR(32)", uuid.UUID(int=5), "0" * 31 + "5"),
    ("CHAR(36)", uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    ("DATE", "2024-02-29T23:00:00-05:00", date(2024, 2, 29)),
    ("TIMESTAMP", "2024-02-29T23:00:00-05:00", datetime(2024, 3, 1, 4)),  # noqa: DTZ001 - the column has no zone
    ("TIMESTAMP", pd.Timestamp("2024-02-29 23:00:00.123456789"), datetime(2024, 2, 29, 23, 0, 0, 123456)),  # noqa: DTZ001
    ("TIMESTAMP", np.datetime64("2024-02-29T23:00:00.000000001"), datetime(2024, 2, 29, 23)),  # noqa: DTZ001
    ("TIME", "10:00:00+02:00", time(8)),
    ("JSON", {"b": Decimal("1.50"), "a": datetime(2024, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))},
     {"a": "2024-01-01T00:00:00+00:00", "b": 1.5}),
    ("JSON", {"a": float("nan"), "t": (1, 2.0), 7: Colour.RED}, {"a": None, "t": [1, 2], "7": "red"}),
    ("JSON", '{"a": 1}', '{"a": 1}'),
    ("JSON", Part("A", timedelta(seconds=90), 1e300), {"sku": "A", "length": 90, "size": int(1e300)}),
    ("JSON", [date(2024, 1, 1), time(8), uuid.UUID(int=5)],
     ["2024-01-01", "08:00:00", "00000000-0000-0000-0000-000000000005"]),
    ("JSON", {True: 1, None: 2, 1.5: 3}, {"true": 1, "null": 2, "1.5": 3}),
    ("JSON", None, None),
    ("JSON", False, False),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "expected"), BOTH)
def test_a_value_becomes(database: sa.Engine, kind: str, value: Any, expected: Any) -> None:
    found = written(database, kind, value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("TIMESTAMP(0)", "1999-12-31T00:00:00.5", datetime(1999, 12, 30, 23, 59, 59) + timedelta(seconds=1)),  # noqa: DTZ001
        ("TIMESTAMP(0)", "2024-01-01T00:00:00.5", datetime(2024, 1, 1, 0, 0, 1)),  # noqa: DTZ001
        ("TIMESTAMP(1)", "1970-01-01T00:00:00.25", datetime(1970, 1, 1, 0, 0, 0, 200_000)),  # noqa: DTZ001
        ("TIMESTAMPTZ", datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC)),  # noqa: DTZ001 - naive means UTC
        ("REAL", 0.1, 0.1),
        ("REAL", 16777217, 16777216.0),
        ("UUID", "{00000000-0000-0000-0000-000000000005}", uuid.UUID(int=5)),
        ("BYTEA", memoryview(b"\x00\xff"), b"\x00\xff"),
        ("INTERVAL", pd.Timedelta("1 day 2 hours"), timedelta(days=1, hours=2)),
        ("NUMERIC", "1234567890123456789012345.678", Decimal("1234567890123456789012345.678")),
        ("VARCHAR(3)", "abc  ", "abc"),
        ("CHAR(6)", "ab  ", "ab"),
        ("INTEGER[]", [1, "2", None], [1, 2, None]),
        ("JSONB[]", [[1], None, {"a": '"'}, "\\"], [[1], None, {"a": '"'}, "\\"]),
        ("INET[]", ["10.0.0.1", None], "{10.0.0.1,NULL}"),
        ("INET", "10.0.0.1", "10.0.0.1/32"),
        ("INTERVAL DAY TO SECOND(1)", timedelta(seconds=1.26), "00:00:01.3"),
        ("POINT", "(1.50,2)", "(1.5,2)"),
        ('"char"', "a", "a"),
    ],
)
def test_a_value_becomes_on_postgresql(postgres: sa.Engine, kind: str, value: Any, expected: Any) -> None:
    found = written(postgres, kind, value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NaT, pd.NA, np.float32("nan"), np.datetime64("NaT")])
def test_what_is_missing_is_null_and_not_empty_text(things: sa.Engine, missing: Any) -> None:
    item = {"sku": "A"} | dict.fromkeys(columns_of(things), missing)
    with opened(things) as target:
        target.create(item)
        local = target.find_local("A")
        assert local == {"sku": "A"} | dict.fromkeys(columns_of(things))
        assert target.changes(item, local) == {}
        assert set(target.changes(item | {"note": ""}, local)) == {"note"}
    with things.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM things WHERE extra IS NULL").scalar() == 1


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("INTEGER", "seven"),
        ("INTEGER", "7.5"),
        ("INTEGER", ""),
        ("INTEGER", "1_000"),
        ("INTEGER", "\u0663"),
        ("INTEGER", float("inf")),
        ("INTEGER", "1e999999999"),
        ("INTEGER", [1]),
        ("NUMERIC(10, 2)", "1,50"),
        ("NUMERIC(10, 2)", b"1"),
        ("DOUBLE PRECISION", object()),
        ("BOOLEAN", "maybe"),
        ("BOOLEAN", 2),
        ("TEXT", b"bytes"),
        ("TEXT", "\ud800"),
        ("TEXT", object()),
        ("DATE", "yesterday"),
        ("DATE", 20240101),
        ("TIMESTAMP", 1704067200),
        ("TIMESTAMP", "2024-13-01"),
        ("TIME", datetime(2024, 1, 1)),  # noqa: DTZ001 - a datetime is no time of day
        ("JSON", {1, 2}),
        ("JSON", [b"x"]),
        ("JSON", [float("inf")]),
        ("JSON", {"a": "\ud800"}),
        ("JSON", {(1, 2): 3}),
    ],
)
def test_a_value_that_does_not_convert_fails_its_item_by_name(database: sa.Engine, kind: str, value: Any) -> None:
    with pytest.raises(ItemError, match=r"column 'v': .* does not convert to"):
        written(database, kind, value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("UUID", "x"),
        ("UUID", 5),
        ("BYTEA", "text"),
        ("INTERVAL", 5),
        ("INTERVAL", "a while"),
        ("INTEGER[]", "{1}"),
        ("INTEGER[]", ["x"]),
        ("INET", "nowhere"),
        ("TIME(0)", "23:59:59.7"),
        ("TIMESTAMPTZ", "9999-12-31T23:00:00-05:00"),
    ],
)
def test_a_value_that_does_not_convert_on_postgresql_fails_its_item(postgres: sa.Engine, kind: str, value: Any) -> None:
    with pytest.raises(ItemError, match=r"column 'v': .* does not convert to"):
        written(postgres, kind, value)


def test_what_the_database_refuses_is_its_own_error(database: sa.Engine) -> None:
    with pytest.raises((sa.exc.DBAPIError, OverflowError)):
        written(database, "BIGINT", 2**70)


@pytest.mark.parametrize(("kind", "value"), [("REAL", 1e300), ("NUMERIC(5, 2)", "1e9"), ("NUMERIC", "1e200000")])
def test_a_number_that_is_too_large_is_postgresqls_own_error(postgres: sa.Engine, kind: str, value: Any) -> None:
    with pytest.raises(sa.exc.DataError):
        written(postgres, kind, value)


@pytest.mark.parametrize("kind", ["DOUBLE PRECISION", "REAL", "NUMERIC"])
def test_infinite_numbers_are_kept(database: sa.Engine, kind: str) -> None:
    assert written(database, kind, float("inf")) == float("inf")
    assert written(database, kind, "-Infinity") == float("-inf")
    assert written(database, kind, "NaN") is None


def test_text_that_is_too_long_is_not_cut_silently(postgres: sa.Engine) -> None:
    for kind, value in {"VARCHAR(3)": "abcd", "VARCHAR(3)[]": ["abcd"], "CHAR(3)": "abcd"}.items():
        with pytest.raises(sa.exc.DataError):
            written(postgres, kind, value)


def test_labels_of_an_enum_are_checked(postgres: sa.Engine) -> None:
    with postgres.begin() as connection:
        connection.exec_driver_sql("CREATE TYPE colour AS ENUM ('red', 'blue')")
    assert written(postgres, "colour", Colour.RED) == "red"
    with pytest.raises(ItemError, match="allowed are: red, blue"):
        written(postgres, "colour", "green")


def test_json_tells_true_from_one(database: sa.Engine) -> None:
    with database.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE one (sku VARCHAR(9) PRIMARY KEY, v JSON)")
    with opened(database, table="one", columns=["v"]) as target:
        target.create({"sku": "A", "v": {"on": True}})
        local = target.find_many(["A"])["A"]
        assert set(target.changes({"sku": "A", "v": {"on": 1}}, local)) == {"v"}


def test_keys_that_ignore_case_identify_one_record(sqlite: sa.Engine) -> None:
    with sqlite.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE one (sku TEXT COLLATE NOCASE PRIMARY KEY, v TEXT)")
    with opened(sqlite, table="one", columns=["v"]) as target:
        target.create({"sku": "Abc", "v": "Ä"})
        assert target.canonical_id("ABC") == "abc"
        assert target.find_local("aBC") == {"sku": "Abc", "v": "Ä"}
        assert list(target.list_local()) == ["abc"]


def test_keys_that_ignore_blanks_at_the_end_identify_one_record(sqlite: sa.Engine) -> None:
    with sqlite.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE one (sku TEXT COLLATE RTRIM PRIMARY KEY, v TEXT)")
    with opened(sqlite, table="one", columns=["v"]) as target:
        target.create({"sku": "A ", "v": "x"})
        assert list(target.find_many(["A", "A  "])) == list(target.list_local()) == ["A"]


def test_rows_in_a_form_that_others_wrote_are_read_and_compared(sqlite: sa.Engine) -> None:
    """SQLite keeps whatever it is given; one odd value must not fail the batch it is read with."""
    with sqlite.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE one (sku TEXT PRIMARY KEY, v TIMESTAMP, j JSON, n INTEGER)")
        connection.exec_driver_sql(
            "INSERT INTO one VALUES ('A', '2024-01-01T10:00:00Z', '{\"b\":1,\"a\":2}', 1), ('B', 'never', '{', 'many')"
        )
    with opened(sqlite, table="one") as target:
        found = target.find_many(["A", "B"])
        item = {"sku": "A", "v": "2024-01-01T12:00:00+02:00", "j": {"a": 2, "b": 1}, "n": 1}
        assert target.changes(item, found["A"]) == {}
        assert set(target.changes(item | {"sku": "B"}, found["B"])) == {"v", "j", "n"}
        target.update(item | {"sku": "B"}, found["B"])
        assert target.changes(item | {"sku": "B"}, target.find_local("B")) == {}


def test_the_types_of_a_declared_table_are_used(database: sa.Engine) -> None:
    declared = sa.Table(
        "one",
        sa.MetaData(),
        sa.Column("sku", sa.Uuid, primary_key=True),
        sa.Column("colour", sa.Enum(Colour)),
        sa.Column("moment", sa.DateTime(timezone=True)),
        sa.Column("length", sa.Interval),
        sa.Column("loud", Shouting(20)),
        sa.Column("extra", sa.JSON),
        sa.Column("anything", sa.PickleType),
    )
    declared.create(database)
    item = {
        "sku": "00000000-0000-0000-0000-000000000005",
        "colour": "red",
        "moment": "2024-01-01T10:00:00+02:00",
        "length": timedelta(hours=5),
        "loud": "Hey",
        "extra": {"a": 1},
        "anything": {1, 2},
    }
    with opened(database, table=declared) as target:
        target.create(item)
        local = target.find_local(item["sku"])  # type: ignore[arg-type]  # it is text
        assert local == item | {
            "sku": uuid.UUID(int=5),
            "colour": Colour.RED,
            "moment": datetime(2024, 1, 1, 8, tzinfo=UTC),
            "loud": "HEY",
        }
        assert target.changes(item | {"colour": Colour.RED}, local) == {}
        assert target.changes(item | {"colour": "RED"}, local) == {}
        target.update(item | {"colour": "blue"}, local)
        assert list(target.list_local()) == [item["sku"]]
        with pytest.raises(ItemError, match="allowed are: red, blue"):
            target.changes(item | {"colour": "green"}, local)
    with database.connect() as connection:
        assert connection.execute(sa.select(declared.c.colour, declared.c.loud)).one() == (Colour.BLUE, "HEY")


@pytest.mark.parametrize(
    ("kind", "value", "canonical"),
    [
        ("DATE", "2024-01-01T00:00:00", "2024-01-01"),
        ("TIMESTAMP", "2024-01-01 10:00:00+02:00", "2024-01-01T08:00:00"),
        ("NUMERIC(10, 2)", "7.5", "7.5"),
        ("NUMERIC(10, 2)", "007.00", "7"),
        ("BOOLEAN", "1", "true"),
        ("VARCHAR(32)", "00000000-0000-0000-0000-000000000005", "0" * 31 + "5"),
        ("REAL", "0.1", "0.1"),
    ],
)
def test_keys_of_any_type_are_found_again(database: sa.Engine, kind: str, value: str, canonical: str) -> None:
    find_key_again(database, kind, value, canonical)


def test_keys_that_the_database_fills_up_are_found_again(postgres: sa.Engine) -> None:
    find_key_again(postgres, "CHAR(6)", "ab ", "ab")


def find_key_again(database: sa.Engine, kind: str, value: str, canonical: str) -> None:
    with database.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE one (k {kind} PRIMARY KEY, v INTEGER)")
    with opened(database, table="one", key="k", columns=["v"]) as target:
        target.create({"k": value, "v": 1})
        assert target.canonical_id(value) == target.canonical_id(canonical) == canonical
        found = target.find_many([value])
        target.update({"k": value, "v": 2}, found[canonical])
        assert list(target.list_local()) == [canonical]
        target.delete(found[canonical])


@pytest.mark.parametrize(
    ("kind", "value"), [("UUID", str(uuid.UUID(int=7))), ("INET", "10.0.0.1/32"), ("BYTEA", "\\x00ff")]
)
def test_keys_of_postgresql_types_are_found_again(postgres: sa.Engine, kind: str, value: str) -> None:
    with postgres.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE one (k {kind}, p INT, v INTEGER, PRIMARY KEY (k, p))")
    with opened(postgres, table="one", key=["k", "p"], columns=["v"]) as target:
        target.create({"k": value, "p": 1, "v": 1})
        (external_id,) = target.list_local()
        found = target.find_many([external_id])
        target.update({"k": value, "p": 1, "v": 2}, found[external_id])
        target.delete(found[external_id])


def test_a_key_whose_collation_is_unknown_is_refused(sqlite: sa.Engine) -> None:
    sa.event.listen(sqlite, "connect", lambda raw, _: raw.create_collation("loose", lambda a, b: (a > b) - (a < b)))
    with sqlite.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE one (sku TEXT COLLATE loose PRIMARY KEY)")
    with pytest.raises(ConfigurationError, match="collation"), opened(sqlite, table="one"):
        pass


def test_another_driver_changes_nothing(postgres: sa.Engine) -> None:
    """Dagster's storage brings psycopg2 along, so an application may hand in an engine with it."""
    url = postgres.url.set(drivername="postgresql+psycopg2")
    other = sa.create_engine(url)
    kinds: dict[str, Any] = {
        "UUID": str(uuid.uuid4()),
        "JSONB": {"a": [1, True]},
        "TIMESTAMPTZ": "2024-01-01T00:00:00Z",
    }
    kinds |= {
        "BYTEA": b"x",
        "NUMERIC(5, 1)": "1.25",
        "TEXT[]": ["a", None],
        "INTERVAL": timedelta(1),
        "DATE": "2024-01-01",
    }
    for kind, value in kinds.items():
        written(other, kind, value)
    other.dispose()
