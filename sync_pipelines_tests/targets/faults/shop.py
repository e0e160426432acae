"""What the tests of faults are written with: a job of a few or many items, and what is asserted of one that ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.database.connections import create_database
from sync_pipelines.database.inbox import FAILED
from sync_pipelines.engine.codec import encode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.retry import Retry
from sync_pipelines.errors import RunError, TargetError
from sync_pipelines.runner.changes.drain import Drain, DrainLimits
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.testing import MemorySource

TABLE = "CREATE TABLE things (sku VARCHAR(9) PRIMARY KEY, title VARCHAR(200))"
PAGE, BULK = 20, 1_200
each_way = pytest.mark.parametrize("count", [PAGE, BULK], ids=["page by page", "in bulk"])
Execute = Callable[..., None]


def job_of(database: Any, count: int, **target: Any) -> SyncJob[Any, Any]:
    """A job of so many items, none of which is at fault."""
    items = [{"sku": f"S{number:05}", "title": "x" * 60} for number in range(count)]
    table = SqlTable(**{"table": "things", "key": "sku", "database": database, **target})
    return SyncJob(name="things", fetch_external=MemorySource(items), target=table, guards=None)


def fails(job: SyncJob[Any, Any], settings: Settings, match: str, kind: type[RunError] = TargetError) -> RunError:
    """The run ends with our sentence, and none of its items has failed."""
    with pytest.raises(kind, match=match) as caught:
        run_sync(job, settings=settings)
    told = str(caught.value)
    assert told.startswith("things: ")
    assert not [each for each in ("INSERT INTO", "SELECT ", "sqlalche.me", "hunter22") if each in told]
    if caught.value.results is not None:
        assert (caught.value.results.outcome, caught.value.results.error_count) == ("failed", 0)
    return caught.value


def deliveries_stay(job: SyncJob[Any, Any], settings: Settings, match: str = "^things: ", count: int = 3) -> None:
    """A drain ends, and the deliveries go on waiting at no cost."""
    with open_workspace(settings) as opened:
        workspace = replace(opened, retries=Retry(attempts=1))
        for number in range(count):
            workspace.inbox.store("things", encode({"sku": f"D{number}", "title": "new"}), workspace.clock())
        with pytest.raises(TargetError, match=match):
            Drain(job, workspace).run(DrainLimits(idle_wait_s=0))
        assert (workspace.inbox.count("things"), workspace.inbox.count("things", FAILED)) == (count, 0)
        assert {each.attempts for each in workspace.inbox.newest()} == {0}


@contextmanager
def at_the_first_insert(action: Callable[[], object]) -> Iterator[None]:
    """Does something just before the first row is written."""
    done: list[bool] = []

    def act(connection: sa.Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(("INSERT INTO things", "INSERT INTO public.things")) and not done:
            done.append(True)
            action()

    sa.event.listen(sa.Engine, "before_cursor_execute", act)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", act)


def made(file: Path) -> str:
    """The URL of a new SQLite file that has the table."""
    database = create_database(f"sqlite:///{file}")
    with database.begin() as connection:
        connection.exec_driver_sql(TABLE)
    database.dispose()
    return f"sqlite:///{file}"


def rows_of(url: str) -> int:
    """How many rows the table has."""
    database = create_database(url)
    with database.connect() as connection:
        count = int(connection.exec_driver_sql("SELECT count(*) FROM things").scalar_one())
    database.dispose()
    return count
