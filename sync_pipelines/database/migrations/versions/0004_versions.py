"""Versions of records, and an index that finds the deliveries for one of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    op.create_table(
        f"{prefix}versions",
        sa.Column("job", sa.String(200), primary_key=True),
        sa.Column("external_id", sa.String(300), primary_key=True),
        sa.Column("version", sa.String(100), nullable=False),
        schema=schema,
    )
    # no index of PostgreSQL takes a text of thousands of characters
    external_id = "external_id" if schema is None else sa.text("substr(external_id, 1, 200)")
    op.create_index(
        f"ix_{prefix}inbox_external_id", f"{prefix}inbox", ["job", external_id, "state", "id"], schema=schema
    )


def downgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    op.drop_index(f"ix_{prefix}inbox_external_id", f"{prefix}inbox", schema=schema)
    op.drop_table(f"{prefix}versions", schema=schema)
