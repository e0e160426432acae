"""Deletes with a version of the sender's: a late older item does not bring the record back, however it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.engine.changes import Delete
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.stored_changes import stored_change
from sync_pipelines.errors import ConfigurationError, ItemError
from sync_pipelines.runner.changes.retry_failures import retry_failures
from sync_pipelines.runner.changes.single_item import sync_single_item
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines_tests.runner.desk import Clock, Desk

pytestmark = pytest.mark.each_database
COLUMNS = [("stock",), ("stock", "version")]
Table = Callable[[], dict[str, int]]


def item(version: int, sku: str = "A") -> dict[str, Any]:
    return {"sku": sku, "stock": version, "version": version}


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings.model_validate({"data_dir": tmp_path / "data", "database_url": None, "ledger_url": database_url})


@pytest.fixture(params=COLUMNS, ids=["versions in the ledger", "versions in a column"])
def job(request: pytest.FixtureRequest, database: sa.Engine) -> SyncJob[Any, Any]:
    with database.begin() as connection:
        connection.execute(
            sa.text("CREATE TABLE variants (sku VARCHAR(9) PRIMARY KEY, stock INTEGER, version INTEGER)")
        )
    url = database.url.render_as_string(hide_password=False)
    target = SqlTable(table="variants", key="sku", columns=list(request.param), database=url)
    return SyncJob(
        name="stock", fetch_external=list, get_external_id="sku", get_version="version", target=target, guards=None
    )


@pytest.fixture
def table(database: sa.Engine) -> Table:
    def read() -> dict[str, int]:
        with database.begin() as connection:
            return {row[0]: row[1] for row in connection.execute(sa.text("SELECT sku, stock FROM variants"))}

    return read


@pytest.fixture
def desk(settings: Settings) -> Iterator[Desk]:
    with open_workspace(settings) as workspace:
        yield Desk(replace(workspace, clock=Clock()))


def gone(desk: Desk, job: SyncJob[Any, Any], version: Any, sku: str = "A") -> int:
    change = stored_change(job, Delete(sku, version=version), sku)
    return desk.store(change.kind, external_id=change.external_id, item=change.item)


def test_drained_one_after_the_other(job: SyncJob[Any, Any], desk: Desk, table: Table) -> None:
    given = []
    for each in (item(5), 7, item(6), item(8), 7, item(7), 9):
        given += desk.upsert(each) if isinstance(each, dict) else [gone(desk, job, each)]
        desk.drain(job)
    assert desk.actions(*given) == ["created", "deleted", "skipped", "created", "skipped", "skipped", "deleted"]
    assert table() == {}


@pytest.mark.parametrize(
    ("story", "left"),
    [
        ((5, -7, 6), None), ((5, -7, 8), 8), ((8, -7), 8), ((-7, 6), None), ((-7, 5, 6), None), ((5, 6, -6), None),
        ((-7, 8, 6), 8), ((5, -7, 6, -9, 8), None),
    ],
)  # fmt: skip
def test_drained_together(job: SyncJob[Any, Any], desk: Desk, table: Table, story: Any, left: int | None) -> None:
    """A negative number is a delete of that version."""
    for each in story:
        _ = desk.upsert(item(each)) if each > 0 else gone(desk, job, -each)
    desk.drain(job)
    assert table() == ({} if left is None else {"A": left})
    assert desk.workspace.inbox.count("stock") == 0


def test_an_older_delete_does_not_hide_one_without_a_version(job: SyncJob[Any, Any], desk: Desk, table: Table) -> None:
    desk.upsert(item(5))
    desk.drain(job)
    gone(desk, job, 3)
    desk.delete("A")
    desk.drain(job)
    assert table() == {}
    desk.upsert(item(4))
    desk.drain(job)
    assert table() == {}


def test_of_the_record_that_nobody_has_the_version_is_kept_all_the_same(
    job: SyncJob[Any, Any], desk: Desk, table: Table
) -> None:
    """The delete came before the item that it deletes."""
    given = [gone(desk, job, 7)]
    desk.drain(job)
    given += desk.upsert(item(6))
    desk.drain(job)
    assert (desk.actions(*given), table()) == (["unchanged", "skipped"], {})


def test_as_single_items(job: SyncJob[Any, Any], settings: Settings, table: Table) -> None:
    def apply(change: Any) -> str:
        return sync_single_item(job, change, settings=settings).action

    assert [apply(each) for each in (item(5), Delete("A", version=7), item(6))] == ["created", "deleted", "skipped"]
    assert table() == {}
    assert [apply(each) for each in (item(8), Delete("A", version=7))] == ["created", "skipped"]
    assert table() == {"A": 8}
    assert apply(Delete("A")) == "deleted"


@pytest.mark.parametrize("others", [0, 1_500], ids=["page", "bulk"])
def test_in_a_fetch(job: SyncJob[Any, Any], settings: Settings, table: Table, others: int) -> None:
    more = [item(1, f"B{number}") for number in range(others)]
    run_sync(replace(job, fetch_external=lambda: [item(5), *more]), settings=settings)
    assert sync_single_item(job, Delete("A", version=7), settings=settings).action == "deleted"
    results = run_sync(replace(job, fetch_external=lambda: [item(6), *more]), settings=settings)
    assert ("A" in table(), results.skipped, results.unchanged) == (False, 1, others)
    results = run_sync(replace(job, fetch_external=lambda: [item(8), *more]), settings=settings)
    assert (table()["A"], results.created) == (8, 1)


def test_in_a_retry(job: SyncJob[Any, Any], settings: Settings, table: Table) -> None:
    """What failed as version 6 is tried again after the delete."""
    failing = replace(job, should_skip=lambda each: each["nothing"], fetch_external=lambda: [item(6)])
    run_sync(failing, settings=settings)
    assert sync_single_item(job, Delete("A", version=7), settings=settings).action == "unchanged"
    retry_failures(job, everything=True, settings=settings)
    assert table() == {}


def test_a_moment_is_a_version_too(database: sa.Engine, settings: Settings, table: Table) -> None:
    with database.begin() as connection:
        connection.execute(sa.text("CREATE TABLE variants (sku VARCHAR(9) PRIMARY KEY, stock INTEGER)"))
    url = database.url.render_as_string(hide_password=False)
    job: SyncJob[Any, Any] = SyncJob(
        name="stock",
        fetch_external=list,
        get_version="at",
        target=SqlTable(table="variants", key="sku", columns=["stock"], database=url),
    )
    said = [
        {"sku": "A", "stock": 1, "at": "2026-01-01T05:00:00Z"},
        Delete("A", version=datetime(2026, 1, 1, 7, tzinfo=UTC)),
        {"sku": "A", "stock": 2, "at": "2026-01-01T06:00:00Z"},
    ]
    actions = [sync_single_item(job, each, settings=settings).action for each in said]
    assert (actions, table()) == (["created", "deleted", "skipped"], {})


def test_a_version_that_nothing_can_be_compared_to_is_refused(job: SyncJob[Any, Any], settings: Settings) -> None:
    plain = replace(job, get_version=None)
    with pytest.raises(ConfigurationError, match=r"'stock': Delete\(\.\.\., version=7\) needs a get_version"):
        stored_change(plain, Delete("A", version=7), "A")
    with pytest.raises(ItemError, match="needs a get_version"):
        sync_single_item(plain, Delete("A", version=7), settings=settings)
    with pytest.raises(ItemError, match="neither a number nor an aware moment"):
        sync_single_item(job, Delete("A", version="seven"), settings=settings)
