"""A SQL query as a source, on SQLite and PostgreSQL."""

import datetime as dt
import time
import traceback
from contextlib import closing
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy import Engine, text

from sync_pipelines.database.connections import create_database
from sync_pipelines.engine.completeness import source_ends
from sync_pipelines.errors import ConfigurationError, ItemError, RetryableError
from sync_pipelines.sources.sql_query import sql_query


def items(fetch: Any) -> list[dict[str, Any]]:
    return [item for page in fetch() for item in page]


@pytest.fixture
def shop(database: Engine) -> Engine:
    """A database with seven products."""
    with database.begin() as connection:
        connection.execute(text("CREATE TABLE products (sku VARCHAR(9) PRIMARY KEY, price NUMERIC(9, 2), note TEXT)"))
        rows = [{"sku": f"A-{number}", "price": number + 0.5, "note": None} for number in range(1, 8)]
        connection.execute(text("INSERT INTO products VALUES (:sku, :price, :note)"), rows)
    return database


def test_rows_come_as_dicts_by_column_name(shop):
    query = "SELECT sku, upper(sku) || '!' AS loud, note FROM products WHERE sku < 'A-3' ORDER BY sku"
    assert items(sql_query(query, database=shop)) == [
        {"sku": "A-1", "loud": "A-1!", "note": None},
        {"sku": "A-2", "loud": "A-2!", "note": None},
    ]


def test_parameters_are_bound_not_pasted(shop):
    query = "SELECT sku FROM products WHERE sku = :sku OR note = :note ORDER BY sku"
    assert items(sql_query(query, database=shop, parameters={"sku": "A-2", "note": "' OR '1'='1"})) == [{"sku": "A-2"}]


def test_statement_of_sqlalchemy_gives_its_types(shop):
    products = sa.Table("products", sa.MetaData(), autoload_with=shop)
    query = sa.select(products.c.sku, products.c.price).where(products.c.sku == sa.bindparam("one"))
    (item,) = items(sql_query(query, database=shop, parameters={"one": "A-3"}))
    assert (item, type(item["price"])) == ({"sku": "A-3", "price": Decimal("3.50")}, Decimal)


def test_postgresql_gives_exact_and_aware_values(postgres):
    query = (
        r"SELECT 1.10::numeric AS price, timestamptz '2026-03-29 01:30\:00+00' AS at, ARRAY[1, 2] AS some, true AS is"
    )
    (item,) = items(sql_query(query, database=postgres))
    assert (str(item["price"]), item["some"], item["is"]) == ("1.10", [1, 2], True)
    assert item["at"] == dt.datetime(2026, 3, 29, 1, 30, tzinfo=dt.UTC)


def errors_of(found: list[dict[str, Any]]) -> dict[int, dict[str, str]]:
    """What is an error, by row and column; its message without the cause."""
    return {
        number: {name: str(value).partition(" (")[0] for name, value in item.items() if isinstance(value, ItemError)}
        for number, item in enumerate(found, 1)
        if any(isinstance(value, ItemError) for value in item.values())
    }


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_value_of_postgresql_that_python_does_not_hold_is_the_error_of_its_item(postgres, postgres_url, driver):
    with postgres.begin() as connection:
        connection.execute(text("CREATE TABLE events (id int, at timestamptz, naive timestamp, day date, hour time)"))
        rows = [
            "(1, '2026-01-01 00:00Z', '2026-01-01', '2026-01-01', '10:00')",
            "(2, 'infinity', '-infinity', 'infinity', '24:00')",
            "(3, '12026-01-01 00:00Z', '0044-03-15 BC', '12026-01-01', NULL)",
            "(4, NULL, '2026-01-02', '0044-03-15 BC', '11:00')",
        ]
        connection.exec_driver_sql(f"INSERT INTO events VALUES {', '.join(rows)}")
    ours = sa.create_engine(sa.make_url(postgres_url).set(drivername=f"postgresql+{driver}"))
    for page_size in (1, 3, 10):
        found = items(sql_query("SELECT * FROM events ORDER BY id", database=ours, page_size=page_size))
        hour = {} if driver == "psycopg2" else {"hour": "sql_query: row 2: hour is '24:00:00'"}  # it makes 00:00 of it
        assert errors_of(found) == {
            2: {
                "at": "sql_query: row 2: at is 'infinity'",
                "naive": "sql_query: row 2: naive is '-infinity'",
                "day": "sql_query: row 2: day is 'infinity'",
                **hour,
            },
            3: {
                "at": "sql_query: row 3: at is '12026-01-01 00:00:00+00'",
                "naive": "sql_query: row 3: naive is '0044-03-15 00:00:00 BC'",
                "day": "sql_query: row 3: day is '12026-01-01'",
            },
            4: {"day": "sql_query: row 4: day is '0044-03-15 BC'"},
        }
        assert (found[0]["day"], found[3]["naive"]) == (dt.date(2026, 1, 1), dt.datetime(2026, 1, 2))  # noqa: DTZ001
    with ours.connect() as connection, pytest.raises((sa.exc.DataError, ValueError)):  # as its owner knows it
        connection.execute(text("SELECT day FROM events WHERE id = 3")).all()
    ours.dispose()


def test_value_in_an_array_or_range_that_python_does_not_hold_is_the_error_of_its_item(postgres):
    query = (
        "SELECT ARRAY['2026-01-01'::date, 'infinity'] AS days, daterange('2026-01-01', 'infinity') AS range, "
        "'NaN'::numeric AS nan, 'Infinity'::float8 AS inf"
    )
    (item,) = items(sql_query(query, database=postgres))
    assert errors_of([item])[1] == {
        "days": "sql_query: row 1: days is 'infinity'",
        "range": "sql_query: row 1: range is 'infinity'",
    }
    assert (str(item["nan"]), item["inf"]) == ("NaN", float("inf"))


def test_dates_of_mysql_that_are_none_come_as_their_text(mariadb):
    with mariadb.begin() as connection:
        connection.exec_driver_sql("SET sql_mode = 'ALLOW_INVALID_DATES'")
        connection.exec_driver_sql("CREATE TABLE events (id INT, day DATE, at DATETIME)")
        connection.exec_driver_sql("INSERT INTO events VALUES (1, '2026-01-01', '2026-01-01')")
        connection.exec_driver_sql("INSERT INTO events VALUES (2, '0000-00-00', '2026-02-31 10:00:00')")
    events = sa.Table("events", sa.MetaData(), autoload_with=mariadb)
    for query in ("SELECT * FROM events ORDER BY id", sa.select(events).order_by(events.c.id)):
        first, second = items(sql_query(query, database=mariadb))
        assert first["day"] == dt.date(2026, 1, 1)
        assert second == {"id": 2, "day": "0000-00-00", "at": "2026-02-31 10:00:00"}


def test_value_that_does_not_fit_its_declared_type_is_the_error_of_its_item(sqlite):
    with sqlite.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE events (id INTEGER, at DATETIME, day DATE, n NUMERIC(9, 2), more JSON)"
        )
        connection.exec_driver_sql(
            "INSERT INTO events VALUES (1, '2026-01-01 00:00:00', '2026-01-01', 1.5, '{\"a\": 1}'), "
            "(2, '0000-00-00 00:00:00', 'soon', 'many', '{oops')"
        )
    events = sa.Table("events", sa.MetaData(), autoload_with=sqlite)
    query = sa.select(events).order_by(events.c.id)
    found = items(sql_query(query, database=sqlite, page_size=1))
    assert errors_of(found) == {
        2: {
            "at": "sql_query: row 2: at is '0000-00-00 00:00:00'",
            "day": "sql_query: row 2: day is 'soon'",
            "n": "sql_query: row 2: n is 'many'",
            "more": "sql_query: row 2: more is '{oops'",
        }
    }
    assert (found[0]["n"], found[0]["more"]) == (Decimal("1.50"), {"a": 1})
    with sqlite.connect() as connection, pytest.raises(ValueError, match="year 0"):  # as its owner knows it
        connection.execute(query).all()
    (text_item,) = items(sql_query("SELECT day FROM events WHERE id = 2", database=sqlite))
    assert text_item == {"day": "soon"}


def test_rows_come_in_pages_of_the_asked_size(shop):
    fetch = sql_query("SELECT sku FROM products", database=shop, page_size=3)
    assert [len(page) for page in fetch()] == [3, 3, 1]
    assert [len(page) for page in fetch()] == [3, 3, 1]  # and again


def test_query_that_finds_nothing_has_no_items(shop):
    assert list(sql_query("SELECT sku FROM products WHERE 1 = 0", database=shop)()) == []


def test_first_page_comes_before_the_database_is_through(postgres):
    """Ten billion rows: without a server-side cursor this would never end."""
    started = time.monotonic()
    with closing(sql_query("SELECT generate_series(1, 10000000000) AS n", database=postgres, page_size=2)()) as pages:
        assert next(pages) == [{"n": 1}, {"n": 2}]
    assert time.monotonic() - started < 10


def test_first_page_of_sqlite_comes_before_it_is_through(sqlite):
    query = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT n FROM n"
    with closing(sql_query(query, database=sqlite, page_size=2)()) as pages:
        assert next(pages) == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("ending", ["exhausted", "broken off", "raising"])
def test_cursor_and_connection_are_given_back_however_a_fetch_ends(shop, ending):
    query = "SELECT nothing FROM products" if ending == "raising" else "SELECT sku FROM products"
    with closing(sql_query(query, database=shop, page_size=1)()) as pages:
        if ending == "raising":
            with pytest.raises(ConfigurationError):
                next(pages)
        else:
            (next if ending == "broken off" else list)(pages)
    assert shop.pool.checkedout() == 0
    with shop.begin() as connection:  # neither read-only nor locked
        connection.execute(text("INSERT INTO products VALUES ('new', 1, 'x')"))
        connection.execute(text("DROP TABLE products"))


def test_database_given_by_url_keeps_no_connection(postgres, postgres_url):
    fetch = sql_query("SELECT pg_backend_pid() AS pid", database=postgres_url)
    pid = items(fetch)[0]["pid"]
    gone = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")
    for _ in range(50):
        with postgres.connect() as connection:
            if connection.scalar(gone, {"pid": pid}) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("the connection is still open")


@pytest.mark.parametrize("given", [str, SecretStr, sa.make_url])
def test_database_may_be_given_as_url_in_any_form(shop, database_url, given):
    assert len(items(sql_query("SELECT sku FROM products", database=given(database_url)))) == 7


def test_database_is_by_default_the_configured_one_when_a_sync_fetches(shop, database_url, monkeypatch):
    fetch = sql_query("SELECT sku FROM products")
    monkeypatch.setenv("SYNC_PIPELINES_DATABASE_URL", database_url)
    assert len(items(fetch)) == 7


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM products",
        "INSERT INTO products VALUES ('x', 1, 'y') RETURNING sku",
        "UPDATE products SET price = 0 RETURNING sku",
        "CREATE TABLE mine (a INTEGER)",
    ],
)
def test_query_that_writes_is_refused_and_changes_nothing(shop, query):
    with pytest.raises(ConfigurationError, match=r"refuses the query: .*(readonly|syntax error at or near)"):
        items(sql_query(query, database=shop))
    with shop.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM products WHERE price > 0")) == 7
    assert sa.inspect(shop).get_table_names() == ["products"]


def test_function_that_writes_is_refused_by_postgresql(postgres):
    with postgres.begin() as connection:
        connection.execute(text("CREATE SEQUENCE numbers"))
    with pytest.raises(ConfigurationError, match=r"nextval\(\) in a read-only transaction"):
        items(sql_query("SELECT nextval('numbers') AS n", database=postgres))


def test_statement_that_gives_no_rows_is_said_to_give_none(sqlite):
    with pytest.raises(ConfigurationError, match="gives no rows"):
        items(sql_query("PRAGMA foreign_keys = ON", database=sqlite))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT sku FROM absent", "absent"),
        ("SELECT skuu FROM products", "skuu"),
        ("CHOOSE sku FROM products", "(?i)syntax.*CHOOSE|CHOOSE.*syntax"),
        ("SELECT sku, note AS sku FROM products", "more than one column called 'sku'"),
        ("SELECT sku FROM products WHERE sku = :missing", r"parameter 'missing'.*check sql_query\(parameters="),
    ],
)
def test_wrong_query_is_an_error_in_the_databases_own_words(shop, query, said):
    with pytest.raises(ConfigurationError, match=said):
        items(sql_query(query, database=shop))


def test_value_that_the_database_can_not_make_is_its_own_error_too(postgres):
    with pytest.raises(ConfigurationError, match=r"refuses the query: .*division by zero"):
        items(sql_query("SELECT 1 / :none AS n", database=postgres, parameters={"none": 0}))


def test_parameters_are_not_in_errors(shop):
    query = "SELECT nothing FROM products WHERE note = :note"
    private = f"hunter{22}"  # a traceback shows lines of this file too
    talkative = sa.create_engine(shop.url)
    with pytest.raises(ConfigurationError) as caught:
        items(sql_query(query, database=talkative, parameters={"note": private}))
    talkative.dispose()
    assert private not in "".join(traceback.format_exception(caught.value))


def test_database_that_can_not_be_reached_is_retryable_without_showing_the_password():
    url = "postgresql://me:hunter22@127.0.0.1:1/shop?connect_timeout=2"
    with pytest.raises(RetryableError, match=r"postgresql\+psycopg://me:\*\*\*@127.0.0.1:1/shop") as caught:
        items(sql_query("SELECT 1 AS n", database=url))
    assert "hunter22" not in "".join(traceback.format_exception(caught.value)) + repr(
        sql_query("SELECT 1", database=url)
    )


def test_connection_that_breaks_half_way_is_retryable(postgres, postgres_url):
    fetch = sql_query(
        "SELECT generate_series(1, 100000) AS n, pg_backend_pid() AS pid", database=postgres_url, page_size=9
    )
    pages = fetch()
    pid = next(pages)[0]["pid"]
    with postgres.connect() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    with pytest.raises(RetryableError, match="did not answer"):
        list(pages)


def test_query_that_the_database_cancels_is_retryable(postgres_url):
    hurried = sa.make_url(postgres_url).update_query_dict({"options": "-c statement_timeout=100"})
    with pytest.raises(RetryableError, match="statement timeout"):
        items(sql_query("SELECT pg_sleep(20)", database=hurried))


def test_locked_sqlite_is_retryable(sqlite_url):
    writer = create_database(sqlite_url)
    with writer.begin() as connection:
        connection.execute(text("CREATE TABLE products (sku TEXT)"))
    reader = sa.create_engine(sqlite_url, connect_args={"timeout": 0.05})
    with writer.connect() as connection:
        connection.exec_driver_sql("BEGIN EXCLUSIVE")
        with pytest.raises(RetryableError, match="locked"):
            items(sql_query("SELECT sku FROM products", database=reader))
    reader.dispose()
    writer.dispose()


def test_misspelt_sqlite_file_is_named_and_not_made(tmp_path):
    path = tmp_path / "shpo.sqlite"
    with pytest.raises(ConfigurationError, match=r"shpo\.sqlite does not exist"):
        items(sql_query("SELECT 1 AS n", database=f"sqlite:///{path}"))
    assert not path.exists()


def test_sqlite_in_memory_needs_no_file():
    assert items(sql_query("SELECT 1 AS n", database="sqlite://")) == [{"n": 1}]


def test_mistakes_are_said_at_once_and_nothing_connects():
    sql_query("SELECT 1", database="postgresql://nowhere.invalid/x")
    for make, said in (
        (lambda: sql_query(" "), "empty"),
        (lambda: sql_query(7), "int"),  # type: ignore[arg-type]
        (lambda: sql_query("SELECT 1", database=7), "int"),  # type: ignore[arg-type]
        (lambda: sql_query("SELECT 1", page_size=0), "page_size"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            make()
    with pytest.raises(ConfigurationError, match="can't be read"):
        items(sql_query("SELECT 1", database="nonsense"))


def test_query_is_complete_at_the_end_of_its_rows_and_not_before(shop):
    for read, doubts in ((list, ()), (lambda pages: pages.close(), ("sql_query: it was not read to its end",))):
        with source_ends() as ends:
            pages = sql_query("SELECT * FROM products", database=shop, page_size=1)()
            next(pages)
            read(pages)
        assert ends.completeness(took_all=True).doubts == doubts
