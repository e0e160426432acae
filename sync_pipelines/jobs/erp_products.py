"""Products of the ERP into the shop's table `products`."""

from typing import Any

from sync_pipelines.engine.changes import Refetch
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.intervals import sync_intervals
from sync_pipelines.engine.webhook_signatures import StandardWebhooks
from sync_pipelines.engine.webhooks import Webhook, WebhookEvent
from sync_pipelines.errors import WebhookRejectedError
from sync_pipelines.sources.tryton import Product, Tryton
from sync_pipelines.targets.sql_table import SqlTable

erp = Tryton()


def changed(event: WebhookEvent) -> Refetch:
    """The ERP says no more than which product it wrote; what it is now is asked."""
    sku = event.body.get("sku") if isinstance(event.body, dict) else None
    if not isinstance(sku, str):
        raise WebhookRejectedError('the body must name the product, as {"sku": "A-1"} does')
    return Refetch(sku)


JOB: SyncJob[Product, Any] = SyncJob(
    name="erp-products",
    fetch_external=erp.products,
    get_external_id="sku",
    fetch_one=erp.product,
    webhook=Webhook(signature=StandardWebhooks(secrets="ERP_WEBHOOK_SECRET"), parse=changed),
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
