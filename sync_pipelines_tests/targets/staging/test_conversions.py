"""Columns are converted to the values that the codecs give one by one; what does not convert fails alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from sync_pipelines.engine.results import SyncResults
from sync_pipelines_tests.targets.staging.conftest import Syncs
from sync_pipelines_tests.two_speeds import spread_rows

BOTH: dict[str, list[Any]] = {
    "INTEGER": ["7", "007", " 7 ", "-007", "7.0", "+7", "7.5", "", "1e3", "1_000", "\u0663", "99999999999", "x", "NaN"],
    "SMALLINT": [32767, 32768, "32767", "32768", -32769, Decimal("32768.0")],
    "BIGINT": [2**63 - 1, -(2**63), "9223372036854775807", 1.0, Decimal("1e3")],
    "NUMERIC(5, 2)": ["1.005", "-1.005", "999.994", "999.995", "1e2", "+1", " 1.5", "007.50", "1,5", "NaN", 1000,
                  0.125],
    "NUMERIC(5, 2) ": [999, 1000, -1000],
    "NUMERIC": ["1.50", "0.1", "1e-3", "-0", ".5", "5.", 2**70, Decimal("1E+2")],
    "NUMERIC(3, 3)": ["0.5", "1", 0, 1, "0.9999"],
    "DOUBLE PRECISION": [2**53 + 1, 2**53, 1, -0.0, 0.1, 1e300],
    "VARCHAR(4)": ["abcd", "abcd  ", "abcde", "", "\u00e4\u00f6\u00fc\u00df", "\U0001f600" * 4, "a\nb", 'a"b', "a,b",
                  "\\."],
    "CHAR(4)": ["ab", "ab  ", "abcd ", "abcde", "", "  "],
    "VARCHAR(32)": ["00000000-0000-0000-0000-00000000000A", "0" * 32, "x" * 33],
    "TEXT": ["", "NULL", "\\N", "line\n\\.\nline", '"', "a\rb", "\\", "\u2028", " ", "\t", 7, 10**18],
    "BOOLEAN": [True, False],
    "BOOLEAN ": ["yes", 2, 0.0, "x"],
    "DATE ": ["2024-02-29", "2023-02-29"],
    "DATE": ["2024-02-29", "0000-01-01", "0001-01-01", "9999-12-31", "10000-01-01", "20240101", " 2024-01-01"],
    "TIMESTAMP": ["0000-01-01T00:00:00Z", "0001-01-01T00:00:00+05:00", "9999-12-31T23:00:00-05:00",
                  "2024-01-01T00:00:00-00:00",
                  "0000-12-31T23:00:00-05:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2024-01-01",
                  "x"],
    "TIMESTAMP ": ["2024-01-01T00:00:00Z", "2024-01-01 00:00:00.5+05:30", "2024-01-01T24:00:00Z",
                  "2024-01-01T23:59:60Z",
                  "0000-01-01T00:00:00Z", "0001-01-01T00:00:00+05:00", "9999-12-31T23:00:00-05:00",
                  "2024-01-01T00:00:00+24:00", "2024-01-01T00:00:00+23:59", "2024-01-01T00:00:00+23:60",
                  "2024-02-30T00:00:00Z", "2024-01-01T00:00:00-00:00",
                  "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2024-01-01"],
    "JSON": ["text", "", "\u2028", 1, {"a": [1.0, None]}],
}  # fmt: skip
POSTGRES: dict[str, list[Any]] = {
    "TIMESTAMPTZ(0)": ["1999-12-31T00:00:00.5Z", "2024-01-01T00:00:00.5Z", "2024-01-01T00:00:00.499999Z"],
    "UUID": ["00000000-0000-0000-0000-00000000000A", "{00000000-0000-0000-0000-00000000000a}", "0" * 32, "x", ""],
    "NUMERIC(3, -1)": [14, 15, "9994", "9995", 0],
    "JSONB": ["a\\u0000b", {"a": "\x00"}, {"\x00": 1}, "\x00", {"b": 1, "a": 2}],
    "TEXT": ["a\x00b", "fine"],
    "TEXT[]": [["a\x00b"], ["NULL", None, ""], [], "x", ["\\", '"', "{}"]],
    "VARCHAR(2)[]": [["ab"], ["abc"]],
    "INET": ["10.0.0.1", "nowhere"],
    "REAL": [1e300, 0.1],
    "MOOD": ["good", "bad", ""],
    "COST": ["1.005", "-1", 10**9],
    "INTERVAL": ["1 day, 2:00:00", "P1D", "a while"],
}


@dataclass(frozen=True)
class Outcome:
    """What a run says and leaves behind."""

    counts: dict[str, int]
    errors: list[tuple[int, str | None, str, str]]
    rows: list[tuple[Any, ...]]


def outcome(sync: Syncs, results: SyncResults, query: str = "SELECT * FROM things ORDER BY 1") -> Outcome:
    errors = [(each.position, each.external_id, each.exception_type, each.message) for each in results.errors]
    return Outcome(results.counts(), errors, [tuple(map(repr, row)) for row in sync.rows(query)])


Values = dict[str, list[Any]]


def both_ways(sync: Syncs, monkeypatch: pytest.MonkeyPatch, run: Callable[[], list[Any]]) -> None:
    """Runs the same in bulk and page by page, and checks that all is the same."""
    found: dict[bool, list[Any]] = {}
    for in_bulk in (True, False):
        monkeypatch.setattr("sync_pipelines.runner.runs.comparing_run.FROM_ITEMS", 0 if in_bulk else 10**9)
        found[in_bulk] = run()
        assert sync.paths.took_bulk() is in_bulk
    for bulk, pages in zip(found[True], found[False], strict=True):
        assert bulk == pages


def assert_values_are_the_same(sync: Syncs, values: Values, monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncs the values into an empty table and over nulls, each into the column of its type."""
    kinds = list(values)
    names = [f"v{number}" for number in range(len(kinds))]
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(names, kinds, strict=True))
    nulls = dict.fromkeys(names)
    items = [{**nulls, name: value} for name, kind in zip(names, kinds, strict=True) for value in values[kind]]
    items = [{"sku": f"S{number:03}", **item} for number, item in enumerate(items)]

    def run() -> list[Any]:
        found = []
        for before in ([], [{"sku": item["sku"], **nulls} for item in items]):
            sync.execute("DROP TABLE IF EXISTS things", f"CREATE TABLE things (sku VARCHAR(9) PRIMARY KEY, {columns})")
            if before:
                sync.run(before, columns=names)
            found += [outcome(sync, sync.run(items, columns=names)) for _ in range(2)]
        return found

    both_ways(sync, monkeypatch, run)


def test_a_column_of_values_becomes_what_its_values_become(sync: Syncs, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same message, word by word, for each that does not convert."""
    assert_values_are_the_same(sync, BOTH, monkeypatch)


def test_a_column_of_texts_becomes_what_its_texts_become(sync: Syncs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column of texts only, as files give it, is converted at once."""
    texts = {kind: [str(value) for value in values] for kind, values in BOTH.items()}
    assert_values_are_the_same(sync, texts, monkeypatch)


def test_a_column_of_postgresql_becomes_what_its_values_become(
    postgres_sync: Syncs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Types that only PostgreSQL has."""
    postgres_sync.execute("CREATE TYPE mood AS ENUM ('good', 'so so')")
    postgres_sync.execute("CREATE DOMAIN cost AS NUMERIC(9, 2) CHECK (VALUE >= 0)")
    assert_values_are_the_same(postgres_sync, POSTGRES, monkeypatch)


KEYS: dict[str, list[str]] = {
    "INTEGER": ["7", "007", "7.0", " 7 ", "x", "7.5", "99999999999", "8"],
    "NUMERIC(5, 2)": ["7.555", "7.56", "7.5", "007.50", "99999", "x", "1e1", "10", "NaN"],
    "VARCHAR(4)": ["abcd", "abcd ", "abcde", "a", "A", " a"],
    "CHAR(4)": ["ab", "ab ", "abcd", "abcde", "AB"],
    "DATE": ["2024-01-01", "2024-01-01T00:00:00", "x", "0000-01-01", "2024-01-02"],
    "TIMESTAMP": ["2024-01-01T00:00:00Z", "2024-01-01T02:00:00+02:00", "2024-01-01", "x", "9999-12-31T23:00:00-05:00"],
    "TEXT": ["\u00e9", "e\u0301", "a", "A", "a ", "7", "7.0"],
}


@pytest.mark.parametrize(("kind", "ids"), spread_rows(KEYS.items(), 2), ids=list(KEYS))
def test_ids_become_keys_as_they_do_page_by_page(
    sync: Syncs, kind: str, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal ones after the conversion are duplicates; one that does not convert fails its item, in the same words."""
    items = [{"sku": value, "v": number} for number, value in enumerate(ids)]
    changed = [{**item, "v": item["v"] + 1} for item in items[2:]]

    def run() -> list[Any]:
        found: list[Any] = []
        for columns in (["sku", "v"], ["v"]):
            sync.execute("DROP TABLE IF EXISTS things", f"CREATE TABLE things (sku {kind} PRIMARY KEY, v INTEGER)")
            for given in (items, items, changed):
                results = sync.run(given, columns=columns)
                found += [outcome(sync, results), results.duplicates]
        return found

    both_ways(sync, monkeypatch, run)
