"""Transactions of ours are in a known state, and whoever else has the connection notices nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from sync_pipelines.database.connections import create_database
from sync_pipelines.database.sessions import POSTGRESQL_STATE, with_known_state

ODD = {
    "DateStyle": "German, DMY",
    "IntervalStyle": "iso_8601",
    "TimeZone": "Asia/Kolkata",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "client_encoding": "LATIN1",
    "array_nulls": "off",
    "xmloption": "document",
    "row_security": "off",
    "quote_all_identifiers": "on",
    "transform_null_equals": "on",
}
STATE = "SELECT name, setting FROM pg_settings WHERE name = ANY(%s) ORDER BY name"


@pytest.fixture
def odd_url(postgres: sa.Engine) -> sa.URL:
    """A database for which everything is set that changes how values are written and read."""
    with postgres.begin() as connection:
        for name, value in ODD.items():
            setting = value if name == "DateStyle" else f"'{value}'"
            connection.exec_driver_sql(f"ALTER DATABASE {postgres.url.database} SET {name} = {setting}")
        connection.exec_driver_sql(
            f"ALTER DATABASE {postgres.url.database} SET default_transaction_isolation = 'serializable'"
        )
    return postgres.url


def state(connection: sa.Connection) -> dict[str, str]:
    return {row.name: row.setting for row in connection.exec_driver_sql(STATE, ([*ODD],))}


@pytest.fixture(params=["psycopg", "psycopg2"])
def theirs(request: pytest.FixtureRequest, odd_url: sa.URL) -> Iterator[sa.Engine]:
    """An engine of the application's own, with one connection."""
    url = odd_url.set(drivername=f"postgresql+{request.param}")
    engine = sa.create_engine(url, pool_size=1, max_overflow=0)
    yield engine
    engine.dispose()


def test_every_setting_that_is_odd_here_is_known_there() -> None:
    assert set(ODD) == set(POSTGRESQL_STATE)


def test_an_engine_of_ours_begins_each_transaction_in_the_known_state(odd_url: sa.URL) -> None:
    engine = create_database(odd_url)
    with engine.connect() as connection:
        for _ in range(2):
            assert state(connection) == POSTGRESQL_STATE
            assert connection.exec_driver_sql("SHOW transaction_isolation").scalar() == "read committed"
            connection.rollback()
    engine.dispose()


@pytest.mark.parametrize("autocommit", [False, True])
def test_an_engine_of_the_application_has_its_own_state_again_afterwards(
    theirs: sa.Engine,
    autocommit: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    engine = theirs.execution_options(isolation_level="AUTOCOMMIT") if autocommit else theirs
    with engine.connect() as connection:
        before = state(connection)
    is_older = theirs.dialect.driver == "psycopg2"  # which asks for ISO itself, and does not follow an encoding
    assert before == ODD | ({"DateStyle": "ISO, DMY"} if is_older else {})
    followed = {"client_encoding"} if is_older else set()
    with with_known_state(engine).connect() as connection:
        found = state(connection)
        assert {name for name in found if found[name] != POSTGRESQL_STATE[name]} == followed
        if not autocommit:  # no result is streamed without a transaction
            connection.execution_options(yield_per=2)
        assert connection.exec_driver_sql("SELECT DATE '2024-01-02', 1e15::float8 / 3").one()[1] == 1e15 / 3
    with engine.connect() as connection:
        assert state(connection) == before


def test_what_protects_or_places_tables_is_left_alone(postgres: sa.Engine) -> None:
    name = postgres.url.database
    with postgres.begin() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET search_path = 'elsewhere'")
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET statement_timeout = '7s'")
    engine = create_database(postgres.url)
    names = ("transaction_read_only", "search_path", "statement_timeout")
    with engine.connect() as connection:
        held = [connection.exec_driver_sql(f"SHOW {each}").scalar() for each in names]
    assert held == ["on", "elsewhere", "7s"]
    engine.dispose()


def test_text_of_another_encoding_fails_no_row_of_sqlite(sqlite: sa.Engine) -> None:
    with sqlite.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE things (note TEXT)")
        connection.exec_driver_sql("INSERT INTO things VALUES (CAST(x'4dfc' AS TEXT)), ('ü')")
        assert connection.exec_driver_sql("SELECT note FROM things").scalars().all() == ["M\ufffd", "ü"]
        raw = connection.connection.driver_connection
    assert raw is not None
    assert raw.text_factory is str
