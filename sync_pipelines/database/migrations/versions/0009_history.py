"""What was written of each record; an index that finds the failures of one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0009"
down_revision = "0008"

_serial = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    _create_history(prefix, schema)
    _create_blocks(prefix, schema)
    # no index of PostgreSQL takes a text of thousands of characters
    external_id = "external_id" if schema is None else sa.text("substr(external_id, 1, 200)")
    named = sa.text("external_id IS NOT NULL")
    op.create_index(
        f"ix_{prefix}run_errors_external_id",
        f"{prefix}run_errors",
        [external_id, "run_id"],
        schema=schema,
        postgresql_where=named,
        sqlite_where=named,
    )


def downgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    op.drop_index(f"ix_{prefix}run_errors_external_id", f"{prefix}run_errors", schema=schema)
    op.drop_table(f"{prefix}history_blocks", schema=schema)
    op.drop_table(f"{prefix}history", schema=schema)


def _create_history(prefix: str, schema: str | None) -> None:
    table = f"{prefix}history"
    op.create_table(
        table,
        sa.Column("id", _serial, primary_key=True),
        sa.Column("job", sa.String(200), nullable=False),
        sa.Column("external_id", sa.String(300), nullable=False),
        sa.Column("run_id", sa.String(36)),
        sa.Column("via", sa.String(16), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("changes", sa.Text),
        schema=schema,
    )
    op.create_index(f"ix_{table}_record", table, ["job", "external_id", "id"], schema=schema)
    op.create_index(f"ix_{table}_job_at", table, ["job", "at"], schema=schema)


def _create_blocks(prefix: str, schema: str | None) -> None:
    table = f"{prefix}history_blocks"
    bound = sa.String(100).with_variant(sa.String(100, collation="C"), "postgresql")
    op.create_table(
        table,
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("job", sa.String(200), nullable=False),
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("via", sa.String(16), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("first_id", bound, nullable=False),
        sa.Column("last_id", bound, nullable=False),
        sa.Column("records", sa.Integer, nullable=False),
        sa.Column("lines", sa.LargeBinary, nullable=False),
        schema=schema,
    )
    op.create_index(f"ix_{table}_ids", table, ["job", "first_id", "last_id"], schema=schema)
    op.create_index(f"ix_{table}_job_at", table, ["job", "at"], schema=schema)
    if schema is not None:  # they are compressed already
        op.execute(f"ALTER TABLE {schema}.{table} ALTER COLUMN lines SET STORAGE EXTERNAL")
