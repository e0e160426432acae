"""The inbox: what is stored once, what waits in which order, what operators do with it, and how it came to be."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from sync_pipelines.database.inbox import APPLIED, FAILED, WAITING, Completed, Inbox
from sync_pipelines.database.inbox_storing import NewDelivery, Stored
from sync_pipelines.database.inbox_writing import InboxWriter
from sync_pipelines.database.ledger import open_ledger
from sync_pipelines.errors import RunError, UnavailableError

AT = datetime(2024, 5, 6, 12, 30, tzinfo=UTC)


def delivery(sku: str = "A", **fields: Any) -> NewDelivery:
    given = {"job": "stock", "kind": "upsert", "received_at": AT, "external_id": sku, "item": f'{{"sku":"{sku}"}}'}
    return NewDelivery(**{**given, **fields})


@pytest.fixture
def inbox(database_url: str) -> Any:
    with open_ledger(database_url) as ledger:
        yield Inbox(ledger)


@pytest.fixture(params=["inbox", "writer"])
def store(request: pytest.FixtureRequest, inbox: Inbox) -> Any:
    """Both ways of storing: that of everybody, and that of the receiver."""
    if request.param == "inbox":
        yield inbox.store_many
        return
    writer = InboxWriter(inbox._ledger)
    yield writer.store_many
    writer.close()


def test_a_delivery_comes_back_as_it_was_stored(inbox: Inbox, store: Any) -> None:
    text = 'Größe "\\ \U0001f600 \n \\u0000'
    given = delivery("A\x00", item=text, payload=text, headers={"x-event": text}, delivery_id="e-1", kind="event")
    [stored] = store([given])
    found = inbox.show(stored.id)
    assert found is not None
    assert (found.job, found.kind, found.external_id) == ("stock", "event", "A\\x00")
    assert (found.item, found.payload, found.headers, found.delivery_id) == (text, text, {"x-event": text}, "e-1")
    assert (found.received_at, found.state, found.attempts, found.next_try_at) == (AT, WAITING, 0, None)
    [bare] = store([delivery(external_id=None, item=None)])
    again = inbox.show(bare.id)
    assert again is not None
    assert (again.headers, again.payload, again.item, again.external_id, again.delivery_id) == (None,) * 5


def test_what_has_a_name_is_stored_once_and_order_is_kept(inbox: Inbox, store: Any) -> None:
    first = store([delivery(str(n), delivery_id=None if n % 3 == 0 else f"e-{n}") for n in range(100)])
    assert [each.repeated for each in first] == [False] * 100
    assert [each.id for each in first] == sorted(each.id for each in first)
    mixed = [delivery("1", delivery_id="e-1"), delivery("new"), delivery("y", delivery_id="e-200")]
    mixed += [delivery("y", delivery_id="e-200"), delivery("other", job="other", delivery_id="e-1")]
    places = store(mixed)
    assert [each.repeated for each in places] == [True, False, False, True, False]
    assert places[0] == Stored(first[1].id, repeated=True)
    assert places[2].id == places[3].id
    assert [each.external_id for each in inbox.oldest_waiting("stock", 200)] == [*map(str, range(100)), "new", "y"]
    assert all(store(mixed[:1])[0] == places[0] for _ in range(3))


def test_processes_that_store_the_same_at_once_store_it_once(database_url: str) -> None:
    start = threading.Barrier(4)

    def run(number: int) -> list[list[Stored]]:
        with open_ledger(database_url) as ledger:
            writer = InboxWriter(ledger)
            way = Inbox(ledger).store_many if number % 2 else writer.store_many
            start.wait()
            told = [way([delivery(delivery_id=f"e-{n}"), delivery(delivery_id=f"f-{n}")]) for n in range(25)]
            writer.close()
            return told

    with open_ledger(database_url) as ledger:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(run, range(4)))
        assert Inbox(ledger).count("stock") == 50
    for n in range(25):
        for place in (0, 1):
            told = [answer[n][place] for answer in answers]
            assert len({each.id for each in told}) == 1
            assert sum(not each.repeated for each in told) == 1


def test_a_named_delivery_that_is_gone_when_it_is_looked_for_is_stored_anew(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sync_pipelines.database import inbox_storing

    inbox.store_many([delivery("B", delivery_id="e-1")])
    looks = []

    def vanishing(connection: Any, table: Any, _keys: Any) -> dict[Any, int]:
        looks.append(1)
        connection.execute(sa.delete(table))
        return {}

    monkeypatch.setattr(inbox_storing, "find_known", vanishing)
    [stored] = inbox.store_many([delivery("B", delivery_id="e-1")])
    assert len(looks) == 1
    assert [each.id for each in inbox.newest("stock")] == [stored.id]

    monkeypatch.setattr(inbox_storing, "find_known", lambda *_: {})
    with pytest.raises(RunError, match="neither takes nor has a delivery"):
        inbox.store_many([delivery(delivery_id="e-1")])


def test_one_that_is_applied_already_is_stored_so(inbox: Inbox) -> None:
    [stored] = inbox.store_many([delivery(action="updated", delivery_id="e-1")])
    found = inbox.known(delivery(delivery_id="e-1"))
    assert found is not None
    assert (found.id, found.state, found.action, found.attempts) == (stored.id, APPLIED, "updated", 1)
    assert found.finished_at == AT
    for other in (delivery(delivery_id="e-2"), delivery("B", delivery_id="e-1"), delivery()):
        assert inbox.known(other) is None


def test_only_what_is_due_is_given(inbox: Inbox) -> None:
    places = inbox.store_many([delivery(str(n)) for n in range(3)])
    table = inbox._table
    with inbox._ledger.transaction() as connection:
        connection.execute(
            sa.update(table).where(table.c.id == places[0].id).values(next_try_at=AT + timedelta(hours=1))
        )
        connection.execute(sa.update(table).where(table.c.id == places[1].id).values(next_try_at=AT))
    assert [each.external_id for each in inbox.oldest_waiting("stock", 9, due_at=AT)] == ["1", "2"]
    assert [each.external_id for each in inbox.oldest_waiting("stock", 9)] == ["0", "1", "2"]


def test_depths_tell_what_waits_and_since_when(inbox: Inbox) -> None:
    inbox.store_many([delivery(received_at=AT + timedelta(seconds=n)) for n in range(5)])
    first, second, *_ = inbox.oldest_waiting("stock", 5)
    inbox.complete([Completed(first.id, "A", None, "no"), Completed(second.id, "A", "created")], AT)
    stock, other = inbox.depths(["stock", "other"])
    assert (stock.job, stock.waiting, stock.failed, stock.oldest_waiting_at) == (
        "stock",
        3,
        1,
        AT + timedelta(seconds=2),
    )
    assert (other.waiting, other.failed, other.oldest_waiting_at) == (0, 0, None)


def test_deliveries_are_listed_newest_first(inbox: Inbox) -> None:
    ids = [each.id for each in inbox.store_many([delivery(), delivery(job="other"), delivery()])]
    inbox.complete([Completed(ids[0], "A", None, "no")], AT)
    assert [each.id for each in inbox.newest()] == ids[::-1]
    assert [each.id for each in inbox.newest("stock")] == [ids[2], ids[0]]
    assert [each.id for each in inbox.newest("stock", FAILED)] == [ids[0]]
    assert [each.id for each in inbox.newest(limit=1)] == [ids[2]]
    assert inbox.show(10**12) is None


@pytest.mark.parametrize("is_forced", [False, True])
def test_a_replayed_delivery_waits_again_and_is_as_old_as_it_was_unless_it_is_forced(
    inbox: Inbox, *, is_forced: bool
) -> None:
    ids = [each.id for each in inbox.store_many([delivery(), delivery(), delivery(job="other")])]
    inbox.complete([Completed(each, "A", None, "no") for each in ids], AT)
    later = AT + timedelta(hours=1)
    assert inbox.replay([ids[0], 10**12], later, is_forced=is_forced) == [ids[0]]
    found = inbox.show(ids[0])
    assert found is not None
    assert (found.state, found.attempts, found.message, found.finished_at) == (WAITING, 0, None, None)
    assert (found.received_at, found.next_try_at) == ((later, None) if is_forced else (AT, later))
    assert inbox.replay_failed("stock", later, is_forced=is_forced) == [ids[1]]
    assert inbox.count("other", FAILED) == 1


def test_dropped_deliveries_are_gone(inbox: Inbox) -> None:
    ids = [each.id for each in inbox.store_many([delivery(), delivery()])]
    assert inbox.drop([ids[0], 10**12]) == [ids[0]]
    assert [each.id for each in inbox.newest()] == [ids[1]]


def test_old_deliveries_go_but_none_that_waits(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync_pipelines.database.inbox._AT_ONCE", 3)
    ids = [each.id for each in inbox.store_many([delivery() for _ in range(10)])]
    inbox.complete([Completed(each, "A", None if each % 2 else "created", None) for each in ids[:8]], AT)
    inbox.complete([Completed(ids[8], "A", "created")], AT + timedelta(days=2))
    assert [inbox.purge(AT + timedelta(days=1)) for _ in range(3)] == [True, True, False]
    assert [each.id for each in inbox.newest()] == [ids[9], ids[8]]
    assert inbox.purge(AT + timedelta(days=1)) is False


def test_a_receivers_writer_opens_its_connection_again(own_postgres: Any) -> None:
    """The server ended it; the next delivery is none the worse for it."""
    with open_ledger(own_postgres.get_uri(), answers_within_s=3) as ledger:
        writer = InboxWriter(ledger)
        assert len(writer.store_many([delivery()])) == 1
        with ledger.transaction() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                "AND datname = current_database()"
            )
        assert len(writer.store_many([delivery()])) == 1
        assert Inbox(ledger).count("stock") == 2
        own_postgres.stop()
        with pytest.raises(UnavailableError, match="does not answer"):
            writer.store_many([delivery()])
        own_postgres.ensure_postgres_running()
        assert len(writer.store_many([delivery()])) == 1
        assert [each.job for each in Inbox(ledger).depths(["stock"])] == ["stock"], "nor does anybody else see an error"
        writer.close()


def test_one_delivery_that_the_database_refuses_is_no_ledger_that_is_away(postgres_url: str) -> None:
    with open_ledger(postgres_url) as ledger:
        writer = InboxWriter(ledger)
        with pytest.raises(sa.exc.DBAPIError):
            writer.store_many([delivery(), delivery(item="\x00")])
        assert len(writer.store_many([delivery()])) == 1
        assert Inbox(ledger).count("stock") == 1
        writer.close()


def test_a_statement_that_waits_for_a_lock_is_given_up(postgres_url: str) -> None:
    with open_ledger(postgres_url) as holder, open_ledger(postgres_url, answers_within_s=0.3) as ledger:
        writer = InboxWriter(ledger)
        with holder.transaction() as connection:
            connection.exec_driver_sql("LOCK TABLE sync_pipelines.inbox")
            with pytest.raises(RunError, match="statement timeout"):
                writer.store_many([delivery()])
        assert len(writer.store_many([delivery()])) == 1
        writer.close()


class TestMigration:
    def migrate(self, database: sa.Engine, version: str) -> None:
        import sync_pipelines.database.migrations as home

        sqlite = database.dialect.name == "sqlite"
        config = Config()
        config.set_main_option("script_location", str(Path(str(home.__file__)).parent))
        config.set_main_option("path_separator", "os")
        with database.begin() as connection:
            if not sqlite:
                connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS sync_pipelines")
            config.attributes.update(
                connection=connection,
                prefix="sync_" if sqlite else "",
                schema=None if sqlite else "sync_pipelines",
                version_table="sync_alembic_version" if sqlite else "alembic_version",
            )
            (command.upgrade if version > "0002" else command.downgrade)(config, version)

    def test_rows_survive_the_way_up_and_down(self, database_url: str, database: sa.Engine) -> None:
        with open_ledger(database_url) as ledger:
            table = ledger.tables.inbox.fullname
            Inbox(ledger).store_many(
                [
                    delivery("A"),
                    delivery("B", kind="delete", item=None),
                    delivery(kind="event", item=None, payload='{"x":1}', delivery_id="e-1"),
                ]
            )
        self.migrate(database, "0002")
        with database.connect() as connection:
            rows = connection.exec_driver_sql(f"SELECT item, state, message FROM {table} ORDER BY id").all()
        too_new = "kept by a newer version of sync_pipelines, which alone can apply it"
        assert [tuple(row) for row in rows] == [
            ('{"sku":"A"}', "waiting", None), ("null", "failed", too_new), ('{"x":1}', "failed", too_new),
        ]  # fmt: skip
        with database.begin() as connection:
            connection.exec_driver_sql(
                f"INSERT INTO {table} (job, item, received_at, state, attempts) "
                "VALUES ('stock', '{\"sku\":\"C\"}', '2024-05-06 12:30:00+00:00', 'waiting', 2)"
            )
        with open_ledger(database_url) as ledger:
            found = Inbox(ledger).oldest_waiting("stock", 10)
            assert [(each.item, each.kind, each.attempts) for each in found] == [
                ('{"sku":"A"}', "upsert", 0), ('{"sku":"C"}', "upsert", 2),
            ]  # fmt: skip
            assert [each.repeated for each in Inbox(ledger).store_many([delivery(delivery_id="e-1")] * 2)] == [
                False,
                True,
            ]
