"""How many complete fetches in a row have been without a record."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    op.create_table(
        f"{prefix}misses",
        sa.Column("job", sa.String(200), primary_key=True),
        sa.Column("external_id", sa.String(300), primary_key=True),
        sa.Column("misses", sa.Integer(), nullable=False),
        sa.Column("fetch", sa.BigInteger(), nullable=False),
        sa.Column("first_missed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("run_id", sa.String(36), nullable=False),
        schema=schema,
    )


def downgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    op.drop_table(f"{prefix}misses", schema=schema)
