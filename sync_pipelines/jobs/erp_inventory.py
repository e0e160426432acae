"""Stock of the ERP, per product and warehouse, into the shop's table `stock_levels`."""

from typing import Any

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.intervals import sync_intervals
from sync_pipelines.sources.tryton import StockLevel, Tryton
from sync_pipelines.targets.sql_table import SqlTable

erp = Tryton()

JOB: SyncJob[StockLevel, Any] = SyncJob(
    name="erp-inventory",
    fetch_external=erp.inventory,
    target=SqlTable(
        table="stock_levels",
        key=("sku", "warehouse"),
        columns=["sku", "warehouse", "quantity", "unit"],
    ),
    schedule=sync_intervals.hours(1),
    description="How much of each product lies in each warehouse, by the moves that are done.",
    asset_key="shop/stock_levels",
    source_asset="erp/stock",
    group="shop",
    owners=("team:shop",),
    kinds=("tryton", "sql"),
)
