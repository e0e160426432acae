"""Products of the ERP into the shop's table `products`."""

from typing import Any

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.intervals import sync_intervals
from sync_pipelines.sources.tryton import Product, Tryton
from sync_pipelines.targets.sql_table import SqlTable

erp = Tryton()

JOB: SyncJob[Product, Any] = SyncJob(
    name="erp-products",
    fetch_external=erp.products,
    get_external_id="sku",
    target=SqlTable(
        table="products",
        key="sku",
        columns={
            "name": "name",
            "price": "price",
            "active": "active",
            "unit": "unit",
            "kind": "kind",
            "erp_written_at": "written_at",
        },
        # a product that was written in the ERP without a change that the shop shows is no update
        compare=["name", "price", "active", "unit", "kind"],
    ),
    schedule=sync_intervals.days(1, at="05:30", timezone="Europe/Berlin"),
    description="All products of the ERP, deactivated ones too, with their list prices.",
    asset_key="shop/products",
    source_asset="erp/products",
    group="shop",
    owners=("team:shop",),
    kinds=("tryton", "sql"),
)
