"""Applies the entries of a plan batch by batch, and keeps the ledger: whatever breaks off can be gone on with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil

from sync_pipelines.database.batches import BATCH, BatchKey, BatchRow, WrittenBatches
from sync_pipelines.database.ledger import ErrorRow, RunRow
from sync_pipelines.engine.pages import PAGE_SIZE
from sync_pipelines.engine.plan import Outcome, PlanEntry
from sync_pipelines.engine.progress import Progress
from sync_pipelines.engine.results import Counts, SyncError
from sync_pipelines.errors import LeaseLostError
from sync_pipelines.runner.context.run_log import RunReport
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.decide.outcomes import Outcomes
from sync_pipelines.runner.decide.rules import RunRules
from sync_pipelines.runner.plans.plan_file import read_plan
from sync_pipelines.runner.plans.plan_summary import PlanSummary
from sync_pipelines.runner.write.batch_writer import Recheck, write_entries
from sync_pipelines.runner.write.record_history import Recorder
from sync_pipelines.snapshots.parquet_pages import read_rows
from sync_pipelines.snapshots.store import RunFiles

_WRITTEN = frozenset({Outcome.CREATED, Outcome.UPDATED, Outcome.DELETED})


def error_row(error: SyncError) -> ErrorRow:
    """Returns an error as the ledger keeps it."""
    return ErrorRow(error.position, error.external_id, error.exception_type, error.message, error.trace)


@dataclass(frozen=True, slots=True)
class BatchPlaces:
    """Names a batch in the ledger, and the places in it that are still to be applied."""

    key: BatchKey
    places: Collection[int]


class PlanWriter:
    """Applies entries of one run's plan.

    Args:
        verify: True if an earlier attempt may have written something.
    """

    def __init__(  # noqa: PLR0913 - what it works with
        self,
        run: RunRow,
        written: WrittenBatches,
        workspace: Workspace,
        rules: RunRules,
        report: RunReport,
        *,
        verify: bool,
    ) -> None:
        self.run_id = run.id
        self._written = written
        self._batches, self._clock = workspace.batches, workspace.clock
        self._rules = rules
        self.report = report
        self._verify = verify
        self._check = rules.conflict_check
        rules.driver.others.note_written(Counts(**written.total()))
        self.recorder = Recorder.of_run(workspace, run, rules.driver)
        self._uncertain = verify
        self._holds = False
        self._held = self._newly_written = 0

    def in_rounds(self, write_all: Callable[[], object], *, batches: int) -> None:
        """Writes again and again what may come right once other batches are written, as long as some of it does.

        Args:
            write_all: Writes what is left of all batches.
            batches: How many there are at most: of one by itself nothing is left.
        """
        self._holds = batches > 1
        while True:
            self._held = self._newly_written = 0
            write_all()
            if not self._held:
                return
            self._holds = self._newly_written > 0

    def apply_plan(self, files: RunFiles, planned: PlanSummary) -> None:
        """Applies what is left of the plan in the run's files.

        Raises:
            TargetError: The target does not answer; what was done is in the ledger.
        """
        batches = ceil(planned.writes / PAGE_SIZE)
        self.in_rounds(lambda: self.apply_plan_file(files, planned), batches=batches)

    def apply_plan_file(self, files: RunFiles, planned: PlanSummary) -> None:
        """Applies what is left of the plan in the run's files, once."""
        done = 0 if planned.staged is None else planned.writes - read_rows(files.plan)
        fields = self._check is not None or (self._uncertain and self.recorder is not None)
        for page in read_plan(files, self._written.done(BATCH), fields=fields, without=planned.verdict.withheld):
            if page.entries:
                self.apply_entries(BatchKey(BATCH, page.number), page.entries)
            done = min(done + page.size, planned.writes)
            self.report.progress(Progress("apply", planned.fetched, done, planned.writes))

    def apply_entries(self, key: BatchKey, entries: Sequence[PlanEntry]) -> None:
        """Applies what is left of one batch."""
        written = self._written.get(key)
        if written is None:
            self._apply_places(BatchPlaces(key, range(len(entries))), entries)
        elif written.left:
            self._apply_places(BatchPlaces(key, written.left), entries)

    def _apply_places(self, batch: BatchPlaces, entries: Sequence[PlanEntry]) -> None:
        outcomes = Outcomes(job=self._rules.job.name)
        left = {place: entries[place] for place in batch.places}
        recheck = Recheck.ALL if self._verify else Recheck.FOUND
        try:
            write_entries(
                self._rules,
                left,
                outcomes,
                recheck=recheck,
                recovers=self._verify,
                uncertain=self._uncertain,
                holds=self._holds,
            )
            outcomes.require_no_end()
        except LeaseLostError:
            raise  # whoever has the lease may be applying this very batch
        except BaseException:
            rest = outcomes.missing(left)
            if len(rest) < len(left):
                self._save(batch, outcomes, rest)
            raise
        finally:
            self._uncertain = False
            if self._check is not None:
                self._check.uncertain = False  # only the batch that an earlier attempt had begun with was
        held = outcomes.missing(left) if self._holds else []
        self._held += len(held)
        self._newly_written += sum(each in _WRITTEN for each in outcomes.by_handle.values())
        self._save(batch, outcomes, held)

    def _save(self, batch: BatchPlaces, outcomes: Outcomes, left: Sequence[int] = ()) -> None:
        errors = outcomes.all_errors()
        counts, now = outcomes.counts().to_dict(), self._clock()
        also = partial(self.recorder.keep, outcomes.written) if self.recorder is not None else None
        self._batches.save(self.run_id, batch.key, counts, map(error_row, errors), now, left=left, also=also)
        self._written[batch.key] = BatchRow(counts, left)
        for error in errors:
            self.report.item_failed(error)
