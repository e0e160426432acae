"""Counts in the columns of a snapshot which items have which fields, and of what type, as its pages are written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sync_pipelines.engine.blanks import is_blank
from sync_pipelines.engine.item_shapes import ANY_NAME, ELEMENT, INNER, FieldShape
from sync_pipelines.snapshots.column_kinds import ANY, BYTES, DECIMAL, FLOAT, NUMBER, TEXT, Kind
from sync_pipelines.snapshots.typed_columns import PartSchema

_TYPES = {
    "text": "text", "int": "numbers", "float": "numbers", "number": "numbers", "decimal": "numbers",
    "bool": "truth values", "utc": "times", "naive": "times", "moment": "times", "date": "dates", "bytes": "bytes",
}  # fmt: skip
_TYPES_OF_JSON = {'"': "text", "t": "truth values", "f": "truth values", "[": "lists", "{": "objects"}
_TYPES_OF_TAGS = {"decimal": "numbers", "datetime": "times", "date": "dates", "bytes": "bytes", "tuple": "lists",
                  "set": "lists", "frozenset": "lists"}  # fmt: skip
_TYPES_OF_VALUES: Mapping[type, str] = {
    str: "text",
    bool: "truth values",
    int: "numbers",
    float: "numbers",
    list: "lists",
}
_EMPTY_JSON = pa.array(['""', "[]", "{}", "null", "NaN", '{"$":"tuple","v":[]}'])
_NO_NUMBERS = pa.array(["nan", "NaN", "sNaN"])
_TAG, _TAG_CHARS = '{"$":"', 20
_SAMPLED = 200
"""So many values of a column, or items without columns, are looked into in a page, evenly spread; less if long."""
_SAMPLED_BYTES = 250_000
_ELEMENTS = 3
"""So many elements of a list: the first, the last, and one between."""
_MOST_NAMES, _MOST_INNER_NAMES = 2_000, 200
"""Objects with more different fields have data as names."""
_DEEPEST = 6
_MOST_SHAPES = 5_000


@dataclass
class _Field:
    """Counts one field, and what is in it.

    Args:
        objects: How many objects were looked into, of which `inner` has the fields.
    """

    present: int = 0
    filled: int = 0
    types: Counter[str] = field(default_factory=Counter)
    objects: int = 0
    inner: dict[str, _Field] = field(default_factory=dict)

    def named(self, name: str, most: int = _MOST_INNER_NAMES) -> _Field:
        """Returns the field of that name; all are one if there are too many."""
        known = self.inner.get(name) or self.inner.get(ANY_NAME)
        if known is None and len(self.inner) >= most:
            known = _Field()
            for each in self.inner.values():
                known.add(each)
            self.inner = {ANY_NAME: known}
        return known if known is not None else self.inner.setdefault(name, _Field())

    def add(self, other: _Field) -> None:
        """Adds what another field has counted."""
        self.present, self.filled = self.present + other.present, self.filled + other.filled
        self.types.update(other.types)
        self.objects += other.objects
        for name, each in other.inner.items():
            self.named(name).add(each)

    def note(self, value: Any, depth: int) -> None:
        """Counts a value that JSON holds."""
        self.present += 1
        if not is_blank(value):
            self.filled += 1
            self.types[_type_of(value)] += 1
        if depth < _DEEPEST:
            self.look_into(value, depth)

    def look_into(self, value: Any, depth: int, most: int = _MOST_INNER_NAMES) -> None:
        """Counts the fields of an object, or those of the objects in a list."""
        if isinstance(value, dict) and value and "$" not in value:
            self.objects += 1
            for name, each in value.items():
                self.named(name, most).note(each, depth + 1)
        elif isinstance(value, list):
            for place in sorted({0, len(value) // 2, len(value) - 1})[:_ELEMENTS] if value else ():
                self.named(ELEMENT).note(value[place], depth + 1)

    def shapes(self, outer: str = "") -> Iterator[tuple[str, FieldShape]]:
        """Yields the shapes of the fields in it, those nearest first."""
        for name, each in self.inner.items():
            of = each.present if name in {ANY_NAME, ELEMENT} else self.objects
            yield f"{outer}{name}", FieldShape(of, each.present, each.filled, dict(each.types))
        for name, each in self.inner.items():
            yield from each.shapes(f"{outer}{name}{INNER}")


class FieldTally:
    """Counts the fields of the items of a snapshot. Items that failed are left out.

    What is in a typed column is counted as a whole. What is JSON, be it a column or an item without columns, would take
    as long as the fetch, so some of it is looked into. Of a page that has both, columns count by the same share.
    """

    def __init__(self) -> None:
        self._items = _Field()

    def add(self, schema: PartSchema, table: pa.Table) -> None:
        """Counts a page."""
        share = 1.0
        if table.column("shape").null_count:
            is_typed = pc.is_valid(table.column("shape"))
            has_failed = pc.is_valid(table.column("message"))
            untyped = table.filter(pc.invert(pc.or_(is_typed, has_failed))).column("item").drop_null()
            table = table.filter(is_typed)
            share = self._look_into_items(untyped)
        self._items.objects += round(share * len(table))
        for each in pc.value_counts(table.column("shape").combine_chunks()).to_pylist():
            for name in schema.shapes[each["values"]].fields:
                self._field(name).present += round(share * each["counts"])
        for name, kind in schema.kinds.items() if len(table) else ():
            self._add_column(name, kind, table.column(schema.column(name)).combine_chunks(), share)

    def _field(self, name: str) -> _Field:
        return self._items.named(name, _MOST_NAMES)

    def _look_into_items(self, texts: pa.ChunkedArray) -> float:
        """Counts the fields of some of the items that have no columns; returns which share of them."""
        some = _sample(texts)
        for text in some:
            self._items.look_into(json.loads(text), 0, _MOST_NAMES)
        return len(some) / len(texts) if len(texts) else 1.0

    def _add_column(self, name: str, kind: Kind, column: pa.Array, share: float) -> None:
        types = (
            _types_of_json(column) if kind is ANY else {_TYPES.get(kind.name, "other values"): _filled(kind, column)}
        )
        for what, count in types.items():
            if count:
                self._field(name).types[what] += round(share * count)
                self._field(name).filled += round(share * count)
        if types.get("objects") or types.get("lists"):
            for text in _sample(column.drop_null()):
                self._field(name).look_into(json.loads(text), 1)

    def shapes(self) -> dict[str, FieldShape]:
        """Returns what has been counted."""
        return dict(islice(self._items.shapes(), _MOST_SHAPES))


def _sample(texts: pa.Array | pa.ChunkedArray) -> list[str]:
    """Returns some of the texts, evenly spread."""
    most = max(1, min(_SAMPLED, _SAMPLED_BYTES * len(texts) // max(texts.nbytes, 1)))
    places = pa.array(range(0, len(texts), max(1, len(texts) // most)), pa.int64())
    some: list[str] = texts.take(places).to_pylist()
    return some


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


def _type_of(value: Any) -> str:
    if isinstance(value, dict):
        return _TYPES_OF_TAGS.get(value["$"], "other values") if isinstance(value.get("$"), str) else "objects"
    return _TYPES_OF_VALUES[type(value)]


def _type_of_json(begin: str) -> str:
    if begin.replace(" ", "").startswith(_TAG):
        return _TYPES_OF_TAGS.get(begin.replace(" ", "").removeprefix(_TAG).partition('"')[0], "other values")
    return _TYPES_OF_JSON.get(begin[:1], "numbers")


def _true(flags: Any) -> int:
    return int(pc.sum(flags).as_py() or 0)
