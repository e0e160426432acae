"""Leases: one run of a sync at a time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    attributes = context.config.attributes
    op.create_table(
        f"{attributes['prefix']}leases",
        sa.Column("job", sa.String(200), primary_key=True),
        sa.Column("holder", sa.String(36)),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("dagster_run_id", sa.String(64)),
        sa.Column("described", sa.Text, nullable=False),
        sa.Column("process", sa.Text, nullable=False),
        schema=attributes["schema"],
    )


def downgrade() -> None:
    attributes = context.config.attributes
    op.drop_table(f"{attributes['prefix']}leases", schema=attributes["schema"])
