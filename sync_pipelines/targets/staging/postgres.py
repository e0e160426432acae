"""Staging tables in a PostgreSQL schema of our own, unlogged; temporary ones where the role may make no others."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.csv
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from sync_pipelines.engine.read_ahead import Background
from sync_pipelines.engine.staged_target import Batch, StagingRequest
from sync_pipelines.errors import RetryableError
from sync_pipelines.targets.db_errors import passing_failures
from sync_pipelines.targets.dialects.postgresql import name_of
from sync_pipelines.targets.staging.staging_tables import RECORDED, SLOW, Extent, StagingTables, lasting_name
from sync_pipelines.targets.types.sqlalchemy_types import NamedType

_LEFTOVERS = sa.text(
    "SELECT c.relname, obj_description(c.oid, 'pg_class') "
    "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = :schema AND c.relkind = 'r' AND pg_has_role(c.relowner, 'USAGE') "
    "AND obj_description(c.oid, 'pg_class') LIKE 'sync_pipelines %'"
)
_HAS_RECORDED = sa.text(  # `to_regclass` is an error for a role that may not use the schema
    "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = :schema AND c.relname = :name AND has_schema_privilege(n.oid, 'USAGE') "
    "AND pg_has_role(c.relowner, 'USAGE'))"
)
_MAY_USE_SCHEMA = sa.text(
    "SELECT has_schema_privilege(:name, 'CREATE') AND has_schema_privilege(:name, 'USAGE') AND coalesce("
    "has_table_privilege(to_regclass(:progress), 'SELECT') AND has_table_privilege(to_regclass(:progress), 'INSERT') "
    "AND has_table_privilege(to_regclass(:progress), 'DELETE'), true)"
)
_OPTIONS = pa.csv.WriteOptions(include_header=False)
_TID = NamedType("tid")


def temporary_or_not(database: sa.Engine, request: StagingRequest) -> bool | None:
    """True if staging tables must be temporary, False if they may lie in the schema, None if neither is allowed.

    A dry run makes no schema, if it may make temporary tables.
    """
    schema = request.schema
    with passing_failures(database), database.connect() as connection:
        if connection.scalar(sa.text("SHOW transaction_read_only")) == "on":
            return None
        may = bool(connection.scalar(sa.text("SELECT has_database_privilege(current_database(), 'TEMP')")))
        exists = connection.scalar(sa.text("SELECT 1 FROM pg_namespace WHERE nspname = :name"), {"name": schema})
        quoted = database.dialect.identifier_preparer.quote_identifier(schema)
        if exists:
            allowed = connection.scalar(_MAY_USE_SCHEMA, {"name": schema, "progress": f"{quoted}.progress"})
        elif request.is_dry and may:
            allowed = False
        else:
            allowed = connection.scalar(sa.text("SELECT has_database_privilege(current_database(), 'CREATE')"))
        return False if allowed else may or None


def has_recorded_in_schema(database: sa.Engine, request: StagingRequest) -> bool:
    """True if runs of this sync have left something for the ledger."""
    given = {"schema": request.schema, "name": lasting_name(request, RECORDED)}
    with passing_failures(database), database.connect() as connection:
        return bool(connection.scalar(_HAS_RECORDED, given))


class PostgresStaging(StagingTables):
    """The staging tables of one run in PostgreSQL.

    Args:
        database: The user's database.
        temporary: True for tables that go with the connection.
        has_addresses: True if the table's rows have addresses: it is neither a view nor partitioned.
    """

    def __init__(self, database: sa.Engine, request: StagingRequest, *, temporary: bool, has_addresses: bool) -> None:
        super().__init__(request, None if temporary else request.schema)
        self._database = database
        self.outlives_session = not temporary
        self.has_addresses = has_addresses
        with passing_failures(database):
            self._connection = self._connected()
        self._background: Background[_Load] | None = None
        try:
            with self.begin() as connection:
                if temporary:
                    self._make_temporary(connection)
                else:
                    self._make_schema(connection)
        except BaseException:  # nobody else will give the connection back
            self._connection.close()
            raise

    def _make_temporary(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql(
            f"CREATE TEMPORARY TABLE IF NOT EXISTS {self._quoted('progress')} (run varchar(20), "
            "part varchar(20), first bigint, past bigint, counts text, PRIMARY KEY (run, part, first))"
        )

    def _make_schema(self, connection: sa.Connection) -> None:
        quoted = self._quote(self.request.schema)
        # of two runs that make it at once on a fresh database only one can
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('sync_pipelines work schema'))"))
        # even IF NOT EXISTS asks for the right to make one
        exists = sa.text("SELECT 1 FROM pg_namespace WHERE nspname = :name")
        if connection.scalar(exists, {"name": self.request.schema}) is None:
            connection.exec_driver_sql(f"CREATE SCHEMA {quoted}")
        self._progress.create(connection, checkfirst=True)

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A transaction; on a lost connection a new one, where the tables outlive the session."""
        with passing_failures(self._database):
            if self._connection.invalidated:
                if not self.outlives_session:
                    raise RetryableError("the connection was lost, and the temporary staging tables with it")
                lost, self._connection = self._connection, self._connected()
                lost.close()
                self.lost_connections += 1
            with self._connection.begin():
                yield self._connection

    def _connected(self) -> sa.Connection:
        """A connection with transactions, which an engine may be told to do without."""
        connection = self._database.connect()
        try:
            raw: Any = connection.connection.driver_connection
            if getattr(raw, "autocommit", False):
                connection = connection.execution_options(isolation_level="READ COMMITTED")
            self.is_unicode = connection.scalar(sa.text("SHOW server_encoding")) == "UTF8"
            connection.rollback()
        except BaseException:
            connection.close()
            raise
        return connection

    def create_as(self, connection: sa.Connection, name: str, query: sa.Select[Any], *, empty: bool = False) -> None:
        """Makes a staging table of what a query gives."""
        table = self._quoted(name)
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {table}")
        kind = "UNLOGGED" if self.outlives_session else "TEMPORARY"
        text = str(query.compile(self._database, compile_kwargs={"literal_binds": True}))
        connection.exec_driver_sql(f"CREATE {kind} TABLE {table} AS {text}{' WITH NO DATA' if empty else ''}")
        comment = f"sync_pipelines {datetime.now(UTC).isoformat()} {self.request.job}, run {self.request.run_id}"
        connection.exec_driver_sql(f"COMMENT ON TABLE {table} IS '{comment}'")

    def forget_attempt(self) -> None:
        """Ends the loading as well, whose error has been raised."""
        self._end_background()
        super().forget_attempt()

    def _end_background(self) -> None:
        if self._background is not None:
            background, self._background = self._background, None
            background.__exit__(RuntimeError, RuntimeError("closed"), None)

    def load(self, columns: Sequence[str], values: Sequence[Any]) -> None:
        """Appends rows to the staging table, in the background."""
        if self._background is None:
            self._background = Background(self._copy).__enter__()
        rows = pa.Table.from_arrays(list(values), names=list(columns))
        self._background.put(_Load(rows, _csv_of(rows)))

    def _copy(self, load: _Load) -> None:
        try:
            with self.begin() as connection:
                self._copy_rows(connection, load)
        except DBAPIError:
            self._copy_halves(load.rows)

    def _copy_halves(self, rows: pa.Table) -> None:
        """Narrows a value that the database does not take down to its row, which is then looked at by itself."""
        columns = rows.column_names
        if len(rows) == 1:
            kept = {"sp_n", *(name for name in columns if name.startswith("sp_k"))}
            bare = [rows.column(name) if name in kept else pa.nulls(1, pa.string()) for name in columns]
            bare[columns.index("sp_route")] = pa.array([SLOW], pa.int16())
            slow = pa.Table.from_arrays(bare, names=columns)
            with self.begin() as connection:
                self._copy_rows(connection, _Load(slow, _csv_of(slow)))
            return
        middle = len(rows) // 2
        for half in (rows.slice(0, middle), rows.slice(middle)):
            self._copy(_Load(half, _csv_of(half)))

    def _copy_rows(self, connection: sa.Connection, load: _Load) -> None:
        columns = ", ".join(load.rows.column_names)
        statement = f"COPY {self._quoted('stage')} ({columns}) FROM STDIN (FORMAT csv, ENCODING 'UTF8')"
        raw: Any = connection.connection.driver_connection
        with raw.cursor() as cursor:
            if hasattr(cursor, "copy_expert"):  # psycopg2
                load.csv.seek(0)
                self._as_dbapi_error(lambda: cursor.copy_expert(statement, load.csv))
            else:
                self._as_dbapi_error(lambda: _copy_into(cursor, statement, load.csv.getbuffer()))

    def _as_dbapi_error(self, action: Any) -> None:
        """What the driver raises, as SQLAlchemy would have raised it."""
        driver: Any = self._database.dialect.dbapi
        try:
            action()
        except driver.Error as error:
            raise DBAPIError.instance("COPY", None, error, driver.Error, dialect=self._database.dialect) from error

    def finish_loading(self, key: Sequence[str], *, look_up: bool) -> None:  # noqa: ARG002 - it hashes them
        """Waits for the background, and lets the planner know the keys."""
        if self._background is not None:
            background, self._background = self._background, None
            try:
                background.finish()
            finally:
                background.__exit__(None, None, None)
        with self.begin() as connection:
            connection.exec_driver_sql(f"ANALYZE {self._quoted('stage')} ({', '.join(key)})")

    def extent(self, connection: sa.Connection, name: str) -> Extent:
        """Units are blocks of the table."""
        table = self._quoted(name)
        blocks = sa.text("SELECT pg_relation_size(CAST(:name AS regclass)) / current_setting('block_size')::int")
        units = connection.scalar(blocks, {"name": table})
        rows = connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()  # noqa: S608 - our names
        return Extent(int(units or 0), rows)

    def within(self, table: sa.FromClause, batch: Batch) -> sa.ColumnElement[bool]:
        """By block."""
        first, end = (sa.literal_column(f"CAST('({block},0)' AS tid)", _TID) for block in (batch.first, batch.end))
        return sa.and_(table.c.ctid >= first, table.c.ctid < end)

    def address(self, table: sa.Table) -> sa.ColumnElement[Any]:
        """The place of a row in its table."""
        return sa.literal_column(
            f"{name_of(self._database.dialect, table)}.ctid", _TID
        )  # which doubles percent signs itself

    def is_there(self, name: str, *, has_rows: bool = True) -> bool:
        """True if there is the table, with rows: after a crash of the server unlogged ones are empty."""
        with self.begin() as connection:
            if connection.scalar(sa.text("SELECT to_regclass(:name)"), {"name": self._quoted(name)}) is None:
                return False
            if not has_rows:
                return True
            return connection.exec_driver_sql(f"SELECT 1 FROM {self._quoted(name)} LIMIT 1").first() is not None  # noqa: S608

    def allow_more(self, connection: sa.Connection) -> None:
        """Memory for a hash join of millions, and a helper process; for this transaction only."""
        enough = "pg_size_bytes(current_setting('work_mem')) < pg_size_bytes('32MB')"
        connection.exec_driver_sql(f"SELECT set_config('work_mem', '32MB', true) WHERE {enough}")
        connection.exec_driver_sql("SET LOCAL parallel_tuple_cost = 0.001")

    def analyze(self, connection: sa.Connection, name: str) -> None:
        """Lets the planner know a staging table."""
        connection.exec_driver_sql(f"ANALYZE {self._quoted(name)}")

    def drop(self, *names: str) -> None:
        """Removes tables of this run."""
        with self.begin() as connection:
            for name in names:
                connection.exec_driver_sql(f"DROP TABLE IF EXISTS {self._quoted(name)}")

    def drop_leftovers(self, older_than: timedelta) -> None:
        """Removes what dead runs of this sync left, and what nobody has come back to for so long."""
        if not self.outlives_session:
            return
        oldest = (datetime.now(UTC) - older_than).isoformat()
        with self.begin() as connection:
            for name, comment in connection.execute(_LEFTOVERS, {"schema": self.schema}).all():
                parts = name.rsplit("_", 2)
                is_ours = parts[1:] == [self._sync, self._run]
                if not is_ours and (parts[1:2] == [self._sync] or comment.split(" ")[1] < oldest):
                    connection.exec_driver_sql(
                        f"DROP TABLE IF EXISTS {self._quote(str(self.schema))}.{self._quote(name)}"
                    )
                    connection.execute(sa.delete(self._progress).where(self._progress.c.run == parts[-1]))

    def cancel(self) -> None:
        """Calls off the statement that is under way, from another thread."""
        raw: Any = self._connection.connection.driver_connection
        with suppress(Exception):  # it may have ended by itself
            raw.cancel()

    def close(self) -> None:
        """Ends the background and gives the connection back; temporary tables go with it."""
        self._end_background()
        if not self.outlives_session:
            with suppress(DBAPIError):
                self._connection.invalidate()
        self._connection.close()

    def _quoted(self, name: str) -> str:
        prefix = f"{self._quote(self.schema)}." if self.schema else ""
        return f"{prefix}{self._quote(self.full_name(name))}"

    def _quote(self, name: str) -> str:
        return self._database.dialect.identifier_preparer.quote_identifier(name)


@dataclass(frozen=True, slots=True)
class _Load:
    """Rows for the staging table, and the same as COPY reads them."""

    rows: pa.Table
    csv: io.BytesIO


def _csv_of(rows: pa.Table) -> io.BytesIO:
    buffer = io.BytesIO()
    pa.csv.write_csv(rows, buffer, _OPTIONS)
    return buffer


def _copy_into(cursor: Any, statement: str, data: memoryview) -> None:
    with cursor.copy(statement) as copy:
        copy.write(data)
