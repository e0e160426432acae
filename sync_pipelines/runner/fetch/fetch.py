"""Fetches all items of the source into a durable snapshot, page by page."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sync_pipelines.engine.completeness import Completeness, source_ends
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.display import first_of
from sync_pipelines.engine.external_ids import external_id_of
from sync_pipelines.engine.one_item import OneItem
from sync_pipelines.engine.pages import stream_pages
from sync_pipelines.engine.places import is_users, note_place
from sync_pipelines.engine.progress import Progress
from sync_pipelines.engine.redaction import described
from sync_pipelines.errors import ConfigurationError, FetchError, ItemError
from sync_pipelines.runner.calls.backoff import call_again
from sync_pipelines.runner.calls.target_driver import open_target
from sync_pipelines.runner.context.run_log import RunReport
from sync_pipelines.runner.fetch.wanted import WantedIds
from sync_pipelines.snapshots.snapshot import FetchedPage, SnapshotWriter
from sync_pipelines.snapshots.store import RunFiles

_IDS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Selection:
    """Says which items of the source a run takes.

    Args:
        limit: At most so many, the first ones; None for all.
        only: Only items with these external ids, in any spelling; empty for all.
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


class DifferentIds:
    """Counts the different ones of many ids, in eight bytes each; an item whose id can't be read is one more."""

    def __init__(self) -> None:
        self._hashes = array("q")
        self._unread = 0

    def add(self, external_ids: Sequence[str | None]) -> None:
        """Takes the ids of a page."""
        self._hashes.extend(hash(each) for each in external_ids if each is not None)
        self._unread += external_ids.count(None)

    def different(self) -> int:
        """Returns how many have come."""
        column = pa.Array.from_buffers(pa.int64(), len(self._hashes), [None, pa.py_buffer(self._hashes)])
        return int(pc.count_distinct(column).as_py()) + self._unread


@dataclass(frozen=True, slots=True)
class Fetched:
    """Describes what a fetch has left.

    Args:
        items: How many items were taken.
        notes: What a person should know.
        part: What all items of the source are, in short; None if some may be missing, or nobody asked.
    """

    items: int
    completeness: Completeness
    notes: list[str]
    part: str | None = None


def fetch_snapshot(
    job: SyncJob[Any, Any], files: RunFiles, selection: Selection, report: RunReport, *, sums: bool = False
) -> Fetched:
    """Fetches into the run's snapshot.

    Args:
        sums: True to say what all items are, in short, for the data version of the source.

    Raises:
        FetchError: The source broke off; it carries how many items had come, and there is no snapshot.
        ConfigurationError: The source says that a person must act, or gives no items at all.
    """
    with ExitStack() as stack:
        wanted = WantedIds(selection.only, stack.enter_context(open_target(job))) if selection.only else None
        writer = stack.enter_context(SnapshotWriter(files.folder, sums=sums))
        ends = stack.enter_context(source_ends())
        is_cut_off, ids = False, DifferentIds()
        with closing(_pages(job, selection, wanted, writer)) as pages:
            for page in pages:
                writer.write(page)
                if ends.is_counted:
                    ids.add(page.external_ids)
                report.progress(Progress("fetch", writer.rows, writer.rows))
                if is_cut_off := selection.limit is not None and writer.rows >= selection.limit:
                    break
        ends.came(writer.rows, ids.different())
        completeness = ends.completeness(took_all=selection.is_everything)
        missing = wanted.missing if wanted is not None and not is_cut_off else []
        writer.finish({"items": writer.rows, **completeness.to_manifest(), "not_found": len(missing)})
    notes = [f"not found in the source: {first_of(missing, _IDS_SHOWN)}"] if missing else []
    if completeness.took_all:
        notes += ends.notes
    if completeness.doubts and job.deletes == "off":  # else the diff says it of the deletes
        notes.append(str(completeness.why_not))
    part = writer.content.text() if writer.content is not None and completeness.is_complete else None
    return Fetched(writer.rows, completeness, notes, part)


def _pages(
    job: SyncJob[Any, Any], selection: Selection, wanted: WantedIds | None, writer: SnapshotWriter
) -> Generator[FetchedPage]:
    """Yields the pages of the source as far as they are selected."""
    most = selection.limit if selection.limit is not None and not selection.only else None
    came = 0
    try:
        fetch = partial(call_again, job.fetch_external)
        with closing(stream_pages(fetch, _rows_of_frame, lambda: writer.page_size(most))) as pages:
            for items in pages:
                page = _select(identified(job, came, items), selection.limit, wanted, writer.rows)
                came += len(items)
                yield page
    except ConfigurationError as error:
        raise ConfigurationError(f"{job.name}: fetch_external: {error}") from error
    except Exception as error:
        note_place(error, "", by_way_of=not is_users(job.fetch_external))
        raise FetchError(
            f"{job.name}: the source broke off after {came:,} items, nothing was applied: "
            f"{described(error)}. Run the sync again when the source is well.",
            items_fetched=came,
        ) from error


def _rows_of_frame(frame: Any) -> Iterator[dict[str, Any]]:
    from sync_pipelines.sources.frames import rows_of_frame  # noqa: PLC0415 - whoever gives a frame has pandas loaded

    return rows_of_frame(frame)


def _select(page: FetchedPage, limit: int | None, wanted: WantedIds | None, taken: int) -> FetchedPage:
    places = range(len(page.items)) if wanted is None else wanted.places(page.external_ids)
    if limit is not None:
        places = places[: limit - taken]
    return page if len(places) == len(page.items) else page.only(places)


def identified(job: SyncJob[Any, Any], first: int, items: Sequence[Any]) -> FetchedPage:
    """Identifies items: an item without an id that can be read has failed, and so has an `ItemError` in its place.

    Args:
        first: Place of the first item in the fetch.
    """
    positions = range(first, first + len(items))
    field = job.id_field
    texts = _texts_of_field(field, items) if field is not None else None
    if texts is not None:
        return FetchedPage(positions, texts, items)
    page = FetchedPage(positions, [None] * len(items), items)
    for place, item in enumerate(items):
        if isinstance(item, ItemError):
            page.errors[place] = item
        with OneItem(partial(page.errors.setdefault, place)):
            page.external_ids[place] = call_again(external_id_of, job, item)
    return page


def _texts_of_field(name: str, items: Sequence[Any]) -> list[str | None] | None:
    """Returns the ids of a page of dicts whose field is a text in each; None if one needs a closer look."""
    if set(map(type, items)) != {dict}:
        return None
    texts = [item.get(name) for item in items]
    if set(map(type, texts)) != {str} or not all(map(str.strip, texts)):
        return None
    try:
        "".join(texts).encode("utf-8")
    except UnicodeEncodeError:
        return None
    return texts
