"""Brings a ledger to any revision of its tables."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from sync_pipelines.database.ledger import Ledger

_MIGRATIONS = Path(__file__).parents[2] / "sync_pipelines" / "database" / "migrations"


def migrate_to(connection: sa.Connection, revision: str) -> None:
    """Upgrades an empty database, or takes a ledger back."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("path_separator", "os")
    prefix, schema = ("sync_", None) if connection.dialect.name == "sqlite" else ("", "sync_pipelines")
    version_table = f"{prefix}alembic_version"
    config.attributes.update(connection=connection, prefix=prefix, schema=schema, version_table=version_table)
    is_new = not sa.inspect(connection).has_table(version_table, schema=schema)
    (command.upgrade if is_new else command.downgrade)(config, revision)


def take_back(ledger: Ledger, revision: str) -> None:
    """Makes the ledger one of an older version; the next who opens it upgrades it."""
    with ledger.database.begin() as connection:
        migrate_to(connection, revision)
