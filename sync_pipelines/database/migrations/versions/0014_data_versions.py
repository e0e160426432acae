"""The data version of each sync's target, who is writing to it, and what each sync has fetched of its source."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    op.create_table(
        f"{prefix}data_versions",
        sa.Column("job", sa.String(200), primary_key=True),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_by", sa.String(64), nullable=False),
        sa.Column("writer", sa.String(36)),
        sa.Column("written", sa.BigInteger(), nullable=False),
        schema=schema,
    )
    op.create_table(
        f"{prefix}data_writers",
        sa.Column("job", sa.String(200), primary_key=True),
        sa.Column("writer", sa.String(36), primary_key=True),
        sa.Column("described", sa.String(64), nullable=False),
        sa.Column("is_single", sa.Boolean(), nullable=False),
        sa.Column("is_counted", sa.Boolean(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        schema=schema,
    )
    op.create_table(
        f"{prefix}source_parts",
        sa.Column("source", sa.String(500), primary_key=True),
        sa.Column("job", sa.String(200), primary_key=True),
        sa.Column("part", sa.String(64), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        schema=schema,
    )


def downgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    for table in ("data_versions", "data_writers", "source_parts"):
        op.drop_table(f"{prefix}{table}", schema=schema)
