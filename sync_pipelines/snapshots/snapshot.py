"""The snapshot of a fetch: items in typed columns, in parts with a schema each, complete when its manifest is there."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from sync_pipelines.engine.codec import decode, encode
from sync_pipelines.engine.completeness import Completeness
from sync_pipelines.engine.item_shapes import shapes_to_json
from sync_pipelines.engine.read_ahead import Background
from sync_pipelines.engine.redaction import exception_type, message_of
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.snapshots.column_kinds import ANY, Kind, Unreadable
from sync_pipelines.snapshots.durable_files import make_folder, read_json, write_json
from sync_pipelines.snapshots.field_tally import FieldTally
from sync_pipelines.snapshots.parquet_pages import PageWriter, open_parquet, summary_of
from sync_pipelines.snapshots.typed_columns import Columnizer, PartSchema, encoded_texts, items_of, needs_json, widened

if TYPE_CHECKING:
    from sync_pipelines.snapshots.content_sum import ContentSum

SNAPSHOT_PAGE = 10_000
"""Items in a page (a row group) of a snapshot at most, and as long as their size allows."""
_FIRST_PAGE = 1_000
_PAGE_BYTES = 8_000_000
MAX_PARTS = 20
"""After so many parts a field that changes its type once more is kept as JSON."""
_MANIFEST = "snapshot.json"
_ROW = (
    pa.field("position", pa.int64()),
    pa.field("external_id", pa.string()),  # as the source gave it; null where it can't be read
    pa.field("shape", pa.int32()),  # which of the part's shapes the item has; null where it has no typed fields
    pa.field("item", pa.string()),  # the engine's JSON, where the typed fields don't hold all of the item
    pa.field("exception_type", pa.string()),  # why the item failed already
    pa.field("message", pa.string()),
)


@dataclass
class FetchedPage:
    """Items as they come from the source.

    Args:
        external_ids: Their ids, None where they can't be read.
        items: The items; what stands at the places of failed ones is ignored.
        errors: Place in the page -> why the item failed already.
    """

    positions: Sequence[int]
    external_ids: list[str | None]
    items: Sequence[Any]
    errors: dict[int, Exception] = field(default_factory=dict)

    def only(self, places: Sequence[int]) -> FetchedPage:
        """Returns a page of some of the items."""
        return FetchedPage(
            [self.positions[place] for place in places],
            [self.external_ids[place] for place in places],
            [self.items[place] for place in places],
            {number: self.errors[place] for number, place in enumerate(places) if place in self.errors},
        )


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """One item of a snapshot, or why it failed already; then `failed_item` is its JSON, as far as it has one."""

    position: int
    external_id: str | None
    item: Any = None
    exception_type: str | None = None
    message: str | None = None
    failed_item: str | None = None


class SnapshotWriter:
    """Writes a snapshot page by page; Parquet is written in a thread beside the one that fetches.

    Args:
        sums: True to say at the end what all items are, in short.
    """

    def __init__(self, folder: UPath, *, sums: bool = False) -> None:
        self.rows = 0
        self.content = _new_sum() if sums else None
        """Of all items so far."""
        self._folder = folder
        self._schema = PartSchema()
        self._columnizer = Columnizer(self._schema)
        self._tally = FieldTally()
        self._parts: list[str] = []
        self._open: _OpenPart | None = None
        self._page_size = _FIRST_PAGE

    def page_size(self, most: int | None = None) -> int:
        """Returns how many items the next page should have, `most` at most: large items must not take much memory."""
        return self._page_size if most is None else min(self._page_size, most)

    def __enter__(self) -> Self:
        """Begins the snapshot; a manifest that an earlier attempt left is no longer true."""
        make_folder(self._folder)
        (self._folder / _MANIFEST).unlink(missing_ok=True)
        return self

    def write(self, page: FetchedPage) -> None:
        """Writes a page. No items, no page."""
        if not page.items:
            return
        items = [None if place in page.errors else item for place, item in enumerate(page.items)] if (
            page.errors
        ) else page.items  # fmt: skip
        shapes, columns = self._columnizer.columnize(items)
        self._fit(columns)
        arrays = self._typed_arrays(items, columns, page.errors)
        json_shapes = {number for number, shape in enumerate(self._schema.shapes) if needs_json(shape)}
        wanted = [number is None or number in json_shapes for number in shapes]
        texts: list[str | None] = [None] * len(items)
        if any(wanted):
            texts = encoded_texts(items, wanted, page.errors)
        for place in page.errors:  # for people, who want to see what failed
            texts[place] = _text_or_none(page.items[place])
        table = _table(page, shapes, texts, arrays, self._schema)
        self._part().put(table)
        self._tally.add(self._schema, table)
        if self.content is not None:
            self.content.add(self._schema.kinds, table)
        self.rows += len(items)
        self._page_size = max(100, min(SNAPSHOT_PAGE, _PAGE_BYTES * len(items) // max(table.nbytes, 1)))

    def _fit(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Begins a new part if the page does not fit the schema of the one that is open."""
        kinds = widened(self._schema.kinds, columns)
        if kinds == self._schema.kinds:
            return
        if len(self._parts) >= MAX_PARTS:
            known = self._schema.kinds
            kinds = {name: kind if known.get(name) is kind else ANY for name, kind in kinds.items()}
        self._close_part()
        self._schema = PartSchema(kinds, list(self._schema.shapes))
        self._columnizer.schema = self._schema

    def _typed_arrays(
        self, items: Sequence[Any], columns: Mapping[str, Sequence[Any]], errors: dict[int, Exception]
    ) -> list[pa.Array]:
        nothing = [None] * len(items)
        return [_array_of(kind, columns.get(name, nothing), items, errors) for name, kind in self._schema.kinds.items()]

    def _part(self) -> _OpenPart:
        if self._open is None:
            name = f"snapshot-{len(self._parts):05}.parquet"
            self._parts.append(name)
            self._open = _OpenPart(self._folder / name, pa.schema([*_ROW, *self._schema.arrow_fields()]))
            self._open.__enter__()
        return self._open

    def _close_part(self) -> None:
        if self._open is not None:
            part, self._open = self._open, None
            part.finish(self._schema)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Completes the snapshot with a summary, durably."""
        self._close_part()
        shapes = self._tally.shapes()
        counted = {"shapes": shapes_to_json(shapes)} if shapes else {}
        write_json(self._folder / _MANIFEST, {**summary, **counted, "parts": self._parts})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Removes what was not finished."""
        if self._open is not None:
            self._open.__exit__(kind, error, traceback)


def _new_sum() -> ContentSum | None:
    """Returns an empty sum; None where numpy is missing, for whoever installs Dagster without our extra."""
    try:
        from sync_pipelines.snapshots.content_sum import ContentSum  # noqa: PLC0415 - only Dagster asks for it
    except ImportError:
        return None
    return ContentSum()


class _OpenPart:
    """A part that is being written, in a thread of its own."""

    def __init__(self, path: UPath, schema: pa.Schema) -> None:
        self._stack = ExitStack()
        self._writer = PageWriter(path, schema)
        self._background: Background[pa.Table] = Background(self._writer.write_table)

    def __enter__(self) -> Self:
        self._stack.enter_context(self._writer)
        self._stack.enter_context(self._background)
        return self

    def put(self, table: pa.Table) -> None:
        self._background.put(table)

    def finish(self, schema: PartSchema) -> None:
        with self._stack:  # closed also when the last page could not be written
            self._background.finish()
            self._writer.finish(schema.to_json())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)


def _array_of(kind: Kind, values: Sequence[Any], items: Sequence[Any], errors: dict[int, Exception]) -> pa.Array:
    """Makes the column of a field; a value that can't be kept fails its item and no other."""
    try:
        return kind.to_arrow(values)
    except Exception:  # noqa: BLE001 - whatever it is, it is narrowed down to the value below
        kept: list[Any] = []
        for place, value in enumerate(values):
            try:
                kind.to_arrow([value])
                kept.append(value)
            except Exception as error:  # noqa: BLE001 - one bad item never stops the others
                kept.append(None)
                errors.setdefault(place, _error_of_item(items[place], error))
        return kind.to_arrow(kept)


def _text_or_none(item: Any) -> str | None:
    try:
        return encode(item)
    except Exception:  # noqa: BLE001 - that it can't be kept is its error
        return None


def _error_of_item(item: Any, error: Exception) -> Exception:
    """Returns what is wrong with the item as a whole, which names the field; else the error of the value."""
    errors: dict[int, Exception] = {}
    encoded_texts([item], [True], errors)
    return errors.get(0, error)


def _table(
    page: FetchedPage,
    shapes: Sequence[int | None],
    texts: Sequence[str | None],
    arrays: Sequence[pa.Array],
    schema: PartSchema,
) -> pa.Table:
    count, errors = len(page.items), page.errors
    nothing = pa.nulls(count, pa.string())
    kept: Sequence[int | None] = shapes
    types, messages = nothing, nothing
    if errors:
        kept = [None if place in errors else number for place, number in enumerate(shapes)]
        types = pa.array([exception_type(errors[n]) if n in errors else None for n in range(count)], pa.string())
        messages = pa.array([message_of(errors[n]) if n in errors else None for n in range(count)], pa.string())
    row = [
        pa.array(page.positions, pa.int64()),
        pa.array(page.external_ids, pa.string()),
        pa.array(kept, pa.int32()),
        pa.array(texts, pa.string()) if any(texts) else nothing,
        types,
        messages,
    ]
    return pa.Table.from_arrays([*row, *arrays], schema=pa.schema([*_ROW, *schema.arrow_fields()]))


@dataclass(frozen=True, slots=True)
class SnapshotPage:
    """A page of a snapshot in columns.

    Args:
        table: The columns `position`, `external_id`, `shape`, `item`, `exception_type`, `message`, and one per field.
    """

    schema: PartSchema
    table: pa.Table

    def __len__(self) -> int:
        return len(self.table)

    def positions(self) -> list[int]:
        """Returns the items' places in the fetch."""
        places: list[int] = self.table.column("position").to_pylist()
        return places

    def external_ids(self) -> list[str | None]:
        """Returns the items' ids as the source gave them, None where they can't be read."""
        ids: list[str | None] = self.table.column("external_id").to_pylist()
        return ids

    def rows(self) -> list[SnapshotRow]:
        """Returns the items, each built again; one that can't be has the reason in its place."""
        names = ("position", "external_id", "item", "exception_type", "message")
        columns = [self.table.column(name).to_pylist() for name in names]
        typed = items_of(self.schema, self.table)
        return [
            SnapshotRow(position, external_id, None, type_name, message, text)
            if message is not None
            else _row(position, external_id, item if text is None else text, is_text=text is not None)
            for item, position, external_id, text, type_name, message in zip(typed, *columns, strict=True)
        ]

    def slices(self, size: int) -> Iterator[SnapshotPage]:
        """Yields the page in pieces of so many items, for callers that build the items again."""
        for start in range(0, len(self.table), size):
            yield SnapshotPage(self.schema, self.table.slice(start, size))

    def at(self, positions: Sequence[int]) -> SnapshotPage:
        """Returns the items with these positions, as far as they are in the page."""
        mask = pc.is_in(self.table.column("position"), value_set=pa.array(positions, pa.int64()))
        return SnapshotPage(self.schema, self.table.filter(mask))


def _row(position: int, external_id: str | None, item: Any, *, is_text: bool) -> SnapshotRow:
    if type(item) is Unreadable:
        return SnapshotRow(position, external_id, None, exception_type(item.error), message_of(item.error))
    if not is_text:
        return SnapshotRow(position, external_id, item)
    try:
        return SnapshotRow(position, external_id, decode(item))
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001 - one bad item never stops the others
        return SnapshotRow(position, external_id, None, exception_type(error), message_of(error))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot to read."""

    folder: UPath

    def is_complete(self) -> bool:
        """True once all of it is written; whether the source gave all its items is `completeness`."""
        return bool((self.folder / _MANIFEST).exists())

    def summary(self) -> dict[str, Any]:
        """Returns the summary that the snapshot was finished with."""
        return read_json(self.folder / _MANIFEST)

    def completeness(self) -> Completeness:
        """Returns whether all items of the source are in it."""
        return Completeness.from_manifest(self.summary())

    def pages(self, fields: bool = True) -> Generator[SnapshotPage]:  # noqa: FBT001, FBT002 - reads as a sentence
        """Yields the pages, one in memory at a time.

        Args:
            fields: False to leave the items' fields and JSON out.
        """
        for name in self.summary()["parts"]:
            with open_parquet(self.folder / name) as file:
                schema = PartSchema.from_json(summary_of(file))
                columns = None if fields else ["position", "external_id", "exception_type", "message"]
                for number in range(file.num_row_groups):
                    yield SnapshotPage(schema, file.read_row_group(number, columns=columns))

    def rows_at(self, positions: Iterator[int]) -> Iterator[SnapshotRow]:
        """Yields the items with these positions, which must ascend. Reads only the pages that have any."""
        wanted = next(positions, None)
        for name in self.summary()["parts"] if wanted is not None else ():
            with open_parquet(self.folder / name) as file:
                schema = PartSchema.from_json(summary_of(file))
                for number in range(file.num_row_groups):
                    last = file.metadata.row_group(number).column(0).statistics.max
                    here: list[int] = []
                    while wanted is not None and wanted <= last:
                        here.append(wanted)
                        wanted = next(positions, None)
                    if here:
                        yield from SnapshotPage(schema, file.read_row_group(number)).at(here).rows()
