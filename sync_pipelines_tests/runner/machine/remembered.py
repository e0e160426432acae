"""The history of each record is what has happened to it."""

from __future__ import annotations

from sync_pipelines.database.history import History
from sync_pipelines.engine.history import HistoryEvent
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.runner.history_reading import events_of_record
from sync_pipelines_tests.runner.machine.base import Machine
from sync_pipelines_tests.runner.machine.model import Marked, State, quantity_of

_WRITES = {"created", "updated", "deleted"}


class Remembered(Machine):
    """Of every run the ledger knows what it wrote, record by record."""

    def check_writes(self, results: SyncResults, *, has_died: bool = False, is_diffed_again: bool = False) -> None:
        for sku in {*self.before, *self.model.rows}:
            was, now = self.before.get(sku), self.model.rows.get(sku)
            wanted, events = _kind_of(was, now), self.events(sku, results.run_id)
            if has_died and (is_diffed_again or wanted == "deleted" or self.world.kind == "functions"):
                assert [event.kind for event in events] in ([], [wanted]), "nobody can tell what was in doubt"
            else:
                assert [event.kind for event in events] == ([wanted] if wanted else [])
            for event in events:
                self.check_change(event, was, now)

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
