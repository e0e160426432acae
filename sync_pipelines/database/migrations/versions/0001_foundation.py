"""Runs with their errors and progress, and the inbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0001"
down_revision = None

_serial = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    _create_runs(prefix, schema)
    _create_run_details(prefix, schema)
    _create_inbox(prefix, schema)


def downgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    for name in ("inbox", "run_chunks", "run_errors", "runs"):
        op.drop_table(f"{prefix}{name}", schema=schema)


def _create_runs(prefix: str, schema: str | None) -> None:
    op.create_table(
        f"{prefix}runs",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("dagster_run_id", sa.String(64)),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("apply_started_at", sa.DateTime(timezone=True)),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
        sa.Column("outcome", sa.String(16)),
        sa.Column("counts", sa.JSON),
        sa.Column("phase_ms", sa.JSON),
        sa.Column("notes", sa.JSON),
        sa.Column("failure", sa.Text),
        schema=schema,
    )
    op.create_index(f"ix_{prefix}runs_job_started_at", f"{prefix}runs", ["job", "started_at"], schema=schema)


def _create_run_details(prefix: str, schema: str | None) -> None:
    run = f"{schema}.{prefix}runs.id" if schema else f"{prefix}runs.id"
    op.create_table(
        f"{prefix}run_errors",
        sa.Column("id", _serial, primary_key=True),
        sa.Column("run_id", sa.String(36), sa.ForeignKey(run, ondelete="CASCADE"), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("external_id", sa.Text),
        sa.Column("exception_type", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        schema=schema,
    )
    op.create_index(
        f"ix_{prefix}run_errors_run_id_position", f"{prefix}run_errors", ["run_id", "position"], schema=schema
    )
    op.create_table(
        f"{prefix}run_chunks",
        sa.Column("run_id", sa.String(36), sa.ForeignKey(run, ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("counts", sa.JSON, nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=False),
        schema=schema,
    )


def _create_inbox(prefix: str, schema: str | None) -> None:
    op.create_table(
        f"{prefix}inbox",
        sa.Column("id", _serial, primary_key=True),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("item", sa.Text, nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("external_id", sa.Text),
        sa.Column("action", sa.String(16)),
        sa.Column("message", sa.Text),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        schema=schema,
    )
    op.create_index(f"ix_{prefix}inbox_job_state_id", f"{prefix}inbox", ["job", "state", "id"], schema=schema)
