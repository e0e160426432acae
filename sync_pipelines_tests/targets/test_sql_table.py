"""What an opened `SqlTable` does, on SQLite, PostgreSQL and MariaDB alike."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.database.connections import create_database
from sync_pipelines.engine.plan import FieldChange
from sync_pipelines.errors import ConfigurationError, ItemError, RetryableError
from sync_pipelines.targets.open_table import OpenedSqlTable
from sync_pipelines.targets.sql_table import SqlTable

VARIANTS = (
    "CREATE TABLE variants (id INTEGER PRIMARY KEY, sku VARCHAR(40) NOT NULL UNIQUE, stock INTEGER CHECK (stock >= 0), "
    "price NUMERIC(10, 2), note TEXT, doubled INTEGER GENERATED ALWAYS AS (stock * 2) STORED)"
)


def execute(database: sa.Engine, *statements: str) -> None:
    with database.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def rows(database: sa.Engine, query: str) -> list[tuple[Any, ...]]:
    with database.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


@contextmanager
def opened(database: sa.Engine, **fields: Any) -> Iterator[OpenedSqlTable]:
    given: dict[str, Any] = {"table": "variants", "key": "sku", "database": database}
    table = SqlTable(**given | fields)
    with table.open(table.external_id) as target:
        yield target


@pytest.fixture(params=["sqlite", "postgres", "exact_mariadb"])
def database(request: pytest.FixtureRequest) -> sa.Engine:
    """A fresh, empty database; the test runs once on each kind."""
    engine: sa.Engine = request.getfixturevalue(request.param)
    return engine


@pytest.fixture
def variants(database: sa.Engine) -> sa.Engine:
    """A database with an empty table of variants, whose ids it makes itself."""
    ids = {"postgresql": "SERIAL PRIMARY KEY", "mysql": "INTEGER AUTO_INCREMENT PRIMARY KEY"}
    execute(database, VARIANTS.replace("INTEGER PRIMARY KEY", ids.get(database.dialect.name, "INTEGER PRIMARY KEY")))
    return database


def test_a_created_row_is_found_and_up_to_date(variants: sa.Engine) -> None:
    item = {"sku": "A", "stock": 3, "price": "1.50", "note": None, "colour": "red"}
    with opened(variants) as target:
        assert target.find_local("A") is None
        target.create(item)
        local = target.find_local("A")
        assert local is not None
        assert (local["sku"], local["stock"], str(local["price"]), local["note"]) == ("A", 3, "1.50", None)
        assert target.changes(item, local) == {}


def test_a_changed_field_is_named_with_old_and_new_value_and_written(variants: sa.Engine) -> None:
    with opened(variants, columns=["stock", "note"]) as target:
        target.create({"sku": "A", "stock": 3, "note": "x"})
        item, local = {"sku": "A", "stock": 4, "note": "x"}, target.find_local("A")
        assert local is not None
        assert target.changes(item, local) == {"stock": FieldChange(3, 4)}
        target.update(item, local)
        assert target.find_local("A") == {"sku": "A", "stock": 4, "note": "x"}


def test_an_update_writes_only_the_columns_that_differ(variants: sa.Engine) -> None:
    with opened(variants, columns=["stock", "note"]) as target:
        target.create({"sku": "A", "stock": 3, "note": "x"})
        local = target.find_local("A")
        assert local is not None
        execute(variants, "UPDATE variants SET note = 'edited meanwhile'")
        target.update({"sku": "A", "stock": 4, "note": "x"}, local)
    assert rows(variants, "SELECT stock, note FROM variants") == [(4, "edited meanwhile")]


def test_changes_of_a_create_are_all_columns_that_it_writes(variants: sa.Engine) -> None:
    with opened(variants, columns={"stock": "quantity"}) as target:
        changes = target.changes({"sku": "A", "quantity": "7"}, None)
    assert changes == {"sku": FieldChange(None, "A"), "stock": FieldChange(None, 7)}


@dataclass
class Thing:
    sku: str
    stock: int
    doubled: int = 99


@pytest.mark.parametrize(
    ("columns", "item"),
    [
        ({"stock": "quantity", "note": lambda item: item["text"].upper()}, {"sku": "A", "quantity": 3, "text": "n"}),
        (["stock", "note"], {"sku": "A", "stock": 3, "note": "N"}),
        (lambda item: {"stock": item["quantity"], "note": "N"}, {"sku": "A", "quantity": 3}),
        (None, {"sku": "A", "stock": 3, "note": "N", "doubled": 12, "unknown": object()}),
    ],
    ids=["mapping", "list", "function", "nothing"],
)
def test_columns_can_be_said_in_four_ways(variants: sa.Engine, columns: Any, item: Any) -> None:
    with opened(variants, columns=columns) as target:
        target.create(item)
        local = target.find_local("A")
        assert local is not None
        assert target.changes(item, local) == {}
    assert rows(variants, "SELECT sku, stock, note, doubled FROM variants") == [("A", 3, "N", 6)]


def test_items_may_be_objects_and_generated_columns_are_left_alone(variants: sa.Engine) -> None:
    with opened(variants) as target:
        target.create(Thing("A", 3))
        local = target.find_local("A")
        assert local is not None
        assert target.changes(Thing("A", 3), local) == {}


def test_a_missing_field_fails_the_item_by_name(variants: sa.Engine) -> None:
    with opened(variants, columns={"stock": "quantity"}) as target, pytest.raises(ItemError, match="quantity"):
        target.create({"sku": "A", "qty": 3})


def test_a_function_that_names_a_wrong_column_fails_the_item(variants: sa.Engine) -> None:
    with opened(variants, columns=lambda _item: {"stok": 1}) as target, pytest.raises(ItemError, match="'stok'"):
        target.create({"sku": "A"})


def test_a_function_that_returns_no_mapping_fails_the_item(variants: sa.Engine) -> None:
    with opened(variants, columns=lambda _item: None) as target, pytest.raises(ItemError, match="NoneType"):
        target.create({"sku": "A"})


def test_a_value_that_does_not_convert_fails_the_item_with_column_value_and_type(variants: sa.Engine) -> None:
    with opened(variants, columns=["stock"]) as target:
        with pytest.raises(
            ItemError, match=r"(?i)column 'stock': 'many' does not convert to int.*not a number"
        ) as caught:
            target.changes({"sku": "A", "stock": "many"}, None)
        assert len(str(caught.value)) < 400
        with pytest.raises(ItemError) as long:
            target.changes({"sku": "A", "stock": "x" * 5000}, None)
        assert len(str(long.value)) < 400


def test_create_only_columns_are_written_once_and_never_compared(variants: sa.Engine) -> None:
    with opened(variants, columns=["stock", "note"], create_only=["note"]) as target:
        target.create({"sku": "A", "stock": 1, "note": "first"})
        local = target.find_local("A")
        assert local is not None
        assert target.changes({"sku": "A", "stock": 1, "note": "second"}, local) == {}
        target.update({"sku": "A", "stock": 2, "note": "second"}, local)
    assert rows(variants, "SELECT stock, note FROM variants") == [(2, "first")]


def test_a_difference_outside_compare_is_written_only_along_with_a_compared_one(variants: sa.Engine) -> None:
    with opened(variants, columns=["stock", "note"], compare=["stock"]) as target:
        target.create({"sku": "A", "stock": 1, "note": "first"})
        local = target.find_local("A")
        assert local is not None
        assert target.changes({"sku": "A", "stock": 1, "note": "second"}, local) == {}
        target.update({"sku": "A", "stock": 1, "note": "second"}, local)
        assert rows(variants, "SELECT stock, note FROM variants") == [(1, "first")]
        target.update({"sku": "A", "stock": 2, "note": "second"}, local)
        assert rows(variants, "SELECT stock, note FROM variants") == [(2, "second")]


def test_a_batch_of_creates_that_fails_leaves_nothing_behind(variants: sa.Engine) -> None:
    with opened(variants) as target:
        with pytest.raises(sa.exc.DBAPIError):
            target.create_many([{"sku": "A", "stock": 1}, {"sku": "B", "stock": -1}, {"sku": "C", "note": "x"}])
        assert list(target.list_local()) == []


def test_a_batch_of_updates_that_fails_leaves_nothing_behind(variants: sa.Engine) -> None:
    with opened(variants, columns=["stock", "note"]) as target:
        target.create_many([{"sku": sku, "stock": 1, "note": ""} for sku in "AB"])
        found = target.find_many(["A", "B"])
        new: list[dict[str, Any]] = [{"sku": "A", "stock": 1, "note": "x"}, {"sku": "B", "stock": -1, "note": ""}]
        with pytest.raises(sa.exc.DBAPIError):
            target.update_many([(item, found[item["sku"]]) for item in new])
        assert target.find_many(["A", "B"]) == found


def test_an_update_of_a_vanished_row_fails_and_takes_the_batch_back(variants: sa.Engine) -> None:
    with opened(variants, columns=["stock"]) as target:
        target.create_many([{"sku": sku, "stock": 1} for sku in "AB"])
        found = target.find_many(["A", "B"])
        execute(variants, "DELETE FROM variants WHERE sku = 'B'")
        with pytest.raises(ItemError, match="'B' is not there any more"):
            target.update_many([({"sku": sku, "stock": 2}, found[sku]) for sku in "AB"])
        with pytest.raises(ItemError, match="'B' is not there any more") as caught:
            target.update({"sku": "B", "stock": 2}, found["B"])
        assert caught.value.external_id == "B"
        assert rows(variants, "SELECT sku, stock FROM variants") == [("A", 1)]


def test_a_vanished_row_is_noticed_by_drivers_that_count_only_single_statements(
    variants: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants.dialect, "supports_sane_multi_rowcount", False)
    with opened(variants, columns=["stock"]) as target:
        target.create_many([{"sku": sku, "stock": 1} for sku in "AB"])
        found = target.find_many(["A", "B"])
        target.update_many([({"sku": sku, "stock": 2}, found[sku]) for sku in "AB"])
        execute(variants, "DELETE FROM variants WHERE sku = 'B'")
        with pytest.raises(ItemError):
            target.update_many([({"sku": sku, "stock": 3}, found[sku]) for sku in "AB"])
        assert rows(variants, "SELECT sku, stock FROM variants") == [("A", 2)]


def test_rows_are_deleted_and_one_that_is_gone_fails_the_batch(variants: sa.Engine) -> None:
    with opened(variants, columns=["stock"]) as target:
        target.create_many([{"sku": sku, "stock": 1} for sku in "ABC"])
        found = target.find_many(["A", "B", "C"])
        target.delete(found["A"])
        with pytest.raises(ItemError):
            target.delete_many([found["A"], found["B"]])
        assert sorted(target.list_local()) == ["B", "C"]
        target.delete_many([found["B"], found["C"]])
        assert list(target.list_local()) == []


def test_a_deleted_record_can_be_created_again(variants: sa.Engine) -> None:
    with opened(variants, columns=["stock"]) as target:
        target.create({"sku": "A", "stock": 1})
        target.delete(target.find_many(["A"])["A"])
        target.create({"sku": "A", "stock": 2})
        assert target.find_local("A") == {"sku": "A", "stock": 2}


def test_empty_batches_do_nothing(variants: sa.Engine) -> None:
    with opened(variants, columns=["stock"]) as target:
        target.create_many([])
        target.update_many([])
        target.delete_many([])
        assert target.find_many([]) == {}
        assert target.describe().row_count == 0


def test_more_ids_than_a_statement_can_take_are_found(variants: sa.Engine) -> None:
    items: list[dict[str, Any]] = [{"sku": f"S{number}", "stock": number} for number in range(25_000)]
    with opened(variants, columns=["stock"]) as target:
        target.create_many(items)
        found = target.find_many([item["sku"] for item in items] + ["none"])
        assert len(found) == 25_000
        assert found["S24999"] == {"sku": "S24999", "stock": 24_999}
        assert len(set(target.list_local())) == 25_000


def test_records_can_be_written_while_the_ids_are_listed(variants: sa.Engine) -> None:
    with opened(variants, columns=["stock"]) as target:
        target.create_many([{"sku": f"S{number}", "stock": 0} for number in range(12_000)])
        listing = target.list_local()
        first = next(listing)
        target.delete(target.find_many([first])[first])
        assert len(list(listing)) == 11_999


def test_listing_can_be_broken_off(variants: sa.Engine) -> None:
    with opened(variants, columns=["stock"]) as target:
        target.create_many([{"sku": f"S{number}", "stock": 0} for number in range(10)])
        listing = target.list_local()
        next(listing)
        listing.close()  # type: ignore[attr-defined]
    assert variants.pool.checkedout() == 0  # type: ignore[attr-defined]  # SQLAlchemy's default pool has it


def test_the_target_describes_itself(variants: sa.Engine) -> None:
    with opened(variants, columns=["stock"]) as target:
        target.create({"sku": "A", "stock": 1})
        about = target.describe()
    assert about.table_name == ("public.variants" if variants.dialect.name == "postgresql" else "variants")
    assert about.row_count == 1
    assert [name for name, _ in about.columns] == ["id", "sku", "stock", "price", "note", "doubled"]
    assert re.match(r"(numeric|decimal)\(10, ?2\)", dict(about.columns)["price"].lower())


@pytest.mark.parametrize("given", ["7", "007", " 7 ", "7.0"])
def test_ids_are_converted_to_the_type_of_an_integer_key(database: sa.Engine, given: str) -> None:
    execute(database, "CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT)")
    with opened(database, table="things", key="id", columns=["name"]) as target:
        target.create({"id": 7, "name": "x"})
        assert target.canonical_id(given) == "7"
        assert target.find_many([given]) == {"7": {"id": 7, "name": "x"}}


@pytest.mark.parametrize("given", ["seven", "7.5", "", "99999999999999999999", "1e999999999"])
def test_an_id_that_does_not_convert_fails_by_name(database: sa.Engine, given: str) -> None:
    execute(database, "CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT)")
    with opened(database, table="things", key="id", columns=["name"]) as target:
        with pytest.raises(ItemError, match=rf"column 'id'.*{re.escape(repr(given))}"):
            target.canonical_id(given)
        with pytest.raises(ItemError):
            target.find_many(["7", given])


def test_ids_equal_after_conversion_are_one_record(database: sa.Engine) -> None:
    execute(database, "CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT)")
    with opened(database, table="things", key="id", columns=["name"]) as target:
        target.create({"id": "007", "name": "x"})
        assert list(target.find_many(["7", "007", "7.0"])) == ["7"]
        with pytest.raises(sa.exc.IntegrityError):
            target.create_many([{"id": "8", "name": "a"}, {"id": "08", "name": "b"}])
        assert list(target.list_local()) == ["7"]


def test_several_columns_can_be_the_key(database: sa.Engine) -> None:
    execute(database, "CREATE TABLE stock (place INTEGER, sku VARCHAR(20), n INTEGER, PRIMARY KEY (place, sku))")
    with opened(database, table="stock", key=["sku", "place"], columns={"n": "n", "place": "where"}) as target:
        items = [{"sku": sku, "where": str(place), "n": place} for sku in ("Ä", 'b"') for place in range(3000)]
        target.create_many(items)
        assert target.canonical_id('["Ä","0007"]') == '["Ä", 7]'
        found = target.find_many([f'["Ä", {place}]' for place in range(3000)] + ['["none", 1]'])
        assert len(found) == 3000
        assert found['["Ä", 7]'] == {"sku": "Ä", "place": 7, "n": 7}
        assert set(target.list_local()) == {
            target.canonical_id(f'["{s}", {p}]') for s in ("Ä", 'b\\"') for p in range(3000)
        }
        target.update({"sku": "Ä", "where": 7.0, "n": 8}, found['["Ä", 7]'])
        assert rows(database, "SELECT count(*), sum(n) FROM stock") == [(6000, 3000 * 2999 + 1)]
        target.delete(found['["Ä", 7]'])
        assert target.find_local('["Ä", 7]') is None


@pytest.mark.parametrize("given", ["Ä", '["Ä"]', '["Ä", 1, 2]', '{"a": 1}', '["Ä", null]', '["Ä", [1]]'])
def test_a_composite_id_of_a_wrong_form_fails_the_item(database: sa.Engine, given: str) -> None:
    execute(database, "CREATE TABLE stock (sku VARCHAR(20), place INTEGER, n INTEGER, PRIMARY KEY (place, sku))")
    with (
        opened(database, table="stock", key=["sku", "place"], columns=["n"]) as target,
        pytest.raises(ItemError),
    ):
        target.canonical_id(given)


def test_external_ids_come_from_the_key_columns_item_fields() -> None:
    mapped = SqlTable(table="t", key=["sku", "place"], columns={"sku": "code", "place": lambda item: item["w"] + 1})
    assert mapped.external_id({"code": "Ä", "w": 6}) == '["Ä", 7]'
    assert SqlTable(table="t", key="sku").external_id({"sku": 7.0}) == "7"
    assert SqlTable(table="t", key="sku", columns=["stock"]).external_id(Thing("A", 1)) == "A"
    assert SqlTable(table="t", key="sku", columns=lambda item: {"sku": item["x"]}).external_id({"x": "B"}) == "B"
    assert SqlTable(table="t", key="sku", columns=lambda _item: {"n": 1}).external_id({"sku": "C"}) == "C"


@pytest.mark.parametrize("item", [{"sku": None}, {"sku": ""}, {"sku": " "}, {"sku": float("nan")}, {}, {"sku": {1}}])
def test_an_item_without_external_id_fails(item: Any) -> None:
    with pytest.raises(ItemError):
        SqlTable(table="t", key="sku").external_id(item)


def test_the_key_comes_from_the_external_id_where_no_column_is_mapped_to_it(variants: sa.Engine) -> None:
    table = SqlTable(table="variants", key="sku", columns={"stock": "stock"}, database=variants)
    with table.open(lambda item: f"ERP-{item['number']}") as target:
        target.create({"number": 5, "stock": 1})
        assert target.find_local("ERP-5") == {"sku": "ERP-5", "stock": 1}


def test_an_external_id_that_contradicts_the_key_columns_fails_the_item(variants: sa.Engine) -> None:
    """Such a row would never be found again, and be created anew by each run."""
    table = SqlTable(table="variants", key="sku", columns=["sku", "stock"], database=variants)
    with table.open(lambda item: item["number"]) as target, pytest.raises(ItemError, match="get_external_id"):
        target.create({"number": "5", "sku": "A", "stock": 1})


def test_a_missing_table_is_named_with_the_database_and_similar_names(variants: sa.Engine) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"no table 'variantes'; did you mean variants\?"),
        opened(variants, table="variantes"),
    ):
        pass


def test_a_missing_table_of_an_empty_database_and_schema_is_named(database: sa.Engine) -> None:
    with pytest.raises(ConfigurationError, match="no tables"), opened(database):
        pass
    with pytest.raises(ConfigurationError, match="no schema 'shop'"), opened(database, table="shop.variants"):
        pass


def test_a_table_in_another_schema_is_used_and_suggested(postgres: sa.Engine) -> None:
    execute(postgres, "CREATE SCHEMA shop", 'CREATE TABLE shop."Order" (sku TEXT PRIMARY KEY, "from" INTEGER)')
    with pytest.raises(ConfigurationError, match=r"did you mean shop\.Order"), opened(postgres, table="Order"):
        pass
    with opened(postgres, table="shop.Order", columns=["from"]) as target:
        target.create({"sku": "A", "from": 1})
        target.update({"sku": "A", "from": 2}, target.find_many(["A"])["A"])
        assert target.find_local("A") == {"sku": "A", "from": 2}
        assert target.describe().table_name == "shop.Order"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"key": "skuu"}, r"key names the column 'skuu'.*did you mean sku\?"),
        ({"columns": {"stocks": "x"}}, r"columns names the column 'stocks'.*did you mean stock\?"),
        ({"columns": {"zzz": "x"}}, r"columns names the column 'zzz'.*it has: id, sku, stock"),
        ({"compare": ["zzz"]}, "compare names the column 'zzz'"),
        ({"create_only": ["zzz"]}, "create_only names the column 'zzz'"),
        ({"columns": ["doubled"]}, "'doubled'.*generates"),
    ],
)
def test_a_missing_or_generated_column_is_named_before_anything_is_written(
    variants: sa.Engine, fields: Any, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message), opened(variants, **fields):
        pass


def test_a_key_that_is_not_unique_is_refused_with_the_index_to_make(variants: sa.Engine) -> None:
    execute(variants, "ALTER TABLE variants ADD code VARCHAR(9)")
    if variants.dialect.name != "mysql":  # which has no such indexes
        execute(variants, "CREATE UNIQUE INDEX partial ON variants (code) WHERE stock > 1")
    with pytest.raises(ConfigurationError) as caught, opened(variants, key="code"):
        pass
    execute(variants, str(caught.value).partition("run: ")[2])
    with opened(variants, key="code", columns=["sku"]) as target:
        assert target.canonical_id("x") == "x"


def test_a_key_that_contains_a_unique_column_is_unique(variants: sa.Engine) -> None:
    with opened(variants, key=["sku", "note"], columns=["stock"]) as target:
        target.create({"sku": "A", "note": "n", "stock": 1})
        assert list(target.list_local()) == ['["A", "n"]']
        execute(variants, "UPDATE variants SET note = NULL")
        assert list(target.list_local()) == []


def test_an_identity_column_is_left_to_the_database(postgres: sa.Engine) -> None:
    execute(postgres, "CREATE TABLE t (id INT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, sku TEXT UNIQUE, n INT)")
    with opened(postgres, table="t") as target:
        target.create({"id": 55, "sku": "A", "n": 1})
        assert target.find_local("A") == {"id": 1, "sku": "A", "n": 1}
        assert target.changes({"id": 55, "sku": "A", "n": 1}, target.find_local("A")) == {}
    with pytest.raises(ConfigurationError, match=r"'id'.*generates"), opened(postgres, table="t", columns=["id"]):
        pass


def test_a_declared_table_gives_its_python_defaults(variants: sa.Engine) -> None:
    declared = sa.Table(
        "variants",
        sa.MetaData(),
        sa.Column("sku", sa.String(40), default="unused"),
        sa.Column("note", sa.Text, default=lambda: "made", onupdate="changed"),
    )
    with opened(variants, table=declared, columns=["stock"]) as target:
        target.create({"sku": "A", "stock": 1})
        assert rows(variants, "SELECT sku, note FROM variants") == [("A", "made")]
        target.update({"sku": "A", "stock": 2}, target.find_many(["A"])["A"])
        assert rows(variants, "SELECT sku, note FROM variants") == [("A", "changed")]


def test_the_configured_database_is_the_default(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = SqlTable(table="variants", key="sku", columns=["note"])
    engine = create_database(database_url)
    execute(engine, "CREATE TABLE variants (sku VARCHAR(9) PRIMARY KEY, note TEXT)")
    engine.dispose()
    monkeypatch.setenv("SYNC_PIPELINES_DATABASE_URL", database_url)
    with table.open(table.external_id) as target:
        target.create({"sku": "A", "note": "x"})
        assert target.find_local("A") == {"sku": "A", "note": "x"}


def test_a_database_that_was_handed_in_stays_open(variants: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    disposed: list[sa.Engine] = []
    monkeypatch.setattr(sa.Engine, "dispose", lambda self, **_options: disposed.append(self))
    with opened(variants):
        pass
    assert disposed == []


def test_a_locked_sqlite_file_is_worth_another_try(sqlite: sa.Engine) -> None:
    execute(sqlite, VARIANTS)
    impatient = sa.create_engine(sqlite.url, connect_args={"timeout": 0.05})
    with sqlite.connect() as holder:
        holder.exec_driver_sql("BEGIN IMMEDIATE")
        with opened(impatient) as target, pytest.raises(RetryableError, match="locked") as caught:
            target.create({"sku": "A", "stock": 1})
        assert isinstance(caught.value.__cause__, sa.exc.OperationalError)
    impatient.dispose()


def test_a_lost_connection_is_worth_another_try(postgres: sa.Engine, postgres_admin: sa.Engine) -> None:
    execute(postgres, VARIANTS)
    with opened(postgres, columns=["stock"]) as target:
        kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        with postgres_admin.connect() as connection:
            connection.exec_driver_sql(kill, (postgres.url.database,))
        with pytest.raises(RetryableError):
            target.find_many(["A"])
        assert target.find_many(["A"]) == {}


def test_a_row_that_somebody_holds_is_worth_another_try(postgres: sa.Engine) -> None:
    execute(postgres, VARIANTS, "INSERT INTO variants (id, sku, stock) VALUES (1, 'A', 1), (2, 'B', 1)")
    execute(postgres, f"ALTER DATABASE {postgres.url.database} SET lock_timeout = '50ms'")
    postgres.dispose()
    with opened(postgres, columns=["stock"]) as target, postgres.connect() as holder:
        found = target.find_many(["A"])
        holder.exec_driver_sql("SELECT * FROM variants FOR UPDATE")
        with pytest.raises(RetryableError, match="lock"):
            target.update({"sku": "A", "stock": 2}, found["A"])


def test_a_server_that_is_not_there_is_worth_another_try_and_its_password_stays_secret(tmp_path: Any) -> None:
    table = SqlTable(table="t", key="sku", database=f"postgresql://me:s3cret@/shop?host={tmp_path}&connect_timeout=1")
    assert "s3cret" not in repr(table)
    with pytest.raises(RetryableError) as caught, table.open(table.external_id):
        pass
    assert "s3cret" not in str(caught.value)


def test_no_message_about_a_table_shows_the_password(postgres: sa.Engine) -> None:
    url = postgres.url.set(username="postgres", password="s3cret")
    table = SqlTable(table="nothing", key="sku", database=url)
    with pytest.raises(ConfigurationError, match=r"postgres:\*\*\*@") as caught, table.open(table.external_id):
        pass
    assert "s3cret" not in str(caught.value)


def test_a_batch_that_is_refused_puts_no_values_of_rows_on_stderr(
    postgres: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """The driver would log what the server says of a row that it was sent before it found the next one wrong itself."""
    execute(postgres, "CREATE TABLE variants (sku TEXT PRIMARY KEY, note TEXT UNIQUE)")
    with opened(postgres, columns=["note"]) as target:
        target.create_many([{"sku": sku, "note": f"private {sku}"} for sku in "ABC"])
        found = target.find_many(["A", "B"])
        with pytest.raises(sa.exc.DataError, match="NUL"):
            target.update_many(
                [
                    ({"sku": "A", "note": "private C"}, found["A"]),
                    ({"sku": "B", "note": "\x00"}, found["B"]),
                ]
            )
    assert caplog.messages == []
