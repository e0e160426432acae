"""Items as typed columns: a page of them becomes Arrow columns, from which each item comes back exactly.

Items of one shape (a class and its fields) share columns, one per field, whose kinds are inferred from the values.
Where an item can't be built again from its fields, its JSON is kept beside them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from operator import itemgetter
from typing import Any, Self

import pyarrow as pa

from sync_pipelines.engine.codec import BUILT_IN, class_named, encode, remember_class
from sync_pipelines.engine.items import field_names, read_field
from sync_pipelines.snapshots.column_kinds import KINDS, NOTHING, Kind, Unreadable, kind_for

MAX_FIELDS = 200
"""Items with more fields are kept as JSON only."""
MAX_SHAPES = 500
MAX_COLUMNS = 1_000
"""After so many different fields, items that have others are kept as JSON only."""
_DICT = "dict"
_TAG = "$"


@dataclass(frozen=True, slots=True)
class Shape:
    """What items have in common that share columns.

    Args:
        kind: `dict`, the class of dataclass instances (`module:name`), or empty where only JSON can build them again.
        fields: The names of the fields, in the items' own order.
    """

    kind: str
    fields: tuple[str, ...]


def shape_of(item: Any) -> Shape | None:
    """Returns the shape of an item, None if it has no fields that could be columns."""
    if type(item) is dict:
        names = tuple(item)
        return Shape(_DICT, names) if all(type(name) is str for name in names) else None
    kind: Any = type(item)
    if dataclasses.is_dataclass(kind):
        shape = _shape_of_class(kind)  # type: ignore[arg-type]  # a class can be hashed
        is_exact = not hasattr(item, "__dict__") or vars(item).keys() == set(shape.fields)
        return shape if is_exact else Shape("", shape.fields)
    return Shape("", tuple(field_names(item))) if isinstance(item, Mapping) or hasattr(item, "__dict__") else None


@cache
def _shape_of_class(kind: type[Any]) -> Shape:
    """Returns the shape of a dataclass's instances. One that is a list besides, say, is kept as a list."""
    names = tuple(field_.name for field_ in dataclasses.fields(kind))
    can_be_built = not issubclass(kind, BUILT_IN) and not hasattr(kind, "model_construct")
    return Shape(remember_class(kind) if can_be_built else "", names)


@dataclass
class PartSchema:
    """The columns of one part of a snapshot, and the shapes of the items in it.

    Args:
        kinds: Field -> kind of its column, in the order of the columns.
        shapes: The shapes, by the number that rows give.
    """

    kinds: dict[str, Kind] = field(default_factory=dict)
    shapes: list[Shape] = field(default_factory=list)

    def column(self, name: str) -> str:
        """Returns the name of a field's column in the file."""
        return f"field_{list(self.kinds).index(name)}"

    def arrow_fields(self) -> list[pa.Field]:
        """Returns the typed columns of the file."""
        return [pa.field(f"field_{number}", kind.arrow) for number, kind in enumerate(self.kinds.values())]

    def to_json(self) -> dict[str, Any]:
        """Returns the schema for the file's metadata."""
        return {
            "kinds": {name: kind.name for name, kind in self.kinds.items()},
            "shapes": [[shape.kind, list(shape.fields)] for shape in self.shapes],
        }

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> Self:
        """Reads the schema from the file's metadata."""
        shapes = [Shape(kind, tuple(names)) for kind, names in form["shapes"]]
        return cls({name: KINDS[kind] for name, kind in form["kinds"].items()}, shapes)


class Columnizer:
    """Puts the items of a page into columns, in the schema of the part that is being written.

    Args:
        schema: The part's schema; shapes are added to it, kinds never change.
    """

    def __init__(self, schema: PartSchema) -> None:
        self.schema = schema
        self._numbers = {shape: number for number, shape in enumerate(schema.shapes)}
        self._names = {name for shape in schema.shapes for name in shape.fields}

    def columnize(self, items: Sequence[Any]) -> tuple[list[int | None], dict[str, Sequence[Any]]]:
        """Gives the number of each item's shape, and the values of each field."""
        first = items[0]
        if type(first) is dict and 0 < len(first) <= MAX_FIELDS and _TAG not in first:
            columns = _uniform_columns(items, tuple(first))
            number = self._number_of(first) if columns is not None else None
            if columns is not None and number is not None:
                return [number] * len(items), columns
        return self._mixed_columns(items)

    def _mixed_columns(self, items: Sequence[Any]) -> tuple[list[int | None], dict[str, Sequence[Any]]]:
        shapes = [self._number_of(item) for item in items]
        names = dict.fromkeys(
            name for number in dict.fromkeys(shapes) if number is not None for name in self.schema.shapes[number].fields
        )
        columns: dict[str, Sequence[Any]] = {name: [None] * len(items) for name in names}
        for place, (item, number) in enumerate(zip(items, shapes, strict=True)):
            for name in self.schema.shapes[number].fields if number is not None else ():
                try:
                    columns[name][place] = read_field(item, name)  # type: ignore[index]  # these are lists
                except Exception:  # noqa: BLE001 - whatever it is, the item is kept as JSON
                    shapes[place] = None
        return shapes, columns

    def _number_of(self, item: Any) -> int | None:
        shape = shape_of(item)
        fits = shape is not None and 0 < len(shape.fields) <= MAX_FIELDS and _TAG not in shape.fields
        return self._number(shape) if shape is not None and fits else None

    def _number(self, shape: Shape) -> int | None:
        number = self._numbers.get(shape)
        if number is None and self._has_room(shape):
            number = self._numbers[shape] = len(self.schema.shapes)
            self.schema.shapes.append(shape)
            self._names.update(shape.fields)
        return number

    def _has_room(self, shape: Shape) -> bool:
        """False for one shape too many, as of items whose keys are data, and for names that no file can hold."""
        if len(self._numbers) >= MAX_SHAPES or len(self._names.union(shape.fields)) > MAX_COLUMNS:
            return False
        return all(name.isascii() or _is_unicode(name) for name in shape.fields)


def _is_unicode(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _uniform_columns(items: Sequence[Any], names: tuple[str, ...]) -> dict[str, Sequence[Any]] | None:
    """Returns the columns of dicts that all have exactly these keys in any order; None if they don't."""
    if set(map(type, items)) != {dict} or set(map(len, items)) != {len(names)}:
        return None
    try:
        return {name: list(map(itemgetter(name), items)) for name in names}
    except KeyError:
        return None


def widened(known: Mapping[str, Kind], columns: Mapping[str, Sequence[Any]]) -> dict[str, Kind]:
    """Returns the kinds that hold the page and what came before; the known mapping itself, unchanged, if it does."""
    kinds = {name: kind_for(values, known.get(name, NOTHING)) for name, values in columns.items()}
    if all(known.get(name) is kind for name, kind in kinds.items()):
        return dict(known)
    return {**known, **kinds}


def items_of(schema: PartSchema, table: pa.Table) -> list[Any]:
    """Builds the items of rows again that have typed fields; None for rows without."""
    shapes = table.column("shape").to_pylist()
    needed = [schema.shapes[number] for number in set(shapes) if number is not None]
    names = {name for shape in needed if not needs_json(shape) for name in shape.fields}
    values = {
        name: kind.from_arrow(table.column(f"field_{number}"))
        for number, (name, kind) in enumerate(schema.kinds.items())
        if name in names
    }
    used = {number: _Builder(schema.shapes[number], values) for number in set(shapes) if number is not None}
    return [used[number].build(place) if number is not None else None for place, number in enumerate(shapes)]


class _Builder:
    """Builds items of one shape from columns."""

    def __init__(self, shape: Shape, columns: Mapping[str, Sequence[Any]]) -> None:
        self._can_build = not needs_json(shape)
        self._pairs = [(name, columns[name]) for name in shape.fields] if self._can_build else []
        self._class = class_named(shape.kind) if shape.kind not in {_DICT, ""} else None

    def build(self, place: int) -> Any:
        """Returns the item in that row; `Unreadable` if one of its fields is."""
        if not self._can_build:
            return None
        fields = {name: values[place] for name, values in self._pairs}
        for value in fields.values():
            if type(value) is Unreadable:
                return value
        if self._class is None:
            return fields
        try:
            item: Any = object.__new__(self._class)
            for name, value in fields.items():
                object.__setattr__(item, name, value)
        except Exception as error:  # noqa: BLE001 - one bad item never stops the others
            return Unreadable(error)
        return item


def needs_json(shape: Shape) -> bool:
    """True if only its JSON can build such an item again."""
    return not shape.kind


def encoded_texts(items: Iterable[Any], wanted: Iterable[bool], errors: dict[int, Exception]) -> list[str | None]:
    """Returns the JSON of the items that need it; what can't be encoded is noted in `errors` by its place."""
    texts: list[str | None] = []
    for place, (item, needed) in enumerate(zip(items, wanted, strict=True)):
        text: str | None = None
        if needed and place not in errors:
            try:
                text = encode(item)
            except Exception as error:  # noqa: BLE001 - one bad item never stops the others
                errors[place] = error
        texts.append(text)
    return texts
