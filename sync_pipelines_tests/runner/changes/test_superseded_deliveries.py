"""A delivery that came before a whole fetch began brings no old state back, however late it is applied."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.database.inbox import FAILED
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.guards import Guards
from sync_pipelines.runner.context.workspace import Workspace, open_workspace
from sync_pipelines.runner.runs.apply_plan import PlanRun
from sync_pipelines.runner.runs.dry_run import DryRun
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines_tests.runner.desk import Clock, Desk

REFUSED = -1
"""A stock that the table refuses."""


def item(sku: str, stock: int) -> dict[str, Any]:
    return {"sku": sku, "stock": stock}


class Shop:
    """A source, a table, and the ledger of one sync between them.

    Args:
        database: Has the table.
    """

    def __init__(self, database: sa.Engine, workspace: Workspace, clock: Clock) -> None:
        self.source: dict[str, int] = {}
        self.fields: dict[str, Any] = {}
        self.clock = clock
        self.workspace = workspace
        self.desk = Desk(workspace)
        self._database = database
        with database.begin() as connection:
            connection.execute(
                sa.text("CREATE TABLE variants (sku TEXT PRIMARY KEY, stock INTEGER CHECK (stock >= 0))")
            )

    @property
    def job(self) -> SyncJob[Any, Any]:
        url = self._database.url.render_as_string(hide_password=False)
        target = SqlTable(table="variants", key="sku", columns=["stock"], database=url)
        given = {"name": "stock", "fetch_external": self._fetch, "target": target, "guards": None}
        return SyncJob(**{"get_external_id": "sku", **given, **self.fields})

    def _fetch(self) -> Iterator[Any]:
        yield [item(sku, stock) for sku, stock in self.source.items()]

    def run(self, kind: type[SyncRun] = SyncRun, **selection: Any) -> Any:
        """A whole run, some seconds later."""
        self.clock.advance()
        run = kind(self.job, self.workspace)
        fetched = run.fetch(**selection)
        self.clock.advance()
        plan = run.diff(fetched)
        results = run.finish(plan) if isinstance(run, DryRun) else run.apply(plan)
        self.clock.advance()
        return results

    def failed(self, *deliveries: int) -> None:
        """Deliveries fail for good."""
        for _ in range(6):
            self.desk.drain(self.job)
            self.clock.advance(30_000)
        assert {self.desk.show(each).state for each in deliveries} == {FAILED}

    def stock(self) -> dict[str, int]:
        with self._database.begin() as connection:
            return {row[0]: row[1] for row in connection.execute(sa.text("SELECT sku, stock FROM variants"))}

    def others_write(self, sku: str, stock: int | None) -> None:
        with self._database.begin() as connection:
            connection.execute(sa.text("DELETE FROM variants WHERE sku = :sku"), {"sku": sku})
            if stock is not None:
                connection.execute(sa.text("INSERT INTO variants VALUES (:sku, :stock)"), {"sku": sku, "stock": stock})


@pytest.fixture
def shop(tmp_path: Path, database_url: str, database: sa.Engine, clock: Clock) -> Iterator[Shop]:
    settings = Settings.model_validate(
        {"data_dir": tmp_path / "data", "database_url": None, "ledger_url": database_url}
    )
    with open_workspace(settings, clock) as workspace:
        yield Shop(database, workspace, clock)


def broken(_: Any) -> bool:
    raise ValueError("not today")


@pytest.mark.each_database
@pytest.mark.parametrize("how", ["waits", "is tried again", "is replayed", "is sent again"])
def test_an_old_body_does_not_overwrite_what_a_later_fetch_has_brought(shop: Shop, how: str) -> None:
    shop.source = {"A": 5, "B": 5}
    name = "e-1" if how == "is sent again" else None
    given = shop.desk.upsert(item("A", 4), delivery_id=name)
    if how != "waits":
        shop.fields = {"should_skip": broken}
        shop.desk.drain(shop.job) if how == "is tried again" else shop.failed(*given)
        shop.fields = {}
    results = shop.run()
    shop.clock.advance(20)
    if how == "is replayed":
        assert shop.workspace.inbox.replay(given, shop.clock()) == given
    elif how == "is sent again":
        assert shop.desk.upsert(item("A", 4), delivery_id="e-1") == given
    drained = shop.desk.drain(shop.job)
    assert shop.stock() == {"A": 5, "B": 5}
    shown = shop.desk.show(given[0])
    assert (shown.state, shown.action, drained.skipped) == ("applied", "skipped", 1)
    assert shown.message == (
        f"superseded: the run {results.run_id} fetched the item after it came; "
        "`sync-pipelines webhooks replay --force` applies it all the same"
    )
    assert "1 deliveries are older than what was fetched since" in " ".join(drained.notes)


@pytest.mark.each_database
def test_it_can_be_forced(shop: Shop) -> None:
    shop.source = {"A": 5}
    given = [*shop.desk.upsert(item("A", 4)), *shop.desk.delete("B")]
    shop.others_write("B", 1)
    shop.run()
    shop.desk.drain(shop.job)
    assert shop.desk.actions(*given) == ["skipped", "deleted"]
    shop.workspace.inbox.replay(given, shop.clock(), is_forced=True)
    shop.desk.drain(shop.job)
    assert (shop.stock(), shop.desk.actions(*given)) == ({"A": 4}, ["updated", "unchanged"])


def test_a_replayed_delivery_does_not_overwrite_a_later_one_unless_it_is_forced(shop: Shop) -> None:
    older = shop.desk.upsert(item("A", 1))
    shop.desk.drain(shop.job)
    shop.clock.advance()
    shop.desk.upsert(item("A", 2))
    shop.desk.drain(shop.job)
    shop.workspace.inbox.replay(older, shop.clock())
    shop.desk.drain(shop.job)
    assert (shop.stock(), shop.desk.actions(*older)) == ({"A": 2}, ["duplicate"])
    shop.workspace.inbox.replay(older, shop.clock(), is_forced=True)
    shop.desk.drain(shop.job)
    assert (shop.stock(), shop.desk.actions(*older)) == ({"A": 1}, ["updated"])


def test_what_came_while_the_fetch_was_under_way_is_applied(shop: Shop) -> None:
    shop.source = {"A": 5}

    def fetch() -> Iterator[Any]:
        yield [item("A", 5)]
        shop.clock.advance()
        shop.desk.upsert(item("A", 6))

    shop.fields = {"fetch_external": fetch}
    shop.run()
    shop.desk.drain(shop.job)
    assert shop.stock() == {"A": 6}


def test_a_delete_counts_for_what_the_fetch_did_not_have(shop: Shop) -> None:
    """Without `deletes` nobody else deletes the record; what the fetch had has come back since."""
    shop.others_write("gone", 1)
    shop.source = {"back": 5}
    given = shop.desk.delete("gone", "back")
    shop.run()
    shop.desk.drain(shop.job)
    assert (shop.stock(), shop.desk.actions(*given)) == ({"back": 5}, ["deleted", "skipped"])


@pytest.mark.parametrize("deletes", ["off", "hard"])
def test_an_upsert_of_what_the_fetch_did_not_have_brings_nothing_back_that_a_run_deletes(
    shop: Shop, deletes: str
) -> None:
    shop.source, shop.fields = {"A": 5}, {"deletes": deletes}
    given = shop.desk.upsert(item("gone", 4))
    shop.run()
    shop.desk.drain(shop.job)
    expected = {"A": 5} if deletes == "hard" else {"A": 5, "gone": 4}
    assert shop.stock() == expected
    if deletes == "hard":
        assert "did not find the item after it came" in str(shop.desk.show(given[0]).message)


@pytest.mark.parametrize("selection", [{"only": ["A"]}, {"limit": 1}])
def test_a_partial_run_counts_for_what_it_fetched(shop: Shop, selection: dict[str, Any]) -> None:
    shop.source, shop.fields = {"A": 5, "B": 5}, {"deletes": "hard"}
    given = [*shop.desk.upsert(item("A", 4), item("B", 4), item("C", 4))]
    shop.run(**selection)
    shop.desk.drain(shop.job)
    assert shop.stock() == {"A": 5, "B": 4, "C": 4}
    assert shop.desk.actions(*given) == ["skipped", "created", "created"]


def test_a_partial_run_after_a_whole_one_counts_too(shop: Shop) -> None:
    shop.source = {"A": 5, "B": 5}
    shop.run()
    given = shop.desk.upsert(item("A", 4), item("B", 4))
    shop.run(only=["B"])
    shop.desk.drain(shop.job)
    assert (shop.stock(), shop.desk.actions(*given)) == ({"A": 4, "B": 5}, ["updated", "skipped"])


def test_a_run_that_failed_does_not_count(shop: Shop) -> None:
    def fetch() -> Iterator[Any]:
        yield [item("A", 5)]
        raise ValueError("no")

    shop.desk.upsert(item("A", 4))
    shop.fields = {"fetch_external": fetch}
    with pytest.raises(Exception, match="no"):
        shop.run()
    shop.fields = {}
    shop.workspace.leases.release(next(iter(shop.workspace.leases.held()))) if shop.workspace.leases.held() else None
    shop.desk.drain(shop.job)
    assert shop.stock() == {"A": 4}


@pytest.mark.each_database
def test_an_applied_plan_counts_since_its_fetch(shop: Shop) -> None:
    shop.source = {"A": 5, "B": 5}
    shop.others_write("B", 5)
    given = shop.desk.upsert(item("A", 4), item("B", 4))
    plan = shop.run(DryRun).run_id
    later = shop.desk.upsert(item("C", 4))
    shop.clock.advance()
    PlanRun(shop.job, shop.workspace).apply_kept(plan)
    shop.clock.advance()
    shop.desk.drain(shop.job)
    assert (shop.stock(), shop.desk.actions(*given, *later)) == (
        {"A": 5, "B": 5, "C": 4},
        ["skipped", "skipped", "created"],
    )


def test_a_dry_run_alone_does_not_count(shop: Shop) -> None:
    shop.source = {"A": 5}
    shop.desk.upsert(item("A", 4))
    shop.run(DryRun)
    shop.desk.drain(shop.job)
    assert shop.stock() == {"A": 4}


@pytest.mark.each_database
def test_what_limits_withheld_has_not_been_brought(shop: Shop) -> None:
    shop.source = {f"S{number}": 1 for number in range(30)}
    shop.run()
    given = shop.desk.upsert(item("S1", 2))
    shop.source = dict.fromkeys(shop.source, 3)
    shop.fields = {"guards": Guards(few=1, max_update_share=0.5)}
    assert shop.run().outcome == "guarded"
    shop.desk.drain(shop.job)
    assert (shop.stock()["S1"], shop.desk.actions(*given)) == (2, ["updated"])


def test_an_item_that_could_not_be_read_has_not_been_brought(shop: Shop) -> None:
    from sync_pipelines.errors import ItemError

    def fetch() -> Iterator[Any]:
        yield [ItemError("half a record", external_id="A"), item("B", 5)]

    shop.desk.upsert(item("A", 4), item("B", 4))
    shop.fields = {"fetch_external": fetch}
    shop.run()
    shop.desk.drain(shop.job)
    assert shop.stock() == {"A": 4, "B": 5}


def test_without_the_files_of_the_fetch_it_counts_for_all_items(shop: Shop) -> None:
    """Nobody knows any more what it had."""
    shop.source = {"A": 5}
    given = shop.desk.upsert(item("A", 4), item("B", 4))
    results = shop.run()
    shop.workspace.store.files_of(results.run_id).remove()
    shop.desk.drain(shop.job)
    assert (shop.stock(), shop.desk.actions(*given)) == ({"A": 5}, ["skipped", "skipped"])
    assert "fetched all items after it came" in str(shop.desk.show(given[0]).message)


def test_where_the_source_can_be_asked_it_is(shop: Shop) -> None:
    shop.source = {"A": 5}
    shop.fields = {"fetch_one": lambda sku: item(sku, 7)}
    given = shop.desk.upsert(item("A", 4))
    shop.run()
    shop.desk.drain(shop.job)
    assert (shop.stock(), shop.desk.actions(*given)) == ({"A": 7}, ["updated"])


def test_versions_decide_where_there_are_some_and_a_delete_without_one_is_older(shop: Shop) -> None:
    """An item that is newer than what the fetch had is applied; the delete before it is no longer true."""
    shop.source = {"A": 5, "B": 5, "C": 5}
    shop.fields = {"get_version": "stock"}
    given = [*shop.desk.upsert(item("A", 6)), *shop.desk.delete("C")]
    passed = [*shop.desk.delete("B"), *shop.desk.upsert(item("B", 4))]
    shop.run()
    shop.desk.drain(shop.job)
    assert shop.stock() == {"A": 6, "B": 5, "C": 5}
    assert shop.desk.actions(*given, *passed) == ["updated", "skipped", "skipped", "skipped"]


def test_any_spelling_of_the_id_is_meant(shop: Shop, database: sa.Engine) -> None:
    with database.begin() as connection:
        connection.execute(sa.text("DROP TABLE variants"))
        connection.execute(sa.text("CREATE TABLE variants (sku INTEGER PRIMARY KEY, stock INTEGER)"))
    shop.source = {"07": 5}
    given = [*shop.desk.upsert(item("7", 4)), *shop.desk.delete("007")]
    shop.run()
    shop.desk.drain(shop.job)
    assert shop.desk.actions(*given) == ["duplicate", "skipped"]
    assert list(shop.stock().values()) == [5]


def test_it_resolves_no_failure_of_the_fetch(shop: Shop) -> None:
    shop.source = {"A": REFUSED}
    shop.desk.upsert(item("A", 4))
    assert shop.run().error_count == 1
    shop.desk.drain(shop.job)
    failure = shop.workspace.failures.of_item("stock", "A")
    assert failure is not None
    assert failure.state == "open"


def test_the_fetch_is_read_once_for_all_batches(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from sync_pipelines.snapshots.snapshot import Snapshot

    read: list[bool] = []
    pages: Callable[..., Any] = Snapshot.pages
    shop.source = {f"S{number}": 5 for number in range(30)}
    shop.desk.upsert(*(item(f"S{number}", 4) for number in range(30)))
    shop.run()
    monkeypatch.setattr(Snapshot, "pages", lambda self, fields=True: read.append(fields) or pages(self, fields))
    monkeypatch.setattr("sync_pipelines.runner.changes.drain.BATCH_SIZE", 7)
    assert shop.desk.drain(shop.job).skipped == 30
    assert read == [False]
