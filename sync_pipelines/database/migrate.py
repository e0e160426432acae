"""Brings the ledger's tables to the version that this package needs."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from sync_pipelines.database.connections import shown_url
from sync_pipelines.database.ledger_faults import ledger_failures
from sync_pipelines.database.tables import POSTGRES_SCHEMA, SQLITE_PREFIX
from sync_pipelines.errors import ConfigurationError

HEAD = "0014"
"""The newest migration; a test holds it against the files."""

_LOCK = 7_305_812_094  # any number that nobody else uses as an advisory lock


def migrate(database: Engine) -> None:
    """Creates or upgrades the ledger. Processes that start at once wait for each other.

    Args:
        database: The ledger's database; on SQLite its transactions must begin IMMEDIATE, see `open_ledger`.

    Raises:
        ConfigurationError: The ledger can't be used until a person acts, or was made by a newer version of this
            package.
        UnavailableError: It does not answer just now.
    """
    try:
        with ledger_failures(database, opening=True):
            with database.begin() as connection:
                if _version(connection) == HEAD:
                    return
            with database.begin() as connection:
                _lock(connection)
                _upgrade(connection, _version(connection))
    except SQLAlchemyError as error:
        shown = shown_url(database.url)
        raise ConfigurationError(
            f"the ledger {shown} can't be opened: {getattr(error, 'orig', None) or error}. "
            "Check SYNC_PIPELINES_LEDGER_URL, SYNC_PIPELINES_DATABASE_URL and SYNC_PIPELINES_DATA_DIR."
        ) from error


def is_current(connection: Connection) -> bool:
    """True if the ledger has the tables that this version needs."""
    return _version(connection) == HEAD


def _place(connection: Connection) -> tuple[str, str | None, str]:
    """Returns prefix, schema and version table on this dialect."""
    if connection.dialect.name == "sqlite":
        return SQLITE_PREFIX, None, f"{SQLITE_PREFIX}alembic_version"
    return "", POSTGRES_SCHEMA, "alembic_version"


def _version(connection: Connection) -> str | None:
    _, schema, table = _place(connection)
    if not inspect(connection).has_table(table, schema=schema):
        return None
    qualified = f"{schema}.{table}" if schema else table
    version: str | None = connection.execute(text(f"SELECT version_num FROM {qualified}")).scalar()  # noqa: S608 - our names
    return version


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))  # an index of a large table takes what it takes
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {POSTGRES_SCHEMA}"))


def _upgrade(connection: Connection, version: str | None) -> None:
    from alembic import command  # noqa: PLC0415 - only the first start and upgrades need it
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    if version == HEAD:
        return
    prefix, schema, version_table = _place(connection)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(connection=connection, prefix=prefix, schema=schema, version_table=version_table)
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise ConfigurationError(
            f"the ledger has version {version}, which this sync_pipelines does not know; install the one that made it"
        ) from error
