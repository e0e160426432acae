"""Has the database compare the snapshot in staging tables, for targets that offer it."""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from hashlib import sha256
from heapq import merge
from itertools import chain
from math import inf
from typing import Any

from sync_pipelines.engine.blanks import BlankTally
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.guards import Verdict
from sync_pipelines.engine.pages import PAGE_SIZE, batches
from sync_pipelines.engine.plan import Action, EntryRow, PlanCounts, PlanEntry
from sync_pipelines.engine.progress import Progress
from sync_pipelines.engine.read_ahead import ahead
from sync_pipelines.engine.redaction import exception_type, message_of
from sync_pipelines.engine.results import Counts, Duplicate, SyncError
from sync_pipelines.engine.set_back import SAMPLE, WrittenColumns
from sync_pipelines.engine.staged_target import QuarantinedRow, StagedPlan, StagingRequest, Unstaged
from sync_pipelines.engine.versions import Version
from sync_pipelines.errors import AccountsError, ItemError
from sync_pipelines.runner.calls.backoff import call_again
from sync_pipelines.runner.calls.target_driver import Staged, TargetDriver
from sync_pipelines.runner.context.run_log import RunReport
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.decide.changes import Decided
from sync_pipelines.runner.decide.page_diff import NoDuplicates, diff_page, notes_of, report_findings, why_no_deletes
from sync_pipelines.runner.decide.rules import RunRules
from sync_pipelines.runner.decide.stale_check import Standing, Watermark
from sync_pipelines.runner.plans.plan_file import PlanPages, entry_row, fields_before, rows_of, write_findings
from sync_pipelines.runner.plans.plan_summary import PlanSummary
from sync_pipelines.snapshots.parquet_pages import PageWriter
from sync_pipelines.snapshots.snapshot import Snapshot, SnapshotPage, SnapshotRow
from sync_pipelines.snapshots.store import RunFiles

FROM_ITEMS = 1_000
"""Smaller fetches are compared page by page: staging tables would be more trouble than they save."""


def staging_request(
    job: SyncJob[Any, Any], workspace: Workspace, files: RunFiles, run_id: str, *, is_dry: bool = False
) -> StagingRequest:
    """Returns what a target needs to know of the run."""
    ledger = workspace.ledger.database
    # a ledger in a file belongs to one machine, though others may have one of the same name
    machine = platform.node() if ledger.dialect.name == "sqlite" else ""
    owner = sha256(f"{ledger.url.set(password=None)} {machine}".encode()).hexdigest()[:16]
    return StagingRequest(
        job=job.name,
        run_id=run_id,
        owner=owner,
        schema=workspace.work_schema,
        folder=files.work,
        deletes=job.deletes != "off",
        version=job.get_version if isinstance(job.get_version, str) else None,
        recorded_at=workspace.clock if job.keep_history_days > 0 and not is_dry else None,
        is_dry=is_dry,
    )


@contextmanager
def open_staged(driver: TargetDriver, request: StagingRequest) -> Iterator[Staged | None]:
    """Opens the target's staging tables; None if it has none."""
    table = driver.open_staged(request)
    try:
        yield table
    finally:
        if table is not None:
            table.close()


class StagedDiff:
    """Loads a snapshot into staging tables, has it compared there, and decides on quarantined rows one by one.

    Args:
        durable: True to leave the whole plan in the plan file, to be shown and applied later; then nothing is withheld
            of it, and nothing stays in the staging tables.
    """

    def __init__(
        self, rules: RunRules, files: RunFiles, staged: Staged, report: RunReport, *, durable: bool = False
    ) -> None:
        self._rules = rules
        self._job = rules.job
        self._files = files
        self._driver = rules.driver
        self._staged = staged
        self._report = report
        self._stale_check = rules.stale_check
        self._delete_delay = rules.delete_delay
        self._total = int(Snapshot(files.folder).summary()["items"])
        self._durable = durable
        self._record = partial(fields_before, rules.driver) if durable else _no_record
        self._settled, self._blanks = Counts(), BlankTally()
        self._stale = self._unidentified = 0
        self._has_watermarks = False
        self._written = WrittenColumns()

    def run(self) -> PlanSummary | str:
        """Diffs the snapshot into staging tables, and quarantined rows into the plan file.

        Returns:
            What is planned, or why the database can't compare.
        """
        if callable(self._job.get_version):
            return "get_version is a function, which the database can't call"
        self._has_watermarks = self._stale_check is not None and self._stale_check.has_any_in_ledger()
        # after an attempt that a lost connection ended
        self._settled, self._blanks, self._written = Counts(), BlankTally(), WrittenColumns()
        self._stale = self._unidentified = 0
        pages = Snapshot(self._files.folder).pages()
        first = next(pages, None)
        if first is None:
            return "there are no items"
        reason = self._staged.begin(first, self._items(first))
        if reason is not None:
            pages.close()
            return reason
        with self._files.write_plan() as (plan, findings):
            with closing(ahead(chain([first], pages))) as read_ahead:
                self._load(read_ahead, findings)
            reason = self._staged.why_not_ranked()
            if reason is not None:
                self._staged.drop()
                return reason
            planned = self._compare(plan, findings)
            kept = planned.as_dry_run() if self._durable else planned
            findings.finish({})
            plan.finish(kept.summary())
        self._keep_withheld(kept.verdict)
        if planned.staged is None:
            self._staged.drop()  # all that is left to write is in the plan file
        return replace(kept, verdict=planned.verdict)

    def _items(self, page: SnapshotPage) -> list[Any] | None:
        needed = self._staged.needs_items or self._job.should_skip is not None
        return [row.item for row in page.rows()] if needed else None

    def _load(self, pages: Iterator[SnapshotPage], findings: PageWriter) -> None:
        done = 0
        for page in pages:
            items = self._items(page)
            unstaged = self._staged.load(page, items, self._without_outdated(page, self._skipped(items)))
            if unstaged:
                self._tell_unstaged(page, unstaged, findings)
            done += len(page)
            self._report.progress(Progress("diff", self._total, done, self._total))
        self._staged.finish_loading()

    def _skipped(self, items: Sequence[Any] | None) -> list[bool | None] | None:
        """Says for each item whether the job skips it; None where it can't: it is then decided on by itself."""
        should_skip = self._job.should_skip
        if should_skip is None or items is None:
            return None
        skipped: list[bool | None] = []
        for item in items:
            try:
                skipped.append(item is not None and bool(call_again(should_skip, item)))
            except Exception:  # noqa: BLE001 - it is asked again when it is looked at alone
                skipped.append(None)
        return skipped

    def _without_outdated(
        self, page: SnapshotPage, skipped: Sequence[bool | None] | None
    ) -> Sequence[bool | None] | None:
        """Quarantines items older than the ledger's watermark: the table knows nothing of a deleted record."""
        if self._stale_check is None or not self._has_watermarks:
            return skipped
        external_ids = page.external_ids()
        self._driver.expect([each for each in external_ids if each is not None])
        canonical = [self._driver.canonical_or_error(each) for each in external_ids]
        noted = self._stale_check.in_ledger(list({each for each in canonical if isinstance(each, str)}))
        if not noted:
            return skipped
        looked_at: list[bool | None] = list(skipped) if skipped is not None else [False] * len(canonical)
        places = [place for place, each in enumerate(canonical) if isinstance(each, str) and each in noted]
        positions = page.positions()
        rows = page.at([positions[place] for place in places]).rows()
        for place, row in zip(places, rows, strict=True):
            if not looked_at[place] and self._is_older(row.item, noted[str(canonical[place])]):
                looked_at[place] = None
        return looked_at

    def _is_older(self, item: Any, known: Version) -> bool:
        assert self._stale_check is not None  # noqa: S101 - for the type checker
        try:
            version = self._stale_check.version_of(item)
        except Exception:  # noqa: BLE001 - its error is told when it is looked at alone
            return False
        return self._stale_check.standing(version, Watermark(known, None)) is Standing.OLDER

    def _tell_unstaged(self, page: SnapshotPage, unstaged: Sequence[Unstaged], findings: PageWriter) -> None:
        """Notes that items which have no key in the table have failed."""
        positions, external_ids = page.positions(), page.external_ids()
        names, messages = (page.table.column(name).to_pylist() for name in ("exception_type", "message"))
        failed: list[SyncError] = []
        for each in unstaged:
            place = each.place
            self._unidentified += int(not isinstance(each.error, ItemError))
            name, message = names[place], messages[place]
            if message is None and each.error is not None:
                name, message = exception_type(each.error), message_of(each.error)
            failed.append(SyncError(external_ids[place], message, name or "", positions[place]))
        write_findings(findings, failed, ())
        for error in failed:
            self._report.item_failed(error)
        self._settled += Counts(failed=len(failed))

    def _compare(self, plan: PageWriter, findings: PageWriter) -> PlanSummary:
        def keep(rows: Iterator[tuple[str, int, int]]) -> None:
            for batch in batches(rows, PAGE_SIZE):
                write_findings(findings, (), [Duplicate(*row) for row in batch])

        duplicates = self._staged.take_duplicates(keep)
        reason = why_no_deletes(self._job, Snapshot(self._files.folder).completeness(), self._unidentified)
        deletes = self._job.deletes != "off" and reason is None
        found = self._staged.compare(deletes=deletes, veto=self._driver.decides_changes)
        found = self._due_deletes(found) if deletes else found
        self._settled += Counts(unchanged=found.unchanged, skipped=found.skipped + found.stale, duplicate=duplicates)
        entries = PlanPages(plan)
        one_by_one = self._looked_at(found.one_by_one, findings)
        everything = partial(self._decided, findings)
        rows = _in_order(one_by_one, self._exported(list(Action), everything)) if self._durable else one_by_one
        for batch in batches(rows, PAGE_SIZE):
            entries.add_rows(batch)
        entries.flush()
        writes = entries.counts() if self._durable else found.planned() + entries.counts()
        self._require_explained(self._settled, writes)
        verdict = self._judge(writes, self._settled.unchanged)
        notes = notes_of(reason, found.stale + self._stale, self._delete_delay)
        planned = PlanSummary(
            self._total, self._settled, writes.writes, notes, verdict=verdict, no_deletes=reason is not None
        )
        if self._durable:
            return replace(planned, planned=writes)
        if found.updates:
            counted = self._written.are_suspicious(writes.update + self._settled.unchanged, writes.update)
            self._written.add_counts(found.updates, *self._staged.columns_written(SAMPLE, counted=counted))
        planned = replace(planned, written_columns=self._written)
        left = self._make_plan(found.without(verdict.withheld), verdict)
        return replace(planned.without_withheld(writes), staged=left)

    def _require_explained(self, settled: Counts, writes: PlanCounts) -> None:
        explained = settled.items() + writes.create + writes.update
        if explained != self._total:
            raise AccountsError(
                f"{self._job.name}: {self._total:,} items were fetched, the diff explains {explained:,}: {settled}, "
                f"{writes}. This is a defect of the engine; keep the run's files and report it."
            )

    def _due_deletes(self, found: StagedPlan) -> StagedPlan:
        """Returns the same without deletes that are still delayed."""
        if self._delete_delay is None:
            return found
        with self._delete_delay.counting():
            if self._delete_delay.waits and found.deletes:
                return replace(found, deletes=found.deletes - self._staged.spare(self._delete_delay.due))
        return found

    def _judge(self, writes: PlanCounts, unchanged: int) -> Verdict:
        limits = self._rules.limits
        if limits is None:
            return Verdict()
        existing = self._staged.existing() if writes.delete > limits.guards.few else None
        return limits.judge(writes, unchanged=unchanged, existing=existing, blanks=self._count_blanks)

    def _count_blanks(self) -> BlankTally:
        """Counts what updates would blank: those that the database found, and those of items looked at singly."""
        self._blanks.lost.update(self._staged.count_lost())
        self._blanks.had.update(self._staged.count_had(self._blanks.lost))
        return self._blanks

    def _make_plan(self, found: StagedPlan, verdict: Verdict) -> StagedPlan | None:
        """Has the target make its plan; returns its description, None if all that is left is in the plan file."""
        if not found.writes:
            return None
        self._staged.make_plan(without=verdict.withheld)
        return found

    def _keep_withheld(self, verdict: Verdict) -> None:
        """Makes the plan of what limits withhold: the same entries that a dry run has, of those actions only."""
        limits = self._rules.limits
        if verdict and limits is not None:
            record = partial(fields_before, self._driver)
            exported = self._exported(verdict.withheld, lambda rows: _rows_of(self._page(rows), record))
            limits.keep_rows(_in_order(rows_of(self._files, verdict.withheld), exported))

    def _page(self, rows: Sequence[SnapshotRow]) -> Decided:
        return diff_page(self._rules, NoDuplicates(), rows)

    def _looked_at(self, count: int, findings: PageWriter) -> Iterator[EntryRow]:
        """Yields lines for the quarantined items, which are decided on one by one."""
        if count:
            self._report.line(f"diff: looking at {count:,} items one by one")
            for rows in batches(Snapshot(self._files.folder).rows_at(self._staged.positions()), PAGE_SIZE):
                yield from self._decided(findings, rows)

    def _decided(self, findings: PageWriter, rows: Sequence[SnapshotRow]) -> list[EntryRow]:
        """Decides on items by themselves, and counts those that need no write."""
        page = self._page(rows)
        report_findings(findings, page, self._report)
        self._written.add(page.entries)
        self._settled += page.counts()
        self._blanks.add(page.blanks)
        self._stale += len(page.stale)
        return _rows_of(page, self._record)

    def _exported(
        self, actions: Collection[Action], decide: Callable[[Sequence[SnapshotRow]], list[EntryRow]]
    ) -> Iterator[EntryRow]:
        """Yields the lines that the database writes of its comparison.

        Args:
            decide: Called with the items whose records have been changed since the comparison.
        """
        for rows in self._staged.export(actions):
            overtaken = [row.position for row in rows if row.changes is None]
            if overtaken:
                items = list(Snapshot(self._files.folder).rows_at(iter(overtaken)))
                again = {row.position: row for row in decide(items)}
                yield from (again.get(row.position, row) for row in rows if row.changes or row.position in again)
            else:
                yield from rows


def _no_record(_entry: PlanEntry) -> None:
    return None


def _rows_of(page: Decided, record: Callable[[PlanEntry], Mapping[str, Any] | None]) -> list[EntryRow]:
    return [entry_row(entry, record(entry)) for entry in page.entries]


def _in_order(*parts: Iterator[EntryRow]) -> Iterator[EntryRow]:
    """Merges lines into the order of the fetch; deletes come last."""
    return merge(*parts, key=lambda row: row.position if row.position >= 0 else inf)


def quarantined_entries(files: RunFiles, rows: Sequence[QuarantinedRow]) -> list[PlanEntry]:
    """Returns plan entries of quarantined rows. All but deletes are looked up before they are written."""
    items = Snapshot(files.folder).rows_at(row.position for row in rows if row.position is not None)
    return [
        PlanEntry(Action.DELETE, row.external_id)
        if row.position is None
        else PlanEntry(Action.UPDATE, row.external_id, row.position, next(items).item)
        for row in rows
    ]
