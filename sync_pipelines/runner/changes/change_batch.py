"""`ChangeBatch`: changes of single items, decided and written by the same two functions as a whole fetch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection

from sync_pipelines.errors import FetchError, RunError
from sync_pipelines.runner.decide.changes import Change, Decided, decide_changes
from sync_pipelines.runner.decide.outcomes import Outcomes
from sync_pipelines.runner.decide.rules import RunRules
from sync_pipelines.runner.fetch.refetch import refetch
from sync_pipelines.runner.write.batch_writer import Recheck, write_entries


class AskedItem(NamedTuple):
    """Names an item that the source is asked for: by the source's own id, and by the id that errors show."""

    source_id: str
    external_id: str | None


class ChangeBatch:
    """Asks what items are, decides what is to be done, and writes it. What became of it is in one book.

    Args:
        raises: True to raise the first error instead of keeping it: for a single item.
    """

    def __init__(self, rules: RunRules, *, raises: bool = False) -> None:
        self._rules = rules
        self.decided = Decided(outcomes=Outcomes(raises=raises, job=rules.job.name))
        self.outcomes = self.decided.outcomes
        """What has become of the changes so far."""
        self.outage: FetchError | None = None
        """Set if the source does not answer; what it was not asked for has no outcome."""

    def ended(self, outcomes: Outcomes) -> RunError | None:
        """Returns what ends the work after this batch: the source or the target refuses all, or does not answer."""
        return self.outage or outcomes.ended

    def ask(self, asked: Mapping[int, AskedItem]) -> dict[int, Any]:
        """Asks the source what items are now.

        Args:
            asked: Handle -> item.

        Returns:
            Handle -> the item, None of one that is gone; without those that failed or were not asked for.
        """
        found = refetch(
            self._rules.job, self._rules.driver, list(dict.fromkeys(each.source_id for each in asked.values()))
        )
        self.outage = self.outage or found.outage
        items: dict[int, Any] = {}
        for handle, each in asked.items():
            answer = found.answers.get(each.source_id)
            if answer is None:
                continue
            if answer.error is not None:
                self.outcomes.fail(handle, each.external_id, answer.error)
            else:
                items[handle] = answer.value
        return items

    def decide(self, changes: Sequence[Change]) -> None:
        """Decides what is to be done for changes, each of another external id."""
        decide_changes(self._rules, changes, self.decided)

    def write(
        self, handles: Collection[int], within: Connection | None = None, recheck: Recheck = Recheck.ALL
    ) -> Outcomes:
        """Writes what was decided. May be called again after a transaction that came to nothing.

        Args:
            handles: Those of all changes, which must have an outcome then.
            within: In whose transaction watermarks are kept; by default each time in one of their own.
            recheck: What is looked at once more: by default all, for what a batch that was killed has written is
                found up to date by the next.

        Returns:
            What became of all changes. Without a transaction it is in `outcomes` as well, as far as writing got.
        """
        rules, outcomes = self._rules.within(within), self.decided.outcomes.copy()
        if within is None:
            self.outcomes = outcomes
        if rules.stale_check is not None:
            rules.stale_check.keep_versions(self.decided.tombstones)
        write_entries(rules, self.decided.writes, outcomes, recheck=recheck)
        outcomes.require_complete(rules.job.name, handles)
        return outcomes
