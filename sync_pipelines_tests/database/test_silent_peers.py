"""Connections of ours wait for work that takes long, and for nobody who is not there any more."""

from __future__ import annotations

import time

import pytest
import sqlalchemy as sa

from sync_pipelines.database import silent_peers
from sync_pipelines.database.connections import Limits, create_database
from sync_pipelines.database.faults import LOST, state_of
from sync_pipelines_tests.black_hole import black_hole

KILL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
    "AND datname = current_database()"
)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silent_peers, "SILENT_S", 0.3)
    monkeypatch.setattr(silent_peers, "_ANSWERS_WITHIN_S", 1.0)


def test_a_statement_that_takes_long_is_waited_for(postgres_url: str) -> None:
    database = create_database(postgres_url)
    with database.connect() as connection:
        assert connection.scalar(sa.text("SELECT 7 FROM pg_sleep(1.2)")) == 7
    database.dispose()


def test_a_server_that_has_no_connection_left_to_ask_it_is_there(postgres: sa.Engine, postgres_url: str) -> None:
    limit = sa.text(f"ALTER DATABASE {postgres.url.database} CONNECTION LIMIT 0")
    database = create_database(postgres_url)
    with database.connect() as connection:
        with postgres.begin() as other:
            other.execute(limit)
        assert connection.scalar(sa.text("SELECT 7 FROM pg_sleep(1)")) == 7
    database.dispose()


def test_a_peer_that_swallows_both_directions_is_given_up(postgres_url: str) -> None:
    with black_hole(postgres_url) as (proxy, url):
        database = create_database(url)
        with database.connect() as connection:
            assert connection.scalar(sa.text("SELECT 1")) == 1
            proxy.swallows.set()
            began_s = time.monotonic()
            with pytest.raises(sa.exc.OperationalError, match="said nothing for") as caught:
                connection.scalar(sa.text("SELECT 1"))
        assert state_of(caught.value) is LOST
        assert caught.value.connection_invalidated
        assert time.monotonic() - began_s < 10
        database.dispose()


def test_a_session_that_the_server_has_ended_unheard_is_given_up(postgres: sa.Engine, postgres_url: str) -> None:
    """A new connection gets through, and says that nobody works for the old one."""
    with black_hole(postgres_url) as (proxy, url):
        database = create_database(url)
        with database.connect() as connection:
            connection.scalar(sa.text("SELECT 1"))
            proxy.swallows.set()
            connection.connection.driver_connection.arguments = {"conninfo": postgres_url}  # type: ignore[union-attr]
            with postgres.connect() as other:
                other.execute(sa.text(KILL))
            with pytest.raises(sa.exc.OperationalError, match="not at work"):
                connection.scalar(sa.text("SELECT 1"))
        database.dispose()


def test_a_connection_that_nobody_answers_is_given_up(postgres_url: str) -> None:
    with black_hole(postgres_url) as (proxy, url):
        proxy.swallows.set()
        database = create_database(url, limits=Limits(connect_s=2))
        began_s = time.monotonic()
        with pytest.raises(sa.exc.OperationalError, match="timeout"):
            database.connect()
        assert time.monotonic() - began_s < 10
