"""For whatever items and failures, the bulk path and the page path leave the same database and say the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, make_dataclass
from datetime import datetime
from decimal import Decimal
from itertools import count
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import create_model

from sync_pipelines.engine.codec import decode, encode
from sync_pipelines.engine.guards import Guards
from sync_pipelines.engine.plan import EntryRow
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.targets.open_table import OpenedSqlTable
from sync_pipelines.targets.table.soft_delete import SoftDelete
from sync_pipelines_tests.targets.staging.conftest import Item, Syncs
from sync_pipelines_tests.two_speeds import few_and_many

TABLE = (
    "CREATE TABLE things (sku {key} NOT NULL, place {place} NOT NULL DEFAULT 0, code VARCHAR(9) UNIQUE, "
    "stock SMALLINT CHECK (stock % 7 <> 3), name VARCHAR(5) NOT NULL DEFAULT 'none' CHECK (name NOT LIKE 'bad%'), "
    "price NUMERIC(5, 2), shop INTEGER REFERENCES shops (id), first TEXT, CONSTRAINT one UNIQUE ({unique}))"
)
SHOPS = "CREATE TABLE shops (id INTEGER PRIMARY KEY)"
FIELDS = ("sku", "place", "code", "stock", "name", "price", "shop", "first")


class BrokenError(RuntimeError):
    """What a function of the user raises."""


@dataclass(frozen=True)
class World:
    """A table with rows, a job, and what the functions of the job do."""

    is_number: bool
    is_composite: bool
    is_empty: bool
    before: dict[str, dict[str, Any]]
    columns: str
    items_as: str
    deletes: str
    compare: bool
    create_only: bool
    skips: bool
    decides: bool


def odd(usual: st.SearchStrategy[Any], *unusual: Any) -> st.SearchStrategy[Any]:
    """Mostly the usual."""
    return st.one_of(usual, usual, usual, usual, st.sampled_from(unusual))


names = st.sampled_from(["a", "b", "abc", "abcde", "skip?"])
numbered = [*map(str, range(1, 9))]
rows = st.fixed_dictionaries(
    {
        "stock": st.sampled_from([0, 1, 2, 4]),
        "name": st.sampled_from(["a", "b", "abc"]),
        "price": st.sampled_from([0, 1, "1.50"]),
        "shop": st.sampled_from([1, 2, None]),
        "first": st.sampled_from(["x", "y"]),
    }
)
fields = st.fixed_dictionaries(
    {
        "sku": odd(st.sampled_from(numbered), None, "", 7, "007", 7.0, "seven", "A", "a", " 8", "x" * 10, float("nan")),
        "code": odd(st.none(), "taken"),
        "stock": odd(st.sampled_from([0, 1, 2]), 3, 10, 40000, "many", "1", None, 1.0, 1.5),
        "name": odd(names, "badly", "toolong", None, 5, "skip", "skip!", "differs!", "same"),
        "price": odd(st.sampled_from([0, 1, "1.50"]), "1.499", 1.5, "9999", "1,5", None, "NaN"),
        "shop": odd(st.sampled_from([1, 2, None]), 9),
        "first": odd(st.sampled_from(["x", "y"]), None),
    },
    optional={"place": odd(st.just(0), 1, "x")},
)
ragged = st.tuples(fields, odd(st.none(), *FIELDS)).map(
    lambda pair: {name: value for name, value in pair[0].items() if name != pair[1]}
)
worlds = st.builds(
    World,
    is_number=st.booleans(),
    is_composite=st.booleans(),
    is_empty=odd(st.just(False), True),
    before=st.dictionaries(st.sampled_from([*numbered, "11", "12"]), rows, max_size=6),
    columns=st.sampled_from(["list", "mapping", "function", "nothing"]),
    items_as=st.sampled_from(["dicts", "dataclasses", "models", "frames"]),
    deletes=st.sampled_from(["off", "hard"]),
    compare=st.booleans(),
    create_only=st.booleans(),
    skips=st.booleans(),
    decides=st.booleans(),
)


def read(item: Any, name: str, default: Any = None) -> Any:
    return item.get(name, default) if isinstance(item, dict) else getattr(item, name, default)


def should_skip(item: Any) -> bool:
    if read(item, "name") == "skip!":
        raise BrokenError("can't say")
    return bool(read(item, "name") == "skip")


def has_changed(item: Any, _local: Any) -> bool:
    if read(item, "name") == "differs!":
        raise BrokenError("can't compare")
    return bool(read(item, "name") != "same")


def the_name(item: Any) -> Any:
    if read(item, "stock") == 10:
        raise BrokenError("no name today")
    return read(item, "name")


def all_columns(item: Any) -> dict[str, Any]:
    given = {name: read(item, name) for name in FIELDS if name not in {"sku", "place"}}
    given["name"] = the_name(item)
    if given["stock"] == 1.5:
        del given["stock"]
    return given


def shaped(items: list[Item], world: World) -> Any:
    """The items as dicts, dataclasses, models or a DataFrame. All but dicts have all fields."""
    if world.items_as == "dicts":
        return items
    full = [{name: item.get(name, 0 if name == "place" else None) for name in FIELDS} for item in items]
    if world.items_as == "frames":
        return lambda: pd.DataFrame(full, columns=list(FIELDS), dtype=object)
    if world.items_as == "models":
        return [MODEL(**item) for item in full]
    return [RECORD(**item) for item in full]


MODEL = create_model("MODEL", **dict.fromkeys(FIELDS, (Any, None)))  # type: ignore[call-overload]
RECORD = make_dataclass("RECORD", FIELDS)
MODEL.__module__ = RECORD.__module__ = __name__


def declaration(world: World) -> dict[str, Any]:
    plain = [name for name in FIELDS if name not in {"sku", "place"}]
    if world.is_composite:
        plain.append("place")
    columns: dict[str, Any] = {
        "list": ["sku", *plain],
        "mapping": {
            "stock": "stock",
            "name": the_name,
            "price": "price",
            "shop": "shop",
            "first": "first",
            "code": "code",
        },
        "function": all_columns,
        "nothing": None,
    }
    declared: dict[str, Any] = {"columns": columns[world.columns], "deletes": world.deletes}
    if world.is_composite:
        declared |= {"key": ["sku", "place"], "get_external_id": None}
        declared["get_external_id"] = composite_id
    if world.compare:
        declared["compare"] = ["stock", "name"]
    if world.create_only:
        declared["create_only"] = ["first"]
    if world.skips:
        declared["should_skip"] = should_skip
    if world.decides:
        declared["has_changed"] = has_changed
    return declared


def composite_id(item: Any) -> str:
    sku = read(item, "sku")
    if sku is None:
        raise BrokenError("no sku")
    text = str(sku).replace("\\", "").replace('"', "")
    return f'["{text}", {read(item, "place", 0) or 0}]'


RESERVED = {"sku": "99", "place": 0, "code": "taken", "stock": 0, "name": "a", "price": 0, "shop": 1, "first": "x"}
"""A record that every fetch has, so that nobody else's code is `taken`."""


def make_tables(sync: Syncs, world: World) -> None:
    table = TABLE.format(
        key="INTEGER" if world.is_number else "VARCHAR(9)",
        place="INTEGER",
        unique="sku, place" if world.is_composite else "sku",
    )
    sync.execute("DROP TABLE IF EXISTS things", "DROP TABLE IF EXISTS shops", SHOPS, table)
    sync.execute("INSERT INTO shops VALUES (1), (2)")
    if world.is_empty:
        return
    found = [{"sku": sku, "code": None, **row} for sku, row in world.before.items()] + [RESERVED]
    found = [{**row, "sku": int(row["sku"])} for row in found] if world.is_number else found
    insert = (
        "INSERT INTO things (sku, code, stock, name, price, shop, first) "
        "VALUES (:sku, :code, :stock, :name, :price, :shop, :first)"
    )
    with sync.database.begin() as connection:
        connection.execute(sa.text(insert), found)


def told(results: SyncResults) -> list[Any]:
    """All that results say of items."""
    errors = [(each.position, each.external_id, each.exception_type, each.message) for each in results.errors]
    return [results.counts(), errors, results.duplicates, results.notes]


def run_of(sync: Syncs, world: World, fetches: list[list[Item]]) -> list[Any]:
    make_tables(sync, world)
    found: list[Any] = []
    for items in [*fetches, fetches[-1]]:
        items = [{**item, "code": None} for item in items] if world.is_empty else [RESERVED, *items]  # noqa: PLW2901
        found += told(sync.run(shaped(items, world), **declaration(world)))
        found.append(sync.rows("SELECT * FROM things ORDER BY sku, place"))
    return found


@dataclass(frozen=True)
class PlanWorld:
    """What else a plan depends on: how records are deleted, which of them, when, and by what version."""

    world: World
    mark: SoftDelete | None
    scope: dict[str, Any]
    delete_after: int
    guards: Guards | None
    versions: bool


MARKS = (None, SoftDelete("first", deleted="y", live="x"), SoftDelete("gone_at"))
plan_worlds = st.builds(
    PlanWorld,
    world=worlds,
    mark=st.sampled_from(MARKS),
    scope=st.sampled_from([{}, {"shop": 1}, {"shop": [1, None]}, {"first": "x"}]),
    delete_after=st.sampled_from([1, 1, 2]),
    guards=st.sampled_from([None, Guards(few=0, max_delete_share=0.2, max_update_share=0.2)]),
    versions=st.booleans(),
)


def planned_declaration(planned: PlanWorld) -> dict[str, Any]:
    declared = declaration(planned.world)
    if planned.mark is not None:
        written = declared["columns"]
        if isinstance(written, list):
            declared["columns"] = [name for name in written if name != planned.mark.column]
        elif isinstance(written, dict):
            declared["columns"] = {name: source for name, source in written.items() if name != planned.mark.column}
        elif callable(written):
            declared["columns"] = lambda item: {
                name: value for name, value in written(item).items() if name != planned.mark.column
            }
        if declared.get("create_only") == [planned.mark.column]:
            del declared["create_only"]
        declared |= {"soft_delete": planned.mark, "deletes": "off" if declared["deletes"] == "off" else "soft"}
    is_marked_by_scope = planned.mark is not None and planned.mark.column in planned.scope
    if planned.scope and declared["deletes"] != "off" and not is_marked_by_scope:
        declared["scope"] = planned.scope
    if declared["deletes"] != "off":
        declared["delete_after"] = planned.delete_after
    if planned.versions:
        declared["get_version"] = "stock"
    return declared | {"guards": planned.guards}


def plans_of(sync: Syncs, planned: PlanWorld, fetches: list[list[Item]], *, name: str) -> list[Any]:
    """What dry runs say before each run, whose writes are the same on both paths."""
    make_tables(sync, planned.world)
    sync.execute(f"ALTER TABLE things ADD COLUMN gone_at {'TIMESTAMPTZ' if sync.is_postgresql else 'TIMESTAMP'}")
    declared = planned_declaration(planned) | {"name": name}
    found: list[Any] = []
    for items in fetches:
        items = [{**item, "code": None} for item in items] if planned.world.is_empty else [RESERVED, *items]  # noqa: PLW2901
        before = sync.rows("SELECT * FROM things ORDER BY sku, place")
        results, rows = sync.dry_run(shaped(items, planned.world), **declared)
        assert sync.rows("SELECT * FROM things ORDER BY sku, place") == before
        found += [told(results), results.planned, results.guarded, entries_of(rows)]
        done = sync.run(shaped(items, planned.world), **declared)
        found += [done.withheld, entries_of(sync.withheld_of(done))]
    return found


def entries_of(rows: list[EntryRow]) -> list[Any]:
    """Lines of a plan: writes in their order, fields in theirs; deletes in any, for which is listed first is open."""
    deletes = [row for row in rows if row.action == "delete"]
    assert rows[len(rows) - len(deletes) :] == deletes
    return [*map(read_entry, rows[: len(rows) - len(deletes)]), *sorted(map(read_entry, deletes), key=str)]


def read_entry(row: EntryRow) -> tuple[Any, ...]:
    """A line as whoever reads the plan gets it: values as the engine keeps them."""
    changes = [
        (name, *(kept(undated(name, value)) for value in pair)) for name, pair in decode(row.changes or "").items()
    ]
    before = decode(row.before) if row.before is not None else {}
    return *row[:3], changes, {name: kept(undated(name, value)) for name, value in before.items()}


def undated(name: str, value: Any) -> Any:
    """One moment of a delete for any: two runs have two."""
    return "a moment" if name == "gone_at" and isinstance(value, datetime) else value


def kept(value: Any) -> str:
    """A value as text, but for what a database does not keep: the sign of a zero, and the order of keys in JSONB."""
    return json.dumps(json.loads(encode(unsigned(value))), sort_keys=True)


def unsigned(value: Any) -> Any:
    if isinstance(value, list):
        return [unsigned(each) for each in value]
    return abs(value) if isinstance(value, Decimal) and not value else value


def assert_the_same(sync: Syncs, world: World, fetches: list[list[Item]], patch: Callable[[int], None]) -> None:
    patch(0)
    in_bulk = run_of(sync, world, fetches)
    assert None in sync.paths.answers
    sync.paths.answers.clear()
    patch(10**9)
    by_pages = run_of(sync, world, fetches)
    assert in_bulk == by_pages


@few_and_many(5, 15)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_bulk_path_and_the_page_path_do_and_say_the_same(
    kind: str, examples: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run after run: rows, counts, errors, duplicates and notes."""
    sync: Syncs = request.getfixturevalue(f"{'sqlite' if kind == 'sqlite' else 'postgres'}_sync")
    open_staged = OpenedSqlTable.open_staged

    def patch(from_items: int) -> None:
        # with deletes every fetch is worth the bulk path, so pages are what remains without the target's bulk methods
        monkeypatch.setattr("sync_pipelines.runner.runs.comparing_run.FROM_ITEMS", from_items)
        monkeypatch.setattr(OpenedSqlTable, "open_staged", open_staged if from_items == 0 else lambda *_: None)

    @given(world=worlds, fetches=st.lists(st.lists(ragged, min_size=1, max_size=14), min_size=1, max_size=2))
    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    def compare(world: World, fetches: list[list[Item]]) -> None:
        assert_the_same(sync, world, fetches, patch)

    compare()


@few_and_many(5, 25)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_plan_of_a_dry_run_is_the_same_on_both_paths(
    kind: str, examples: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines, values, what records hold, counts, notes and findings; and so is what guards withhold of a run."""
    sync: Syncs = request.getfixturevalue(f"{'sqlite' if kind == 'sqlite' else 'postgres'}_sync")
    open_staged = OpenedSqlTable.open_staged
    numbers = count()

    @given(planned=plan_worlds, fetches=st.lists(st.lists(ragged, min_size=1, max_size=14), min_size=1, max_size=2))
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    def compare(planned: PlanWorld, fetches: list[list[Item]]) -> None:
        monkeypatch.setattr(OpenedSqlTable, "open_staged", open_staged)
        in_bulk = plans_of(sync, planned, fetches, name=f"staged-{next(numbers)}")
        monkeypatch.setattr(OpenedSqlTable, "open_staged", lambda *_: None)
        by_pages = plans_of(sync, planned, fetches, name=f"paged-{next(numbers)}")
        assert in_bulk == by_pages

    compare()
    assert None in sync.paths.answers
