"""A source and local records in memory, for syncs as Dagster runs them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sync_pipelines import SyncJob


class Shop:
    """A source whose items a test sets, and the local records as a dict."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.records: dict[str, Any] = {}
        self.breaks_off = False
        self.fetches = 0
        self.completed: list[Any] = []

    def fetch(self) -> Iterator[Any]:
        self.fetches += 1
        yield from self.items
        if self.breaks_off:
            raise ConnectionError("the ERP hung up, password=hunter2")

    def create(self, item: dict[str, Any]) -> None:
        if item.get("bad"):
            raise ValueError(f"{item['sku']} is not wanted")
        self.records[item["sku"]] = item

    def update(self, item: dict[str, Any], local: dict[str, Any]) -> None:
        self.create(item)

    def job(self, **options: Any) -> SyncJob[Any, Any]:
        given: dict[str, Any] = {
            "name": "erp-stock",
            "fetch_external": self.fetch,
            "get_external_id": "sku",
            "find_local": self.records.get,
            "create": self.create,
            "update": self.update,
            "has_changed": lambda item, local: item != local,
            "on_complete": self.completed.append,
            "asset_key": "shop/stock",
            "source_asset": "erp/stock",
        }
        return SyncJob(**{**given, **options})
