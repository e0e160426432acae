"""The fields that a row of a plan changes, with old and new values as the engine's JSON: for plans and for history.

The database writes the values of the usual types as JSON itself where that is known to be the codec's own; all others,
and all of SQLite's, are read as they are and go through the codecs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from sync_pipelines.engine.codec import encode_shown
from sync_pipelines.engine.history import json_of_id
from sync_pipelines.targets.staging.diff_sql import RowDecision, StagedColumns
from sync_pipelines.targets.staging.json_text import json_text, literal
from sync_pipelines.targets.types.codec import ColumnCodec

_TAG = "$"


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that is the same in all rows, as JSON."""

    json: str

    @staticmethod
    def of(value: Any) -> Constant:
        """Encodes a value."""
        return Constant(encode_shown(value))


_NOTHING = Constant("null")
Value = sa.ColumnElement[Any] | Constant


@dataclass(frozen=True, slots=True)
class Field:
    """Says where the old and the new value of one field are.

    Args:
        codec: The column's codec.
        differs: The condition that the field is changed; None if it is named whatever it holds.
    """

    codec: ColumnCodec
    old: Value = _NOTHING
    new: Value = _NOTHING
    differs: sa.ColumnElement[bool] | None = None


def changed_fields(what: RowDecision, source: sa.FromClause, table: sa.Table, columns: StagedColumns) -> list[Field]:
    """Returns the fields that are written, in the order in which a look at each item names them.

    `OpenedSqlTable.changes` and `.delete_changes` say the same of a single item; `test_same_as_pages` holds both
    together.

    Args:
        what: Create, update, or delete.
        source: The staging table that has the new values, joined with the table for all but creates.
        columns: The staged columns.
    """
    if what is RowDecision.DELETE:
        if columns.ownership.deleted is not None:
            return _own_fields(what, table, columns)  # all but the mark stays
        return [Field(each.codec, table.c[each.name]) for each in (*columns.key, *columns.values)]
    own = _own_fields(what, table, columns)
    staged = columns.updated if what is RowDecision.UPDATE else [*columns.key, *columns.values]
    fields: list[Field] = []
    for column in staged:
        local, value = table.c[column.name], source.c[column.label]
        new = sa.type_coerce(value, local.type)
        if what is RowDecision.UPDATE:
            fields.append(Field(column.codec, local, new, column.differs(value, local)))
        else:
            fields.append(Field(column.codec, new=new))
    if what is RowDecision.UPDATE:
        return fields + own
    by_name = {field.codec.name: field for field in (*fields, *own)}
    order = dict.fromkeys([*columns.ownership.filled(), *by_name])
    return [by_name[name] for name in order]


def _own_fields(what: RowDecision, table: sa.Table, columns: StagedColumns) -> list[Field]:
    """What is written of the columns that are no item's: the mark of deleted rows, and the scope of new ones."""
    ownership = columns.ownership
    if what is RowDecision.CREATE:
        written = ownership.created([each.name for each in (*columns.key, *columns.values)])
    else:
        written = ownership.restored() if what is RowDecision.UPDATE else ownership.deleted or {}
    fields: list[Field] = []
    for name, value in written.items():
        local = table.c[name]
        old = _NOTHING if what is RowDecision.CREATE else local
        differs = ownership.is_marked() if what is RowDecision.UPDATE else None
        fields.append(Field(ownership.codec(name), old, sa.type_coerce(value, local.type), differs))
    return fields


class ChangesText:
    """Reads the changes of rows as the engine's JSON: `{"field":[old,new]}`.

    Args:
        fields: The fields, in the order in which they are named.
        by_database: True where the database can write JSON itself.
        only_old: True to have the old values alone: `{"field":old}`.
    """

    def __init__(self, fields: Sequence[Field], *, by_database: bool, only_old: bool = False) -> None:
        self._only_old = only_old
        self._is_tagged = any(field.codec.name == _TAG for field in fields)
        self.columns: list[sa.ColumnElement[Any]] = []
        """What is to be selected, and given to `read` row by row."""
        self._parts: list[tuple[Field, str, str] | None] = []
        """A field and what stands around it; None for a text that the database has written of one field or several."""
        text: sa.ColumnElement[str] | None = None
        for number, field in enumerate(fields):
            piece = self._piece(field) if by_database else None
            if piece is not None:
                text = piece if text is None else text + piece
                continue
            self._add_text(text)
            text = None
            self._parts.append((field, *self._around(field.codec.name)))
            pair = (("old", field.old), ("new", field.new))
            self.columns += [value.label(f"{side}_{number}") for side, value in pair if not isinstance(value, Constant)]
        self._add_text(text)

    def _add_text(self, text: sa.ColumnElement[str] | None) -> None:
        if text is not None:
            self._parts.append(None)
            self.columns.append(text.label(f"text_{len(self._parts)}"))

    def _piece(self, field: Field) -> sa.ColumnElement[str] | None:
        old, new = (
            literal(value.json) if isinstance(value, Constant) else json_text(field.codec, value)
            for value in (field.old, field.new)
        )
        if old is None or new is None:
            return None
        begin, end = self._around(field.codec.name)
        piece = literal(begin) + old + literal(end if self._only_old else ",")
        if not self._only_old:
            piece = piece + new + literal(end)
        return piece if field.differs is None else sa.case((field.differs, piece), else_=literal(""))

    def _around(self, name: str) -> tuple[str, str]:
        begin, end = ("", "") if self._only_old else ("[", "]")
        if self._is_tagged:
            return f",[{json_of_id(name)},{begin}", f"{end}]"
        return f",{json_of_id(name)}:{begin}", end

    def read(self, row: Sequence[Any]) -> str:
        """Returns the JSON of one row.

        Args:
            row: The values of `columns`.
        """
        pieces = "".join(self._pieces(iter(row)))[1:]
        return f'{{"$":"dict","v":[{pieces}]}}' if self._is_tagged else f"{{{pieces}}}"

    def _pieces(self, values: Iterator[Any]) -> Iterator[str]:
        for part in self._parts:
            if part is None:
                yield next(values)
                continue
            field, begin, end = part
            codec, old, new = field.codec, field.old, field.new
            old = old if isinstance(old, Constant) else codec.from_database(next(values))
            new = new if isinstance(new, Constant) else codec.from_database(next(values))
            if field.differs is not None and codec.same(old, new):
                continue
            yield f"{begin}{_json(old)}{'' if self._only_old else ',' + _json(new)}{end}"


def _json(value: Any) -> str:
    return value.json if isinstance(value, Constant) else encode_shown(value)
