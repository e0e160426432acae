"""Counts in the columns of a snapshot which items have which fields, and of what type, as its pages are written."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sync_pipelines.engine.blanks import is_blank
from sync_pipelines.engine.item_shapes import INNER, FieldShape
from sync_pipelines.snapshots.column_kinds import ANY, BYTES, DECIMAL, FLOAT, NUMBER, TEXT, Kind
from sync_pipelines.snapshots.typed_columns import PartSchema

_TYPES = {
    "text": "text", "int": "numbers", "float": "numbers", "number": "numbers", "decimal": "numbers",
    "bool": "truth values", "utc": "times", "naive": "times", "moment": "times", "date": "dates", "bytes": "bytes",
}  # fmt: skip
_TYPES_OF_JSON = {'"': "text", "t": "truth values", "f": "truth values", "[": "lists", "{": "objects"}
_TYPES_OF_TAGS = {"decimal": "numbers", "datetime": "times", "date": "dates", "bytes": "bytes", "tuple": "lists",
                  "set": "lists", "frozenset": "lists"}  # fmt: skip
_EMPTY_JSON = pa.array(['""', "[]", "{}", "null", "NaN", '{"$":"tuple","v":[]}'])
_NO_NUMBERS = pa.array(["nan", "NaN", "sNaN"])
_TAG, _TAG_CHARS = '{"$":"', 20
_SAMPLED = 200
"""So many objects of a page are looked into, evenly spread."""
_MAX_INNER = 200
"""Objects with more different fields have data as names."""


@dataclass
class _Field:
    of: int = 0
    present: int = 0
    filled: int = 0
    types: Counter[str] = field(default_factory=Counter)


class FieldTally:
    """Counts the fields of the items of a snapshot. Items that failed, or have no typed fields, are left out."""

    def __init__(self) -> None:
        self._items = 0
        self._fields: dict[str, _Field] = defaultdict(_Field)
        self._inner: dict[str, dict[str, _Field]] = defaultdict(lambda: defaultdict(_Field))
        self._looked_into: Counter[str] = Counter()

    def add(self, schema: PartSchema, table: pa.Table) -> None:
        """Counts a page."""
        shapes = table.column("shape")
        if shapes.null_count:
            table = table.filter(pc.is_valid(shapes))
            shapes = table.column("shape")
        self._items += len(table)
        for each in pc.value_counts(shapes.combine_chunks()).to_pylist():
            for name in schema.shapes[each["values"]].fields:
                self._fields[name].present += each["counts"]
        for name, kind in schema.kinds.items():
            self._add_column(name, kind, table.column(schema.column(name)).combine_chunks())

    def _add_column(self, name: str, kind: Kind, column: pa.Array) -> None:
        types = (
            _types_of_json(column) if kind is ANY else {_TYPES.get(kind.name, "other values"): _filled(kind, column)}
        )
        for what, count in types.items():
            if count:
                self._fields[name].types[what] += count
                self._fields[name].filled += count
        if types.get("objects"):
            self._look_into(name, column)

    def _look_into(self, name: str, column: pa.Array) -> None:
        """Counts the fields of some of the objects in a column: to look at all would take as long as the fetch."""
        inner = self._inner[name]
        texts = column.drop_null()
        for text in texts.take(list(range(0, len(texts), max(1, len(texts) // _SAMPLED)))).to_pylist():
            value = json.loads(text)
            if not isinstance(value, dict) or not value or "$" in value or len(inner) > _MAX_INNER:
                continue
            self._looked_into[name] += 1
            for key, each in value.items():
                inner[key].present += 1
                if not is_blank(each):
                    inner[key].filled += 1
                    inner[key].types[_type_of_json(json.dumps(each)[:_TAG_CHARS])] += 1

    def shapes(self) -> dict[str, FieldShape]:
        """Returns what has been counted."""
        shapes = {name: _shape(self._items, each) for name, each in self._fields.items()}
        for outer, inner in self._inner.items():
            if len(inner) <= _MAX_INNER:
                shapes |= dict(_inner_shapes(outer, self._looked_into[outer], inner))
        return shapes


def _inner_shapes(outer: str, count: int, inner: Mapping[str, _Field]) -> Iterator[tuple[str, FieldShape]]:
    for name, each in inner.items():
        yield f"{outer}{INNER}{name}", _shape(count, each)


def _shape(of: int, each: _Field) -> FieldShape:
    return FieldShape(of, each.present, each.filled, dict(each.types))


def _filled(kind: Kind, column: pa.Array) -> int:
    """Counts the values of a typed column that are neither null nor empty."""
    filled = len(column) - int(column.null_count)
    if kind in {TEXT, BYTES}:
        return filled - _true(pc.equal(pc.binary_length(column), 0))
    if kind is FLOAT:
        return filled - _true(pc.is_nan(column))
    return filled - _true(pc.is_in(column, _NO_NUMBERS)) if kind in {NUMBER, DECIMAL} else filled


def _types_of_json(column: pa.Array) -> dict[str, int]:
    """Counts the values of a column of JSON by type, from how they begin."""
    filled = column.drop_null()
    filled = filled.filter(pc.invert(pc.is_in(filled, _EMPTY_JSON)))
    is_tagged = pc.starts_with(filled, _TAG)
    begin = pc.if_else(is_tagged, pc.utf8_slice_codeunits(filled, 0, _TAG_CHARS), pc.utf8_slice_codeunits(filled, 0, 1))
    types: Counter[str] = Counter()
    for each in pc.value_counts(begin).to_pylist():
        types[_type_of_json(each["values"])] += each["counts"]
    return types


def _type_of_json(begin: str) -> str:
    if begin.replace(" ", "").startswith(_TAG):
        return _TYPES_OF_TAGS.get(begin.replace(" ", "").removeprefix(_TAG).partition('"')[0], "other values")
    return _TYPES_OF_JSON.get(begin[:1], "numbers")


def _true(flags: Any) -> int:
    return int(pc.sum(flags).as_py() or 0)
