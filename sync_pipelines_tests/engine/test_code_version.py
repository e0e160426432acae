"""The code version changes with what is declared about records, and with nothing else."""

from __future__ import annotations

import dataclasses
import functools
import operator
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines import (
    BearerAuth,
    HmacSignature,
    RestSource,
    SqlTable,
    SyncJob,
    Tryton,
    Webhook,
    csv_file,
    sql_query,
)
from sync_pipelines.engine.code_version import COUNTED, code_version_of
from sync_pipelines_tests.children import run_child

REPOSITORY = Path(__file__).parents[2]
NOT_COUNTED = {
    # whose changes are another declaration's, how it runs, who is told, and how it looks
    "name", "on_start", "on_complete", "concurrency", "max_calls_per_s", "guards", "fail_above", "fresh_within",
    "retry", "keep_history_days", "schedule", "description", "asset_key", "source_asset", "upstream", "automation",
    "group", "owners", "kinds", "tags", "run_tags", "op_tags",
    "webhook",  # of it only `parse` counts
}  # fmt: skip


def version(**options: Any) -> str:
    given: dict[str, Any] = {
        "name": "products",
        "fetch_external": RestSource("https://erp.example/products"),
        "target": SqlTable(table="products", key="sku", columns={"title": "name"}),
    }
    return code_version_of(SyncJob(**{**given, **options}))


def written(text: str, name: str = "price") -> FunctionType:
    """A function as a job file has it."""
    module: dict[str, Any] = {"__name__": "our_jobs.products"}
    exec(compile(text, "products.py", "exec"), module)
    function = module[name]
    assert isinstance(function, FunctionType)
    return function


def column(function: Callable[[Any], Any]) -> str:
    return version(target=SqlTable(table="products", key="sku", columns={"price": function}))


def test_every_field_of_a_sync_job_is_decided_on() -> None:
    fields = {each.name for each in dataclasses.fields(SyncJob)}

    assert set(COUNTED) | NOT_COUNTED == fields
    assert not set(COUNTED) & NOT_COUNTED


@pytest.mark.parametrize(
    "options",
    [
        {"fetch_external": RestSource("https://erp.example/products/v2")},
        {"fetch_external": RestSource("https://erp.example/products", items_path="data")},
        {"fetch_external": Tryton().products},
        {"fetch_external": csv_file("products.csv")},
        {"get_external_id": "id"},
        {"get_version": "written_at"},
        {"deletes": "hard"},
        {"should_skip": lambda item: item["hidden"]},
        {"target": SqlTable(table="products", key="id", columns={"title": "name"})},
        {"target": SqlTable(table="goods", key="sku", columns={"title": "name"})},
        {"target": SqlTable(table="products", key="sku", columns={"title": "label"})},
        {"target": SqlTable(table="products", key="sku", columns={"title": "name"}, scope={"shop": "a"})},
        {"target": SqlTable(table="products", key="sku", columns={"title": "name"}, create_only=["title"])},
        {"target": SqlTable(table=sa.Table("products", sa.MetaData(), sa.Column("sku", sa.Text)), key="sku")},
        {"webhook": Webhook(signature=HmacSignature(header="X-Sign", secrets="S"), parse=lambda event: None)},
    ],
)
def test_it_changes_with_source_key_table_columns_and_functions(options: Any) -> None:
    assert version(**options) != version()


@pytest.mark.parametrize(
    "options",
    [
        {"name": "goods"},
        {"description": "All products.", "tags": {"a": "b"}, "owners": ["team:shop"], "schedule": "0 * * * *"},
        {"upstream": ["warehouse/rates"], "automation": "eager", "run_tags": {"a": "b"}, "op_tags": {"a": "b"}},
        {"target": SqlTable(table="products", key="sku", columns={"title": "name"}, database="sqlite:///x.db")},
        {"fetch_external": RestSource("https://erp.example/products", timeout_s=3, attempts=1)},
        {"fetch_external": RestSource("https://erp.example/products", headers={"X-Trace": "a"})},
    ],
)
def test_it_stays_with_everything_else(options: Any) -> None:
    headers = options.get("fetch_external", RestSource("https://erp.example/products")).headers
    same = {"fetch_external": RestSource("https://erp.example/products", headers=dict.fromkeys(headers, "b"))}

    assert version(**options) == version(**(same if headers else {}))


def test_a_secret_that_is_changed_changes_nothing() -> None:
    versions = {
        version(fetch_external=RestSource("https://x.example", auth=BearerAuth(token), parameters={"api_key": token}))
        for token in ("FIRST_TOKEN", "SECOND_TOKEN")
    }

    assert len(versions) == 1


def test_comments_layout_and_docstrings_of_functions_do_not_count_but_their_code_does() -> None:
    plain = column(written("def price(item):\n    'Net.'\n    return item['price'] * 2\n"))

    same = "# why\n\n\ndef price(item):\n    'The price without tax.'\n    # twice\n    return (item['price'] * 2)\n"
    assert column(written(same)) == plain
    assert column(written("def price(item):\n    'Net.'\n    return item['price'] * 3\n")) != plain
    assert column(written("def price(item):\n    'Net.'\n    return item['cost'] * 2\n")) != plain


def test_functions_of_the_same_file_that_are_called_count() -> None:
    text = "def price(item):\n    return tax(item, price)\ndef tax(item, by):\n    return item['price'] * {rate}\n"

    assert column(written(text.format(rate=2))) != column(written(text.format(rate=3)))


def test_what_a_function_was_made_with_counts() -> None:
    text = "def make(rate, token):\n    def price(item):\n        return rate, token\n    return price\n"
    make = written(text, "make")

    assert column(make(2, "a")) != column(make(3, "a"))
    assert column(make(2, "a")) == column(make(2, "b"))  # a secret by its name
    assert column(functools.partial(make, 2)) != column(functools.partial(make, 3))
    assert column(operator.itemgetter("a")) != column(operator.itemgetter("b"))


@pytest.mark.parametrize("name", ["author", "token_count", "auth", "password"])
def test_a_column_counts_whatever_its_name(name: str) -> None:
    first, second = (version(target=SqlTable(table="books", key="sku", columns={name: value})) for value in "ab")

    assert first != second


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("author", True),
        ("tokenizer", True),
        ("auth", False),
        ("api_key", False),
        ("client_secret", False),
        ("X-Auth-Token", False),
        ("cookies", False),
    ],
)
def test_a_secret_is_known_by_a_whole_word_of_its_name(*, name: str, counts: bool) -> None:
    first, second = (
        version(fetch_external=RestSource("https://x.example", parameters={name: value})) for value in "ab"
    )

    assert (first != second) is counts


def test_a_function_is_no_secret() -> None:
    text = "def make(token):\n    def price(item):\n        return token(item)\n    return price\n"
    make = written(text, "make")

    assert column(make(operator.itemgetter("a"))) != column(make(operator.itemgetter("b")))


DECORATED = """import functools
def twice(function):
    @functools.wraps(function)
    def wrapper(item):
        return function(item) * {factor}
    return wrapper
{decorator}
def rate(item):
    return item["price"] * {rate}
def price(item):
    return rate(item)
"""


@pytest.mark.parametrize("decorator", ["@functools.cache", "@functools.lru_cache(maxsize=3)", "@twice"])
@pytest.mark.parametrize("name", ["rate", "price"])
def test_the_code_of_a_decorated_function_counts_also_of_one_that_is_called(decorator: str, name: str) -> None:
    def of(rate: int, factor: int = 2) -> str:
        module: dict[str, Any] = {"__name__": "our_jobs.products"}
        exec(DECORATED.format(decorator=decorator, rate=rate, factor=factor), module)
        return column(module[name])

    assert of(2) == of(2)
    assert of(2) != of(3)
    assert (of(2) != of(2, factor=3)) is (decorator == "@twice")


def test_the_statement_of_a_query_counts_and_its_database_does_not() -> None:
    first, same, other = (
        version(fetch_external=sql_query(statement, database=database))
        for statement, database in (
            ("SELECT a FROM t", "sqlite:///a.db"),
            ("SELECT a FROM t", "postgresql://ann:hunter2@db/shop"),
            ("SELECT b FROM t", "sqlite:///a.db"),
        )
    )

    assert (first == same, first == other) == (True, False)


CHILD = """
import sys
from pathlib import Path
from sync_pipelines import SqlTable, SyncJob, csv_file
from sync_pipelines.engine.code_version import code_version_of
class Source:
    def __call__(self):
        return [each for each in {"a", "b", "c"} if each in {"x", "y", "z"}]
def price(item):
    return item["price"] if item["kind"] in {"a", "b", "c", "d"} else None
target = SqlTable(table="products", key="sku", columns={"price": price}, scope={"shop": ["a", "b"]})
for fetch in (Source(), csv_file(Path(sys.argv[1]) / "products.csv", columns={"price": float})):
    print(code_version_of(SyncJob(name="products", fetch_external=fetch, target=target)))
"""


def test_it_is_the_same_in_every_process_whatever_the_seed_and_the_folder(tmp_path: Path) -> None:
    found = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        environment = {"PYTHONPATH": str(REPOSITORY), "PATH": os.defpath, "PYTHONHASHSEED": seed}
        done = run_child([sys.executable, "-c", CHILD, str(folder)], cwd=folder, env=environment)
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.split())

    assert found[0] == found[1]
    assert len(set(found[0])) == 2
