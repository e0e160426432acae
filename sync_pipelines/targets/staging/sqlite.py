"""Staging tables in SQLite files of their own, attached beside the user's: nothing of theirs is in the user's file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from sync_pipelines.database.private_files import make_private_file, make_private_folder
from sync_pipelines.engine.staged_target import Batch, StagingRequest
from sync_pipelines.targets.db_errors import passing_failures
from sync_pipelines.targets.staging.staging_tables import RECORDED, Extent, StagingTables, lasting_name

_ATTACHED = "sync_work"
_LASTING = "sync_recorded"


def _lasting_file(request: StagingRequest) -> Path:
    """Has what outlives a run: beside the folders of the runs, so that it does not go with one of them."""
    return request.folder.parent / f"{lasting_name(request, RECORDED)}.sqlite"


def has_recorded_in_file(request: StagingRequest) -> bool:
    """True unless it is known that runs of this sync have left nothing for the ledger."""
    path = _lasting_file(request)
    if not path.exists() or not path.stat().st_size:
        return False
    try:
        with closing(sqlite3.connect(path)) as connection:
            return connection.execute("SELECT 1 FROM sqlite_master").fetchone() is not None
    except sqlite3.Error:  # the user's own driver may understand it
        return True


class SqliteStaging(StagingTables):
    """The staging tables of one run beside a SQLite database.

    Progress is noted after the rows are committed: SQLite promises no commit over two files at once.

    Args:
        database: The user's database.
    """

    smallest_units = 64
    place = "rowid"
    notes_with_rows = False

    def __init__(self, database: sa.Engine, request: StagingRequest) -> None:
        super().__init__(request, _ATTACHED)
        make_private_folder(request.folder)
        self._path = request.folder / "work.sqlite"
        self._database = database
        with passing_failures(database):
            self._connection = database.connect()
        with self._never_back_attached():
            # a cache: after a power cut it is made again, unlike what lasts
            self._attach(_ATTACHED, self._path, ("journal_mode = TRUNCATE", "synchronous = OFF"))
            if not request.is_dry:
                self._attach(_LASTING, _lasting_file(request), ("auto_vacuum = FULL", "journal_mode = TRUNCATE"))
            with self.begin() as connection:
                self._progress.create(connection, checkfirst=True)

    @property
    def lasting_schema(self) -> str:
        """Of the file that all runs of the sync share."""
        return _LASTING

    def _attach(self, schema: str, path: Path, settings: Sequence[str]) -> None:
        with passing_failures(self._database):
            raw: Any = self._connection.connection.driver_connection
            make_private_file(path)
            raw.execute(f"ATTACH DATABASE ? AS {schema}", (str(path),))
            for each in settings:
                raw.execute(f"PRAGMA {schema}.{each}").close()

    @contextmanager
    def _never_back_attached(self) -> Iterator[None]:
        """Whatever goes wrong, the user's pool does not get a connection that has our file attached."""
        try:
            yield
        except BaseException:
            self._connection.invalidate()
            self._connection.close()
            raise

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A transaction on the one connection that has the files attached."""
        with passing_failures(self._database), self._ended(), self._connection.begin():
            yield self._connection

    @contextmanager
    def _ended(self) -> Iterator[None]:
        """Ends a transaction whose commit was refused, as deferred references are: SQLite leaves it open."""
        try:
            yield
        except DBAPIError:
            raw: Any = self._connection.connection.driver_connection
            raw.rollback()
            raise

    def create_as(self, connection: sa.Connection, name: str, query: sa.Select[Any], *, empty: bool = False) -> None:
        """Makes a staging table of what a query gives."""
        table = self._quoted(name)
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {table}")
        bare = query.limit(0) if empty else query
        text = bare.compile(self._database, compile_kwargs={"literal_binds": True})
        connection.exec_driver_sql(f"CREATE TABLE {table} AS {text}")

    def load(self, columns: Sequence[str], values: Sequence[Any]) -> None:
        """Appends rows to the staging table."""
        marks = ", ".join("?" * len(columns))
        statement = f"INSERT INTO {self._quoted('stage')} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - our names
        rows = zip(*(column.to_pylist() for column in values), strict=True)
        with self.begin() as connection:
            raw: Any = connection.connection.driver_connection
            raw.executemany(statement, rows)

    def finish_loading(self, key: Sequence[str], *, look_up: bool) -> None:
        """Makes the index that finds duplicates and missing records."""
        if not look_up:
            return
        with self.begin() as connection:
            index = f"{_ATTACHED}.{self.full_name('stage')}_key"
            columns = ", ".join(key)
            connection.exec_driver_sql(f"CREATE INDEX {index} ON {self.full_name('stage')} ({columns})")

    def extent(self, connection: sa.Connection, name: str) -> Extent:
        """Units are row numbers."""
        last, rows = connection.exec_driver_sql(f"SELECT max(rowid), count(*) FROM {self._quoted(name)}").one()  # noqa: S608
        return Extent((last or 0) + 1, rows)

    def within(self, table: sa.FromClause, batch: Batch) -> sa.ColumnElement[bool]:
        """By row number."""
        return sa.and_(
            table.c.rowid >= sa.literal(batch.first, sa.Integer), table.c.rowid < sa.literal(batch.end, sa.Integer)
        )

    def is_there(self, name: str, *, has_rows: bool = True) -> bool:
        """True if the file has the table, with rows."""
        query = f"SELECT 1 FROM {_ATTACHED}.sqlite_master WHERE type = 'table' AND name = ?"  # noqa: S608
        with self.begin() as connection:
            if connection.exec_driver_sql(query, (self.full_name(name),)).first() is None:
                return False
            if not has_rows:
                return True
            return connection.exec_driver_sql(f"SELECT 1 FROM {self._quoted(name)} LIMIT 1").first() is not None  # noqa: S608

    def drop(self, *names: str) -> None:
        """Removes tables; the file goes with the run's folder."""
        with self.begin() as connection:
            for name in names:
                connection.exec_driver_sql(f"DROP TABLE IF EXISTS {self._quoted(name)}")

    def close(self) -> None:
        """Detaches the files and gives the connection back."""
        if not self._connection.invalidated:
            with self._never_back_attached():
                raw: Any = self._connection.connection.driver_connection
                raw.rollback()
                for schema in (_ATTACHED, *(() if self.request.is_dry else (_LASTING,))):
                    raw.execute(f"DETACH DATABASE {schema}")
        self._connection.close()
        if self.request.is_dry:
            for path in (self._path, self._path.with_name(f"{self._path.name}-journal")):
                path.unlink(missing_ok=True)

    def _quoted(self, name: str) -> str:
        return f"{_ATTACHED}.{self.full_name(name)}"
