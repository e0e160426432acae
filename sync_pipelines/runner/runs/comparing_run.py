"""The phases in which a run writes nothing: it fetches a snapshot and compares it, which leaves a plan."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from sync_pipelines.database.applied_since import AppliedSince
from sync_pipelines.database.batches import EARLIER, BatchKey
from sync_pipelines.database.failures import key_of_id
from sync_pipelines.database.rewritten import RewrittenColumns
from sync_pipelines.engine.plan import Action
from sync_pipelines.engine.set_back import LOOK_BACK, set_back_notes
from sync_pipelines.errors import RunError
from sync_pipelines.runner.calls.target_driver import TargetDriver, open_target
from sync_pipelines.runner.context.lease import HeldLease
from sync_pipelines.runner.decide.limits import note_withheld
from sync_pipelines.runner.decide.rules import RunRules
from sync_pipelines.runner.decide.staged_diff import FROM_ITEMS, open_staged, staging_request
from sync_pipelines.runner.fetch.drift import drift_notes
from sync_pipelines.runner.fetch.fetch import fetch_snapshot, select
from sync_pipelines.runner.plans.plan_file import read_failed
from sync_pipelines.runner.plans.plan_summary import PlanSummary
from sync_pipelines.runner.runs.differ import Differ, PagedDiffer, StagedDiffer
from sync_pipelines.runner.runs.session import Run, RunSession
from sync_pipelines.runner.write.plan_writer import error_row
from sync_pipelines.snapshots.snapshot import Snapshot
from sync_pipelines.snapshots.store import RunFiles


@dataclass(frozen=True, slots=True)
class RunRef:
    """Says to the next phase which run goes on.

    Args:
        plan_id: The plan to apply instead, of a run that fetches nothing.
        reason: Why that plan is right.
    """

    run_id: str
    dry_run: bool = field(default=False, kw_only=True)
    plan_id: str | None = field(default=None, kw_only=True)
    reason: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class SnapshotRef(RunRef):
    """Says where the snapshot of a fetch is: the run it belongs to.

    Args:
        part: What all items of the source are, in short; None if some may be missing, or nobody asked.
    """

    items: int
    part: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class PlanRef(RunRef):
    """Says where the plan of a diff is: the run it belongs to."""

    writes: int


class ComparingRun(Run):
    """Fetches and compares. Phases may happen in different processes: each gets only a reference."""

    @property
    def applies(self) -> bool:
        """False for a run that only plans."""
        return self.kind.applies

    def fetch(self, *, limit: int | None = None, only: Collection[str] = ()) -> SnapshotRef:
        """Begins a run: calls `on_start` and fetches all items into a snapshot.

        Raises:
            FetchError: The source broke off; nothing is applied.
            HookError: `on_start` failed; nothing was fetched.
        """
        selection = select(limit, only)
        session = self._session()
        with session.leased() as held:
            keep = session.start({"limit": selection.limit, "only": sorted(selection.only)})
            drift = partial(drift_notes, self.job.name, session.run_id, self._workspace)
            with session.phase("fetch", keep=held, at_end=drift) as notes:
                self._workspace.remove_files(keep)
                session.on_start()
                self._report.line(f"fetch: asking the source of {self.job.name}")
                files = self._workspace.store.files_of(session.run_id)
                fetched = fetch_snapshot(
                    self.job, files, selection, self._report, sums=self._dagster_run_id is not None
                )
                notes.extend(fetched.notes)
                session.completeness = fetched.completeness.to_manifest()
                self._report.line(f"fetch: {fetched.items:,} items")
        return SnapshotRef(session.run_id, fetched.items, part=fetched.part)

    def diff(self, snapshot: SnapshotRef) -> PlanRef:
        """Compares the snapshot with the local records and leaves a plan. Writes nothing to the target."""
        files = self._workspace.store.files_of(snapshot.run_id)
        session = self._session(snapshot.run_id)
        with session.leased() as held, session.phase("diff", keep=held if self.applies else None) as notes:
            with self._ledger.together():
                self._require_newest(session, held)
                session.look_up()
            if session.batches:
                notes.append("diffed again after a part was applied; that part counts as unchanged")
            with self._opened(files, snapshot.run_id) as (driver, differ):
                notes.extend(driver.notes())
                planned = self._diff(session, files, driver, differ)
            notes.extend(planned.notes)
        return PlanRef(snapshot.run_id, planned.writes)

    @contextmanager
    def _opened(
        self, files: RunFiles, run_id: str, held: HeldLease | None = None
    ) -> Iterator[tuple[TargetDriver, Differ]]:
        """Opens the target, and yields its driver and its differ."""
        request = staging_request(self.job, self._workspace, files, run_id, is_dry=not self.applies)
        paged = PagedDiffer(files, self._report, durable=not self.applies)
        with open_target(self.job, held) as driver, open_staged(driver, request) as staged:
            if staged is None:
                yield driver, paged
            else:
                yield driver, StagedDiffer(self._workspace, driver, staged, paged, is_worth_it=self._is_worth_it(files))

    def _diff(self, session: RunSession, files: RunFiles, driver: TargetDriver, differ: Differ) -> PlanSummary:
        run_id, noted = session.run_id, session.batches
        session.forget_batches()
        differ.move_leftover_history(session.run)
        planned = self._compare(run_id, files, driver, differ)
        recovered = differ.recovered(noted)
        if recovered:
            counts = {"recovered": recovered}
            self._workspace.batches.replace(run_id, BatchKey(EARLIER), counts, self._workspace.clock())
        with self._ledger.together():
            planned = replace(planned, notes=[*planned.notes, *self._note_withheld(run_id, planned)])
            if self.applies and Action.UPDATE not in planned.verdict.withheld:
                planned = replace(planned, notes=[*planned.notes, *self._note_written_columns(run_id, planned)])
            failed = map(error_row, read_failed(files))
            self._ledger.save_diff_errors(run_id, failed, no_deletes=planned.no_deletes)
        settled = planned.settled
        self._report.line(
            f"diff: {planned.writes:,} to write, {settled.unchanged:,} unchanged, {settled.skipped:,} skipped, "
            f"{settled.duplicate:,} duplicates, {settled.failed:,} failed"
        )
        return planned

    def _note_written_columns(self, run_id: str, planned: PlanSummary) -> list[str]:
        """Keeps which columns are written on a few of the records; returns which of them something sets back."""
        columns, matched = planned.written_columns, planned.settled.unchanged
        if columns is None or not columns.updates:
            return []
        kept = RewrittenColumns(self._ledger, self._workspace.batches)
        earlier = kept.of_last_runs(self.job.name, LOOK_BACK)
        found = columns.found(matched + columns.updates, earlier, self._failed_among)
        if found:
            kept.keep(run_id, found, self._workspace.clock())
        return set_back_notes(found)

    def _failed_among(self, external_ids: Sequence[str]) -> set[str]:
        """Returns those whose failure is not resolved."""
        by_key = {key_of_id(each): each for each in external_ids}
        with self._ledger.transaction() as connection:
            failures = self._workspace.failures.of_keys(self.job.name, list(by_key), connection)
        return {by_key[each.key] for each in failures}

    def _compare(self, run_id: str, files: RunFiles, driver: TargetDriver, differ: Differ) -> PlanSummary:
        """Makes the plan by the rules of a whole fetch."""
        rules = RunRules.for_changes(self.job, driver, self._workspace.versions)
        return differ.diff(rules.for_fetch(self._workspace, run_id, files, is_dry=not self.applies))

    def _note_withheld(self, run_id: str, planned: PlanSummary) -> list[str]:
        """Keeps what limits withhold as a plan; returns what a person should know of it."""
        return note_withheld(self.job, self._workspace, run_id, planned)

    def _is_worth_it(self, files: RunFiles) -> bool:
        return int(Snapshot(files.folder).summary()["items"]) >= FROM_ITEMS or self.job.deletes != "off"

    def _require_newest(self, session: RunSession, held: HeldLease) -> None:
        """Refuses to write what was fetched before somebody else wrote, which a re-execution may ask for."""
        since = AppliedSince(self._ledger, self.job.name, asks_source=self.job.fetch_one is not None)
        newer = since.whole_run(session.run)
        if newer is not None:
            raise RunError(
                f"{self.job.name}: the newer run {newer} has applied since this one fetched; its items may be older "
                "than the local records. Start a new run instead of re-executing this one."
            )
        is_continued = self.job.get_version is not None or held.lease.is_continued
        if not is_continued and since.single_items(session.run.started_at):
            raise RunError(
                f"{self.job.name}: single items have been applied since this run fetched; its items may be older than "
                "the local records. Start a new run instead of re-executing this one."
            )
