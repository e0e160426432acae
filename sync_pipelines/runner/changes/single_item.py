"""`sync_single_item`: one item through the very same path."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from sync_pipelines.database.history import History, Writer, Written
from sync_pipelines.database.ledger import Ledger
from sync_pipelines.database.versions import Versions
from sync_pipelines.engine.calls import call, resolve
from sync_pipelines.engine.changes import ChangeEvent, Delete, Ignore, Refetch, Upsert
from sync_pipelines.engine.codec import decode, encode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.external_ids import checked_external_id
from sync_pipelines.engine.plan import Action, Outcome, PlanEntry
from sync_pipelines.engine.redaction import exception_type, message_of
from sync_pipelines.engine.results import ItemResult
from sync_pipelines.errors import ItemError, RunError
from sync_pipelines.runner.calls.target_driver import open_target
from sync_pipelines.runner.context.workspace import open_workspace, utc_now
from sync_pipelines.runner.decide.rules import RunRules
from sync_pipelines.runner.fetch.refetch import refetch
from sync_pipelines.runner.write.batch_writer import ChunkResult, ChunkWriter
from sync_pipelines.runner.write.record_history import SINGLE
from sync_pipelines.settings.model import Settings


def sync_single_item(job: SyncJob[Any, Any], item: Any, *, settings: Settings | None = None) -> ItemResult:
    """Brings one local record up to an item, as a web handler or a webhook wants it. Calls no run hooks.

    Args:
        job: The sync job.
        item: One item as `fetch_external` would give it; or `Delete(external_id)` for one that is gone, or
            `Refetch(external_id)` for one that `fetch_one` is to be asked for.
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
    change = item if isinstance(item, (Upsert, Delete, Refetch, Ignore)) else Upsert(item)
    if job.get_version is None:
        return apply_change(job, change, None)
    with open_workspace(settings) as workspace:
        return apply_change(job, change, workspace.ledger)


def apply_change(job: SyncJob[Any, Any], change: ChangeEvent, ledger: Ledger | None) -> ItemResult:
    """Does what `sync_single_item` does, with a ledger that is open already.

    Args:
        job: The sync job.
        change: The change of one item.
        ledger: The ledger, which a job with `get_version` needs; what is written is noted in its history.
    """
    with open_target(job) as driver:
        rules = RunRules.for_changes(job, driver, Versions(ledger) if ledger is not None else None)
        single = _Single(rules)
        result = single.apply(change)
        if ledger is not None and single.written:
            History(ledger).keep(Writer(job.name, None, SINGLE), single.written, utc_now())
        return result


class _Single:
    """Applies one change to an opened target.

    Args:
        rules: What decides about it.
    """

    def __init__(self, rules: RunRules) -> None:
        self._rules = rules
        self._job, self._driver, self._stale_check = rules.job, rules.driver, rules.stale_check
        self._external_id: str | None = None
        self.written: list[Written] = []
        """What was written, for the history of the record."""

    def apply(self, change: ChangeEvent) -> ItemResult:
        """Applies a change. Raises `ItemError` if it fails."""
        try:
            outcome = self._apply(change)
        except RunError:
            raise
        except Exception as error:
            raise item_error(self._external_id, error) from error
        return ItemResult(outcome.value, self._external_id or "")

    def _apply(self, change: ChangeEvent) -> Outcome:
        if isinstance(change, Ignore):
            return Outcome.SKIPPED
        if isinstance(change, Upsert):
            return self._upsert(change.item)
        self._external_id = self._driver.canonical_id(checked_external_id(change.external_id))
        if isinstance(change, Delete):
            return self._delete(self._external_id)
        answer = refetch(self._job, self._driver, [change.external_id]).answers[change.external_id]
        if answer.error is not None:
            raise answer.error
        return self._delete(self._external_id) if answer.value is None else self._upsert(answer.value)

    def _upsert(self, given: Any) -> Outcome:
        self._external_id = checked_external_id(resolve(self._job.identify(given)))
        external_id = self._external_id = self._driver.canonical_id(self._external_id)
        item = decode(encode(given))  # what a run would hand to the functions
        if self._job.should_skip is not None and call(self._job.should_skip, item):
            return Outcome.SKIPPED
        with self._turn(external_id):
            return self._upsert_if_newer(external_id, item)

    def _upsert_if_newer(self, external_id: str, item: Any) -> Outcome:
        local = self._find(external_id)
        action = Action.CREATE if local is None else Action.UPDATE
        entry = PlanEntry(action, external_id, 0, item)
        if self._stale_check is not None:
            found = {} if local is None else {external_id: local}
            if self._stale_check.is_stale(entry, self._stale_check.known(found, [external_id])):
                return Outcome.SKIPPED
        if local is None:
            self._driver.compare(item, None)  # an item that can't be written fails here, before anything is
        outcome = self._write(entry, local)
        if self._stale_check is not None:
            self._stale_check.keep({external_id: item})
        return outcome

    def _delete(self, external_id: str) -> Outcome:
        with self._turn(external_id):
            local = self._find(external_id)
            if local is None or self._driver.is_marked(local):
                return Outcome.UNCHANGED
            outcome = self._write(PlanEntry(Action.DELETE, external_id), local)
            if self._stale_check is not None:
                self._stale_check.keep_deleted({external_id: local})
            return outcome

    def _turn(self, external_id: str) -> AbstractContextManager[None]:
        """With versions, others who bring single items wait between the look at a record and its write."""
        return self._stale_check.locked(external_id) if self._stale_check is not None else nullcontext()

    def _find(self, external_id: str) -> Any | None:
        found, broken = self._driver.find([external_id])
        if external_id in broken:
            raise broken[external_id]
        return found.get(external_id)

    def _write(self, entry: PlanEntry, local: Any | None) -> Outcome:
        chunk = ChunkWriter(self._rules, [entry], result=_RaisingResult())
        chunk.assign(0, local)
        result = chunk.write()
        self.written += result.written
        return result.outcomes[0]


def item_error(external_id: str | None, error: Exception) -> ItemError:
    """The error of one item, with its own message."""
    if isinstance(error, ItemError):
        return ItemError(message_of(error), external_id=external_id)
    return ItemError(f"{exception_type(error)}: {message_of(error)}", external_id=external_id)


class _RaisingResult(ChunkResult):
    """That of a single item, whose error is raised as it is."""

    def fail(self, number: int, entry: PlanEntry, error: Exception) -> None:  # noqa: ARG002
        raise error
