"""A second connection applies part of a plan: every batch once, by one of the two, and with the same end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.engine.staged_target import Batch
from sync_pipelines.targets.staging.apply_sql import BatchApplier
from sync_pipelines.targets.staging.parallel_apply import BatchHelper, PostgresHelp, is_order_free
from sync_pipelines_tests.targets.staging.conftest import Item, Syncs, counts

BATCHES = [Batch(number, number + 1) for number in range(8)]
ITEMS: list[Item] = [{"sku": f"S{number:05}", "n": number, "text": "x" * 90} for number in range(2_000)]
TABLE = "CREATE TABLE things (sku VARCHAR(9) PRIMARY KEY, n INTEGER, text TEXT)"
WAIT_S = 30


class Help:
    """Help that notes what it has done, and refuses some."""

    def __init__(self, refuses: set[Batch] | None = None) -> None:
        self.done: list[Batch] = []
        self.refuses = refuses or set()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.is_busy = threading.Event()
        self.is_closed = False

    def apply_clean(self, batch: Batch) -> bool:
        self.is_busy.set()
        assert self.may_go_on.wait(WAIT_S)
        if batch in self.refuses:
            return False
        self.done.append(batch)
        return True

    def cancel(self) -> None:
        self.may_go_on.set()

    def close(self) -> None:
        self.is_closed = True


def apply_all(helper: BatchHelper, given: Help) -> list[Batch]:
    """Does what a caller does: each batch in order, unless it is done. Gives those that it had to do itself."""
    own: list[Batch] = []
    for batch in BATCHES:
        helper.leave(batch)
        if batch not in given.done:
            own.append(batch)
    helper.stop()
    return own


def test_every_batch_is_applied_once() -> None:
    given = Help()
    own = apply_all(BatchHelper(BATCHES, lambda: given), given)
    assert sorted([*own, *given.done], key=lambda batch: batch.first) == BATCHES
    assert given.is_closed


def test_it_goes_from_the_end_and_what_it_has_done_is_left_out() -> None:
    given = Help(refuses={BATCHES[4]})
    helper = BatchHelper(BATCHES, lambda: given)
    helper._thread.join(WAIT_S)
    assert given.done == [BATCHES[7], BATCHES[6], BATCHES[5]]
    assert apply_all(helper, given) == BATCHES[:5]


def test_the_caller_waits_for_a_batch_that_is_being_applied() -> None:
    given = Help()
    given.may_go_on.clear()
    helper = BatchHelper(BATCHES, lambda: given)
    assert given.is_busy.wait(WAIT_S)
    threading.Timer(0.1, given.may_go_on.set).start()
    helper.leave(BATCHES[7])
    assert given.done[:1] == [BATCHES[7]]
    helper.stop()


def test_without_a_connection_there_is_no_help() -> None:
    def refuse() -> Help:
        raise OSError("too many connections")

    assert apply_all(BatchHelper(BATCHES, refuse), Help()) == BATCHES


def test_what_is_under_way_is_called_off_at_the_end() -> None:
    given = Help()
    given.may_go_on.clear()
    helper = BatchHelper(BATCHES, lambda: given)
    assert given.is_busy.wait(WAIT_S)
    helper.stop()
    assert given.is_closed
    assert not helper._thread.is_alive()


@pytest.mark.parametrize(
    ("statements", "is_free"),
    [
        ([TABLE], True),
        (["CREATE TABLE things (id INT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, sku TEXT UNIQUE, n INT)"], True),
        (["CREATE TABLE things (sku TEXT PRIMARY KEY, n INT UNIQUE)"], False),
        ([TABLE, "CREATE UNIQUE INDEX ON things (n) WHERE n > 3"], False),
        ([TABLE, "CREATE UNIQUE INDEX ON things (lower(text))"], False),
        ([TABLE, "CREATE UNIQUE INDEX ON things (sku, n)"], False),
        ([TABLE, "CREATE INDEX ON things (n)"], True),
        (["CREATE TABLE things (sku TEXT PRIMARY KEY, n TEXT REFERENCES things)"], False),
        (["CREATE TABLE o (n INT PRIMARY KEY)", "CREATE TABLE things (sku TEXT PRIMARY KEY, n INT REFERENCES o)"],
         True),
        (["CREATE TABLE things (sku TEXT PRIMARY KEY, n INT, EXCLUDE USING btree (n WITH =))"], False),
        ([TABLE, "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
          "CREATE TRIGGER t BEFORE INSERT ON things FOR EACH ROW EXECUTE FUNCTION nothing()"], False),
    ],
)  # fmt: skip
def test_only_where_no_row_depends_on_another(postgres: sa.Engine, statements: list[str], is_free: bool) -> None:  # noqa: FBT001
    with postgres.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
        assert is_order_free(connection, sa.Table("things", sa.MetaData()), ["sku"], ["sku", "n"]) is is_free


@pytest.fixture
def helped(monkeypatch: pytest.MonkeyPatch, postgres_sync: Syncs) -> tuple[Syncs, Callable[[], int]]:
    """Syncs whose first connection begins once the second one has applied something; and how much that was."""
    batches: list[Batch] = []
    began = threading.Event()
    apply_clean, apply = PostgresHelp.apply_clean, BatchApplier.apply

    def noted(self: PostgresHelp, batch: Batch) -> bool:
        try:
            is_clean = apply_clean(self, batch)
        finally:
            began.set()
        batches.extend([batch] * is_clean)
        return is_clean

    def after_help(self: BatchApplier, batch: Batch) -> None:
        assert began.wait(WAIT_S)
        apply(self, batch)

    def count() -> int:
        found = len(batches)
        batches.clear()
        began.clear()
        return found

    monkeypatch.setattr("sync_pipelines.targets.staging.apply_sql.ROWS_IN_BATCH", 100)
    monkeypatch.setattr(PostgresHelp, "apply_clean", noted)
    monkeypatch.setattr(BatchApplier, "apply", after_help)
    postgres_sync.execute(TABLE)
    return postgres_sync, count


def state(sync: Syncs) -> list[Any]:
    return sync.rows("SELECT sku, n FROM things ORDER BY sku")


def test_both_together_write_everything_once(helped: tuple[Syncs, Callable[[], int]]) -> None:
    sync, count = helped
    assert counts(sync(ITEMS)) == {"created": 2_000}
    assert count() > 0
    changed = [{**item, "n": item["n"] + 1} for item in ITEMS[:1_500]]
    assert counts(sync(changed, deletes="hard")) == {"updated": 1_500, "deleted": 500}
    assert count() > 0
    assert state(sync) == [(item["sku"], item["n"]) for item in changed]


def test_rows_that_are_refused_are_told_one_by_one_whoever_meets_them(
    helped: tuple[Syncs, Callable[[], int]],
) -> None:
    sync, _ = helped
    sync.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY)", "INSERT INTO numbers SELECT generate_series(0, 2000)")
    sync.execute("DELETE FROM numbers WHERE n IN (3, 700, 1999)")
    sync.execute("ALTER TABLE things ADD FOREIGN KEY (n) REFERENCES numbers")
    results = sync(ITEMS)
    assert counts(results) == {"created": 1_997, "failed": 3}
    assert [error.external_id for error in results.errors] == ["S00003", "S00700", "S01999"]


def test_rows_that_somebody_changed_meanwhile_are_left_to_the_first_connection(
    helped: tuple[Syncs, Callable[[], int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, count = helped
    sync(ITEMS)
    count()
    run = BatchHelper.__init__

    def after_others(self: BatchHelper, *args: Any) -> None:
        sync.execute("DELETE FROM things WHERE n = 1990")
        run(self, *args)

    monkeypatch.setattr(BatchHelper, "__init__", after_others)
    changed = [{**item, "n": -item["n"] - 1} for item in ITEMS]
    assert counts(sync(changed)) == {"created": 1, "updated": 1_999}
    assert state(sync) == [(item["sku"], item["n"]) for item in changed]
