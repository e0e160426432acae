"""A SQL query as a source, read through a server-side cursor and without writing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import SecretStr
from sqlalchemy import Connection, CursorResult, Engine, Executable, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError

from sync_pipelines.database.connections import Limits, create_database, shown_url
from sync_pipelines.database.faults import READ_ONLY, Fault, state_of
from sync_pipelines.database.sessions import with_known_state
from sync_pipelines.engine.completeness import reading_source
from sync_pipelines.engine.redaction import message_of
from sync_pipelines.errors import ConfigurationError, RetryableError, SyncPipelinesError
from sync_pipelines.settings.model import load_settings
from sync_pipelines.sources.pages import PAGE_SIZE, Fetch, Page, check_page_size
from sync_pipelines.sources.sql_values import ValueGuard

Database = Engine | URL | str | SecretStr


def sql_query(
    query: str | Executable,
    *,
    database: Database | None = None,
    parameters: Mapping[str, Any] | None = None,
    page_size: int = PAGE_SIZE,
) -> Fetch:
    r"""Makes a source of a SQL query: `fetch_external=sql_query("SELECT sku, price FROM products")`.

    Each row is a dict of column name -> value. Rows come through a server-side cursor, so that memory does not grow
    with their number. On PostgreSQL and SQLite the database itself refuses what would write; whatever the query does is
    rolled back. Cursor and connection are closed however the fetch ends. A value that Python does not hold, such as
    `infinity` in a column of times, or text in one of dates, fails its own item.

    Nothing connects until a sync fetches.

    Args:
        query: SQL with parameters as `:name` (write `\:` for a colon that is none), or a SQLAlchemy `select()`.
        database: A SQLAlchemy engine or URL; `postgresql://` means psycopg 3. By default the configured database of
            local records.
        parameters: Values for the query's `:names`.
        page_size: Rows in a page, and per trip to the server.

    Returns:
        A callable without arguments that streams pages of dicts. While it is iterated it raises `RetryableError` if the
        database can't be reached or gives up half-way, `ConfigurationError` with the database's own message if it
        refuses the query, if a parameter is missing, if two columns share a name, if the query gives no rows at all as
        an UPDATE does, and for a SQLite file that does not exist.

    Raises:
        ConfigurationError: An option is not valid.
    """
    check_page_size(page_size)
    if isinstance(query, str):
        if not query.strip():
            raise ConfigurationError("sql_query: the query is empty")
        query = text(query)
    elif not isinstance(query, Executable):
        raise ConfigurationError(f"sql_query got a {type(query).__name__}; give SQL as text or a SQLAlchemy select()")
    if not isinstance(database, (Engine, URL, str, SecretStr, type(None))):
        raise ConfigurationError(f"sql_query(database=...) got a {type(database).__name__}; give a URL or an Engine")
    if isinstance(database, str):
        database = SecretStr(database)
    return _SqlQuery(query, database, dict(parameters or {}), page_size)


@dataclass(frozen=True, slots=True)
class _SqlQuery:
    source_kind: ClassVar[str] = "sql"
    query: Executable
    database: Engine | URL | SecretStr | None = field(repr=False)
    parameters: Mapping[str, Any] = field(repr=False)
    page_size: int

    def code_identity(self) -> list[str]:
        """Returns the statement: a change of it is a change of what is fetched."""
        return [str(self.query), *sorted(self.parameters)]

    def __call__(self) -> Iterator[Page]:
        # what is cached of the statement belongs to the owner of the engine, and must not get our way of reading values
        options = {"stream_results": True, "yield_per": self.page_size, "compiled_cache": None}
        guard = ValueGuard()
        with (
            reading_source("sql_query") as said,
            _opened(self.database) as database,
            _explained(database),
            database.connect() as connection,
            _read_only(connection) as reading,
            _listening(reading, guard),
            closing(reading.execute(self.query, self.parameters, execution_options=options)) as result,
        ):
            names = _checked_names(result)
            for rows in result.partitions(self.page_size):
                yield guard.page(names, rows)
            said.ended("the end of the query's rows")


@contextmanager
def _listening(connection: Connection, guard: ValueGuard) -> Iterator[None]:
    """Lets the guard prepare what is executed in the block: only the query itself, once the transaction has begun."""
    if not connection.in_transaction():
        connection.begin()
    event.listen(connection, "before_cursor_execute", guard.prepare)
    try:
        yield
    finally:
        event.remove(connection, "before_cursor_execute", guard.prepare)


def _checked_names(result: CursorResult[Any]) -> Sequence[str]:
    if not result.returns_rows:
        raise ConfigurationError("sql_query: the query gives no rows; a source reads, and what it wrote is rolled back")
    names = list(result.keys())
    if repeated := [repr(name) for name, count in Counter(names).items() if count > 1]:
        raise ConfigurationError(
            f"sql_query: the query has more than one column called {', '.join(repeated)}; rename all but one with AS"
        )
    return names


@contextmanager
def _opened(where: Engine | URL | SecretStr | None) -> Iterator[Engine]:
    """Returns the engine; one that was made here is also disposed of."""
    if isinstance(where, Engine):
        yield with_known_state(where)
        return
    settings = load_settings()
    url = settings.local_url() if where is None else where
    # what is done with a page before the next is asked for may take as long as it likes
    limits = replace(Limits(**settings.database_limits()), idle_s=0)
    database = create_database(url.get_secret_value() if isinstance(url, SecretStr) else url, limits=limits)
    try:
        _check_file_exists(database)
        yield database
    finally:
        database.dispose()


def _check_file_exists(database: Engine) -> None:
    """Stops SQLite from making an empty database of a misspelt path."""
    file = database.url.database
    if database.dialect.name != "sqlite" or not file or file == ":memory:" or file.startswith("file:"):
        return
    if not Path(file).exists():
        raise ConfigurationError(f"sql_query: the database {file} does not exist (looked at {Path(file).absolute()})")


@contextmanager
def _read_only(connection: Connection) -> Iterator[Connection]:
    if connection.dialect.name == "postgresql":
        yield connection.execution_options(postgresql_readonly=True)
    elif connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA query_only = ON")
        try:
            yield connection
        finally:
            # The connection goes back to a pool that may belong to others.
            connection.exec_driver_sql("PRAGMA query_only = OFF")
    else:
        yield connection


@contextmanager
def _explained(database: Engine) -> Iterator[None]:
    """Turns what SQLAlchemy raises into errors that say what to do; neither statement nor parameters are in them."""
    try:
        yield
    except DBAPIError as error:
        raise _error(database, error) from error.orig
    except StatementError as error:
        raise ConfigurationError(f"sql_query: {message_of(error)}; check sql_query(parameters=...)") from error.orig
    except SQLAlchemyError as error:
        raise ConfigurationError(f"sql_query: {message_of(error)}") from error


def _error(database: Engine, error: DBAPIError) -> SyncPipelinesError:
    where = shown_url(database.url)
    state = state_of(error)
    if state is not None and state.fault is Fault.MOMENT:
        return RetryableError(f"sql_query: the database {where} did not answer: {message_of(error)}. {state.to_do}")
    to_do = "" if state is None or state.of_statement or state is READ_ONLY else f". {state.to_do}"
    return ConfigurationError(f"sql_query: the database {where} refuses the query: {message_of(error)}{to_do}")
