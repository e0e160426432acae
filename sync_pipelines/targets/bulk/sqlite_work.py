"""Working tables in a SQLite file of their own, attached beside the user's: nothing of theirs is in the user's file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from sync_pipelines.engine.targets import BulkRequest
from sync_pipelines.targets.bulk.work import Extent, Span, WorkTables
from sync_pipelines.targets.failures import passing_failures

_ATTACHED = "sync_work"


class SqliteWork(WorkTables):
    """The working tables of one run beside a SQLite database.

    Progress is noted after the rows are committed: SQLite promises no commit over two files at once.

    Args:
        database: The user's database.
        request: The run.
    """

    smallest_units = 64
    place = "rowid"
    notes_with_rows = False

    def __init__(self, database: sa.Engine, request: BulkRequest) -> None:
        super().__init__(request, _ATTACHED)
        request.folder.mkdir(parents=True, exist_ok=True)
        path = request.folder / "work.sqlite"
        self._database = database
        with passing_failures(database):
            self._connection = database.connect()
        with self._never_back_attached():
            self._attach(str(path))
            with self.begin() as connection:
                self._progress.create(connection, checkfirst=True)

    def _attach(self, path: str) -> None:
        with passing_failures(self._database):
            raw: Any = self._connection.connection.driver_connection
            raw.execute(f"ATTACH DATABASE ? AS {_ATTACHED}", (path,))
            # a cache: after a power cut it is made again
            raw.execute(f"PRAGMA {_ATTACHED}.journal_mode = TRUNCATE").close()
            raw.execute(f"PRAGMA {_ATTACHED}.synchronous = OFF")

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
        """A transaction on the one connection that has the file attached."""
        with passing_failures(self._database), self._connection.begin():
            yield self._connection

    def create_as(self, connection: sa.Connection, name: str, query: sa.Select[Any], *, empty: bool = False) -> None:
        """Makes a working table of what a query gives."""
        table = self._quoted(name)
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {table}")
        bare = query.limit(0) if empty else query
        text = bare.compile(self._database, compile_kwargs={"literal_binds": True})
        connection.exec_driver_sql(f"CREATE TABLE {table} AS {text}")

    def load(self, columns: Sequence[str], values: Sequence[Any]) -> None:
        """Appends rows to the stage."""
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

    def within(self, table: sa.FromClause, span: Span) -> sa.ColumnElement[bool]:
        """By row number."""
        return sa.and_(
            table.c.rowid >= sa.literal(span.first, sa.Integer), table.c.rowid < sa.literal(span.end, sa.Integer)
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
        """Detaches the file and gives the connection back."""
        if not self._connection.invalidated:
            with self._never_back_attached():
                raw: Any = self._connection.connection.driver_connection
                raw.rollback()
                raw.execute(f"DETACH DATABASE {_ATTACHED}")
        self._connection.close()

    def _quoted(self, name: str) -> str:
        return f"{_ATTACHED}.{self.full_name(name)}"
