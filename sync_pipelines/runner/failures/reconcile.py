"""Reconciles failures with a run that ends: its errors are noted and counted by cause, others are resolved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from upath import UPath

from sync_pipelines.database.failure_rows import DELETE, UPSERT, VANISHED, Unresolved
from sync_pipelines.database.ledger import ErrorRow, RunRow
from sync_pipelines.database.plans import PlanRow
from sync_pipelines.database.run_causes import GONE, KNOWN, NEW, CauseRow, RunCauses
from sync_pipelines.database.run_queries import got_all_items
from sync_pipelines.database.tables import APPLY, DRY_RUN, FULL, WHOLE
from sync_pipelines.engine.causes import Cause, CauseCounter, compared, template_of
from sync_pipelines.engine.codec import encode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.errors import SyncPipelinesError
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.failures.failure_notes import FailedItem, FailureNotes
from sync_pipelines.runner.plans.plan_file import files_of_plan
from sync_pipelines.snapshots.parquet_pages import read_pages
from sync_pipelines.snapshots.snapshot import Snapshot, SnapshotRow
from sync_pipelines.snapshots.store import RunFiles

_NOTED_CHARS = 4_000_000
"""How much of payloads is noted at a time."""
_COMPARED = (FULL, APPLY, DRY_RUN)


@dataclass(frozen=True, slots=True)
class CausesOfRun:
    """Holds the errors of a run by cause, and the causes that are gone since the run before."""

    found: tuple[Cause, ...] = ()
    gone: tuple[Cause, ...] = ()


@dataclass(frozen=True, slots=True)
class EndingRun:
    """Describes a run that is about to end.

    Args:
        applied_all: True if everything that it was to write is written.
    """

    run: RunRow
    withheld: PlanRow | None
    has_errors: bool
    failure: str | None
    applied_all: bool

    @property
    def is_compared(self) -> bool:
        """True if what the run did not meet is gone: it took all items, was done, and nothing was kept from it."""
        is_whole = self.run.kind in (FULL, DRY_RUN) and got_all_items(self.run.options, self.run.completeness)
        return is_whole and self.failure is None and not _has_updates(self.withheld)


def note_run(workspace: Workspace, job: SyncJob[Any, Any], ending: EndingRun) -> CausesOfRun | None:
    """Keeps the causes of a run's errors; of a whole run, notes its failures and resolves others.

    May be called again, after a crash or for a second ending.

    Returns:
        Its causes; None if they are what the ledger has of them.
    """
    run = ending.run
    causes = None
    if ending.has_errors or ending.is_compared:
        notes = _RunNotes(workspace, job, run) if ending.has_errors and run.kind in WHOLE else None
        causes = _note_causes(workspace, ending, notes)
    if run.kind in WHOLE and ending.applied_all:
        _Resolving(workspace, job, run, ending.withheld).resolve()
    return causes


def _note_causes(workspace: Workspace, ending: EndingRun, notes: _RunNotes | None) -> CausesOfRun:
    """Keeps the causes of a run's errors, compared with those of the last run that took all items."""
    run, causes = ending.run, RunCauses(workspace.ledger)
    counter, last = CauseCounter(), 0
    for page in causes.error_pages(run.id) if ending.has_errors else ():
        templates = [template_of(row.exception_type, row.message, row.external_id) for _, row in page]
        for (number, row), template in zip(page, templates, strict=True):
            counter.add(row.exception_type, template, row.external_id)
            last = max(last, number)
        if notes is not None:
            notes.note(page, templates)
    with workspace.ledger.together():
        before = _causes_before(workspace, causes, run) if run.kind in _COMPARED else None
        rows = _compared(counter.causes(), before, with_gone=ending.is_compared)
        causes.keep(run.id, rows, last)
    return _causes(rows)


def _has_updates(withheld: PlanRow | None) -> bool:
    """True if limits have withheld updates of a run: that these items have not failed says nothing."""
    return withheld is not None and bool(withheld.counts["update"])


def _causes_before(workspace: Workspace, causes: RunCauses, run: RunRow) -> list[Cause] | None:
    """Returns what had failed before: in the last run that tried all items, or in one since; None if there was none."""
    found: dict[str, Cause] = {}
    runs = causes.runs_before(run.job, run.id)
    for each in runs:
        for cause in causes_of_run(causes, each).found:
            found.setdefault(cause.fingerprint, cause)
        if not _has_updates(workspace.plans.withheld_of(each)):
            break
    return list(found.values()) if runs else None


def _compared(found: Sequence[Cause], before: Sequence[Cause] | None, *, with_gone: bool) -> list[CauseRow]:
    if before is None:
        return [_cause_row(each, KNOWN) for each in found]
    marked, gone = compared(found, before)
    rows = [_cause_row(each, NEW if each.is_new else KNOWN) for each in marked]
    return rows + [_cause_row(each, GONE) for each in gone if with_gone]


def _cause_row(cause: Cause, state: str) -> CauseRow:
    return CauseRow(cause.exception_type, cause.template, cause.count, cause.sample_ids, state)


def causes_of_run(causes: RunCauses, run_id: str) -> CausesOfRun:
    """Returns the causes of a run as the ledger has them."""
    return _causes(causes.of_run(run_id))


def _causes(rows: Iterable[CauseRow]) -> CausesOfRun:
    kept: tuple[list[Cause], list[Cause]] = ([], [])
    for row in rows:
        cause = Cause(row.exception_type, row.template, row.count, row.sample_ids, is_new=row.state == NEW)
        kept[row.state == GONE].append(cause)
    return CausesOfRun(tuple(kept[0]), tuple(kept[1]))


class _RunNotes:
    """Notes the errors of a whole run as failures, with the items from its snapshot."""

    def __init__(self, workspace: Workspace, job: SyncJob[Any, Any], run: RunRow) -> None:
        self._notes = FailureNotes(job, workspace.failures, run.id, workspace.clock())
        self._noted_to = RunCauses(workspace.ledger).noted_to(run.id)
        plan = run.options.get("plan")
        self._folder = workspace.store.files_of(plan or run.id).folder
        self._has_items = Snapshot(self._folder).is_complete()
        # that a plan was refused may be because of newer items
        self._seen_at: datetime | None = None if plan else run.started_at

    def note(self, page: Sequence[tuple[int, ErrorRow]], templates: Sequence[str]) -> None:
        """Notes the errors of a page, in the order of the fetch, that are not noted yet."""
        told = zip(page, templates, strict=True)
        errors = [(row, template) for (number, row), template in told if number > self._noted_to]
        batch: list[FailedItem] = []
        taken = 0
        for each in self._failed(errors):
            batch.append(each)
            taken += len(each.payload or "")
            if taken > _NOTED_CHARS:
                self._notes.note(batch)
                batch, taken = [], 0
        self._notes.note(batch)

    def _failed(self, errors: Sequence[tuple[ErrorRow, str]]) -> Iterator[FailedItem]:
        rows = _RowsAt(self._folder, [each.position for each, _ in errors] if self._has_items else [])
        for error, template in errors:
            row = rows.at(error.position)
            yield FailedItem(
                external_id=error.external_id,
                exception_type=error.exception_type,
                message=error.message,
                source_id=row.external_id if row is not None else None,
                action=UPSERT if error.position >= 0 else DELETE,
                payload=_payload(row),
                seen_at=self._seen_at,
                template=template,
                trace=error.trace,
            )


class _RowsAt:
    """Reads rows of a snapshot at ascending positions; none where the snapshot can't be read."""

    def __init__(self, folder: UPath, positions: Iterable[int]) -> None:
        wanted = sorted({each for each in positions if each >= 0})
        self._rows = Snapshot(folder).rows_at(iter(wanted)) if wanted else iter(())
        self._row: SnapshotRow | None = None

    def at(self, position: int) -> SnapshotRow | None:
        """Returns the row at that position, which is not before the last one."""
        while position >= 0 and (self._row is None or self._row.position < position):
            try:
                self._row = next(self._rows, None)
            except (SyncPipelinesError, OSError):  # a failure without its item is better than none
                self._row, self._rows = None, iter(())
            if self._row is None:
                return None
        return self._row if self._row is not None and self._row.position == position else None


def _payload(row: SnapshotRow | None) -> str | None:
    if row is None or row.message is not None:
        return row.failed_item if row is not None else None
    try:
        return encode(row.item)
    except Exception:  # noqa: BLE001 - whatever it is, the failure is noted
        return None


@dataclass(frozen=True, slots=True)
class _Resolved:
    """Holds keys of failures that a run has shown to be resolved."""

    succeeded: list[str]
    vanished: list[str]


class _Resolving:
    """Finds the failures that a run which is done has shown to be resolved."""

    def __init__(self, workspace: Workspace, job: SyncJob[Any, Any], run: RunRow, withheld: PlanRow | None) -> None:
        self._workspace = workspace
        self._job = job
        self._run = run
        self._withheld = files_of_plan(workspace, withheld.id, withheld.kind) if withheld is not None else None
        self._is_whole = run.kind == FULL and got_all_items(run.options, run.completeness) and self._withheld is None
        self._all_ids_known = True

    def resolve(self) -> None:
        """Notes them as resolved, a part at a time."""
        seen_until = self._seen_until()
        if seen_until is None:
            return
        failures, now = self._workspace.failures, self._workspace.clock()
        for part in failures.unresolved(self._run.job, self._run.id, seen_until):
            resolved = self._resolved(part)
            failures.resolve(self._run.job, resolved.succeeded, self._run.id, now)
            failures.resolve(self._run.job, resolved.vanished, VANISHED, now)

    def _seen_until(self) -> datetime | None:
        """Returns when the run's items were fetched; None if it says nothing of failures."""
        plan = self._run.options.get("plan")
        if plan is not None:
            made = self._workspace.ledger.run(plan)
            return made.started_at if made is not None else None
        snapshot = Snapshot(self._workspace.store.files_of(self._run.id).folder)
        if not snapshot.is_complete() or not snapshot.summary()["items"]:
            return None  # a source that gives nothing looks like a broken one
        return self._run.started_at

    def _resolved(self, part: Sequence[Unresolved]) -> _Resolved:
        wanted = {each_id for each in part for each_id in each.ids()}
        seen, withheld = self._seen(wanted), self._withheld_of(wanted)
        # a fetch has an item's id as the source writes it, a plan as the target does
        succeeded = [each.key for each in part if seen & each.ids() and not withheld & each.ids()]
        if not self._is_whole:
            return _Resolved(succeeded, [])
        known = set(succeeded)
        return _Resolved(succeeded, [each.key for each in part if each.key not in known and self._is_gone(each)])

    def _withheld_of(self, wanted: set[str]) -> set[str]:
        """Returns which of these ids limits have withheld of the run."""
        pages = _ids_of_plan(self._withheld) if self._withheld is not None else iter(())
        return {each for ids in pages for each in wanted.intersection(ids)}

    def _seen(self, wanted: set[str]) -> set[str]:
        """Returns which of these ids the run has dealt with."""
        found: set[str] = set()
        for ids in self._ids():
            found |= wanted.intersection(ids)
            self._all_ids_known &= None not in ids
        return found

    def _ids(self) -> Iterator[list[Any]]:
        options = self._run.options
        files = files_of_plan(self._workspace, options.get("plan") or self._run.id, options.get("kind", ""))
        if self._run.kind == APPLY:
            return _ids_of_plan(files)
        return (page.external_ids() for page in Snapshot(files.folder).pages(fields=False))

    def _is_gone(self, failure: Unresolved) -> bool:
        """True if a failure is resolved because a complete fetch does not have its item."""
        if failure.action == DELETE:
            return not self._run.no_deletes  # this time it was deleted, or somebody else has done it
        return self._all_ids_known or not failure.ids()  # an item without an id may be any of them


def _ids_of_plan(files: RunFiles) -> Iterator[list[Any]]:
    return ([row[0] for row in rows] for rows in read_pages(files.plan, ["external_id"]))
