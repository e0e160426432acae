"""Compares the snapshot with the local records, a page at a time, into a durable plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from sync_pipelines.engine.blanks import BlankTally
from sync_pipelines.engine.completeness import Completeness
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.guards import Verdict
from sync_pipelines.engine.pages import PAGE_SIZE, batches
from sync_pipelines.engine.plan import Outcome
from sync_pipelines.engine.progress import Progress
from sync_pipelines.engine.results import Counts, Duplicate, SyncError
from sync_pipelines.engine.set_back import WrittenColumns
from sync_pipelines.engine.versions import Version
from sync_pipelines.errors import ItemError
from sync_pipelines.runner.calls.target_driver import TargetDriver
from sync_pipelines.runner.context.run_log import RunReport
from sync_pipelines.runner.decide.changes import Change, Decided, decide_changes
from sync_pipelines.runner.decide.delete_delay import DeleteDelay
from sync_pipelines.runner.decide.duplicates import DuplicateIndex
from sync_pipelines.runner.decide.rules import RunRules
from sync_pipelines.runner.decide.stale_check import StaleCheck
from sync_pipelines.runner.plans.plan_file import PlanPages, delete_entry, entries_of, fields_before, write_findings
from sync_pipelines.runner.plans.plan_summary import PlanSummary
from sync_pipelines.snapshots.parquet_pages import PageWriter
from sync_pipelines.snapshots.snapshot import Snapshot, SnapshotRow
from sync_pipelines.snapshots.store import RunFiles


class FindsPositions(Protocol):
    """Says where in the fetch the last item of an id is."""

    def positions(self, ids: Sequence[str]) -> Mapping[str, int]:
        """Returns the last position of each id that is known; none of an id that has but one."""


class NoDuplicates:
    """Serves items of which each has an id of its own."""

    def positions(self, ids: Sequence[str]) -> Mapping[str, int]:
        """Returns none: no id has another place."""
        del ids
        return {}


def diff_snapshot(rules: RunRules, files: RunFiles, report: RunReport, *, durable: bool = False) -> PlanSummary:
    """Diffs the run's snapshot into its plan, page by page.

    Args:
        durable: True to keep in the plan what local records hold now, so that it can be shown and applied later; then
            nothing is withheld of it.
    """
    job, driver = rules.job, rules.driver
    total = int(Snapshot(files.folder).summary()["items"])
    settled, done, stale, blanks, written = Counts(), 0, 0, BlankTally(), WrittenColumns()
    with (
        files.working_file("ids.sqlite") as path,
        DuplicateIndex(path) as index,
        files.write_plan() as (plan, findings),
    ):
        unidentified = _index_ids(files, driver, index, rules.stale_check)
        entries = PlanPages(plan, partial(fields_before, driver) if durable else None)
        for rows in _rows_in_pages(files):
            page = diff_page(rules, index, rows)
            report_findings(findings, page, report)
            entries.add(page.entries)
            written.add(page.entries)
            settled, done, stale = settled + page.counts(), done + len(rows), stale + len(page.stale)
            blanks.add(page.blanks)
            report.progress(Progress("diff", total, done, total))
        reason = why_no_deletes(job, Snapshot(files.folder).completeness(), unidentified)
        deletes = job.deletes != "off" and reason is None
        existing = _plan_deletes(rules, index, entries, look_up=durable) if deletes else None
        entries.flush()
        verdict = Verdict()
        if rules.limits is not None:
            verdict = rules.limits.judge(
                entries.counts(), unchanged=settled.unchanged, existing=existing, blanks=lambda: blanks
            )
        notes = notes_of(reason, stale, rules.delete_delay)
        planned = PlanSummary(
            total,
            settled,
            plan.rows,
            notes,
            planned=entries.counts(),
            verdict=verdict,
            no_deletes=reason is not None,
            written_columns=written,
        )
        planned = planned.as_dry_run() if durable else planned.without_withheld(entries.counts())
        findings.finish({})
        plan.finish(planned.summary())
    if planned.verdict and rules.limits is not None:
        rules.limits.keep(entries_of(files, verdict.withheld))
    return replace(planned, verdict=verdict)


def notes_of(why_no_deletes: str | None, stale: int, delete_delay: DeleteDelay | None = None) -> list[str]:
    """Returns what a person should know of a diff.

    Args:
        why_no_deletes: Why no deletes are looked for, None if they are.
        stale: How many items were older than their local records.
    """
    notes = [f"no deletes: {why_no_deletes}"] if why_no_deletes is not None else []
    notes += delete_delay.notes() if delete_delay is not None else []
    return [*notes, f"{stale:,} items were older than their local records, and were skipped"] if stale else notes


def _rows_in_pages(files: RunFiles) -> Iterator[list[SnapshotRow]]:
    for page in Snapshot(files.folder).pages():
        yield from (each.rows() for each in page.slices(PAGE_SIZE))


def report_findings(findings: PageWriter, page: Decided, report: RunReport) -> None:
    """Keeps what the diff of a page found, and shows the first errors."""
    failed = page.failed
    write_findings(findings, failed, page.duplicates)
    for error in failed:
        report.item_failed(error)


def _index_ids(files: RunFiles, driver: TargetDriver, index: DuplicateIndex, stale_check: StaleCheck | None) -> int:
    """Notes the position that counts of each id; gives how many items have none that can be read."""
    if stale_check is not None:
        return _index_versions(files, driver, index, stale_check)
    unidentified = 0
    for page in Snapshot(files.folder).pages(fields=False):
        known: list[tuple[str, int]] = []
        external_ids = page.external_ids()
        driver.expect([each for each in external_ids if each is not None])
        for position, external_id in zip(page.positions(), external_ids, strict=True):
            canonical = driver.canonical_or_error(external_id)
            if isinstance(canonical, str):
                known.append((canonical, position))
            else:
                unidentified += _is_unidentified(canonical)
        index.add(known)
    return unidentified


def _is_unidentified(canonical: Exception | None) -> bool:
    """True if an item without a canonical id may be that of any record; an id that does not convert is none's."""
    return not isinstance(canonical, ItemError)


def _index_versions(files: RunFiles, driver: TargetDriver, index: DuplicateIndex, stale_check: StaleCheck) -> int:
    """Notes the position of the newest item of each id; gives how many items have none that can be read."""
    unidentified = 0
    for rows in _rows_in_pages(files):
        known: list[tuple[str, int, Version | None]] = []
        for row in rows:
            canonical = driver.canonical_or_error(row.external_id)
            if isinstance(canonical, str):
                known.append((canonical, row.position, _version_or_none(stale_check, row)))
            else:
                unidentified += _is_unidentified(canonical)
        index.add_versions(known)
    return unidentified


def _version_or_none(stale_check: StaleCheck, row: SnapshotRow) -> Version | None:
    with suppress(Exception):  # its error is reported when it is its turn
        return None if row.message is not None else stale_check.version_of(row.item)
    return None


def diff_page(rules: RunRules, index: FindsPositions, rows: Sequence[SnapshotRow]) -> Decided:
    """Decides on a page of a snapshot."""
    decided = Decided()
    decide_changes(rules, _changes(rules.driver, index, rows, decided), decided)
    return decided


def _changes(
    driver: TargetDriver, index: FindsPositions, rows: Sequence[SnapshotRow], decided: Decided
) -> list[Change]:
    """Returns the rows that count, as changes; what has failed already and duplicates have their outcomes."""
    driver.expect([row.external_id for row in rows if row.external_id is not None])
    canonical = {
        row.external_id: driver.canonical_or_error(row.external_id) for row in rows if row.external_id is not None
    }
    last = index.positions([each for each in canonical.values() if isinstance(each, str)])
    changes: list[Change] = []
    outcomes = decided.outcomes
    for row in rows:
        known = canonical.get(row.external_id) if row.external_id is not None else None
        if isinstance(known, str) and last.get(known, row.position) != row.position:
            outcomes.keep(row.position, Outcome.DUPLICATE)
            decided.duplicates.append(Duplicate(known, row.position, last[known]))
        elif row.message is not None:
            error = SyncError(row.external_id, row.message, row.exception_type or "", row.position)
            outcomes.errors[row.position] = error
        elif isinstance(known, str):
            changes.append(Change(row.position, known, row.item))
        elif known is not None:
            outcomes.fail(row.position, row.external_id, known)
    return changes


def _plan_deletes(rules: RunRules, index: DuplicateIndex, entries: PlanPages, *, look_up: bool) -> int:
    """Plans the deletes of local records that the fetch does not have. Gives how many local records there are."""
    driver, delete_delay = rules.driver, rules.delete_delay
    existing = 0
    with delete_delay.counting() if delete_delay is not None else nullcontext():
        for batch in batches(driver.list_ids(), PAGE_SIZE):
            seen = index.positions(batch)
            missing = [each for each in dict.fromkeys(batch) if each not in seen]
            existing += len(batch)
            index.add([(each, -1) for each in missing])  # a target may list a record twice
            due = delete_delay.due(missing) if delete_delay is not None else missing
            found = driver.find(due)[0] if look_up and due else {}
            entries.add([delete_entry(driver, each, found.get(each)) for each in due])
    return existing


def why_no_deletes(job: SyncJob[Any, Any], completeness: Completeness, unidentified: int) -> str | None:
    """Returns why deletes that the job asks for are withheld; None if they are not, or if it asks for none."""
    if job.deletes == "off":
        return None
    if completeness.why_not is not None:
        return completeness.why_not
    if unidentified:
        return f"{unidentified:,} items had no readable external id and may be any of the missing records"
    return None
