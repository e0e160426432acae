"""A database that another test has had looks like a new one, or is dropped."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from sync_pipelines_tests.empty_databases import EmptyDatabases


@pytest.fixture
def databases(postgres_admin: sa.Engine) -> EmptyDatabases:
    return EmptyDatabases(postgres_admin)


def execute(url: str, *statements: str) -> list[sa.Row[tuple[object, ...]]]:
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)
    with engine.begin() as connection:
        for statement in statements[:-1]:
            connection.exec_driver_sql(statement)
        return list(connection.exec_driver_sql(statements[-1]).all())


_SCHEMAS = """
SELECT nspname, pg_get_userbyid(nspowner), nspacl::text FROM pg_namespace
WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
"""


def test_it_is_empty_again(databases: EmptyDatabases) -> None:
    with databases.one() as url:
        new = execute(url, _SCHEMAS)
        execute(
            url,
            "CREATE TABLE stock (sku text PRIMARY KEY)",
            "CREATE SCHEMA other",
            "CREATE DOMAIN other.name AS text",
            "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "SELECT 1",
        )
        waiting = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg")).connect()
        waiting.exec_driver_sql("SELECT * FROM stock")  # and holds its lock
    with databases.one() as again:
        assert again == url
        assert execute(again, _SCHEMAS) == new
        assert execute(again, "SELECT 1 FROM pg_class WHERE relname = 'stock'") == []
    waiting.invalidate()
    waiting.close()
    databases.close()


@pytest.mark.parametrize(
    "left",
    [
        "ALTER DATABASE {name} SET statement_timeout = '1s'",
        "ALTER DATABASE {name} CONNECTION LIMIT 3",
        "GRANT CREATE ON DATABASE {name} TO PUBLIC",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
        "SELECT lo_create(0)",
        "CREATE PUBLICATION changes",
    ],
)
def test_what_can_not_be_emptied_is_dropped(databases: EmptyDatabases, left: str) -> None:
    with databases.one() as url:
        execute(url, left.format(name=sa.make_url(url).database), "SELECT 1")
    with databases.one() as again:
        assert again != url
    databases.close()
