"""Tries failures again without waiting for the next run: the item as the source has it now, else as it was kept."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from sync_pipelines.database.applied_since import AppliedSince
from sync_pipelines.database.batches import BatchKey
from sync_pipelines.database.failure_rows import GIVEN_UP, OPEN, RESOLVED, UPSERT, VANISHED, FailureRow, Retryable
from sync_pipelines.database.history import Writer
from sync_pipelines.database.tables import RETRY
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.progress import OnProgress, Progress
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import ConfigurationError, RunError
from sync_pipelines.runner.calls.id_spellings import spellings_of
from sync_pipelines.runner.calls.target_driver import TargetDriver
from sync_pipelines.runner.changes.retry_batch import RetryBatch
from sync_pipelines.runner.context.run_log import RunReport
from sync_pipelines.runner.context.workspace import Workspace, open_workspace
from sync_pipelines.runner.decide.rules import RunRules
from sync_pipelines.runner.failures.failure_notes import FailureNotes
from sync_pipelines.runner.fetch.refetch import again_after_outage
from sync_pipelines.runner.runs.session import RETRYING, ItemsRun
from sync_pipelines.runner.write.plan_writer import error_row
from sync_pipelines.runner.write.record_history import Recorder
from sync_pipelines.settings.model import Settings

BATCH_SIZE = 500


def retry_failures(  # noqa: PLR0913 - one job and its options, by keyword
    job: SyncJob[Any, Any],
    *,
    external_ids: Collection[str] = (),
    everything: bool = False,
    settings: Settings | None = None,
    on_progress: OnProgress | None = None,
    log: logging.Logger | None = None,
    wait_s: float = 0.0,
) -> SyncResults:
    """Tries items again that have failed, as the retry job in Dagster does. Calls no run hooks.

    The source is asked for each item if the job has a `fetch_one`; one that it no longer has is resolved, and nothing
    is deleted. Else the item is taken as it was kept, unless a record may have become newer since.

    Args:
        external_ids: Try these, whenever they are due and also if they are given up; by default those that are due.
        everything: Try all that are open or given up, whenever they are due.
        settings: By default those of the environment.
        on_progress: Called with a `Progress` after every batch.
        log: Where the run log goes; by default the logger `sync_pipelines`.
        wait_s: Seconds to wait at most while another run of this sync is under way.

    Raises:
        SyncBusyError: Another run of this sync is still under way; nothing was done.
        ConfigurationError: An id has no failure that can be tried again, ids and `everything` are both given, or a
            declaration, a setting or a table is wrong.
        TargetError: The target does not answer; what succeeded is accounted for in `results`.
        FetchError: The source does not answer; what was not asked for is left as it is.
    """
    if not isinstance(job, SyncJob):
        raise ConfigurationError(
            f"retry_failures: {job!r} is no SyncJob; give the declaration itself, such as the JOB of a file"
        )
    if isinstance(external_ids, str):
        raise ConfigurationError(f"external_ids={external_ids!r} must be a list of ids, such as [{external_ids!r}]")
    with open_workspace(settings) as workspace:
        run = RetryRun(job, workspace, RunReport(log, on_progress), wait_s=wait_s)
        return run.run(external_ids, everything=everything)


def what_is_due(job: SyncJob[Any, Any], workspace: Workspace, now: datetime | None) -> Retryable:
    """Says which failures of a job may be tried again.

    Args:
        now: Only those that are due by then; None: whenever they are.
    """
    return Retryable(
        by_asking=job.fetch_one is not None,
        has_versions=job.get_version is not None,
        uncertain_since=AppliedSince(workspace.ledger, job.name).uncertain_since(),
        due_at=now if job.retry is not None else None,
    )


class RetryRun(ItemsRun):
    """Tries the failures of a sync job again."""

    kind = RETRYING
    _batches_done = _done = _vanished = 0

    def run(self, external_ids: Collection[Any] = (), *, everything: bool = False) -> SyncResults:
        """Tries what is due, or what is named. See `retry_failures`."""
        if external_ids and everything:
            raise ConfigurationError(
                f"{self.job.name}: certain ids and everything exclude each other; give one of them"
            )
        try:
            with self.session.leased() as held:
                started_at = self._workspace.clock()
                which = what_is_due(self.job, self._workspace, None if everything or external_ids else started_at)
                if everything:
                    which = replace(which, states=(OPEN, GIVEN_UP))
                named = self._named(external_ids, which)
                options = {"only": sorted(set(map(str, external_ids))), "everything": everything}
                with self.session.items_phase(held, options, started_at, self._notes) as driver:
                    self._retry(self.session.run_id, driver, which, named)
        except RunError as error:
            error.results = self.results
            raise
        assert self.results is not None  # noqa: S101 - tells mypy; the run has ended
        return self.results

    def _notes(self) -> list[str]:
        return [f"{self._vanished:,} failed items are no longer in the source"] if self._vanished else []

    def _named(self, external_ids: Collection[Any], which: Retryable) -> list[FailureRow]:
        """Returns the failures with these ids.

        Raises:
            ConfigurationError: One of them has none that can be tried again; nothing is tried then.
        """
        found: dict[str, FailureRow] = {}
        for external_id in external_ids:
            spellings = spellings_of(self.job, external_id, f"{self.job.name}: external_ids")
            failure = self._workspace.failures.of_item(self.job.name, *spellings)
            problem = self._why_not(failure, which)
            if failure is None or problem is not None:
                raise ConfigurationError(f"{self.job.name}: {spellings[0]!r} {problem}; nothing was tried again")
            found[failure.key] = failure
        return list(found.values())

    def _why_not(self, failure: FailureRow | None, which: Retryable) -> str | None:
        """Says why a failure can't be tried again; None if it can."""
        name = self.job.name
        if failure is None:
            return f"has no failure; `sync-pipelines failures {name} --list` lists those that there are"
        if failure.action != UPSERT:
            return "is a record that could not be deleted; only a run can tell whether the source still lacks it"
        if which.by_asking and failure.external_id is not None:
            return None
        if failure.state == RESOLVED:
            return "has no failure that is open"
        fetched = f"try it with `sync-pipelines run {name} --only ...`, which fetches it"
        if failure.payload is None:
            return f"could not be kept; {fetched}"
        return None if which.is_newest(failure) else f"may be older than its record by now; {fetched}"

    def _retry(self, run_id: str, driver: TargetDriver, which: Retryable, named: list[FailureRow]) -> None:
        total = len(named) or self._workspace.failures.count_retryable(self.job.name, which)
        self._report.line(f"retry: {total:,} failed items of {self.job.name} are tried again")
        for failures in self._batches(named, which):
            rules = RunRules.for_changes(self.job, driver, self._workspace.versions)
            batch = RetryBatch(rules, failures, self._done, self._workspace.clock())
            self._put_off(failures)
            try:
                batch.decide_failures()
                if batch.has_writes:
                    self._workspace.ledger.begin_apply(run_id, self._workspace.clock())
                batch.write_failures()
            finally:
                self._note(run_id, batch)
            self._done += len(failures)
            self._report.progress(Progress("apply", total, self._done, total))
            if (ended := batch.ended(batch.outcomes)) is not None:
                raise ended

    def _batches(self, named: list[FailureRow], which: Retryable) -> Iterator[Sequence[FailureRow]]:
        for start in range(0, len(named), BATCH_SIZE):
            yield named[start : start + BATCH_SIZE]
        if named:
            return
        after = ""
        while failures := self._workspace.failures.retryable(self.job.name, which, after, BATCH_SIZE):
            yield failures
            after = failures[-1].key

    def _put_off(self, failures: Sequence[FailureRow]) -> None:
        """Notes the next try before this one: if the process dies of an item, it does not do so again at once."""
        retry, now = self.job.retry, self._workspace.clock()
        if retry is None:
            return
        later = {each.key: retry.next_at(min(each.attempts, retry.attempts - 1), now) for each in failures}
        self._workspace.failures.reschedule(self.job.name, {key: at for key, at in later.items() if at is not None})

    def _note(self, run_id: str, batch: RetryBatch) -> None:
        """Notes what became of a batch, all in one transaction."""
        now, name = self._workspace.clock(), self.job.name
        outcomes, failed = batch.outcomes, batch.failed()
        errors = outcomes.all_errors()
        notes = FailureNotes(self.job, self._workspace.failures, run_id, now)
        also = partial(Recorder(self._workspace, Writer(name, run_id, RETRY)).keep, outcomes.written)
        with self._workspace.failures.transaction() as connection:
            counts, rows = outcomes.counts().to_dict(), map(error_row, errors)
            key = BatchKey(number=self._batches_done)
            self._workspace.batches.save(run_id, key, counts, rows, now, within=connection, also=also)
            other_key = [key for key, each in failed.items() if each.key != key]
            self._workspace.failures.resolve(name, batch.resolved_keys() + other_key, run_id, now, connection)
            self._workspace.failures.resolve(name, batch.vanished_keys(), VANISHED, now, connection)
            notes.note(list(failed.values()), connection)
            again = {key: row.next_try_at for key, row in batch.left().items()}
            is_down = batch.ended(outcomes) is not None
            again |= {
                each.key: again_after_outage(each.first_failed_at, now, is_down=is_down) for each in batch.in_vain()
            }
            self._workspace.failures.reschedule(name, again, connection)
        self._batches_done += 1
        self._vanished += len(batch.vanished)
        for error in errors:
            self._report.item_failed(error)
