"""What guards have withheld, as plans that are applied with a reason."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0007"
down_revision = "0005"


def upgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    columns = (
        sa.Column("kind", sa.String(16), nullable=False, server_default="dry run"),
        sa.Column("guarded", sa.JSON()),
        sa.Column("reason", sa.Text()),
        sa.Column("released_by", sa.Text()),
    )
    for column in columns:
        op.add_column(f"{prefix}plans", column, schema=schema)


def downgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    for name in ("kind", "guarded", "reason", "released_by"):
        op.drop_column(f"{prefix}plans", name, schema=schema)
