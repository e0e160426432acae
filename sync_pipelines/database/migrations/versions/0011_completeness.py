"""What the source of a run said of its end: whether it may have had more items than it gave."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    op.add_column(f"{prefix}runs", sa.Column("completeness", sa.JSON()), schema=schema)


def downgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    op.drop_column(f"{prefix}runs", "completeness", schema=schema)
