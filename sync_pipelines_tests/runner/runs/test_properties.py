"""For any mix of items and failures: accounts balance, the target equals the source, a second run changes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync_pipelines.database.connections import create_database
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.testing import MemorySource, MemoryTarget
from sync_pipelines_tests.two_speeds import few_and_many

Item = dict[str, Any]

skus = st.sampled_from([*"ABCDEFGH", None, "", 7, "7"])
items_of_a_fetch = st.lists(
    st.builds(lambda sku, stock: {"sku": sku, "stock": stock}, skus, st.integers(0, 3)), max_size=25
)


@dataclass
class World:
    """Which ids fail where."""

    to_identify: frozenset[str] = frozenset()
    to_keep: frozenset[str] = frozenset()
    to_skip: frozenset[str] = frozenset()
    skip_raises: frozenset[str] = frozenset()
    find: frozenset[str] = frozenset()
    write: frozenset[str] = frozenset()
    compare: frozenset[str] = frozenset()
    before: dict[str, int] = field(default_factory=dict)
    deletes: str = "off"
    bulk: bool = True

    def bad(self) -> frozenset[str]:
        return self.to_identify | self.to_keep | self.skip_raises | self.find | self.write | self.compare | self.to_skip


names = st.frozensets(st.sampled_from([*"ABCDEFGH", "7"]), max_size=2)
worlds = st.builds(
    World,
    names, names, names, names, names, names, names,
    before=st.dictionaries(st.sampled_from("ABCXYZ"), st.integers(0, 3), max_size=4),
    deletes=st.sampled_from(["off", "hard"]),
    bulk=st.booleans(),
)  # fmt: skip


class Narrow:
    """The memory target without its bulk methods."""

    def __init__(self, target: MemoryTarget) -> None:
        self._target = target
        for name in ("find_local", "create", "update", "delete", "list_local", "changes"):
            setattr(self, name, getattr(target, name))

    @contextmanager
    def open(self, identify: Any) -> Iterator[Narrow]:
        with self._target.open(identify):
            yield self


def job_in(world: World, items: list[Item], target: MemoryTarget) -> SyncJob[Any, Any]:
    def get_external_id(item: Item) -> Any:
        if str(item["sku"]) in world.to_identify:
            raise KeyError("no id today")
        return item["sku"]

    def should_skip(item: Item) -> bool:
        if str(item["sku"]) in world.skip_raises:
            raise RuntimeError("can't say")
        return str(item["sku"]) in world.to_skip

    def has_changed(item: Item, local: Any) -> bool:
        if str(item["sku"]) in world.compare:
            raise TypeError("can't compare")
        return True

    given_items = [{**item, "x": object()} if str(item["sku"]) in world.to_keep else item for item in items]
    return SyncJob(
        name="any",
        fetch_external=MemorySource(given_items, page_size=4),
        get_external_id=get_external_id,
        should_skip=should_skip,
        has_changed=has_changed,
        target=target if world.bulk else Narrow(target),
        deletes=world.deletes,  # type: ignore[arg-type]
        guards=None,
    )


def known_id(item: Item) -> str | None:
    return None if item["sku"] in {None, ""} else str(item["sku"])


def expected_records(world: World, items: list[Item]) -> dict[str, int]:
    """What the target must hold for every id that nothing is wrong with."""
    last = {known_id(item): item["stock"] for item in items if known_id(item) is not None}
    return {str(sku): stock for sku, stock in last.items() if sku not in world.bad()}


@few_and_many(20, 60)
def test_accounts_balance_and_the_target_equals_the_source(examples: int) -> None:
    checked = settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    checked(given(worlds, items_of_a_fetch)(assert_accounts_and_target))()


def assert_accounts_and_target(world: World, items: list[Item]) -> None:
    before = {sku: {"sku": sku, "stock": stock} for sku, stock in world.before.items()}
    target = MemoryTarget(
        before,
        fails={sku: ValueError("no") for sku in world.write},
        fails_to_find={sku: LookupError("no") for sku in world.find},
    )
    with TemporaryDirectory() as folder:
        results = run_sync(job_in(world, items, target), settings=Settings(data_dir=Path(folder)))
        assert results.accounts_balance
        assert results.fetched == len(items)
        assert target.writes == results.created + results.updated + results.deleted
        _check_records(world, items, before, target, results)
        writes = target.writes
        again = run_sync(job_in(world, items, target), settings=Settings(data_dir=Path(folder)))
        assert (again.created, again.updated, again.deleted, target.writes) == (0, 0, 0, writes)
        assert again.accounts_balance


def _check_records(
    world: World, items: list[Item], before: dict[str, Any], target: MemoryTarget, results: SyncResults
) -> None:
    held = {sku: record["stock"] for sku, record in target.records.items()}
    wanted = expected_records(world, items)
    assert {sku: held.get(sku) for sku in wanted} == wanted
    seen = {known_id(item) for item in items}
    strangers = {sku for sku in before if sku not in seen}
    unidentified = any(known_id(item) is None or known_id(item) in world.to_identify for item in items)
    if world.deletes == "hard" and items and not unidentified:
        assert strangers & set(held) == strangers & (world.find | world.write)
    else:
        assert strangers <= set(held)
        assert results.deleted == 0
    assert set(held) - set(wanted) - strangers <= set(before) | world.compare  # which is not asked of what is new


@contextmanager
def variants_table(path: Path) -> Iterator[sa.Engine]:
    database = create_database(f"sqlite:///{path}")
    with database.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE variants (sku TEXT PRIMARY KEY, stock INTEGER CHECK (stock < 3), CHECK (sku <> 'H'))"
        )
    yield database
    database.dispose()


def rows(database: sa.Engine) -> dict[str, int]:
    with database.connect() as connection:
        return {row.sku: row.stock for row in connection.exec_driver_sql("SELECT sku, stock FROM variants")}


def per_record_job(database: sa.Engine, fetch: Any) -> SyncJob[Any, Any]:
    """The seed-style example: functions of one record, with SQL of their own."""

    def execute(statement: str, **values: Any) -> Any:
        with database.begin() as connection:
            found = connection.execute(sa.text(statement), values)
            return found.mappings().first() if found.returns_rows else None

    return SyncJob(
        name="per-record",
        fetch_external=fetch,
        get_external_id=lambda item: item["sku"],
        find_local=lambda sku: execute("SELECT * FROM variants WHERE sku = :sku", sku=sku),
        create=lambda item: execute("INSERT INTO variants VALUES (:sku, :stock)", **{**item, "sku": str(item["sku"])}),
        update=lambda item, local: execute(
            "UPDATE variants SET stock = :stock WHERE sku = :sku", sku=local["sku"], stock=item["stock"]
        ),
        has_changed=lambda item, local: item["stock"] != local["stock"],
    )


@few_and_many(5, 12)
def test_per_record_functions_and_a_table_target_give_the_same_database_and_counts(examples: int) -> None:
    """Run after run, with duplicates, items without an id and rows that the database refuses."""
    fetches = st.lists(items_of_a_fetch, min_size=1, max_size=3)
    settings(max_examples=examples, deadline=None)(given(fetches)(assert_functions_do_as_a_table_target))()


def without_place(message: str) -> str:
    """Leaves out which function of the job an error came from, which a table has none of."""
    return re.sub(r"^\w+: \w+: (.*) \([\w.]+:\d+, in \w+\)$", r"\1", message)


def assert_functions_do_as_a_table_target(fetches: list[list[Item]]) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        with variants_table(folder / "one.sqlite") as one, variants_table(folder / "two.sqlite") as two:
            table = SqlTable(table="variants", key="sku", columns={"stock": "stock"}, database=two)
            for items in [*fetches, fetches[-1]]:
                source = MemorySource(items)
                first = run_sync(per_record_job(one, source), settings=Settings(data_dir=folder))
                declared = SyncJob[Any, Any](
                    name="declared", fetch_external=source, get_external_id="sku", target=table
                )
                second = run_sync(declared, settings=Settings(data_dir=folder))
                assert rows(one) == rows(two)
                assert first.counts() == second.counts()
                assert [(each.position, each.external_id, without_place(each.message)) for each in first.errors] == [
                    (each.position, each.external_id, each.message) for each in second.errors
                ]
            assert (first.created, first.updated) == (0, 0)
