"""The database and the engine count alike of how many records an update would blank a column."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sync_pipelines.engine.guards import Guards
from sync_pipelines.targets.open_table import OpenedSqlTable
from sync_pipelines.targets.table.soft_delete import SoftDelete
from sync_pipelines_tests.targets.staging.conftest import Item, Syncs
from sync_pipelines_tests.two_speeds import few_and_many

ANY_BLANK = Guards(few=0, max_delete_share=None, max_shrink_share=None, max_blank_share=0)
TYPES = {
    "postgresql": {"name": "VARCHAR(9)", "code": "CHAR(3)", "price": "NUMERIC(6, 2)", "stock": "INTEGER", "at": "DATE",
                   "is_new": "BOOLEAN", "texts": "TEXT[]", "more": "JSONB", "raw": "JSON", "data": "BYTEA"},
    "sqlite": {"name": "VARCHAR(9)", "code": "CHAR(3)", "price": "NUMERIC(6, 2)", "stock": "INTEGER", "at": "DATE",
               "is_new": "BOOLEAN", "texts": "JSON", "more": "JSON", "raw": "JSON", "data": "BLOB"},
}  # fmt: skip
VALUES: dict[str, list[Any]] = {
    "name": ["", None, " ", "a", "b", "null", "{}"],
    "code": ["", None, "a", "abc"],
    "price": [None, 0, "1.50", 2],
    "stock": [None, 0, 1],
    "at": [None, "2026-01-31"],
    "is_new": [None, False, True],
    "texts": [None, [], ["a"], [""]],
    "more": [None, {}, [], "", 0, False, {"a": None}, [1], "x" * 80],
    "raw": [None, {}, [], "", 0, {"a": 1}, [[]]],
    "data": [None, b"", b"0", b"\x00"],
}
records = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in VALUES.items()})


def make_table(sync: Syncs, found: dict[int, Item], marked: set[int]) -> None:
    kinds = TYPES["postgresql" if sync.is_postgresql else "sqlite"]
    columns = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
    sync.execute("DROP TABLE IF EXISTS things", f"CREATE TABLE things (sku INTEGER PRIMARY KEY, {columns}, gone DATE)")
    rows = [
        {"sku": sku, **{name: stored(kinds[name], value) for name, value in row.items()},
         "gone": "2026-01-01" if sku in marked else None}
        for sku, row in found.items()
    ]  # fmt: skip
    if rows:
        names = ", ".join(rows[0])
        marks = ", ".join(f"CAST(:{name} AS {kinds[name]})" if sync.is_postgresql and name in kinds else f":{name}"
                          for name in rows[0])  # fmt: skip
        marks = marks.replace(":gone", "CAST(:gone AS DATE)") if sync.is_postgresql else marks
        with sync.database.begin() as connection:
            connection.execute(sa.text(f"INSERT INTO things ({names}) VALUES ({marks})"), rows)


def stored(kind: str, value: Any) -> Any:
    """A value as somebody else wrote it; in JSON null is a value, too."""
    return json.dumps(value) if kind in {"JSON", "JSONB"} else value


@few_and_many(6, 100)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_would_be_blanked_is_counted_alike_by_the_database_and_item_by_item(
    kind: str, examples: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync: Syncs = request.getfixturevalue(f"{'sqlite' if kind == 'sqlite' else 'postgres'}_sync")
    open_staged = OpenedSqlTable.open_staged
    numbers = st.integers(1, 6)

    @given(
        found=st.dictionaries(numbers, records, max_size=6),
        items=st.lists(st.tuples(numbers, records), min_size=1, max_size=8),
        marked=st.sets(numbers, max_size=2),
        fields=st.fixed_dictionaries(
            {},
            optional={
                "compare": st.just(["name", "stock"]),
                "create_only": st.just(["data"]),
                "has_changed": st.just(lambda item, _local: item["stock"] != 1),
                "should_skip": st.just(lambda item: item["stock"] == 0),
                "get_version": st.just("stock"),
            },
        ),
    )
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    def compare(
        found: dict[int, Item], items: list[tuple[int, Item]], marked: set[int], fields: dict[str, Any]
    ) -> None:
        make_table(sync, found, marked)
        given_fields = {"columns": list(VALUES), "soft_delete": SoftDelete("gone"), "guards": ANY_BLANK, **fields}
        fetched = [{"sku": sku, **row} for sku, row in items]
        monkeypatch.setattr(OpenedSqlTable, "open_staged", open_staged)
        in_bulk, _ = sync.dry_run(fetched, **given_fields)
        monkeypatch.setattr(OpenedSqlTable, "open_staged", lambda *_: None)
        by_pages, _ = sync.dry_run(fetched, **given_fields)
        assert sorted(in_bulk.notes) == sorted(by_pages.notes)
        assert in_bulk.planned == by_pages.planned

    compare()
    assert None in sync.paths.answers
