"""Rules: single items, applied at once or brought to the inbox and drained."""

from __future__ import annotations

import pytest
from hypothesis.stateful import rule

from sync_pipelines.database.inbox import WAITING
from sync_pipelines.database.inbox_storing import NewDelivery
from sync_pipelines.engine.codec import encode
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.engine.webhooks import Delete
from sync_pipelines.errors import ItemError
from sync_pipelines.runner.draining import Drain
from sync_pipelines.runner.single import sync_single_item
from sync_pipelines_tests.runner.desk import AT_ONCE
from sync_pipelines_tests.runner.machine.base import Machine, readable_items, skus
from sync_pipelines_tests.runner.machine.model import Item
from sync_pipelines_tests.runner.machine.world import World


class Items(Machine):
    """An item comes to the same end, whichever way it takes."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.waiting: list[tuple[str, Item | None]] = []

    @rule(item=readable_items)
    def single_item(self, item: Item) -> None:
        expected = self.model.apply(self.model.diff([item]))
        if expected.errors:
            with pytest.raises(ItemError) as caught:
                sync_single_item(self.world.job(), item, settings=self.world.settings)
            assert caught.value.external_id == str(item["sku"])
        else:
            result = sync_single_item(self.world.job(), item, settings=self.world.settings)
            assert (expected.counts[result.action], result.external_id) == (1, str(item["sku"]))

    @rule(sku=skus)
    def single_delete(self, sku: str) -> None:
        result = sync_single_item(self.world.job(), Delete(sku), settings=self.world.settings)
        assert result.action == ("deleted" if self.model.remove(sku) else "unchanged")

    def store(self, kind: str, sku: str, item: Item | None) -> None:
        text = encode(item) if item is not None else None
        ledger = self.world.ledger
        new = NewDelivery(job=self.world.name, kind=kind, external_id=sku, item=text, received_at=ledger.clock())
        ledger.inbox.store_many([new])
        self.waiting.append((sku, item))

    @rule(item=readable_items)
    def item_arrives(self, item: Item) -> None:
        self.store("upsert", str(item["sku"]), item)

    @rule(sku=skus)
    def delete_arrives(self, sku: str) -> None:
        self.store("delete", sku, None)

    def drain_now(self) -> SyncResults:
        with self.world.workspace() as workspace:
            return Drain(self.world.job(), workspace).run(AT_ONCE)

    @rule()
    def drain(self) -> None:
        results = self.drain_now()
        expected = self.model.drain(self.waiting)
        self.check(results, expected)
        assert sorted(each.external_id or "" for each in results.errors) == sorted(
            sku or "" for _, sku in expected.errors
        )
        self.nothing_waits()

    def nothing_waits(self) -> None:
        self.waiting.clear()
        assert self.world.ledger.inbox.count(self.world.name, WAITING) == 0
