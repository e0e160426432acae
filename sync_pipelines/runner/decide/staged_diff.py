"""Diff and apply by the database itself: for targets that offer it, and fetches that are worth it."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from itertools import chain
from typing import Any

from sync_pipelines.engine.calls import call
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.guards import Verdict
from sync_pipelines.engine.pages import PAGE_SIZE, batches
from sync_pipelines.engine.plan import Action, PlanCounts, PlanEntry
from sync_pipelines.engine.progress import Progress
from sync_pipelines.engine.read_ahead import ahead
from sync_pipelines.engine.redaction import exception_type, message_of
from sync_pipelines.engine.results import Counts, Duplicate, SyncError
from sync_pipelines.engine.targets import BulkRequest
from sync_pipelines.engine.versions import Version
from sync_pipelines.errors import AccountsError, ItemError
from sync_pipelines.runner.calls.target_driver import TargetDriver
from sync_pipelines.runner.context.run_log import RunReport
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.decide.page_diff import (
    NoDuplicates,
    diff_page,
    notes_of,
    tell_findings,
    why_no_deletes,
)
from sync_pipelines.runner.decide.rules import RunRules
from sync_pipelines.runner.plans.plan_file import PlanPages, entries_of, write_findings
from sync_pipelines.runner.plans.plan_summary import PlanSummary
from sync_pipelines.snapshots.parquet_pages import PageWriter
from sync_pipelines.snapshots.snapshot import Snapshot, SnapshotPage
from sync_pipelines.snapshots.store import RunFiles

FROM_ITEMS = 1_000
"""Smaller fetches are compared page by page: working tables would be more trouble than they save."""


def bulk_request(job: SyncJob[Any, Any], workspace: Workspace, files: RunFiles, run_id: str) -> BulkRequest:
    """What a target needs to know of the run."""
    ledger = workspace.ledger.database
    # a ledger in a file belongs to one machine, though others may have one of the same name
    machine = platform.node() if ledger.dialect.name == "sqlite" else ""
    owner = sha256(f"{ledger.url.set(password=None)} {machine}".encode()).hexdigest()[:16]
    return BulkRequest(
        job=job.name,
        run_id=run_id,
        owner=owner,
        schema=workspace.work_schema,
        folder=files.work,
        deletes=job.deletes != "off",
        version=job.get_version if isinstance(job.get_version, str) else None,
        recorded_at=workspace.clock if job.keep_history_days > 0 else None,
    )


@contextmanager
def open_bulk(driver: TargetDriver, request: BulkRequest) -> Iterator[Any | None]:
    """Opens the target's bulk methods; None if it has none."""
    table = driver.open_bulk(request)
    try:
        yield table
    finally:
        if table is not None:
            table.close()


class StagedDiff:
    """Loads a snapshot beside the table, has it compared there, and looks at the odd items one by one.

    Args:
        rules: What decides about each item.
        files: The files of the run.
        bulk: Its bulk methods.
        report: The run log.
    """

    def __init__(self, rules: RunRules, files: RunFiles, bulk: Any, report: RunReport) -> None:
        self._rules = rules
        self._job = rules.job
        self._files = files
        self._driver = rules.driver
        self._bulk = bulk
        self._report = report
        self._stale_check = rules.stale_check
        self._delete_delay = rules.delete_delay
        self._total = int(Snapshot(files.folder).summary()["items"])
        self._failed_count = 0
        self._unidentified = 0
        self._has_noted = False

    def run(self) -> PlanSummary | str:
        """Diffs the snapshot into working tables, and the odd items into the plan file.

        Returns:
            What is planned, or why the target can't be synced in bulk.
        """
        if callable(self._job.get_version):
            return "get_version is a function, which the database can't call"
        self._has_noted = self._stale_check is not None and self._stale_check.has_any_in_ledger()
        self._failed_count = self._unidentified = 0  # of an attempt that a lost connection ended
        pages = Snapshot(self._files.folder).pages()
        first = next(pages, None)
        if first is None:
            return "there are no items"
        reason = self._bulk.why_not(first, self._items(first))
        if reason is not None:
            pages.close()
            return str(reason)
        with self._files.write_plan() as (plan, findings):
            with closing(ahead(chain([first], pages))) as read_ahead:
                self._load(read_ahead, findings)
            reason = self._bulk.why_not_ranked()
            if reason is not None:
                self._bulk.drop()
                return str(reason)
            planned = self._compare(plan, findings)
            findings.finish({})
            plan.finish(planned.summary())
        self._keep_withheld(planned.verdict)
        if planned.bulk is None:
            self._bulk.drop()  # all that is left to write is in the plan file
        return planned

    def _items(self, page: SnapshotPage) -> list[Any] | None:
        needed = self._bulk.needs_items or self._job.should_skip is not None
        return [row.item for row in page.rows()] if needed else None

    def _load(self, pages: Iterator[SnapshotPage], findings: PageWriter) -> None:
        done = 0
        for page in pages:
            items = self._items(page)
            unstaged = self._bulk.load(page, items, self._without_outdated(page, self._skipped(items)))
            if unstaged:
                self._tell_unstaged(page, unstaged, findings)
            done += len(page)
            self._report.progress(Progress("diff", self._total, done, self._total))
        self._bulk.finish_loading()

    def _skipped(self, items: Sequence[Any] | None) -> list[bool | None] | None:
        """For each item whether the job leaves it alone; None where it can't say: it is then looked at by itself."""
        should_skip = self._job.should_skip
        if should_skip is None or items is None:
            return None
        skipped: list[bool | None] = []
        for item in items:
            try:
                skipped.append(item is not None and bool(call(should_skip, item)))
            except Exception:  # noqa: BLE001 - it is asked again when it is looked at alone
                skipped.append(None)
        return skipped

    def _without_outdated(
        self, page: SnapshotPage, skipped: Sequence[bool | None] | None
    ) -> Sequence[bool | None] | None:
        """Leaves to a look at each what is older than the ledger knows: the table can't tell of a deleted record."""
        if self._stale_check is None or not self._has_noted:
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
            return self._stale_check.version_of(item).is_older_than(known)
        except Exception:  # noqa: BLE001 - its error is told when it is looked at alone
            return False

    def _tell_unstaged(self, page: SnapshotPage, unstaged: Sequence[Any], findings: PageWriter) -> None:
        """Items that have no key in the table have failed."""
        positions, external_ids = page.positions(), page.external_ids()
        names, messages = (page.table.column(name).to_pylist() for name in ("exception_type", "message"))
        failed: list[SyncError] = []
        for each in unstaged:
            place, error = each.place, each.error
            self._unidentified += int(not isinstance(error, ItemError))
            name, message = names[place], messages[place]
            if message is None:
                name, message = exception_type(error), message_of(error)
            failed.append(SyncError(external_ids[place], message, name or "", positions[place]))
        write_findings(findings, failed, ())
        for error in failed:
            self._report.item_failed(error)
        self._failed_count += len(failed)

    def _compare(self, plan: PageWriter, findings: PageWriter) -> PlanSummary:
        def keep(rows: Iterator[tuple[str, int, int]]) -> None:
            for batch in batches(rows, PAGE_SIZE):
                write_findings(findings, (), [Duplicate(*row) for row in batch])

        duplicates = self._bulk.take_duplicates(keep)
        reason = why_no_deletes(self._job, Snapshot(self._files.folder).summary(), self._unidentified)
        deletes = self._job.deletes != "off" and reason is None
        found = self._bulk.compare(deletes=deletes, veto=self._driver.decides_changes)
        found = self._due_deletes(found) if deletes else found
        settled = Counts(
            unchanged=found.unchanged,
            skipped=found.skipped + found.stale,
            duplicate=duplicates,
            failed=self._failed_count,
        )
        entries = PlanPages(plan)
        one_by_one, stale = self._diff_one_by_one(found.one_by_one, entries, findings)
        settled += one_by_one
        writes = found.planned() + entries.counts()
        self._require_explained(settled, writes)
        verdict = self._judge(writes, settled.unchanged)
        notes = notes_of(reason, found.stale + stale, self._delete_delay)
        planned = PlanSummary(self._total, settled, writes.writes, notes, None, None, verdict).without_withheld(writes)
        return replace(planned, bulk=self._make_plan(found.without(verdict.withheld), verdict))

    def _require_explained(self, settled: Counts, writes: PlanCounts) -> None:
        explained = settled.items() + writes.create + writes.update
        if explained != self._total:
            raise AccountsError(
                f"{self._job.name}: {self._total:,} items were fetched, the diff explains {explained:,}: {settled}, "
                f"{writes}. This is a defect of the engine; keep the run's files and report it."
            )

    def _due_deletes(self, found: Any) -> Any:
        """The same without the deletes for which it is too early."""
        if self._delete_delay is None:
            return found
        with self._delete_delay.counting():
            if self._delete_delay.waits and found.deletes:
                return replace(found, deletes=found.deletes - self._bulk.spare(self._delete_delay.due))
        return found

    def _judge(self, writes: PlanCounts, unchanged: int) -> Verdict:
        limits = self._rules.limits
        if limits is None:
            return Verdict()
        existing = self._bulk.existing() if writes.delete > limits.guards.few else None
        return limits.judge(writes, unchanged=unchanged, existing=existing)

    def _make_plan(self, found: Any, verdict: Verdict) -> dict[str, Any] | None:
        """Has the target make its plan; gives what it says of it, None if all that is left is in the plan file."""
        if not found.writes:
            return None
        self._bulk.make_plan(without=verdict.withheld)
        return asdict(found)

    def _keep_withheld(self, verdict: Verdict) -> None:
        """Makes the plan of what guards withhold: of the rows of the working tables and of the plan file."""
        limits = self._rules.limits
        if not verdict or limits is None:
            return
        deletes: Iterator[PlanEntry] = iter(())
        updates: Iterator[PlanEntry] = iter(())
        if Action.DELETE in verdict.withheld:
            deletes = (PlanEntry(Action.DELETE, each) for each in self._bulk.missing())
        if Action.UPDATE in verdict.withheld:
            updates = self._updates()
        limits.keep(chain(entries_of(self._files, verdict.withheld), updates, deletes))

    def _updates(self) -> Iterator[PlanEntry]:
        """The updates that the database has found, each looked at once more for its fields."""
        for rows in batches(Snapshot(self._files.folder).rows_at(self._bulk.positions_of_updates()), PAGE_SIZE):
            yield from diff_page(self._rules, NoDuplicates(), rows).entries

    def _diff_one_by_one(self, count: int, entries: PlanPages, findings: PageWriter) -> tuple[Counts, int]:
        """What is settled, and how many items were older than their local records."""
        settled, stale = Counts(), 0
        if not count:
            return settled, stale
        self._report.line(f"diff: looking at {count:,} items one by one")
        for rows in batches(Snapshot(self._files.folder).rows_at(self._bulk.positions()), PAGE_SIZE):
            page = diff_page(self._rules, NoDuplicates(), rows)
            tell_findings(findings, page, self._report)
            entries.add(page.entries)
            settled, stale = settled + page.counts(), stale + len(page.stale)
        entries.flush()
        return settled, stale


@dataclass(frozen=True, slots=True)
class LateRow:
    """A row of the plan that the database refused, or that somebody else has changed since the diff."""

    position: int | None
    action: Action
    external_id: str


def late_entries(files: RunFiles, rows: Sequence[LateRow]) -> list[PlanEntry]:
    """Plan entries of such rows. All but deletes are looked up before they are written."""
    items = Snapshot(files.folder).rows_at(row.position for row in rows if row.position is not None)
    return [
        PlanEntry(Action.DELETE, row.external_id)
        if row.position is None
        else PlanEntry(Action.UPDATE, row.external_id, row.position, next(items).item)
        for row in rows
    ]
