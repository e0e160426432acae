"""Reads and writes the plan of a run, and what its diff found wrong, in the run's files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sync_pipelines.database.tables import WITHHELD
from sync_pipelines.engine.codec import decode, encodable, encode
from sync_pipelines.engine.pages import PAGE_SIZE
from sync_pipelines.engine.plan import Action, EntryRow, FieldChange, PlanCounts, PlanEntry
from sync_pipelines.engine.results import Duplicate, SyncError
from sync_pipelines.runner.calls.target_driver import TargetDriver
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.snapshots.parquet_pages import PageWriter, read_pages
from sync_pipelines.snapshots.snapshot import Snapshot
from sync_pipelines.snapshots.store import RunFiles


def files_of_plan(workspace: Workspace, plan_id: str, kind: str) -> RunFiles:
    """Returns the files of a plan that the ledger has: those of the run that left it."""
    files = workspace.store.files_of(plan_id)
    return files.withheld if kind == WITHHELD else files


class PlanPages:
    """Collects plan entries into full pages, which become the batches that apply commits.

    Args:
        record: Gives the fields of the local record of an entry, if they are to be kept.
    """

    def __init__(
        self, writer: PageWriter, record: Callable[[PlanEntry], Mapping[str, Any] | None] | None = None
    ) -> None:
        self._writer = writer
        self._record = record
        self._waiting: list[EntryRow] = []
        self._tally: Counter[str] = Counter()

    def add(self, entries: Sequence[PlanEntry]) -> None:
        """Adds entries in their order."""
        self.add_rows([entry_row(entry, self._record(entry) if self._record else None) for entry in entries])

    def add_rows(self, rows: Sequence[EntryRow]) -> None:
        """Adds lines in their order."""
        self._waiting += rows
        self._tally.update(row.action for row in rows)
        while len(self._waiting) >= PAGE_SIZE:
            self._writer.write(self._waiting[:PAGE_SIZE])
            del self._waiting[:PAGE_SIZE]

    def flush(self) -> None:
        """Writes the last page."""
        self._writer.write(self._waiting)
        self._waiting.clear()

    def counts(self) -> PlanCounts:
        """Counts the entries of each action that have been added."""
        return PlanCounts(**self._tally)


def entry_row(entry: PlanEntry, before: Mapping[str, Any] | None = None) -> EntryRow:
    """Returns the line of an entry."""
    kept = encode({name: encodable(value) for name, value in before.items()}) if before else None
    return EntryRow(entry.position, entry.action.value, entry.external_id, encoded_changes(entry.changes), kept)


def encoded_changes(changes: Mapping[str, FieldChange]) -> str:
    """Encodes changes for people: a value that JSON can't hold is shown as text rather than failing the item."""
    try:
        return encode({name: [change.old, change.new] for name, change in changes.items()})
    except Exception:  # noqa: BLE001 - whatever a local value raises, the item can be written
        return encode({name: [encodable(change.old), encodable(change.new)] for name, change in changes.items()})


@dataclass(frozen=True, slots=True)
class PlanPage:
    """Holds a page of a plan.

    Args:
        number: Its place in the plan, starting at 0.
        entries: The entries with their items; none of a batch that has been applied.
    """

    number: int
    size: int
    entries: Sequence[PlanEntry]


def read_plan(
    files: RunFiles, applied: Collection[int] = (), *, fields: bool = False, without: Collection[Action] = ()
) -> Iterator[PlanPage]:
    """Yields the batches of the run's plan, with the items from its snapshot.

    Args:
        applied: Numbers of batches whose entries nobody needs any more.
        fields: True for the fields' changes as well; without them apply decides by the item.
    """
    left_out = {action.value for action in without}
    rows_left = (rows for number, rows in enumerate(_rows(files, (), left_out)) if number not in applied)
    items = Snapshot(files.folder).rows_at(position for rows in rows_left for position, *_ in rows if position >= 0)
    for number, rows in enumerate(_rows(files, ["external_id", "changes", *(("before",) if fields else ())], left_out)):
        entries: list[PlanEntry] = []
        if number not in applied:
            entries = [_entry(row, next(items).item if row[0] >= 0 else None, fields=fields) for row in rows]
        yield PlanPage(number, len(rows), entries)


def _entry(row: Sequence[Any], item: Any, *, fields: bool) -> PlanEntry:
    position, action, external_id, changes = row[:4]
    named, before = _fields(*row[3:]) if fields else ({}, None)
    return PlanEntry(Action(action), external_id, position, item, named, before, kept_changes=changes)


def entries_of(files: RunFiles, actions: Collection[Action]) -> Iterator[PlanEntry]:
    """Yields the entries of those actions, with their items and fields."""
    others = [action for action in Action if action not in actions]
    for page in read_plan(files, fields=True, without=others) if actions else ():
        yield from page.entries


def rows_of(files: RunFiles, actions: Collection[Action]) -> Iterator[EntryRow]:
    """Yields the lines of those actions as the plan has them."""
    wanted = {action.value for action in actions}
    for rows in read_pages(files.plan, list(EntryRow._fields)):
        yield from (EntryRow(*row) for row in rows if row[1] in wanted)


def _rows(files: RunFiles, columns: Sequence[str], left_out: Collection[str]) -> Iterator[Sequence[tuple[Any, ...]]]:
    """Yields position, action and further columns of the plan's entries, page by page."""
    for rows in read_pages(files.plan, ["position", "action", *columns]):
        yield [row for row in rows if row[1] not in left_out] if left_out else rows


def _fields(changes: str | None = None, before: str | None = None) -> tuple[dict[str, FieldChange], Any]:
    named = {name: FieldChange(*pair) for name, pair in decode(changes).items()} if changes else {}
    return named, decode(before) if before else None


def write_findings(findings: PageWriter, failed: Sequence[SyncError], duplicates: Sequence[Duplicate]) -> None:
    """Keeps errors and duplicates, which are complete without a write, for the results."""
    rows: list[tuple[Any, ...]] = [
        (each.position, "failed", each.external_id, each.exception_type, each.message, None, each.trace or None)
        for each in failed
    ]
    rows += [
        (each.position, "duplicate", each.external_id, None, None, each.kept_position, None) for each in duplicates
    ]
    findings.write(sorted(rows, key=lambda row: row[0]))


def read_duplicates(files: RunFiles, limit: int) -> list[Duplicate]:
    """Returns the first duplicates of the run, in the order of the fetch."""
    found: list[Duplicate] = []
    for rows in read_pages(files.findings, ["position", "kind", "external_id", "kept_position"]):
        found += [Duplicate(row[2], row[0], row[3]) for row in rows if row[1] == "duplicate"]
        if len(found) >= limit:
            break
    return found[:limit]


def read_failed(files: RunFiles) -> Iterator[SyncError]:
    """Yields the items that failed before anything was written."""
    for rows in read_pages(files.findings):
        for position, kind, external_id, exception_name, message, _, *trace in rows:  # an older file has no traces
            if kind == "failed":
                yield SyncError(external_id, message, exception_name, position, "".join(filter(None, trace)))


def fields_before(driver: TargetDriver, entry: PlanEntry) -> dict[str, Any] | None:
    """Returns the fields of the local record of an entry, where its changes do not say them."""
    if entry.local is None or (entry.changes and entry.action is not Action.DELETE):
        return None
    return readable_fields(driver, entry.local)


def readable_fields(driver: TargetDriver, local: Any) -> dict[str, Any]:
    """Returns the fields of a local record; none of one that can't be read."""
    try:
        return driver.fields_of(local)
    except Exception:  # noqa: BLE001 - whatever a local record raises, the item can be written
        return {}


def delete_entry(driver: TargetDriver, external_id: str, local: Any | None) -> PlanEntry:
    """Returns the entry of a delete, with what it changes.

    Args:
        local: The local record, None if it has not been looked up.
    """
    if local is None:
        return PlanEntry(Action.DELETE, external_id)
    try:
        changes = driver.delete_changes(local)
    except Exception:  # noqa: BLE001 - whatever a local record raises, it can be deleted
        changes = {}
    is_mark = any(change.new is not None for change in changes.values())  # then they do not say all that is there
    return PlanEntry(Action.DELETE, external_id, changes=changes, local=local if is_mark else None)
