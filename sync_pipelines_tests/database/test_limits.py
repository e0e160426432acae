"""How long connections of ours wait, and what they leave behind: nothing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from sync_pipelines.database.connections import Limits, create_database
from sync_pipelines.database.leases import Holder, Leases
from sync_pipelines.database.ledger import open_ledger
from sync_pipelines.database.sessions import with_known_state
from sync_pipelines.errors import LeaseLostError
from sync_pipelines.runner.context.lease import HeldLease

LOCK, IDLE = "lock_timeout", "idle_in_transaction_session_timeout"


def shown(database: sa.Engine) -> list[str]:
    with database.begin() as connection:
        return [str(connection.exec_driver_sql(f"SHOW {name}").scalar()) for name in (LOCK, IDLE)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", ["1min", "10min"]),
        ("-c lock_timeout=5s", ["5s", "10min"]),
        ("-c lock_timeout=0", ["0", "10min"]),
        (f"-c {IDLE}=3s", ["1min", "3s"]),
    ],
)
def test_what_the_url_says_goes_first(postgres: sa.Engine, options: str, expected: list[str]) -> None:
    url = postgres.url.update_query_dict({"options": options}) if options else postgres.url
    database = create_database(url)
    assert shown(database) == expected
    database.dispose()


def test_a_limit_of_0_is_none(postgres: sa.Engine) -> None:
    database = create_database(postgres.url, limits=Limits(lock_s=0, idle_s=0))
    assert shown(database) == ["0", "0"]
    database.dispose()


def test_an_engine_that_is_lent_to_us_is_given_back_as_it_was(postgres: sa.Engine) -> None:
    lent = sa.create_engine(postgres.url, pool_size=1, max_overflow=0)
    ours = with_known_state(lent, Limits(lock_s=7).in_transactions(lent.url))
    assert ours.pool is lent.pool
    assert (shown(ours)[0], shown(lent)[0]) == ("7s", "0")
    lent.dispose()


def test_a_vanished_peer_is_noticed_unless_the_url_says_otherwise(postgres: sa.Engine) -> None:
    database = create_database(postgres.url.update_query_dict({"keepalives_idle": "99"}))
    with database.connect() as connection:
        given = connection.connection.driver_connection.info.get_parameters()  # type: ignore[union-attr]
    assert {name: given.get(name) for name in ("connect_timeout", "keepalives_idle", "tcp_user_timeout")} == {
        "connect_timeout": "10",
        "keepalives_idle": "99",
        "tcp_user_timeout": "30000",
    }
    database.dispose()


def test_mariadb_waits_no_longer_for_a_table_than_for_a_row(mariadb: sa.Engine) -> None:
    database = create_database(mariadb.url, limits=Limits(lock_s=7, idle_s=9))
    with database.connect() as connection:
        row = connection.exec_driver_sql(
            "SELECT @@lock_wait_timeout, @@innodb_lock_wait_timeout, @@idle_transaction_timeout"
        ).one()
    assert tuple(row) == (7, 7, 9)
    database.dispose()


@pytest.mark.parametrize("beside", [True, False], ids=["ledger in the same database", "ledger elsewhere"])
def test_a_transaction_that_writes_ends_soon_after_the_lease_of_a_run_that_stops(
    postgres: sa.Engine, postgres_url: str, tmp_path: Path, *, beside: bool
) -> None:
    ttl = timedelta(seconds=20)
    with open_ledger(postgres_url if beside else f"sqlite:///{tmp_path / 'ledger.sqlite'}") as ledger:
        leases = Leases(ledger)
        lease = leases.acquire("stock", Holder("run-1"), ttl)
        assert lease is not None
        held = HeldLease(leases, lease, ttl)
        for before, expected in (("10min", "30s"), ("0", "30s"), ("5s", "5s")):
            with postgres.begin() as connection:
                connection.exec_driver_sql(f"SET LOCAL {IDLE} = '{before}'")
                held.fence(connection)
                assert connection.exec_driver_sql(f"SHOW {IDLE}").scalar() == expected
        leases.release(lease)
        leases.acquire("stock", Holder("run-2"), ttl)
        if beside:
            with postgres.begin() as connection, pytest.raises(LeaseLostError):
                held.fence(connection)
