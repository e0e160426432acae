"""Runs that take the bulk path however few items there are, and say whether they did."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.database.connections import create_database
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.plan import Action, EntryRow
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.decide.staged_diff import StagedDiff
from sync_pipelines.runner.plans.plan_file import rows_of
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.runner.runs import comparing_run as sync_run
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.testing import MemorySource

Item = dict[str, Any]


@dataclass
class Paths:
    """Which path the diffs of a test took.

    Args:
        answers: Of each bulk diff None if it planned in bulk, else the reason why not.
    """

    answers: list[str | None] = field(default_factory=list)

    def assert_bulk(self) -> None:
        """Checks that there was a diff in bulk since the last look, and no other."""
        assert self.answers
        assert set(self.answers) == {None}
        self.answers.clear()

    def took_bulk(self) -> bool:
        """True if the diffs since the last look were in bulk, False if none of them was."""
        bulk = {answer is None for answer in self.answers}
        self.answers.clear()
        assert len(bulk) < 2, "some were and some were not"
        return True in bulk

    def assert_pages(self, reason: str = "") -> None:
        """Checks that every diff since the last look was page by page, for that reason."""
        assert self.answers
        assert all(answer is not None and reason in answer for answer in self.answers), self.answers
        self.answers.clear()


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> Paths:
    """Lets every run try the bulk path, and notes which path it took."""
    taken = Paths()
    run = StagedDiff.run

    def noted(self: StagedDiff) -> Any:
        planned = run(self)
        taken.answers.append(planned if isinstance(planned, str) else None)
        return planned

    monkeypatch.setattr(sync_run, "FROM_ITEMS", 0)
    monkeypatch.setattr(StagedDiff, "run", noted)
    return taken


@dataclass
class Syncs:
    """Syncs items into a table of one database, in bulk unless said otherwise."""

    database: sa.Engine
    settings: Settings
    paths: Paths

    def job(self, items: Iterable[Any] | Callable[[], Any], **fields: Any) -> SyncJob[Any, Any]:
        """A sync of these items; what is a field of `SqlTable` goes there."""
        names = ("table", "key", "columns", "compare", "create_only", "database", "soft_delete", "scope")
        table = {name: fields.pop(name) for name in names if name in fields}
        target = SqlTable(**{"table": "things", "key": "sku", "database": self.database, **table})
        fetch = items if callable(items) else MemorySource(items)
        given = {"name": "bulk", "fetch_external": fetch, "get_external_id": "sku", "target": target}
        return SyncJob(**{**given, "guards": None, **fields})

    def __call__(
        self, items: Iterable[Any] | Callable[[], Any], *, pages: str | None = None, **fields: Any
    ) -> SyncResults:
        """One run; checks that its accounts balance and which path it took.

        Args:
            items: What the source gives.
            pages: Why the run must go page by page; None if it must not.
            fields: Those of the job and of the table.
        """
        results = self.run(items, **fields)
        if pages is None:
            self.paths.assert_bulk()
        else:
            self.paths.assert_pages(pages)
        return results

    def run(self, items: Iterable[Any] | Callable[[], Any], **fields: Any) -> SyncResults:
        """One run, whichever path it takes; checks that its accounts balance."""
        results = run_sync(self.job(items, **fields), settings=self.settings)
        assert results.accounts_balance
        return results

    def dry_run(self, items: Iterable[Any] | Callable[[], Any], **fields: Any) -> tuple[SyncResults, list[EntryRow]]:
        """A dry run, whichever path it takes, and all lines of its plan."""
        results = run_sync(self.job(items, **fields), settings=self.settings, dry_run=True)
        assert results.accounts_balance
        with open_workspace(self.settings) as workspace:
            return results, list(rows_of(workspace.store.files_of(results.run_id), list(Action)))

    def withheld_of(self, results: SyncResults) -> list[EntryRow]:
        """All lines of what guards have withheld of a run."""
        if not any(results.withheld.to_dict().values()):
            return []
        with open_workspace(self.settings) as workspace:
            return list(rows_of(workspace.store.files_of(results.run_id).withheld, list(Action)))

    @property
    def is_postgresql(self) -> bool:
        """True on PostgreSQL."""
        return self.database.dialect.name == "postgresql"

    def execute(self, *statements: str) -> None:
        """Executes SQL as somebody else would."""
        with self.database.begin() as connection:
            for statement in statements:
                connection.execute(sa.text(statement.replace(":", "\\:")))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self.database.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(query.replace(":", "\\:")))]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings that keep everything in a folder of the test."""
    return Settings(data_dir=tmp_path / "data", database_url=None, ledger_url=None)


@pytest.fixture
def sync(database: sa.Engine, settings: Settings, paths: Paths) -> Syncs:
    """Syncs in bulk into a fresh database; the test runs once on each kind."""
    return Syncs(database, settings, paths)


@pytest.fixture
def postgres_sync(postgres: sa.Engine, settings: Settings, paths: Paths) -> Syncs:
    """Syncs in bulk into a fresh PostgreSQL database."""
    return Syncs(postgres, settings, paths)


@pytest.fixture
def sqlite_sync(sqlite: sa.Engine, settings: Settings, paths: Paths) -> Syncs:
    """Syncs in bulk into a fresh SQLite file."""
    return Syncs(sqlite, settings, paths)


@pytest.fixture
def other(postgres: sa.Engine) -> Iterator[sa.Engine]:
    """Somebody else's connections to the fresh PostgreSQL database."""
    engine = create_database(postgres.url)
    yield engine
    engine.dispose()


def counts(results: SyncResults) -> dict[str, int]:
    """The counts of a result that are not zero, without `fetched`."""
    return {name: count for name, count in results.counts().items() if count and name != "fetched"}
