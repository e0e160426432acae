"""A run of certain items: their ids in any spelling, and ids that nobody has."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.database.failures import Failures
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.registry.history import record_history
from sync_pipelines.runner.calls.id_spellings import spellings_of
from sync_pipelines.runner.changes.retry_failures import retry_failures
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.testing import MemoryTarget

Sync = Callable[..., SyncResults]

SPELLINGS = (
    '["V-1", "Größe", 7]',
    '["V-1","Größe",7]',
    r'["V-1","Gr\u00f6\u00dfe","7"]',
    ' [ "V-1" ,\n "Größe", 7.0 ] ',
    r'["\u0056-1", "Größe", 7]',
)


@pytest.fixture
def composite(sqlite: sa.Engine) -> SyncJob[Any, Any]:
    """A job into a table with a key of three columns, whose second item fails."""
    with sqlite.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE stock (sku TEXT, size TEXT, shelf INTEGER, pieces INTEGER, PRIMARY KEY (sku, size, shelf))"
        )
    items = [
        {"sku": "V-1", "size": "Größe", "shelf": 7, "pieces": 1},
        {"sku": "V-2", "size": "Größe", "shelf": 7, "pieces": "many"},
    ]
    target = SqlTable(table="stock", key=["sku", "size", "shelf"], database=sqlite)
    return SyncJob(name="stock", fetch_external=lambda: items, target=target)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_composite_id_may_be_in_any_spelling_of_its_json(
    composite: SyncJob[Any, Any], settings: Settings, spelling: str
) -> None:
    results = run_sync(composite, settings=settings, only=[spelling])
    assert (results.outcome, results.fetched, results.created) == ("clean", 1, 1)
    assert [event.kind for event in record_history(composite, spelling, settings=settings)] == ["created"]
    failed = spelling.replace("V-1", "V-2").replace(r"\u0056-1", "V-2")
    assert run_sync(composite, settings=settings, only=[failed]).outcome == "partial"
    with open_workspace(settings) as workspace:
        failure = Failures(workspace.ledger).of_item("stock", *spellings_of(composite, failed, "stock"))
    assert failure is not None
    assert "'many' does not convert" in failure.message
    assert retry_failures(composite, external_ids=[failed], settings=settings).error_count == 1


def test_an_id_is_found_as_the_target_writes_it(sqlite: sa.Engine, settings: Settings) -> None:
    with sqlite.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE stock (id INTEGER PRIMARY KEY, pieces INTEGER)")
    items = [{"id": "007", "pieces": 1}, {"id": "8", "pieces": 1}, {"id": "x", "pieces": 1}]
    job: SyncJob[Any, Any] = SyncJob(
        name="stock", fetch_external=lambda: items, target=SqlTable(table="stock", key="id", database=sqlite)
    )
    for spelling in ("7", "007", "+7"):
        assert run_sync(job, settings=settings, only=[spelling]).fetched == 1
    unreadable = run_sync(job, settings=settings, only=["x"])
    assert (unreadable.fetched, unreadable.error_count, unreadable.not_found) == (1, 1, 0)


def test_a_plain_id_that_looks_like_json_is_that_id(sqlite: sa.Engine, settings: Settings) -> None:
    with sqlite.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE stock (id TEXT PRIMARY KEY, pieces INTEGER)")
    items = [{"id": each, "pieces": 1} for each in ('["a","b"]', '["a", "b"]', '"a"', "1.0", "1", "null")]
    job: SyncJob[Any, Any] = SyncJob(
        name="stock", fetch_external=lambda: items, target=SqlTable(table="stock", key="id", database=sqlite)
    )
    for each in items:
        results = run_sync(job, settings=settings, only=[str(each["id"])])
        assert (results.outcome, results.created) == ("clean", 1)
        assert len(record_history(job, each["id"], settings=settings)) == 1


def test_without_a_key_ids_that_are_json_are_the_same_as_json(sync: Sync, target: MemoryTarget) -> None:
    ours, theirs = json.dumps(["Größe", 7], separators=(",", ":")), '["Größe", 7.0]'
    results = sync([{"sku": ours}, {"sku": "B"}], only=[theirs])
    assert (results.outcome, list(target.records)) == ("clean", [ours])


def test_an_id_that_nobody_has_is_not_clean(sync: Sync, target: MemoryTarget) -> None:
    results = sync([{"sku": "A"}, {"sku": "B"}], only=["A", "absent", '["x","y"]'])
    assert (results.outcome, results.created, results.not_found) == ("partial", 1, 2)
    assert results.notes == ('not found in the source: ["x","y"], absent',)
    assert "2 not found in the source" in results.summary()
    assert results.counts()["not_found"] == 2
    assert sync([], only=[""]).outcome == "partial"
    assert list(target.records) == ["A"]


def test_an_id_that_only_the_target_has_is_not_clean_and_its_record_stays(sync: Sync, target: MemoryTarget) -> None:
    sync([{"sku": "A"}, {"sku": "B"}])
    results = sync([{"sku": "A"}], only=["B"], deletes="hard")
    assert (results.outcome, results.not_found, results.deleted) == ("partial", 1, 0)
    assert sorted(target.records) == ["A", "B"]


def test_a_limit_that_ends_the_fetch_leaves_open_what_the_source_has(sync: Sync) -> None:
    results = sync([{"sku": "A"}, {"sku": "B"}], only=["A", "B"], limit=1)
    assert (results.outcome, results.fetched, results.notes) == ("clean", 1, ())


def test_many_missing_ids_are_counted(sync: Sync) -> None:
    results = sync([], only=[f"A{number:02}" for number in range(25)])
    assert (results.not_found, results.notes[0].rpartition(", ")[2]) == (25, "A19 and 5 more")


@pytest.mark.parametrize("given", ["", " ", "\udcff", True])
def test_what_is_no_id_is_told(composite: SyncJob[Any, Any], settings: Settings, given: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"stock: .* is no id; give text or numbers \("):
        record_history(composite, given, settings=settings)
    with pytest.raises(ConfigurationError, match=r"stock: .* is no id; give text or numbers \("):
        retry_failures(composite, external_ids=[given], settings=settings)
