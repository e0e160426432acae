"""Promise 1 on MariaDB: the second run changes nothing, whatever the types."""

from __future__ import annotations

import enum
import uuid
from dataclasses import replace
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
from sync_pipelines.targets.dialects.mysql import MYSQL, is_generated
from sync_pipelines.targets.open_table import OpenedSqlTable
from sync_pipelines.targets.table import reflection
from sync_pipelines_tests.targets.dialects.mariadb.tables import make, opened
from sync_pipelines_tests.targets.types.own_types import Shouting

text = st.text(st.characters(codec="utf-8"), max_size=12)
zones: Any = st.sampled_from([UTC, None, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-11))])
moments: Any = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=zones)  # noqa: DTZ001 - bounds must be naive
recent: Any = st.datetimes(datetime(1971, 1, 1), datetime(2037, 12, 29), timezones=zones)  # noqa: DTZ001 - the same
clocks = st.times(max_value=time(23, 59, 58), timezones=zones)
lengths = st.timedeltas(timedelta(hours=-838), timedelta(hours=838))
numbers: Any = st.decimals(-(10**9), 10**9, allow_infinity=False) | st.floats(-1e9, 1e9) | st.integers(-(10**9), 10**9)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_infinity=False)
    | text
    | moments
    | st.uuids()
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=8
)


def also_text(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return strategy | strategy.map(str)


def whole(least: int, most: int) -> st.SearchStrategy[Any]:
    exact = st.integers(least, most)
    return also_text(exact) | exact.map(Decimal) | st.integers(max(least, -(2**7)), min(most, 2**7 - 1)).map(float)


def not_tiny(value: Any) -> bool:
    """False for what single precision can't hold."""
    return not 0 < abs(value) < 1e-30


COLUMNS: dict[str, tuple[str, st.SearchStrategy[Any]]] = {
    "flag": ("TINYINT(1)", st.booleans() | st.integers(-128, 127) | st.sampled_from([1.0, "true", "no", np.True_])),
    "tiny": ("TINYINT", whole(-(2**7), 2**7 - 1)),
    "tiny_unsigned": ("TINYINT UNSIGNED", whole(0, 2**8 - 1)),
    "medium": ("MEDIUMINT", whole(-(2**23), 2**23 - 1)),
    "whole": ("INTEGER", whole(-(2**31), 2**31 - 1)),
    "whole_unsigned": ("INTEGER UNSIGNED ZEROFILL", whole(0, 2**32 - 1)),
    "big": ("BIGINT", whole(-(2**63), 2**63 - 1)),
    "big_unsigned": ("BIGINT UNSIGNED", whole(0, 2**64 - 1)),
    "price": ("DECIMAL(12, 2)", also_text(numbers)),
    "digits": ("DECIMAL(40, 10)", numbers | st.decimals(-(10**24), 10**24, allow_infinity=False)),
    "fine": ("DECIMAL(38, 30)", st.decimals(-(10**7), 10**7, allow_nan=False, places=30) | st.just("1e-30")),
    "rounded": ("DECIMAL(12)", numbers),
    "single": ("FLOAT", st.floats(width=32, allow_subnormal=False, allow_infinity=False) | numbers.filter(not_tiny)),
    "single_scaled": ("FLOAT(9, 3)", st.floats(-99999, 99999) | st.decimals(-99999, 99999, allow_nan=False)),
    "ratio": ("DOUBLE", also_text(st.floats(allow_infinity=False, allow_subnormal=False)) | numbers),
    "ratio_scaled": ("DOUBLE(12, 4)", st.floats(-99999, 99999) | st.decimals(-99999, 99999, allow_nan=False)),
    "bits": ("BIT(12)", st.integers(0, 2**12 - 1)),
    "one_bit": ("BIT(1)", st.booleans() | st.sampled_from([0, 1, "true", 1.0])),
    "code": ("VARCHAR(12)", text | st.sampled_from(["a" * 12 + "  ", "blanks   ", "", "0"])),
    "padded": ("CHAR(6)", st.text("aä😀 ", max_size=6)),
    "hex": ("CHAR(32) CHARACTER SET ascii", st.uuids() | st.uuids().map(str) | st.uuids().map(lambda value: value.hex)),
    "old": ("VARCHAR(12) CHARACTER SET utf8mb3", st.text("aé日 ", max_size=12)),
    "latin": ("VARCHAR(12) CHARACTER SET latin1", st.text("aé€ ", max_size=12)),
    "note": ("TEXT", text | numbers | moments | json_values | st.booleans()),
    "short": ("TINYTEXT", st.text("aä ", min_size=100, max_size=127) | st.just("a" * 255 + "  ")),
    "longer": ("LONGTEXT", text),
    "day": ("DATE", st.dates() | moments | st.dates().map(str) | moments.map(pd.Timestamp)),
    "moment": ("DATETIME", also_text(moments) | st.dates(date(1, 1, 3), date(9999, 12, 29))),
    "millis": ("DATETIME(3)", also_text(moments)),
    "micros": ("DATETIME(6)", also_text(moments) | moments.map(pd.Timestamp)),
    "aware": ("TIMESTAMP NULL", also_text(recent)),
    "aware_micros": ("TIMESTAMP(6) NULL", also_text(recent)),
    "clock": ("TIME", also_text(clocks) | lengths),
    "clock_micros": ("TIME(6)", also_text(clocks) | also_text(lengths)),
    "year": ("YEAR", st.integers(1901, 2155) | st.just(0) | st.just("2024")),
    "fixed": ("BINARY(9)", st.binary(max_size=9) | st.binary(max_size=9).map(bytearray)),
    "guid": ("BINARY(16)", st.uuids() | st.uuids().map(str) | st.uuids().map(lambda value: value.bytes)),
    "raw": ("VARBINARY(9)", st.binary(max_size=9) | st.binary(max_size=9).map(lambda value: "\\x" + value.hex())),
    "lump": ("BLOB", st.binary(max_size=40)),
    "mood": ("ENUM('good', 'so so', 'it''s, bad')", st.sampled_from(["good", "so so", "it's, bad"])),
    "tags": ("SET('a', 'b', 'c')", st.lists(st.sampled_from("abc"), max_size=4) | st.sampled_from(["b,a", "", "c"])),
    "extra": ("JSON", json_values),
    "id": ("UUID", st.uuids(version=4) | st.uuids(version=4).map(str)),
}
MISSING = st.sampled_from([None, float("nan"), pd.NaT, pd.NA, np.float64("nan"), Decimal("NaN")])


def assert_up_to_date(target: OpenedSqlTable, items: list[dict[str, Any]]) -> None:
    found = target.find_many([each["sku"] for each in items])
    assert [target.changes(each, found[each["sku"]]) for each in items] == [{}] * len(items)


@pytest.mark.parametrize("column", COLUMNS)
def test_second_run_changes_nothing(mariadb: sa.Engine, column: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For any values of any type, right after a create and right after an update, alone and several at once."""
    monkeypatch.setitem(reflection._PROFILES, "mysql", replace(MYSQL, rows_at_once=3))
    kind, strategy = COLUMNS[column]
    make(mariadb, f"CREATE TABLE things (sku VARCHAR(9) PRIMARY KEY, {column} {kind})")
    values = st.lists(st.tuples(strategy | MISSING, strategy | MISSING), min_size=1, max_size=8)

    with opened(mariadb, columns=[column]) as target:

        @given(pairs=values)
        @settings(max_examples=15, deadline=None, database=None)
        def run_twice(pairs: list[tuple[Any, Any]]) -> None:
            first = [{"sku": f"s{number}", column: pair[0]} for number, pair in enumerate(pairs)]
            second = [{"sku": f"s{number}", column: pair[1]} for number, pair in enumerate(pairs)]
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


def written(database: sa.Engine, kind: str, value: Any) -> Any:
    """What a column of that type holds after a create, and the second run finds up to date."""
    make(database, "DROP TABLE IF EXISTS things", f"CREATE TABLE things (sku VARCHAR(9) PRIMARY KEY, v {kind})")
    item = {"sku": "A", "v": value}
    with opened(database, columns=["v"]) as target:
        target.create(item)
        local = target.find_local("A")
        assert local is not None
        assert target.changes(item, local) == {}
    return local["v"]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("TINYINT(1)", "yes", True),
        ("TINYINT(1)", 7, 7),
        ("DECIMAL(10, 2)", "-0.125", Decimal("-0.13")),
        ("DECIMAL(38, 30)", "0.00000012345678901234567890123", Decimal("0.000000123456789012345678901230")),
        ("FLOAT", 16777217, 16777216.0),
        ("FLOAT", 0.1, 0.1),
        ("FLOAT(7, 2)", "1.005", 1.01),
        ("DOUBLE", "0.1", 0.1),
        ("DATETIME", "2024-01-01T00:00:00.6", datetime(2024, 1, 1, 0, 0, 1)),  # noqa: DTZ001 - the column has no zone
        ("DATETIME", "2024-02-29T23:00:00-05:00", datetime(2024, 3, 1, 4)),  # noqa: DTZ001 - the column has no zone
        ("TIMESTAMP NULL", "2024-01-01T10:00:00+02:00", datetime(2024, 1, 1, 8, tzinfo=UTC)),
        ("TIMESTAMP NULL", datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC)),  # noqa: DTZ001 - naive means UTC
        ("TIME", "10:00:00+02:00", time(8)),
        ("TIME", timedelta(minutes=-30), timedelta(minutes=-30)),
        ("TIME", timedelta(hours=30), timedelta(hours=30)),
        ("VARCHAR(3)", "abc  ", "abc"),
        ("CHAR(6)", "ab  ", "ab"),
        ("TEXT", {"b": 1, "a": None}, '{"a": null, "b": 1}'),
        ("TEXT", "e\u0301 \U0001f600 \u00e9", "e\u0301 \U0001f600 \u00e9"),
        ("BINARY(4)", b"ab", b"ab\0\0"),
        ("BINARY(16)", "00000000-0000-0000-0000-000000000005", b"\0" * 15 + b"\5"),
        ("SET('x', 'y')", {"y", "x"}, "x,y"),
        ("JSON", '{"a": 1}', '{"a": 1}'),
        ("JSON", {"a": Decimal("1.50"), "on": True}, {"a": 1.5, "on": True}),
        ("UUID", "{00000000-0000-0000-0000-000000000005}", uuid.UUID(int=5)),
    ],
)
def test_a_value_becomes(mariadb: sa.Engine, kind: str, value: Any, expected: Any) -> None:
    found = written(mariadb, kind, value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("INT", "seven"),
        ("INT", 2**64),
        ("DECIMAL(10, 2)", float("inf")),
        ("DOUBLE", float("inf")),
        ("FLOAT", "-Infinity"),
        ("YEAR", 24),
        ("ENUM('red', 'blue')", "green"),
        ("SET('red', 'blue')", ["red", "green"]),
        ("SET('red', 'blue')", 5),
        ("BINARY(16)", "no uuid"),
        ("TIME", "a while"),
        ("TIME", 5),
        ("TEXT", b"bytes"),
        ("VARCHAR(5)", "\ud800"),
        ("TIMESTAMP NOT NULL", None),
        ("POINT", "(1,2)"),
        ("LONGTEXT", "x" * 5_000_000),
        ("LONGBLOB", b"x" * 5_000_000),
    ],
)
def test_a_value_that_does_not_convert_fails_its_item_by_name(mariadb: sa.Engine, kind: str, value: Any) -> None:
    make(mariadb, f"CREATE TABLE things (sku VARCHAR(9) PRIMARY KEY, v {kind})")
    with opened(mariadb) as target, pytest.raises(ItemError, match=r"column 'v': .* does not convert to"):
        target.create({"sku": "A", "v": value})


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "lenient"])
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("TINYINT", 128),
        ("INT UNSIGNED", -1),
        ("BIGINT", 2**63),
        ("DECIMAL(5, 2)", "1e9"),
        ("DECIMAL(38, 30)", "1e9"),
        ("DECIMAL(5, 2) UNSIGNED", -1),
        ("FLOAT", 1e300),
        ("VARCHAR(3)", "abcd"),
        ("CHAR(3)", "abcd"),
        ("TINYTEXT", "x" * 256),
        ("VARBINARY(3)", b"abcd"),
        ("BINARY(3)", b"abcd"),
        ("BIT(3)", 8),
        ("TEXT CHARACTER SET utf8mb3", "\U0001f600"),
        ("TEXT CHARACTER SET latin1", "\u65e5"),
        ("TIMESTAMP NULL", "2200-01-01"),
        ("TIME", timedelta(hours=900)),
        ("INT NOT NULL", None),
    ],
)
def test_what_does_not_fit_is_the_databases_own_error_and_is_not_cut(
    mariadb: sa.Engine, kind: str, value: Any, *, strict: bool
) -> None:
    """Also where the sessions of the house are lenient, and would cut it silently."""
    make(mariadb, f"CREATE TABLE things (sku VARCHAR(9) PRIMARY KEY, v {kind})")
    options = {} if strict else {"init_command": "SET SESSION sql_mode = ''"}
    lenient = sa.create_engine(mariadb.url, connect_args=options)
    with opened(lenient) as target:
        with pytest.raises(sa.exc.DBAPIError):
            target.create({"sku": "A", "v": value})
        assert list(target.list_local()) == []
    lenient.dispose()


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def test_the_types_of_a_declared_table_are_used(mariadb: sa.Engine) -> None:
    declared = sa.Table(
        "things",
        sa.MetaData(),
        sa.Column("sku", sa.Uuid, primary_key=True),
        sa.Column("colour", sa.Enum(Colour)),
        sa.Column("length", sa.Interval),
        sa.Column("loud", Shouting(20)),
        sa.Column("active", sa.Boolean),
        sa.Column("extra", sa.JSON),
        sa.Column("anything", sa.PickleType),
    )
    declared.create(mariadb)
    item = {
        "sku": "00000000-0000-4000-8000-000000000005",
        "colour": "red",
        "length": timedelta(hours=5),
        "loud": "Hey",
        "active": True,
        "extra": {"a": 1},
        "anything": {1, 2},
    }
    with opened(mariadb, table=declared) as target:
        target.create(item)
        (external_id,) = target.list_local()
        local = target.find_local(external_id)
        assert local is not None
        assert (local["colour"], local["loud"], local["length"]) == (Colour.RED, "HEY", timedelta(hours=5))
        assert target.changes(item | {"colour": Colour.RED}, local) == {}
        target.update(item | {"colour": "blue"}, local)
        with pytest.raises(ItemError, match="allowed are: red, blue"):
            target.changes(item | {"colour": "green"}, local)


def test_columns_that_fill_themselves_are_left_alone_unless_they_are_written(mariadb: sa.Engine) -> None:
    make(
        mariadb,
        "CREATE TABLE things (id INT AUTO_INCREMENT PRIMARY KEY, sku VARCHAR(9) NOT NULL UNIQUE, n INT, "
        "twice INT AS (n * 2) VIRTUAL, kept INT AS (n * 3) STORED, "
        "changed_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP)",
    )
    item = {"sku": "a", "n": 1, "twice": 99, "kept": 99}
    with opened(mariadb) as target:
        target.create(item)
        local = target.find_many(["a"])["a"]
        assert (local["twice"], local["kept"], target.changes(item, local)) == (2, 3, {})
        target.update(item | {"n": 2, "changed_at": "2024-01-01"}, local)
        found = target.find_many(["a"])["a"]
        assert found["changed_at"] == datetime(2024, 1, 1, tzinfo=UTC)
        assert target.changes(item | {"n": 2, "changed_at": "2024-01-01"}, found) == {}
        with pytest.raises(ItemError, match="can't be NULL"):
            target.create(item | {"sku": "b", "id": None})
        target.create(item | {"sku": "zero", "id": 0})
        assert target.find_many(["zero"])["zero"]["id"] == 0
    for column in ("twice", "kept"):
        with pytest.raises(ConfigurationError, match=f"'{column}'.*generates"), opened(mariadb, columns=[column]):
            pass


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("virtual generated", True),
        ("stored generated, invisible", True),
        ("default_generated on update current_timestamp", False),
        ("auto_increment", False),
        ("", False),
    ],
)
def test_a_default_that_is_an_expression_makes_no_generated_column(extra: str, *, expected: bool) -> None:
    assert is_generated(extra) is expected


def test_a_column_of_an_unknown_type_is_refused_by_name(mariadb: sa.Engine) -> None:
    make(mariadb, "CREATE TABLE things (sku VARCHAR(9) PRIMARY KEY, n INT, place POINT, host INET6)")
    with (
        pytest.raises(ConfigurationError, match=r"'place' of 'things', which is of the type point.*leave it out"),
        opened(mariadb, columns=["place"]),
    ):
        pass
    with opened(mariadb, columns=["n"]) as target:
        target.create({"sku": "a", "n": 1})


def test_rows_that_others_wrote_are_read_and_compared(mariadb: sa.Engine) -> None:
    make(
        mariadb,
        "CREATE TABLE things (sku VARCHAR(9) PRIMARY KEY, day DATE, moment DATETIME, extra JSON, f FLOAT)",
        "SET sql_mode = ''",
        "INSERT INTO things VALUES ('a', '0000-00-00', '2024-00-00 10:00:00', '{\"b\":1,  \"a\":2}', 0.1)",
    )
    mariadb.dispose()
    item = {"sku": "a", "day": "2024-01-01", "moment": "2024-01-01", "extra": {"a": 2, "b": 1}, "f": "0.1"}
    with opened(mariadb) as target:
        local = target.find_many(["a"])["a"]
        assert set(target.changes(item, local)) == {"day", "moment"}
        target.update(item, local)
        assert target.changes(item, target.find_local("a")) == {}


@pytest.mark.parametrize(
    ("kind", "value", "canonical"),
    [
        ("DATE", "2024-01-01T00:00:00", "2024-01-01"),
        ("DATETIME", "2024-01-01 10:00:00+02:00", "2024-01-01T08:00:00"),
        ("TIMESTAMP", "2024-01-01 10:00:00+02:00", "2024-01-01T08:00:00+00:00"),
        ("DECIMAL(10, 2)", "007.00", "7"),
        ("INT UNSIGNED", "4000000000.0", "4000000000"),
        ("CHAR(6)", "ab ", "ab"),
        ("BINARY(16)", "00000000-0000-0000-0000-000000000005", "\\x" + "0" * 31 + "5"),
        ("VARBINARY(9)", "\\x00ff", "\\x00ff"),
        ("UUID", "{00000000-0000-0000-0000-000000000005}", "00000000-0000-0000-0000-000000000005"),
        ("DOUBLE", "0.10", "0.1"),
        ("TIME", "10:00", "10:00:00"),
        ("ENUM('a', 'b')", "a", "a"),
    ],
)
def test_keys_of_any_type_are_found_again(mariadb: sa.Engine, kind: str, value: str, canonical: str) -> None:
    make(mariadb, f"CREATE TABLE things (k {kind} PRIMARY KEY, v INTEGER)")
    with opened(mariadb, key="k", columns=["v"]) as target:
        target.create({"k": value, "v": 1})
        assert target.canonical_id(value) == target.canonical_id(canonical) == canonical
        found = target.find_many([value])
        target.update({"k": value, "v": 2}, found[canonical])
        assert list(target.list_local()) == [canonical]
        target.delete(found[canonical])


def test_a_key_that_is_never_found_again_is_refused(mariadb: sa.Engine) -> None:
    make(mariadb, "CREATE TABLE things (k FLOAT PRIMARY KEY, v INTEGER)")
    with pytest.raises(ConfigurationError, match=r"key column 'k' of 'things' is of the type float"):  # noqa: SIM117
        with opened(mariadb, key="k"):
            pass
