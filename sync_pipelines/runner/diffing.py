"""Diff: the snapshot against the local records, into a durable plan, a page at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sync_pipelines.engine.calls import call
from sync_pipelines.engine.codec import decode, encode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.pages import PAGE_SIZE, batches
from sync_pipelines.engine.plan import Action, FieldChange, PlanEntry
from sync_pipelines.engine.progress import Progress
from sync_pipelines.engine.redaction import exception_type, message_of
from sync_pipelines.engine.results import Counts, Duplicate, SyncError
from sync_pipelines.errors import ConfigurationError, ItemError
from sync_pipelines.runner.id_index import IdIndex
from sync_pipelines.runner.reporting import RunReport
from sync_pipelines.runner.target_driver import TargetDriver
from sync_pipelines.snapshots.files import PageWriter, read_pages, read_summary
from sync_pipelines.snapshots.store import RunFiles


class FindsPositions(Protocol):
    """Says where in the fetch the last item of an id is."""

    def positions(self, ids: Sequence[str]) -> dict[str, int]:
        """The last position of each id that is known."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An item that the diff has to decide on."""

    position: int
    external_id: str
    item: Any
    text: str


@dataclass
class PageDiff:
    """What the diff of one page gives."""

    entries: list[PlanEntry] = field(default_factory=list)
    failed: list[SyncError] = field(default_factory=list)
    duplicates: list[Duplicate] = field(default_factory=list)
    skipped: list[Candidate] = field(default_factory=list)
    unchanged: list[Candidate] = field(default_factory=list)

    def counts(self) -> Counts:
        """The outcomes that are settled without a write."""
        return Counts(
            unchanged=len(self.unchanged),
            skipped=len(self.skipped),
            failed=len(self.failed),
            duplicate=len(self.duplicates),
        )

    def fail(self, position: int, external_id: str | None, error: Exception) -> None:
        """Keeps an item's error."""
        self.failed.append(SyncError(external_id, message_of(error), exception_type(error), position))


def diff_snapshot(
    job: SyncJob[Any, Any], files: RunFiles, driver: TargetDriver, report: RunReport
) -> tuple[Counts, int, list[str]]:
    """Diffs the run's snapshot into its plan.

    Returns:
        The outcomes settled already, how many writes are planned, and notes for a person.
    """
    total = int(read_summary(files.snapshot)["items"])
    settled, done = Counts(), 0
    with IdIndex(files.scratch) as index, files.write_plan() as (plan, findings):
        unidentified = _index_ids(files, driver, index)
        entries = PlanPages(plan)
        for rows in read_pages(files.snapshot):
            page = diff_page(job, driver, index, rows)
            _write_findings(findings, page, report)
            entries.add(page.entries)
            settled, done = settled + page.counts(), done + len(rows)
            report.progress(Progress("diff", total, done, total))
        reason = _why_no_deletes(job, read_summary(files.snapshot), unidentified)
        if job.deletes != "off" and reason is None:
            _plan_deletes(driver, index, entries)
        entries.flush()
        findings.finish({})
        plan.finish({"fetched": total, "settled": settled.to_dict(), "writes": plan.rows})
    return settled, plan.rows, [f"no deletes: {reason}"] if reason is not None else []


def _index_ids(files: RunFiles, driver: TargetDriver, index: IdIndex) -> int:
    """Notes the last position of each id; gives how many items have none that can be read."""
    unidentified = 0
    for rows in read_pages(files.snapshot, ["position", "external_id"]):
        known: list[tuple[str, int]] = []
        for position, external_id in rows:
            if external_id is None:
                unidentified += 1
                continue
            canonical = canonical_or_error(driver, external_id)
            if isinstance(canonical, str):
                known.append((canonical, position))
            elif not isinstance(canonical, ItemError):  # of an id that does not convert there can be no record
                unidentified += 1
        index.add(known)
    return unidentified


def canonical_or_error(driver: TargetDriver, external_id: str) -> str | Exception:
    """The canonical id, or why there is none."""
    try:
        return driver.canonical_id(external_id)
    except Exception as error:  # noqa: BLE001 - one bad item never stops the others
        return error


def diff_page(
    job: SyncJob[Any, Any], driver: TargetDriver, index: FindsPositions, rows: Sequence[tuple[Any, ...]]
) -> PageDiff:
    """Decides on a page of a snapshot.

    Args:
        job: The sync job.
        driver: The opened target.
        index: Says where the last item of an id is.
        rows: Rows as `SNAPSHOT` has them.
    """
    page = PageDiff()
    candidates = _without_skipped(job, _winners(driver, index, rows, page), page)
    found, broken = driver.find([each.external_id for each in candidates])
    for each in candidates:
        if each.external_id in broken:
            page.fail(each.position, each.external_id, broken[each.external_id])
        else:
            _decide(driver, each, found.get(each.external_id), page)
    return page


def _winners(
    driver: TargetDriver, index: FindsPositions, rows: Sequence[tuple[Any, ...]], page: PageDiff
) -> list[tuple[int, str, str]]:
    """Position, canonical id and item text of the rows that count; sets aside failed items and duplicates."""
    canonical = {row[1]: canonical_or_error(driver, row[1]) for row in rows if row[1] is not None}
    last = index.positions([each for each in canonical.values() if isinstance(each, str)])
    winners: list[tuple[int, str, str]] = []
    for position, external_id, item, exception_name, message in rows:
        known = canonical.get(external_id)
        if isinstance(known, str) and last[known] != position:
            page.duplicates.append(Duplicate(known, position, last[known]))
        elif message is not None:
            page.failed.append(SyncError(external_id, message, exception_name, position))
        elif isinstance(known, str):
            winners.append((position, known, item))
        elif known is not None:
            page.fail(position, external_id, known)
    return winners


def _without_skipped(
    job: SyncJob[Any, Any], winners: Sequence[tuple[int, str, str]], page: PageDiff
) -> list[Candidate]:
    candidates: list[Candidate] = []
    for position, external_id, text in winners:
        try:
            item = decode(text)
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - one bad item never stops the others
            page.fail(position, external_id, error)
            continue
        try:
            skipped = job.should_skip is not None and bool(call(job.should_skip, item))
        except Exception as error:  # noqa: BLE001 - one bad item never stops the others
            page.fail(position, external_id, error)
            continue
        kept = page.skipped if skipped else candidates
        kept.append(Candidate(position, external_id, item, text))
    return candidates


def _decide(driver: TargetDriver, candidate: Candidate, local: Any | None, page: PageDiff) -> None:
    try:
        comparison = driver.compare(candidate.item, local)
    except Exception as error:  # noqa: BLE001 - one bad item never stops the others
        page.fail(candidate.position, candidate.external_id, error)
        return
    if not comparison.changed:
        page.unchanged.append(candidate)
        return
    action = Action.CREATE if local is None else Action.UPDATE
    page.entries.append(
        PlanEntry(action, candidate.external_id, candidate.position, candidate.item, comparison.changes, candidate.text)
    )


class PlanPages:
    """Collects plan entries into full pages, which become the chunks that apply commits.

    Args:
        writer: The plan file.
    """

    def __init__(self, writer: PageWriter) -> None:
        self._writer = writer
        self._waiting: list[tuple[Any, ...]] = []

    def add(self, entries: Sequence[PlanEntry]) -> None:
        """Adds entries in their order."""
        self._waiting += [_plan_row(entry) for entry in entries]
        while len(self._waiting) >= PAGE_SIZE:
            self._writer.write(self._waiting[:PAGE_SIZE])
            del self._waiting[:PAGE_SIZE]

    def flush(self) -> None:
        """Writes the last page."""
        self._writer.write(self._waiting)
        self._waiting.clear()


def _plan_row(entry: PlanEntry) -> tuple[Any, ...]:
    return entry.position, entry.action.value, entry.external_id, entry.text, _encoded_changes(entry.changes)


def _encoded_changes(changes: Mapping[str, FieldChange]) -> str:
    """The changes for people: a value that JSON can't hold is shown as text rather than failing the item."""
    try:
        return encode({name: [change.old, change.new] for name, change in changes.items()})
    except Exception:  # noqa: BLE001 - whatever a local value raises, the item can be written
        return encode({name: [_shown(change.old), _shown(change.new)] for name, change in changes.items()})


def _shown(value: Any) -> Any:
    try:
        encode(value)
    except Exception:  # noqa: BLE001 - see above
        return object.__repr__(value)
    return value


def _write_findings(findings: PageWriter, page: PageDiff, report: RunReport) -> None:
    rows: list[tuple[Any, ...]] = [
        (each.position, "failed", each.external_id, each.exception_type, each.message, None) for each in page.failed
    ]
    rows += [(each.position, "duplicate", each.external_id, None, None, each.kept_position) for each in page.duplicates]
    findings.write(sorted(rows, key=lambda row: row[0]))
    for error in sorted(page.failed, key=lambda error: error.position):
        report.item_failed(error)


def _plan_deletes(driver: TargetDriver, index: IdIndex, entries: PlanPages) -> None:
    """Plans the deletes of local records that the fetch does not have."""
    for batch in batches(driver.list_ids(), PAGE_SIZE):
        seen = index.positions(batch)
        missing = [each for each in dict.fromkeys(batch) if each not in seen]
        index.add([(each, -1) for each in missing])  # a target may list a record twice
        entries.add([PlanEntry(Action.DELETE, each) for each in missing])


def _why_no_deletes(job: SyncJob[Any, Any], summary: Mapping[str, Any], unidentified: int) -> str | None:
    """Why deletes that the job asks for are withheld; None if they are not, or if it asks for none."""
    if job.deletes == "off":
        return None
    if not summary["complete"]:
        return "the run was limited to some items (limit, only)"
    if not summary["items"]:
        return "the source gave no items at all, which looks like a broken source"
    if unidentified:
        return f"{unidentified:,} items had no readable external id and may be any of the missing records"
    return None


def read_plan(files: RunFiles) -> Iterator[list[PlanEntry]]:
    """Yields the chunks of the run's plan. The fields' changes are left out: apply decides by the item."""
    for rows in read_pages(files.plan, ["position", "action", "external_id", "item"]):
        yield [
            PlanEntry(Action(action), external_id, position, decode(item) if item is not None else None)
            for position, action, external_id, item in rows
        ]


def read_duplicates(files: RunFiles, limit: int) -> list[Duplicate]:
    """The first duplicates of the run, in the order of the fetch."""
    found: list[Duplicate] = []
    for rows in read_pages(files.findings, ["position", "kind", "external_id", "kept_position"]):
        found += [Duplicate(row[2], row[0], row[3]) for row in rows if row[1] == "duplicate"]
        if len(found) >= limit:
            break
    return found[:limit]


def read_failed(files: RunFiles) -> Iterator[SyncError]:
    """The items that failed before anything was written."""
    for rows in read_pages(files.findings):
        for position, kind, external_id, exception_name, message, _ in rows:
            if kind == "failed":
                yield SyncError(external_id, message, exception_name, position)
