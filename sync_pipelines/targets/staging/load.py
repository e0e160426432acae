"""Loads pages of a snapshot into the staging table: key, values and route of each item whose id can be a key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from sync_pipelines.engine.staged_target import Unstaged
from sync_pipelines.errors import ItemError
from sync_pipelines.snapshots import column_kinds
from sync_pipelines.snapshots.column_kinds import Kind
from sync_pipelines.snapshots.snapshot import SnapshotPage
from sync_pipelines.targets.staging.convert import ColumnConverter, Converted, PythonValues
from sync_pipelines.targets.staging.copy_text import dump_for
from sync_pipelines.targets.staging.distinct_keys import KeysSeen
from sync_pipelines.targets.staging.read_columns import PageReader
from sync_pipelines.targets.staging.staged_columns import StagedColumn
from sync_pipelines.targets.staging.staging_tables import FAILED, FAST, SKIPPED, SLOW, StagingTables
from sync_pipelines.targets.types.codec import ColumnCodec, Facts

_NUMBER = r"^-?[0-9]+(\.[0-9]+)?$"
_WITH_ZONE = r"([0-9]Z|[+-][0-9]{2}:[0-9]{2})$"


class StageLoader:
    """Makes rows of the staging table out of pages.

    Args:
        dialect: PostgreSQL's or SQLite's.
        values: The other staged columns.
        key_of_id: External id -> canonical key values; raises `ItemError`.
        version: The staged column that says which of two states of an item is the newer one.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what it works with
        self,
        work: StagingTables,
        dialect: sa.Dialect,
        key: Sequence[StagedColumn],
        values: Sequence[StagedColumn],
        key_of_id: Callable[[str], Sequence[Any]],
        version: StagedColumn | None = None,
    ) -> None:
        self._work = work
        self._dialect = dialect
        self._key = key
        self._values = values
        self._key_of_id = key_of_id
        self._version = version
        self.has_uncertain_versions = False
        """True if some items' versions can't be told from what is staged."""
        self.keys_seen = KeysSeen(key)
        self._names = ["sp_n", "sp_route", *(column.label for column in (*key, *values))]
        self._converters = {column.name: ColumnConverter(column.codec, dialect) for column in (*key, *values)}

    def load(
        self, page: SnapshotPage, reader: PageReader, items: Sequence[Any] | None, skipped: Sequence[bool | None] | None
    ) -> list[Unstaged]:
        """Loads a page.

        Args:
            reader: Reads the table's columns out of it.
            items: Its items, where the reader needs them.
            skipped: For each item, true if the job leaves it alone, None if it can't say; None if it leaves none alone.

        Returns:
            The items that are not in the staging table.
        """
        keys, unstaged = self._keys(page.table.column("external_id").combine_chunks())
        values, is_slow = self._read(page, reader, items, keys)
        routes = [SLOW if slow else FAST for slow in is_slow]
        for place in pc.indices_nonzero(page.table.column("message").is_valid()).to_pylist():
            routes[place] = FAILED
        for place, skip in enumerate(skipped or ()):
            if skip is not False and routes[place] != FAILED:
                routes[place] = SKIPPED if skip else SLOW
        positions = page.table.column("position").combine_chunks()
        rows: list[Any] = [positions, pa.array(routes, pa.int16()), *keys, *values]
        if unstaged:
            gone = {each.place for each in unstaged}
            staged = [place for place in range(len(page)) if place not in gone]
            rows = [_taken(column, staged) for column in rows]
        if len(rows[0]):
            self.keys_seen.add(rows[2 : 2 + len(self._key)])
            self._work.load(self._names, rows)
        return unstaged

    def _keys(self, external_ids: pa.Array) -> tuple[list[Any], list[Unstaged]]:
        missing = pc.indices_nonzero(external_ids.is_null()).to_pylist() if external_ids.null_count else []
        unstaged = {place: Unstaged(place, None) for place in missing}
        if len(self._key) > 1:
            keys, errors = self._composite_keys(external_ids)
        else:
            ids = pc.fill_null(external_ids, "") if missing else external_ids
            converted, errors = self._converters[self._key[0].name].convert_keys(ids)
            keys = [converted.values]
        for place, error in errors.items():
            unstaged.setdefault(place, Unstaged(place, error))
        return keys, sorted(unstaged.values(), key=lambda each: each.place)

    def _composite_keys(self, external_ids: pa.Array) -> tuple[list[Any], dict[int, Exception]]:
        errors: dict[int, Exception] = {}
        dumps = [dump_for(column.codec, self._dialect) for column in self._key]
        columns: list[list[Any]] = [[] for _ in self._key]
        for place, external_id in enumerate(external_ids.to_pylist()):
            parts: Sequence[Any] = [None] * len(dumps)
            if external_id is not None:
                try:
                    parts = [
                        _without_nul(column.codec, dump(value))
                        for column, dump, value in zip(self._key, dumps, self._key_of_id(external_id), strict=True)
                    ]
                except ItemError as error:
                    errors[place] = error
            for column_values, part in zip(columns, parts, strict=True):
                column_values.append(part)
        make: Callable[[list[Any]], Any] = PythonValues if self._dialect.name == "sqlite" else _texts
        return [make(each) for each in columns], errors

    def _read(
        self, page: SnapshotPage, reader: PageReader, items: Sequence[Any] | None, keys: Sequence[Any]
    ) -> tuple[list[Any], list[bool]]:
        """The values, and for each item whether it must be looked at by itself."""
        given = reader.read(page, items)
        slow = [not whole for whole in given.whole]
        columns: list[Any] = []
        for column in self._values:
            converted = self._converters[column.name].convert(*given.columns[column.name])
            columns.append(converted.values)
            _mark(slow, converted)
            if column is self._version:
                for place in _uncertain_versions(*given.columns[column.name], column.codec.facts):
                    slow[place] = self.has_uncertain_versions = True
        for column, own in zip(self._key, keys, strict=True):
            if column.name in given.columns:
                converted = self._converters[column.name].convert(*given.columns[column.name])
                _mark(slow, converted)
                _mark_different(slow, converted.values, own)
        return columns, slow


def _texts(values: list[Any]) -> pa.Array:
    return pa.array(values, pa.string())


def _without_nul(codec: ColumnCodec, value: Any) -> Any:
    if isinstance(value, str) and "\x00" in value:
        raise ItemError(f"column {codec.name!r}: the external id holds a NUL character")
    return value


def _mark(slow: list[bool], converted: Converted) -> None:
    for place in converted.refused:
        slow[place] = True


def _mark_different(slow: list[bool], values: Any, own: Any) -> None:
    """Marks items whose key column would be written with another value than their external id says."""
    if isinstance(values, pa.Array) and isinstance(own, pa.Array) and values.type == own.type:
        for place in pc.indices_nonzero(pc.fill_null(pc.not_equal(values, own), fill_value=True)).to_pylist():
            slow[place] = True
        return
    texts = zip(values.to_pylist(), own.to_pylist(), strict=True)
    for place, (value, key) in enumerate(texts):
        if value is None or str(value) != str(key):
            slow[place] = True


def _taken(column: Any, places: list[int]) -> Any:
    if isinstance(column, PythonValues):
        return PythonValues(column[place] for place in places)
    return column.take(pa.array(places, pa.int64()))


def _uncertain_versions(kind: Kind, values: pa.Array, facts: Facts) -> list[int]:
    """Places of items whose version may be missing or none: they are looked at one by one.

    Args:
        kind: What the snapshot keeps in the field.
        values: As it keeps them.
        facts: What is known of the column's type.
    """
    sure: Any = values.is_valid()
    if facts.family == "datetime":
        if kind.name in {column_kinds.TEXT.name, column_kinds.MOMENT.name}:
            sure = pc.and_(sure, pc.match_substring_regex(values, _WITH_ZONE))
        elif kind.name != column_kinds.UTC_MOMENT.name:
            return list(range(len(values)))
    elif kind.name in {column_kinds.TEXT.name, column_kinds.DECIMAL.name, column_kinds.NUMBER.name}:
        sure = pc.and_(sure, pc.match_substring_regex(values, _NUMBER))
    elif kind.name != column_kinds.INT.name:
        return list(range(len(values)))
    return list(pc.indices_nonzero(pc.invert(pc.fill_null(sure, fill_value=False))).to_pylist())
