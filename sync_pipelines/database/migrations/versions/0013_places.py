"""The place in the order of deliveries that were split off another one, which came before others by now."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    op.add_column(f"{prefix}inbox", sa.Column("came_with", sa.BigInteger(), nullable=True), schema=schema)


def downgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    op.drop_column(f"{prefix}inbox", "came_with", schema=schema)
