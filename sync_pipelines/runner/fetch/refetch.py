"""Asks the source for single items, as they are now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sync_pipelines.database.faults import TargetStateError
from sync_pipelines.engine.calls import call
from sync_pipelines.engine.codec import decode, encode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.external_ids import external_id_of
from sync_pipelines.engine.one_item import OneItem
from sync_pipelines.engine.outages import is_forbidden, is_outage, needs_person
from sync_pipelines.engine.redaction import described, message_of
from sync_pipelines.errors import ConfigurationError, FetchError, ItemError, RetryableError, RunError
from sync_pipelines.runner.calls.circuit_breaker import ITEMS_IN_VAIN
from sync_pipelines.runner.calls.record_calls import Answer, RecordCalls
from sync_pipelines.runner.calls.target_driver import TargetDriver
from sync_pipelines.runner.calls.whose_fault import source_refuses

_AFTER_OUTAGE = timedelta(seconds=60)
"""How long an item waits at least after a source that seems to be down was asked: others get their turn first."""
_AFTER_NO_ANSWER = timedelta(seconds=10)
_LONGEST_WAIT = timedelta(hours=1)
_OF_ITS_AGE = 8
"""An outage of days is not asked about every minute: each wait is an eighth of the time since the first."""


def again_after_outage(since: datetime, now: datetime, *, is_down: bool) -> datetime:
    """Returns when an item is tried again that got no answer. No attempt is counted, and it is never given up.

    Args:
        since: When it came.
        is_down: True if it is not for this item alone that there is no answer.
    """
    shortest = _AFTER_OUTAGE if is_down else _AFTER_NO_ANSWER
    return now + min(max((now - since) / _OF_ITS_AGE, shortest), _LONGEST_WAIT)


@dataclass(frozen=True, slots=True)
class Refetched:
    """Holds the answers of the source.

    Args:
        answers: For each id the item, None of one that is gone, or the error; without those that were not asked for.
        outage: Set if the source does not answer: then it was asked for no more.
    """

    answers: Mapping[str, Answer]
    outage: FetchError | None = None


def refetch(job: SyncJob[Any, Any], driver: TargetDriver, external_ids: Sequence[str]) -> Refetched:
    """Asks `fetch_one` for items. If the source seems to be down, those have failed that it was asked for in vain.

    They may be at fault themselves, and must not keep all others from being asked for. A source that refuses the
    credentials is asked no more; so is one that forbids ten items and has given none.

    Args:
        external_ids: Of which items, as the source writes them.
    """
    if job.fetch_one is None:
        return Refetched({each: Answer(error=no_fetch_one(job)) for each in external_ids})
    answers: dict[str, Answer] = {}
    calls = _SourceCalls(job)
    outage: FetchError | None = None
    try:
        if external_ids:
            calls.each(calls.ask, {each: (each,) for each in external_ids}, answers, what="fetch_one")
    except FetchError as error:
        outage = error
        answers |= {each: Answer(error=error) for each in calls.asked - answers.keys()}
    if calls.forbidden and not calls.gives_items:
        outage = outage or next(iter(calls.forbidden.values()))
        answers |= {each: Answer(error=error) for each, error in calls.forbidden.items()}
    return Refetched({each: _checked(job, driver, each, answer) for each, answer in answers.items()}, outage)


def no_fetch_one(job: SyncJob[Any, Any]) -> ItemError:
    """Returns the error of a delivery that only the source could make sense of."""
    return ItemError(f"only the source can say what the item is now; give {job.name} a fetch_one")


class _SourceCalls(RecordCalls):
    """Calls the source, not the target."""

    def __init__(self, job: SyncJob[Any, Any]) -> None:
        super().__init__(job)
        self.asked: set[str] = set()
        self.forbidden: dict[str, FetchError] = {}
        self.gives_items = False

    def ask(self, external_id: str) -> Any:
        """Asks `fetch_one` for an item.

        Raises:
            RetryableError: It does not answer.
            SourceStateError: A person must act before it does.
        """
        self.asked.add(external_id)
        try:
            item = call(cast("Callable[[str], Any]", self._job.fetch_one), external_id)
        except RetryableError:
            raise
        except Exception as error:
            if is_outage(error):
                raise RetryableError(described(error)) from error
            if is_forbidden(error):
                self.forbidden[external_id] = source_refuses(self._job.name, error)
            if needs_person(error) or (len(self.forbidden) >= ITEMS_IN_VAIN and not self.gives_items):
                raise source_refuses(self._job.name, error) from error
            raise
        self.gives_items = True
        return item

    def does_not_answer(self, error: Exception, to_what: str = "") -> RunError:
        return FetchError(
            f"{self._job.name}: the source does not answer{to_what}: {message_of(error).rstrip('.')}. "
            "What waits goes on waiting.",
            items_fetched=0,
        )


def _checked(job: SyncJob[Any, Any], driver: TargetDriver, asked: str, answer: Answer) -> Answer:
    if answer.error is not None or answer.value is None:
        return answer
    errors: list[Exception] = []
    with OneItem(errors.append, lets_through=(ConfigurationError, TargetStateError)):
        item = decode(encode(answer.value))  # what a run would hand to the functions
        _require_same(driver, asked, external_id_of(job, item))
        return Answer(item)
    return Answer(error=errors.pop())


def _require_same(driver: TargetDriver, asked: str, given: str) -> None:
    if driver.canonical_id(given) != driver.canonical_id(asked):
        raise ItemError(f"fetch_one({asked!r}) gave another item: {given!r}")
