"""Updates that would blank a column of many records are withheld as a plan, page by page and in bulk alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.guards import Guards
from sync_pipelines.engine.plan import PlanCounts
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.registry.plans import apply_plan
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.runner.runs import comparing_run
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.testing import MemoryTarget

Item = dict[str, Any]
FEW = 20


class Products:
    """A sync of products into a table, in bulk or page by page."""

    def __init__(self, database: sa.Engine, settings: Settings) -> None:
        self.settings = settings
        self._database = database
        with database.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE products (sku VARCHAR(9) PRIMARY KEY, title TEXT, price INTEGER)")

    def job(self, items: Iterable[Item] = (), **fields: Any) -> SyncJob[Any, Any]:
        given = {"title": lambda item: item.get("title"), "price": "price"}
        columns = fields.pop("columns", given)
        target = SqlTable(table="products", key="sku", columns=columns, database=self._database)
        return SyncJob(**{"name": "products", "fetch_external": lambda: list(items), "target": target, **fields})

    def sync(self, items: Iterable[Item], *, options: dict[str, Any] | None = None, **fields: Any) -> SyncResults:
        return run_sync(self.job(items, **fields), settings=self.settings, **options or {})

    def titles(self) -> list[str | None]:
        with self._database.connect() as connection:
            return list(connection.execute(sa.text("SELECT title FROM products ORDER BY sku")).scalars())


@pytest.fixture(params=["page by page", "in bulk"])
def products(request: pytest.FixtureRequest, sqlite: sa.Engine, settings: Settings, monkeypatch: Any) -> Products:
    monkeypatch.setattr(comparing_run, "FROM_ITEMS", 0 if request.param == "in bulk" else 10**9)
    return Products(sqlite, settings)


def items(count: int = FEW, title: str | None = "a title", titled: int = FEW) -> list[Item]:
    """Products, of which only the first so many have that title; the others have the usual one."""
    return [
        {"sku": f"S{number:03}", "title": title if number < titled else "a title", "price": 1}
        for number in range(count)
    ]


def renamed(count: int = FEW) -> list[Item]:
    return [{"sku": item["sku"], "name": item["title"], "price": item["price"]} for item in items(count)]


def test_a_renamed_field_that_a_function_reads_with_get_blanks_nothing(products: Products) -> None:
    products.sync(items())

    results = products.sync([*renamed(), {"sku": "NEW", "name": "n", "price": 2}])

    assert (results.outcome, results.updated, results.created) == ("guarded", 0, 1)
    assert results.withheld == PlanCounts(update=20)
    [reason] = results.guarded
    assert reason == (
        "'title' would be set to null or empty in 20 of the 20 local records that have it: 100%, and max_blank_share "
        "is 20%"
    )
    assert products.titles() == [None, *["a title"] * FEW]  # "NEW" sorts first


@pytest.mark.parametrize("title", [None, ""])
def test_what_is_withheld_is_released_with_a_reason(products: Products, title: str | None) -> None:
    products.sync(items())
    guarded = products.sync(items(title=title))

    released = apply_plan(
        guarded.plan_id or "", job=products.job(), settings=products.settings, reason="titles are elsewhere now"
    )

    assert (guarded.outcome, released.outcome, released.updated) == ("guarded", "clean", FEW)
    assert products.titles() == [title] * FEW
    assert products.sync(items(title=title)).outcome == "clean"


@pytest.mark.parametrize(("count", "titled", "outcome"), [(100, 20, "clean"), (100, 21, "guarded"), (FEW, 10, "clean"),
                                                          (FEW, 11, "guarded")])  # fmt: skip
def test_more_than_a_fifth_of_the_records_and_more_than_ten_are_too_many(
    products: Products, count: int, titled: int, outcome: str
) -> None:
    products.sync(items(count))

    assert products.sync(items(count, title="", titled=titled)).outcome == outcome


def test_the_share_is_one_of_the_records_that_have_it(products: Products) -> None:
    sparse = [*items(titled=0), *({"sku": f"T{number}", "price": 1} for number in range(500))]
    products.sync(sparse)

    results = products.sync([{**item, "title": None} for item in sparse])

    assert results.guarded[0].startswith("'title' would be set to null or empty in 20 of the 20 local records")


def test_a_first_run_and_a_column_that_is_new_blank_nothing(products: Products) -> None:
    assert products.sync(items(title=None), columns=["title"]).outcome == "clean"
    assert products.sync(items(title=None)).outcome == "clean"
    assert products.sync([{**item, "price": None} for item in items(title="x")], columns=["title"]).outcome == "clean"


def test_zero_and_false_are_values_and_not_blank(products: Products) -> None:
    products.sync(items())

    assert products.sync([{**item, "price": 0} for item in items()]).outcome == "clean"


@pytest.mark.parametrize("guards", [None, Guards(max_blank_share=None), Guards(max_blank_share=1)])
def test_the_guard_can_be_switched_off(products: Products, guards: Guards | None) -> None:
    products.sync(items())

    assert products.sync(renamed(), guards=guards).updated == FEW


def test_a_run_that_somebody_limited_is_what_that_person_wants(products: Products) -> None:
    products.sync(items())

    assert products.sync(renamed(), options={"limit": 15}).updated == 15


def test_a_dry_run_says_that_a_run_would_be_guarded(products: Products) -> None:
    products.sync(items())

    planned = products.sync(renamed(), options={"dry_run": True})

    assert planned.planned == PlanCounts(update=FEW)
    assert any("a run would be guarded: 'title' would be set to null" in note for note in planned.notes)


def test_items_that_the_database_leaves_to_a_closer_look_count_as_well(products: Products) -> None:
    products.sync(items())

    results = products.sync(renamed(), has_changed=lambda item, local: item.get("title") != local["title"])

    assert results.withheld == PlanCounts(update=20)


def test_a_target_of_ones_own_that_names_its_changes_is_guarded(settings: Settings) -> None:
    target = MemoryTarget()
    job = {"name": "products", "get_external_id": "sku", "target": target}
    run_sync(SyncJob(fetch_external=items, **job), settings=settings)

    results = run_sync(SyncJob(fetch_external=lambda: items(title=None), **job), settings=settings)

    assert results.guarded[0].startswith("'title' would be set to null or empty in 20 of the 20 local records")
