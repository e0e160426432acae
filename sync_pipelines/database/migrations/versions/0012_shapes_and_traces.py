"""The fields that a run's items had; and where in a user's function an error was raised."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    runs = f"{schema}.{prefix}runs" if schema else f"{prefix}runs"
    op.create_table(
        f"{prefix}run_shapes",
        sa.Column("run_id", sa.String(36), sa.ForeignKey(f"{runs}.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("shapes", sa.JSON(), nullable=False),
        schema=schema,
    )
    op.create_index(f"ix_{prefix}run_shapes_job", f"{prefix}run_shapes", ["job"], schema=schema)
    for table in ("run_errors", "failures"):
        op.add_column(f"{prefix}{table}", sa.Column("trace", sa.Text()), schema=schema)


def downgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    for table in ("failures", "run_errors"):
        op.drop_column(f"{prefix}{table}", "trace", schema=schema)
    op.drop_table(f"{prefix}run_shapes", schema=schema)
