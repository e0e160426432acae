"""Fetch: all items of the source into a durable snapshot, page by page."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sync_pipelines.engine.calls import resolve
from sync_pipelines.engine.codec import encode
from sync_pipelines.engine.declaration import SyncJob, checked_external_id
from sync_pipelines.engine.pages import PAGE_SIZE, batches, stream_items
from sync_pipelines.engine.progress import Progress
from sync_pipelines.engine.redaction import exception_type, message_of
from sync_pipelines.errors import ConfigurationError, FetchError
from sync_pipelines.runner.reporting import RunReport
from sync_pipelines.snapshots.store import RunFiles

SnapshotRow = tuple[int, str | None, str | None, str | None, str | None]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which items of the source a run takes.

    Args:
        limit: At most so many, the first ones; None for all.
        only: Only items with these external ids, as the source gives them; empty for all.
    """

    limit: int | None = None
    only: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Checks the numbers."""
        if self.limit is not None and (not isinstance(self.limit, int) or self.limit is True or self.limit < 1):
            raise ConfigurationError(f"limit: {self.limit!r} must be a whole number from 1, or None for all items")

    @property
    def is_everything(self) -> bool:
        """True if the run takes all items, which deletes need."""
        return self.limit is None and not self.only


def select(limit: int | None, only: Collection[str]) -> Selection:
    """Makes a selection, with a clear error for a text where a list of texts belongs."""
    if isinstance(only, str) or not isinstance(only, Collection) or not all(isinstance(each, str) for each in only):
        raise ConfigurationError(f"only: {only!r} must be a list of external ids (texts)")
    return Selection(limit, frozenset(only))


def fetch_snapshot(
    job: SyncJob[Any, Any], files: RunFiles, selection: Selection, report: RunReport
) -> tuple[int, list[str]]:
    """Fetches into the run's snapshot.

    Returns:
        How many items were taken, and notes for a person.

    Raises:
        FetchError: The source broke off; it carries how many items had come, and there is no snapshot.
        ConfigurationError: The source says that a person must act, or gives no items at all.
    """
    missing = set(selection.only)
    with files.write_snapshot() as writer, closing(_items(job)) as items:
        taken = _select(_identified(job, items), selection)
        for rows in batches(taken, PAGE_SIZE):
            writer.write(rows)
            missing.difference_update(row[1] for row in rows if row[1] is not None)
            report.progress(Progress("fetch", writer.rows, writer.rows))
        writer.finish({"items": writer.rows, "complete": selection.is_everything})
    notes = [f"not found in the source: {', '.join(sorted(missing)[:20])}"] if missing else []
    return writer.rows, notes


def _items(job: SyncJob[Any, Any]) -> Generator[Any]:
    came = 0
    try:
        for item in stream_items(job.fetch_external, _rows_of_frame):
            yield item
            came += 1
    except ConfigurationError as error:
        raise ConfigurationError(f"{job.name}: fetch_external: {error}") from error
    except Exception as error:
        raise FetchError(
            f"{job.name}: the source broke off after {came:,} items, nothing was applied: "
            f"{exception_type(error)}: {message_of(error)}. Run the sync again when the source is well.",
            items_fetched=came,
        ) from error


def _rows_of_frame(frame: Any) -> Iterator[dict[str, Any]]:
    from sync_pipelines.sources.frames import rows_of_frame  # noqa: PLC0415 - whoever gives a frame has pandas loaded

    return rows_of_frame(frame)


def _identified(job: SyncJob[Any, Any], items: Iterator[Any]) -> Iterator[SnapshotRow]:
    for position, item in enumerate(items):
        yield snapshot_row(job, position, item)


def snapshot_row(job: SyncJob[Any, Any], position: int, item: Any) -> SnapshotRow:
    """The row that keeps an item, or what is wrong with it."""
    external_id: str | None = None
    try:
        given = checked_external_id(resolve(job.identify(item)))
        given.encode("utf-8")
        external_id = given
        return position, external_id, encode(item), None, None
    except Exception as error:  # noqa: BLE001 - one bad item never stops the others
        return position, external_id, None, exception_type(error), message_of(error)


def _select(rows: Iterator[SnapshotRow], selection: Selection) -> Iterator[SnapshotRow]:
    chosen = (row for row in rows if row[1] in selection.only) if selection.only else rows
    return islice(chosen, selection.limit)
