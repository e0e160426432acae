"""Plans of dry runs, which can be applied once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    moment = sa.DateTime(timezone=True)
    op.create_table(
        f"{prefix}plans",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("expires_at", moment, nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("made_for", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("applied_by", sa.String(36)),
        sa.Column("applied_at", moment),
        schema=schema,
    )
    op.create_index(f"ix_{prefix}plans_job_created_at", f"{prefix}plans", ["job", "created_at"], schema=schema)


def downgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    op.drop_table(f"{prefix}plans", schema=schema)
