"""A decimal id 7.00 was the id "7.00" of a key of text once, and is "7" now: what a ledger has under the old one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.database.failures import Failures
from sync_pipelines.engine.codec import encode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.retry import Retry
from sync_pipelines.runner.calls.id_spellings import spellings_of
from sync_pipelines.runner.changes.retry_failures import retry_failures
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.failures.failure_notes import FailedItem, FailureNotes
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable

pytestmark = pytest.mark.each_database
ITEM = {"id": Decimal("7.00"), "n": 1}
Make = Callable[..., SyncJob[Any, Any]]


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(data_dir=tmp_path / "data", ledger_url=database_url, database_url=None)


@pytest.fixture
def job(database: sa.Engine) -> Make:
    """A job whose table has the record as the earlier version wrote it."""

    def make(kind: str, **fields: Any) -> SyncJob[Any, Any]:
        with database.begin() as connection:
            connection.execute(sa.text(f"CREATE TABLE things (id {kind} PRIMARY KEY, n INTEGER)"))
            value = "'7.00'" if kind == "TEXT" else "7"
            connection.execute(sa.text(f"INSERT INTO things VALUES ({value}, 0)"))
        target = SqlTable(table="things", key="id", columns=["id", "n"], database=database)
        given = {"name": "things", "fetch_external": lambda: [ITEM], "get_external_id": "id", "target": target}
        return SyncJob(**{**given, "guards": None, "retry": Retry(), **fields})

    return make


def note_failure(job: SyncJob[Any, Any], settings: Settings, key: str) -> None:
    """The item has failed with the earlier version, which knew the record by that id."""
    with open_workspace(settings) as workspace:
        now = workspace.clock()
        failed = FailedItem(key, "ValueError", "no", source_id="7.00", payload=encode(ITEM), seen_at=now)
        FailureNotes(job, workspace.failures, "an old run", now).note([failed])


def states(settings: Settings) -> list[tuple[str | None, str, str | None]]:
    with open_workspace(settings) as workspace:
        found = Failures(workspace.ledger).newest("things", ["open", "given up", "resolved"], 10)
    return [(each.external_id, each.state, each.resolved_by) for each in found]


def rows(database: sa.Engine) -> dict[Any, int]:
    with database.begin() as connection:
        return {row[0]: row[1] for row in connection.execute(sa.text("SELECT id, n FROM things"))}


@pytest.mark.parametrize("typed", ["7.00", "7", Decimal("7.00"), 7])
def test_with_a_key_of_whole_numbers_all_is_found_as_before(
    job: Make, settings: Settings, database: sa.Engine, typed: Any
) -> None:
    made = job("INTEGER")
    note_failure(made, settings, "7")
    assert retry_failures(made, external_ids=[typed], settings=settings).updated == 1
    assert ([each[:2] for each in states(settings)], rows(database)) == ([("7", "resolved")], {7: 1})


def test_with_a_key_of_text_a_failure_is_found_by_its_old_id_and_its_item_makes_a_new_record(
    job: Make, settings: Settings, database: sa.Engine
) -> None:
    made = job("TEXT")
    note_failure(made, settings, "7.00")
    assert spellings_of(made, "7.00", "things") == ["7.00"]
    assert retry_failures(made, external_ids=["7.00"], settings=settings).created == 1
    assert [each[:2] for each in states(settings)] == [("7.00", "resolved")]
    assert rows(database) == {"7.00": 0, "7": 1}


@pytest.mark.parametrize(("deletes", "left"), [("off", {"7.00": 0, "7": 1}), ("hard", {"7": 1})])
def test_with_a_key_of_text_a_whole_run_makes_a_new_record_and_the_old_one_is_missing(
    job: Make, settings: Settings, database: sa.Engine, deletes: str, left: dict[str, int]
) -> None:
    made = job("TEXT", deletes=deletes)
    note_failure(made, settings, "7.00")
    results = run_sync(made, settings=settings)
    assert (results.created, results.deleted) == (1, int(deletes == "hard"))
    assert rows(database) == left
    assert states(settings) == [("7.00", "resolved", "vanished")]


def test_whoever_wants_the_old_ids_says_so(job: Make, settings: Settings, database: sa.Engine) -> None:
    def old_id(item: Any) -> str:
        return f"{item['id']:.2f}"

    columns = {"id": old_id, "n": "n"}
    target = SqlTable(table="things", key="id", columns=columns, database=database)
    made = replace(job("TEXT"), get_external_id=old_id, target=target)
    assert run_sync(made, settings=settings).updated == 1
    assert rows(database) == {"7.00": 1}
