"""Reads the columns of a table out of pages of a snapshot: item fields as they lie there, functions item by item."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sync_pipelines.snapshots.column_kinds import ANY, NOTHING, Kind, kind_for
from sync_pipelines.snapshots.snapshot import SnapshotPage
from sync_pipelines.targets.table.mapping import ItemMapping

FieldColumn = tuple[Kind, pa.Array]


@dataclass(frozen=True, slots=True)
class PageColumns:
    """What a page holds for the table.

    Args:
        columns: Local column -> kind and values.
        whole: For each item, true if all the columns could be read.
    """

    columns: Mapping[str, FieldColumn]
    whole: Sequence[bool]


class PageReader:
    """Reads one table's columns out of pages.

    Args:
        mapping: Which item field goes into which column.
        writable: Says whether a name is a column of the table that can be written.
    """

    def __init__(self, mapping: ItemMapping, writable: Callable[[str], bool]) -> None:
        self._mapping = mapping
        self._writable = writable
        self._names: tuple[str, ...] | None = mapping.names

    def column_of(self, field: str) -> str | None:
        """The column that a field of the item is written to as it is; None if there is none."""
        return self._mapping.column_of(field)

    @property
    def needs_items(self) -> bool:
        """True if a function wants to see the items themselves."""
        return self._mapping.has_functions

    def names(self, page: SnapshotPage, items: Sequence[Any] | None) -> tuple[str, ...]:
        """The columns that are written; where only the items can tell, those of the first item that can be read."""
        if self._names is None:
            self._names = self._first_names(page, items)
        return self._names

    def _first_names(self, page: SnapshotPage, items: Sequence[Any] | None) -> tuple[str, ...]:
        if self._mapping.names_are_fields:
            numbers = pc.drop_null(page.table.column("shape")).to_pylist()
            fields = page.schema.shapes[numbers[0]].fields if numbers else ()
            return tuple(name for name in fields if self._writable(name))
        for item in items or ():
            try:
                return tuple(self._mapping.read(item, self._writable))
            except Exception:  # noqa: BLE001, S112 - it will be told when its turn comes
                continue
        return ()

    def read(self, page: SnapshotPage, items: Sequence[Any] | None) -> PageColumns:
        """The columns of a page.

        Args:
            items: Its items, given where `needs_items`.
        """
        names = self.names(page, items)
        sources = self._mapping.sources
        if sources is None and not self._mapping.names_are_fields:
            return self._called(names, items or ())
        fields = {name: name for name in names} if sources is None else {
            name: source for name, source in sources.items() if isinstance(source, str)
        }  # fmt: skip
        whole = self._whole(page, frozenset(fields.values()), names)
        columns = {name: _field_column(page, source) for name, source in fields.items()}
        for name in names:
            if name not in columns and sources is not None:
                columns[name] = _function_column(sources[name], items or (), whole)
        return PageColumns(columns, whole)

    def _whole(self, page: SnapshotPage, needed: frozenset[str], names: tuple[str, ...]) -> list[bool]:
        """For each item, whether its shape has the fields; and no others that would be written."""
        good = {
            number
            for number, shape in enumerate(page.schema.shapes)
            if needed <= set(shape.fields)
            and (
                not self._mapping.names_are_fields
                or {name for name in shape.fields if self._writable(name)} == set(names)
            )
        }
        shapes = page.table.column("shape").to_pylist()
        if set(shapes) <= good:
            return [True] * len(shapes)
        return [number in good for number in shapes]

    def _called(self, names: tuple[str, ...], items: Sequence[Any]) -> PageColumns:
        """The columns that a function of the whole item gives."""
        columns: dict[str, list[Any]] = {name: [None] * len(items) for name in names}
        whole = [False] * len(items)
        for place, item in enumerate(items):
            try:
                given = self._mapping.read(item, self._writable)
            except Exception:  # noqa: BLE001, S112 - the item is looked at by itself later, and its error told
                continue
            if set(given) == set(names):
                whole[place] = True
                for name, value in given.items():
                    columns[name][place] = value
        return PageColumns({name: _kept(values, whole) for name, values in columns.items()}, whole)


def _field_column(page: SnapshotPage, field: str) -> FieldColumn:
    if field not in page.schema.kinds:
        return NOTHING, pa.nulls(len(page), pa.string())
    column = page.table.column(page.schema.column(field)).combine_chunks()
    return page.schema.kinds[field], column


def _function_column(source: Any, items: Sequence[Any], whole: list[bool]) -> FieldColumn:
    values: list[Any] = []
    for place, item in enumerate(items):
        value = None
        if whole[place]:
            try:
                value = source(item)
            except Exception:  # noqa: BLE001 - the item is looked at by itself later, and its error told
                whole[place] = False
        values.append(value)
    return _kept(values, whole)


def _kept(values: list[Any], whole: list[bool]) -> FieldColumn:
    """The values of functions in the kinds of a snapshot; what it can't keep is looked at by itself."""
    kind = kind_for(values)
    if kind is not ANY:
        return kind, kind.to_arrow(values)
    kept: list[Any] = []
    for place, value in enumerate(values):
        try:
            kept.append(None if value is None else ANY.keep(value))
        except Exception:  # noqa: BLE001 - a value only for the driver; the item is looked at by itself
            kept.append(None)
            whole[place] = False
    return ANY, pa.array(kept, pa.string())
