"""The history of each record is what has happened to it."""

from __future__ import annotations

from sync_pipelines.database.history import History
from sync_pipelines.engine.history import HistoryEvent
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.registry.history import events_of_record
from sync_pipelines_tests.runner.machine.base import Machine
from sync_pipelines_tests.runner.machine.model import Marked, State, quantity_of

_WRITES = {"created", "updated", "deleted"}


class Remembered(Machine):
    """Of every run the ledger knows what it wrote, record by record."""

    def check_writes(self, results: SyncResults, *, has_died: bool = False, is_diffed_again: bool = False) -> None:
        kinds = {sku: _kind_of(self.before.get(sku), self.model.rows.get(sku)) for sku in self.before | self.model.rows}
        known = 0
        for sku, wanted in kinds.items():
            if wanted is None:
                continue
            events = self.events(sku, results.run_id)
            is_known = not has_died or not (is_diffed_again or wanted == "deleted" or self.world.kind == "functions")
            assert [event.kind for event in events] in ([[wanted]] if is_known else [[], [wanted]])
            for event in events:
                self.check_change(event, self.before.get(sku), self.model.rows.get(sku))
            known += len(events)
        assert self.world.writes_in_history(results.run_id) == known

    def events(self, sku: str, run_id: str) -> list[HistoryEvent]:
        found = events_of_record(History(self.world.ledger.ledger), self.world.name, [sku], 1_000)
        return [event for event in found if event.run_id == run_id and event.kind in _WRITES]

    @staticmethod
    def check_change(event: HistoryEvent, was: State | None, now: State | None) -> None:
        change = (event.changes or {}).get("quantity")
        if change is not None and event.kind != "deleted":
            assert (change.old, change.new) == (quantity_of(was), quantity_of(now))


def _kind_of(was: State | None, now: State | None) -> str | None:
    if was == now:
        return None
    if was is None:
        return "created"
    return "deleted" if now is None or isinstance(now, Marked) else "updated"
