"""Rules: single items, applied at once or brought to the inbox and drained."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from sync_pipelines.database.inbox import WAITING
from sync_pipelines.database.inbox_storing import NewDelivery
from sync_pipelines.engine.changes import Delete
from sync_pipelines.engine.codec import encode
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import ItemError
from sync_pipelines.runner.changes.drain import Drain
from sync_pipelines_tests.runner.desk import AT_ONCE
from sync_pipelines_tests.runner.machine.base import Machine, changes
from sync_pipelines_tests.runner.machine.model import Item
from sync_pipelines_tests.runner.machine.world import World


class Items(Machine):
    """An item comes to the same end, whichever way it takes."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.waiting: list[tuple[str, Item | None, int]] = []

    @rule(change=changes)
    def single_change(self, change: Item | Delete) -> None:
        if isinstance(change, Delete) and change.external_id in self.model.outside:
            with pytest.raises(ItemError, match="scope"):
                self.apply_single(change)
            return
        if isinstance(change, Delete):
            removed = self.model.remove(change.external_id)
            assert self.apply_single(change) == ("deleted" if removed else "unchanged", change.external_id)
            return
        sku, expected = str(change["sku"]), self.model.apply(self.model.diff([change]))
        if expected.errors:
            with pytest.raises(ItemError) as caught:
                self.apply_single(change)
            assert caught.value.external_id == sku
        else:
            action, external_id = self.apply_single(change)
            assert (expected.counts[action], external_id) == (1, sku)

    def apply_single(self, change: Item | Delete) -> tuple[str, str]:
        result = self.world.apply_single(change)
        return result.action, result.external_id

    @rule(changes=st.lists(changes, min_size=1, max_size=4))
    def changes_arrive(self, changes: list[Item | Delete]) -> None:
        for change in changes:
            item = None if isinstance(change, Delete) else change
            sku = change.external_id if isinstance(change, Delete) else str(change["sku"])
            self.store(sku, item)

    def store(self, sku: str, item: Item | None) -> None:
        ledger = self.world.ledger
        new = NewDelivery(
            job=self.world.name,
            kind="delete" if item is None else "upsert",
            external_id=sku,
            item=None if item is None else encode(item),
            received_at=ledger.clock(),
        )
        ledger.inbox.store_many([new])
        self.waiting.append((sku, item, self.model.arrivals.tick()))

    def drain_now(self) -> SyncResults:
        return Drain(self.world.job(), self.world.workspace).run(AT_ONCE)

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
