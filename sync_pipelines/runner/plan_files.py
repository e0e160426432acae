"""The plan of a run and what its diff found wrong, in the run's files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sync_pipelines.engine.codec import encode
from sync_pipelines.engine.pages import PAGE_SIZE
from sync_pipelines.engine.plan import Action, FieldChange, PlanEntry
from sync_pipelines.engine.results import Duplicate, SyncError
from sync_pipelines.recording.snapshot import Snapshot
from sync_pipelines.snapshots.files import PageWriter, read_pages
from sync_pipelines.snapshots.store import RunFiles


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
    return entry.position, entry.action.value, entry.external_id, _encoded_changes(entry.changes)


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


@dataclass(frozen=True, slots=True)
class PlanPage:
    """A page of a plan.

    Args:
        number: Its place in the plan, starting at 0.
        size: How many entries it has.
        entries: The entries with their items; none of a chunk that has been applied.
    """

    number: int
    size: int
    entries: Sequence[PlanEntry]


def read_plan(files: RunFiles, applied: Collection[int] = ()) -> Iterator[PlanPage]:
    """Yields the chunks of the run's plan, with the items from its snapshot.

    The fields' changes are left out: apply decides by the item.

    Args:
        files: The files of the run.
        applied: Numbers of chunks whose entries nobody needs any more.
    """
    rows_left = (rows for number, rows in enumerate(read_pages(files.plan, ["position"])) if number not in applied)
    items = Snapshot(files.folder).rows_at(position for rows in rows_left for (position,) in rows if position >= 0)
    for number, rows in enumerate(read_pages(files.plan, ["position", "action", "external_id"])):
        entries: list[PlanEntry] = []
        if number not in applied:
            entries = [
                PlanEntry(Action(action), external_id, position, next(items).item if position >= 0 else None)
                for position, action, external_id in rows
            ]
        yield PlanPage(number, len(rows), entries)


def write_findings(findings: PageWriter, failed: Sequence[SyncError], duplicates: Sequence[Duplicate]) -> None:
    """Keeps what is settled without a write and yet needs to be told."""
    rows: list[tuple[Any, ...]] = [
        (each.position, "failed", each.external_id, each.exception_type, each.message, None) for each in failed
    ]
    rows += [(each.position, "duplicate", each.external_id, None, None, each.kept_position) for each in duplicates]
    findings.write(sorted(rows, key=lambda row: row[0]))


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
