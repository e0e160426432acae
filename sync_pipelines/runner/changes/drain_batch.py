"""Decides and writes one batch of deliveries, as one change of each item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from sync_pipelines.engine.changes import Delete, Ignore, Refetch, Upsert
from sync_pipelines.engine.plan import Action, Outcome
from sync_pipelines.runner.changes.change_batch import AskedItem, ChangeBatch
from sync_pipelines.runner.changes.coalesce import Coalesced, Incoming, coalesce
from sync_pipelines.runner.decide.came_since import FetchedSince, Received
from sync_pipelines.runner.decide.changes import DELETE, Change
from sync_pipelines.runner.decide.outcomes import Outcomes
from sync_pipelines.runner.decide.rules import RunRules
from sync_pipelines.runner.fetch.refetch import no_fetch_one


class DrainBatch(ChangeBatch):
    """Decides what a batch of deliveries asks for. Handles are their places in it.

    Args:
        incoming: Deliveries as they were read, in the order in which they came.
        unsure_until: What came until then may be older than what a full sync has applied meanwhile.
        fetched_since: Knows whether it is, where neither a version nor the source can tell.
    """

    def __init__(
        self,
        rules: RunRules,
        incoming: Sequence[Incoming],
        unsure_until: datetime | None,
        fetched_since: FetchedSince | None = None,
    ) -> None:
        super().__init__(rules)
        self._job = rules.job
        self._unsure_until = unsure_until
        self._fetched_since = fetched_since
        self.incoming = list(incoming)
        """The deliveries, without those whose item the source was not asked for: they stay waiting."""
        self.superseded: dict[int, str] = {}
        """Why deliveries were skipped that are older than what was fetched since, by their places."""
        self.written: Outcomes | None = None
        """What became of all deliveries in a transaction that was complete, but for the answer to its commit."""

    def decide_deliveries(self) -> None:
        """Decides what is to be written."""
        coalesced = self._coalesced()
        self._skip_superseded(each.kept for each in coalesced.values() if not isinstance(each.event, Refetch))
        coalesced = {place: each for place, each in coalesced.items() if place not in self.superseded}
        asked = {place: each for place, each in coalesced.items() if isinstance(each.event, Refetch)}
        coalesced |= self._asked(asked)
        self._decide(coalesced.values())
        doubtful = self._of_same_version() - asked.keys() if self._job.fetch_one is not None else set()
        for place in doubtful:
            del self.decided.writes[place]
        asked_again = self._asked({place: coalesced[place].to_be_asked() for place in doubtful})
        coalesced |= asked_again
        self._decide(asked_again.values())
        self._decide_passed_over(coalesced)

    def write_deliveries(self, within: Connection | None) -> Outcomes:
        """Writes what was decided, in that transaction if there is one. See `write`."""
        return self.write([each.position for each in self.incoming], within)

    def _coalesced(self) -> dict[int, Coalesced]:
        """Coalesces the deliveries into one event per item, by its place; all others have their outcome."""
        groups: dict[str | None, list[Incoming]] = {}
        can_ask = self._job.fetch_one is not None
        for each in self.incoming:
            if each.error is not None:
                self.outcomes.fail(each.position, each.external_id, each.error)
            elif isinstance(each.event, Ignore):
                self.outcomes.keep(each.position, Outcome.SKIPPED)
            elif each.is_overtaken and not can_ask:
                self.outcomes.keep(each.position, Outcome.DUPLICATE)
            elif isinstance(each.event, Refetch) and not can_ask:
                self.outcomes.fail(each.position, each.external_id, no_fetch_one(self._job))
            else:
                groups.setdefault(each.external_id, []).append(each)
        coalesced = [coalesce(group, can_ask=can_ask, unsure_until=self._unsure_until) for group in groups.values()]
        for each in (superseded for one in coalesced for superseded in one.superseded):
            self.outcomes.keep(each.position, Outcome.DUPLICATE)
        return {each.kept.position: each for each in coalesced}

    def _asked(self, asked: Mapping[int, Coalesced]) -> dict[int, Coalesced]:
        """Asks the source for these items: each is then an upsert, or a delete of one that is gone."""
        ids = {place: each.event.external_id for place, each in asked.items() if isinstance(each.event, Refetch)}
        items = self.ask({place: AskedItem(ids[place], each.kept.external_id) for place, each in asked.items()})
        for place in asked.keys() - items.keys() - self.outcomes.errors.keys():
            self._leave(asked[place])
        return {
            place: replace(asked[place], event=Delete(ids[place]) if item is None else Upsert(item))
            for place, item in items.items()
        }

    def _leave(self, coalesced: Coalesced) -> None:
        """Leaves the deliveries for an item waiting, as if they were not in the batch."""
        places = {coalesced.kept.position, *(each.position for each in coalesced.superseded)}
        for place in places & self.outcomes.by_handle.keys():
            del self.outcomes.by_handle[place]
        self.incoming = [each for each in self.incoming if each.position not in places]

    def _decide(self, coalesced: Iterable[Coalesced]) -> None:
        self.decide([change for each in coalesced if (change := _change(each)) is not None])

    def _of_same_version(self) -> set[int]:
        """Returns places of updates that differ from a local record of the very same version."""
        writes = self.decided.writes
        return {each for each in self.decided.same_version & writes.keys() if writes[each].action is Action.UPDATE}

    def _decide_passed_over(self, coalesced: Mapping[int, Coalesced]) -> None:
        """Decides on deletes after which nothing came but items that are older than the record that they delete."""
        deletes = [gone for place in self.decided.stale if (gone := coalesced[place].passed_over_delete) is not None]
        for each in deletes:
            del self.outcomes.by_handle[each.position]
        self._skip_superseded(deletes)
        left = [each for each in deletes if each.position not in self.superseded]
        self.decide([Change(each.position, each.external_id or "", DELETE, each.version) for each in left])

    def _skip_superseded(self, incoming: Iterable[Incoming]) -> None:
        """Skips what is older than what has been fetched and applied since. Versions tell that by themselves."""
        until, since = self._unsure_until, self._fetched_since
        if until is None or since is None:
            return
        unsure = {
            each.position: Received(each.external_id or "", each.delivery.received_at, isinstance(each.event, Delete))
            for each in incoming
            if each.version is None and each.delivery.received_at <= until
        }
        why = since.why_superseded(list(unsure.values())) if unsure else {}
        for place, each in unsure.items():
            if each.external_id in why:
                self.superseded[place] = why[each.external_id]
                self.outcomes.keep(place, Outcome.SKIPPED)


def _change(coalesced: Coalesced) -> Change | None:
    """Returns the change that an event asks for; None if the source was asked in vain."""
    place, external_id = coalesced.kept.position, coalesced.kept.external_id or ""
    if isinstance(coalesced.event, Upsert):
        return Change(place, external_id, coalesced.event.item)
    if isinstance(coalesced.event, Delete):
        own = coalesced.kept.version if coalesced.event is coalesced.kept.event else None
        return Change(place, external_id, DELETE, own, newest=coalesced.newest_version)
    return None
