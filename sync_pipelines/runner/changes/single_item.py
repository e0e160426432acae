"""`sync_single_item`: one item through the very same path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, NoReturn
from uuid import uuid4

from sync_pipelines.database.data_versions import DataVersions, Writing
from sync_pipelines.database.history import History, Writer, Written
from sync_pipelines.database.ledger import Ledger
from sync_pipelines.database.versions import Versions
from sync_pipelines.engine.changes import ChangeEvent, Delete, Ignore, Refetch, Upsert
from sync_pipelines.engine.codec import decode, encode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.external_ids import checked_external_id, external_id_of
from sync_pipelines.engine.one_item import OneItem
from sync_pipelines.engine.plan import Outcome
from sync_pipelines.engine.redaction import described, message_of
from sync_pipelines.engine.results import ItemResult
from sync_pipelines.errors import FetchError, ItemError, RetryableError, RunError, TargetError
from sync_pipelines.runner.calls.target_driver import open_target
from sync_pipelines.runner.changes.change_batch import AskedItem, ChangeBatch
from sync_pipelines.runner.context.workspace import open_workspace, utc_now
from sync_pipelines.runner.decide.changes import DELETE, Change
from sync_pipelines.runner.decide.rules import RunRules
from sync_pipelines.runner.decide.stale_check import version_of_change
from sync_pipelines.runner.write.batch_writer import Recheck
from sync_pipelines.runner.write.record_history import SINGLE
from sync_pipelines.settings.model import Settings

_WRITTEN = frozenset({Outcome.CREATED.value, Outcome.UPDATED.value, Outcome.DELETED.value})


def sync_single_item(job: SyncJob[Any, Any], item: Any, *, settings: Settings | None = None) -> ItemResult:
    """Brings one local record up to an item, as a web handler or a webhook wants it. Calls no run hooks.

    Args:
        item: One item as `fetch_external` would give it; or `Delete(external_id)` for one that is gone (with its
            `version`, if there is one), or `Refetch(external_id)` for one that `fetch_one` is to be asked for.
        settings: Where the ledger is, which a job with `get_version` needs; by default those of the environment.

    Returns:
        What became of it: `created`, `updated`, `deleted`, `unchanged` or `skipped` (also an item that is older than
        the local record).

    Raises:
        ItemError: The item failed; the message is the error's own, its cause the error itself.
        ConfigurationError: The target does not fit its database.
        TargetError: The target does not answer.
        FetchError: The source does not answer.
    """
    event = item if isinstance(item, (Upsert, Delete, Refetch, Ignore)) else Upsert(item)
    if job.get_version is None:
        return apply_change(job, event, None)
    with open_workspace(settings) as workspace:
        return apply_change(job, event, workspace.ledger)


def apply_change(job: SyncJob[Any, Any], event: ChangeEvent, ledger: Ledger | None) -> ItemResult:
    """Does what `sync_single_item` does, with a ledger that is open already.

    Args:
        ledger: The ledger, which a job with `get_version` needs; what is written is noted in its history.
    """
    with open_target(job) as driver:
        rules = RunRules.for_changes(job, driver, Versions(ledger) if ledger is not None else None)
        change = _NotedChange(job.name, ledger) if ledger is not None else None
        single = _Single(rules, change.begin if change is not None else None)
        try:
            result = single.apply(event)
        except ItemError:
            if change is not None:
                change.settle([], wrote=False)
            raise
        if change is None:
            return result
        return replace(result, data_version=change.settle(single.written, wrote=result.action in _WRITTEN))


class _NotedChange:
    """Notes in the ledger that a single item is written, before and after: its process may die between the two."""

    def __init__(self, job: str, ledger: Ledger) -> None:
        self._writing = Writing(job, str(uuid4()), is_single=True)
        self._ledger = ledger
        self._versions = DataVersions(ledger)
        self._has_begun = False

    def begin(self) -> None:
        """Notes that it is about to be written."""
        self._versions.begin(self._writing, utc_now())
        self._has_begun = True

    def settle(self, written: Sequence[Written], *, wrote: bool) -> str | None:
        """Notes what was written, and returns the target's data version if it was about to be."""
        if not self._has_begun:
            return None
        job = self._writing.job
        with self._ledger.together():
            History(self._ledger).keep(Writer(job, None, SINGLE), written, utc_now())
            self._versions.settle(self._writing, int(wrote), utc_now())
            return self._versions.current(job)


class _Single:
    """Applies one change as a batch of one, whose error is raised.

    Args:
        before_write: Called if something is to be written, before it is.
    """

    def __init__(self, rules: RunRules, before_write: Callable[[], object] | None = None) -> None:
        self._rules = rules
        self._before_write = before_write
        self._external_id: str | None = None
        self.written: list[Written] = []
        """What was written, for the history of the record."""

    def apply(self, event: ChangeEvent) -> ItemResult:
        """Applies a change. Raises `ItemError` if it fails."""
        outcome = Outcome.SKIPPED
        with OneItem(self._raise, lets_through=RunError):
            if not isinstance(event, Ignore):
                outcome = self._apply(event)
        return ItemResult(outcome.value, self._external_id or "")

    def _raise(self, error: Exception) -> NoReturn:
        if isinstance(error, RetryableError):
            told = f"{self._rules.job.name}: the target does not answer: {message_of(error)}"
            raise TargetError(told) from error
        raise item_error(self._external_id, error) from error

    def _apply(self, event: Upsert | Delete | Refetch) -> Outcome:
        batch = ChangeBatch(self._rules, raises=True)
        job, driver = self._rules.job, self._rules.driver
        given = external_id_of(job, event.item) if isinstance(event, Upsert) else checked_external_id(event.external_id)
        self._external_id = given  # so that an error says it even if it does not convert
        external_id = self._external_id = driver.canonical_id(given)
        item: Any = DELETE
        version = version_of_change(job, event)
        if isinstance(event, Upsert):
            item = decode(encode(event.item))  # what a run would hand to the functions
        elif isinstance(event, Refetch):
            answer = self._asked(batch, AskedItem(event.external_id, external_id))
            item = DELETE if answer is None else answer
        with self._turn(external_id):
            batch.decide([Change(0, external_id, item, version)])
            if batch.decided.writes and self._before_write is not None:
                self._before_write()
            outcomes = batch.write([0], recheck=Recheck.NOTHING)
        self.written = outcomes.written
        return outcomes.by_handle[0]

    def _asked(self, batch: ChangeBatch, asked: AskedItem) -> Any:
        """Returns what the source says the item is, None of one that is gone."""
        try:
            return batch.ask({0: asked})[0]
        except RetryableError as error:
            told = f"{self._rules.job.name}: the source does not answer: {message_of(error)}"
            raise FetchError(told, items_fetched=0) from error

    def _turn(self, external_id: str) -> AbstractContextManager[None]:
        """Keeps other single items for the record waiting from its comparison to its write, for jobs with versions."""
        stale_check = self._rules.stale_check
        return stale_check.locked(external_id) if stale_check is not None else nullcontext()


def item_error(external_id: str | None, error: Exception) -> ItemError:
    """Returns the error of one item, with its own message."""
    if isinstance(error, ItemError):
        return ItemError(message_of(error), external_id=external_id)
    return ItemError(described(error), external_id=external_id)
