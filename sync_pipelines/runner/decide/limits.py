"""Holds a run's diff against the limits, and keeps a plan of what they withhold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from sync_pipelines.database.plans import PlanRow
from sync_pipelines.database.run_queries import RunQueries
from sync_pipelines.database.tables import WITHHELD
from sync_pipelines.engine.blanks import BlankTally
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.guards import NO_LIMITS, Found, Guards, Verdict, judge, why_fetch
from sync_pipelines.engine.pages import PAGE_SIZE, batches
from sync_pipelines.engine.plan import Action, EntryRow, PlanCounts, PlanEntry
from sync_pipelines.engine.results import Counts
from sync_pipelines.runner.calls.target_driver import TargetDriver
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.plans.fingerprint import fingerprint_of
from sync_pipelines.runner.plans.plan_file import PlanPages, delete_entry, entry_row, fields_before
from sync_pipelines.runner.plans.plan_summary import PlanSummary
from sync_pipelines.snapshots.parquet_pages import read_summary
from sync_pipelines.snapshots.snapshot import Snapshot
from sync_pipelines.snapshots.store import RunFiles


class Limits:
    """Applies the limits of one run.

    Args:
        last_fetched: How many items the last good fetches had, newest first.
        earlier: The verdict on the same run before it began to write; nothing of a run that has not.
    """

    def __init__(
        self,
        guards: Guards,
        files: RunFiles,
        driver: TargetDriver,
        last_fetched: list[int],
        earlier: Verdict = Verdict(),
    ) -> None:
        self.guards = guards
        self._earlier = earlier
        self._files = files
        self._driver = driver
        snapshot = Snapshot(files.folder)
        completeness = snapshot.completeness()
        self._fetched, self._is_whole = int(snapshot.summary()["items"]), completeness.took_all
        # of a fetch that is not complete nobody expects as many items as usual
        self._last_fetched = last_fetched if completeness.is_complete else []

    @property
    def suspects_fetch(self) -> bool:
        """True if the fetch itself looks broken: nothing is to be learnt from what it lacks."""
        is_odd = not self._fetched or any(why_fetch(self.guards, self._fetched, self._last_fetched))
        return self._is_whole and is_odd

    @property
    def counts_blanks(self) -> bool:
        """True if it matters what updates would set to null or empty."""
        return self._is_whole and self.guards.max_blank_share is not None

    def judge(
        self,
        planned: PlanCounts,
        *,
        unchanged: int,
        existing: int | None,
        blanks: Callable[[], BlankTally] = BlankTally,
    ) -> Verdict:
        """Says what is to be withheld. A run that somebody limited to some items is what that person wants.

        Args:
            unchanged: How many items have a local record that is up to date.
            existing: How many local records there are; None if nobody has counted.
            blanks: Gives what the updates would blank; called only if that matters.
        """
        if not self._is_whole:
            return Verdict()
        counts = self.counts_blanks and planned.update > self.guards.few
        blankings = blanks().blankings() if counts else ()
        found = Found(self._fetched, planned, unchanged, existing, self._last_fetched, blankings)
        verdict = judge(self.guards, found)
        # what the run has created since would make any share of the records look small
        return self._earlier.joined_with(verdict)

    def keep(self, entries: Iterable[PlanEntry]) -> PlanCounts:
        """Writes what is withheld into a plan of its own, with what the local records hold now.

        Args:
            entries: Updates with their items, and deletes.

        Returns:
            How many there are of each action.
        """
        return self.keep_rows(row for batch in batches(entries, PAGE_SIZE) for row in self._rows(batch))

    def keep_rows(self, rows: Iterable[EntryRow]) -> PlanCounts:
        """Writes what is withheld into a plan of its own; returns how much there is of each action."""
        files = self._files.withheld
        with files.write_plan() as (plan, findings):
            pages = PlanPages(plan)
            for batch in batches(rows, PAGE_SIZE):
                pages.add_rows(batch)
            pages.flush()
            counts = pages.counts()
            findings.finish({})
            plan.finish(PlanSummary(counts.update, Counts(), counts.writes, planned=counts).summary())
        return counts

    def _rows(self, entries: Sequence[PlanEntry]) -> Iterator[EntryRow]:
        unknown = [each.external_id for each in entries if not each.changes]
        found = self._driver.find(unknown)[0] if unknown else {}
        for each in entries:
            entry = _with_record(self._driver, each, found.get(each.external_id))
            yield entry_row(entry, fields_before(self._driver, entry))


def _with_record(driver: TargetDriver, entry: PlanEntry, local: Any | None) -> PlanEntry:
    if local is None:
        return entry
    if entry.action is Action.DELETE:
        return delete_entry(driver, entry.external_id, local)
    return replace(entry, local=local)


def limits_of(
    job: SyncJob[Any, Any], workspace: Workspace, run_id: str, files: RunFiles, driver: TargetDriver
) -> Limits:
    """Returns the limits of a run of that job."""
    with workspace.ledger.together():
        released = workspace.plans.released(job.name)
        last_fetched = RunQueries(workspace.ledger).last_fetched(job.name, released)
        earlier = _earlier_verdict(workspace, run_id)
    return Limits(job.guards or NO_LIMITS, files, driver, last_fetched, earlier)


def _earlier_verdict(workspace: Workspace, run_id: str) -> Verdict:
    """Returns the verdict on a run before it began to write, which a repeated diff does not undo."""
    plan = workspace.plans.withheld_of(run_id)
    run = workspace.ledger.run(run_id) if plan is not None else None
    if plan is None or run is None or run.apply_started_at is None:
        return Verdict()
    return Verdict(plan.guarded, frozenset(action for action in Action if plan.counts.get(action.value)))


def note_withheld(job: SyncJob[Any, Any], workspace: Workspace, run_id: str, planned: PlanSummary) -> list[str]:
    """Notes in the ledger what is withheld of a run, in place of what was withheld of earlier ones.

    Returns:
        What a person should know.
    """
    files = workspace.store.files_of(run_id)
    if Snapshot(files.folder).completeness().is_complete:
        workspace.plans.supersede(job.name, run_id)
    if not planned.verdict:
        workspace.plans.forget(run_id)
        return []
    counts = PlanCounts(**read_summary(files.withheld.plan)["planned"])
    workspace.plans.save(
        PlanRow(
            id=run_id,
            job=job.name,
            created_at=workspace.clock(),
            expires_at=workspace.plan_expires_at(),
            counts=counts.to_dict(),
            made_for=fingerprint_of(job),
            kind=WITHHELD,
            guarded=planned.verdict.reasons,
        )
    )
    return [*(f"guarded: {reason}" for reason in planned.verdict.reasons), withheld_note(counts, run_id)]


def withheld_note(counts: PlanCounts, plan_id: str) -> str:
    """Says what is withheld, and how to release it."""
    told = " and ".join(f"{count:,} {action}s" for action, count in counts.to_dict().items() if count)
    release = f"sync-pipelines apply {plan_id[:8]} --reason '...'"
    if not told:
        return f"there was nothing to withhold; if the fetch is right, let later ones be measured by it: {release}"
    return f"{told} withheld; look: sync-pipelines plan show {plan_id[:8]}; if it is right: {release}"
