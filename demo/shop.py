"""The shop's own tables, which the demo's syncs keep in step with the ERP.

python -m demo.shop          # creates them in the database of SYNC_PIPELINES_DATABASE_URL
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    UniqueConstraint,
    func,
)

from sync_pipelines.database.connections import create_database, database_url
from sync_pipelines.settings.model import load_settings

metadata = MetaData()

products = Table(
    "products",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sku", String(40), nullable=False, unique=True),
    Column("name", String(200), nullable=False),
    Column("price", Numeric(12, 2)),
    Column("active", Boolean, nullable=False),
    Column("unit", String(10), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("erp_written_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), server_default=func.current_timestamp()),
    CheckConstraint("price >= 0", name="price_not_negative"),
)
stock_levels = Table(
    "stock_levels",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sku", String(40), nullable=False),
    Column("warehouse", String(40), nullable=False),
    Column("quantity", Numeric(14, 4), nullable=False),
    Column("unit", String(10), nullable=False),
    UniqueConstraint("sku", "warehouse"),
)


def create_tables(url: str) -> None:
    """Creates the tables that are missing.

    Args:
        url: The URL of the shop's database.
    """
    parsed = database_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    database = create_database(parsed)
    try:
        metadata.create_all(database)
    finally:
        database.dispose()


if __name__ == "__main__":
    create_tables(load_settings().local_url())
