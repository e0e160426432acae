"""The inbox takes webhooks: kinds of changes, what was sent, its name at the sender's, when to try again."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import context, op

revision = "0003"
down_revision = "0002"

_TOO_NEW = "kept by a newer version of sync_pipelines, which alone can apply it"


def _added() -> list[sa.Column[Any]]:
    return [
        sa.Column("kind", sa.String(16), nullable=False, server_default="upsert"),
        sa.Column("payload", sa.Text),
        sa.Column("headers", sa.JSON),
        sa.Column("delivery_id", sa.Text),
        sa.Column("next_try_at", sa.DateTime(timezone=True)),
    ]


def upgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    table = f"{prefix}inbox"
    with op.batch_alter_table(table, schema=schema) as batch:
        for column in _added():
            batch.add_column(column)
        batch.alter_column("item", existing_type=sa.Text, nullable=True)
    with op.batch_alter_table(table, schema=schema) as batch:
        batch.alter_column("kind", existing_type=sa.String(16), server_default=None)
    named, finished = sa.text("delivery_id IS NOT NULL"), sa.text("finished_at IS NOT NULL")
    op.create_index(
        f"ux_{table}_job_delivery_id",
        table,
        ["job", "delivery_id"],
        schema=schema,
        unique=True,
        postgresql_where=named,
        sqlite_where=named,
    )
    op.create_index(
        f"ix_{table}_finished_at",
        table,
        ["finished_at"],
        schema=schema,
        postgresql_where=finished,
        sqlite_where=finished,
    )


def downgrade() -> None:
    """What the older version has no columns for stays in its failures."""
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    table = f"{prefix}inbox"
    op.drop_index(f"ix_{table}_finished_at", table, schema=schema)
    op.drop_index(f"ux_{table}_job_delivery_id", table, schema=schema)
    inbox = sa.table(
        table, sa.column("item"), sa.column("payload"), sa.column("state"), sa.column("message"), schema=schema
    )
    unknown = sa.update(inbox).where(inbox.c.item.is_(None))
    op.execute(unknown.where(inbox.c.state == "waiting").values(state="failed", message=_TOO_NEW))
    op.execute(unknown.values(item=sa.func.coalesce(inbox.c.payload, "null")))
    with op.batch_alter_table(table, schema=schema) as batch:
        batch.alter_column("item", existing_type=sa.Text, nullable=False)
        for column in _added():
            batch.drop_column(column.name)
