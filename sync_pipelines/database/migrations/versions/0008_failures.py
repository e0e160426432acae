"""Items that failed, until they go through; and the causes of a run's errors."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    moment = sa.DateTime(timezone=True)
    op.add_column(f"{prefix}runs", sa.Column("errors_noted_to", sa.BigInteger()), schema=schema)
    failures, resolved = f"{prefix}failures", sa.text("resolved_at IS NOT NULL")
    is_open = sa.text("state = 'open'")
    op.create_table(
        failures,
        sa.Column("job", sa.String(200), primary_key=True),
        sa.Column("key", sa.String(300), primary_key=True),
        sa.Column("external_id", sa.Text()),
        sa.Column("source_id", sa.Text()),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("payload", sa.Text()),
        sa.Column("payload_hash", sa.String(64)),
        sa.Column("seen_at", moment),
        sa.Column("exception_type", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.String(16), nullable=False),
        sa.Column("template", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("first_failed_at", moment, nullable=False),
        sa.Column("last_failed_at", moment, nullable=False),
        sa.Column("next_try_at", moment),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("last_run_id", sa.String(36), nullable=False),
        sa.Column("resolved_at", moment),
        sa.Column("resolved_by", sa.String(64)),
        schema=schema,
    )
    op.create_index(
        f"ix_{failures}_due",
        failures,
        ["job", "next_try_at"],
        schema=schema,
        postgresql_where=is_open,
        sqlite_where=is_open,
    )
    op.create_index(
        f"ix_{failures}_resolved_at",
        failures,
        ["resolved_at"],
        schema=schema,
        postgresql_where=resolved,
        sqlite_where=resolved,
    )
    runs = f"{schema}.{prefix}runs" if schema else f"{prefix}runs"
    op.create_table(
        f"{prefix}run_causes",
        sa.Column("run_id", sa.String(36), sa.ForeignKey(f"{runs}.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("exception_type", sa.Text(), nullable=False),
        sa.Column("template", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("sample_ids", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        schema=schema,
    )


def downgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    for name in ("run_causes", "failures"):
        op.drop_table(f"{prefix}{name}", schema=schema)
    op.drop_column(f"{prefix}runs", "errors_noted_to", schema=schema)
