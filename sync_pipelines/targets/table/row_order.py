"""Which rows of a table must be written before others, or together with them: references to itself, unique values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from secrets import token_hex
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from sync_pipelines.database.faults import code_of
from sync_pipelines.errors import DeleteRefusedError, WriteRefusedError
from sync_pipelines.targets.dialects.postgresql import name_of
from sync_pipelines.targets.table.references import Reference, read_all_references, read_references
from sync_pipelines.targets.types.codec import ColumnCodec

_UNIQUE = frozenset({"23505", "23P01", 2067, 1555, 1062})  # SQLSTATEs, and the codes of SQLite and MySQL
_REFERENCE = frozenset({"23503", 787, 1451, 1452})
_RAISED = frozenset({"P0001", 1811, 1644})  # by a trigger, which may look for another row

_REFERRED_ON_POSTGRESQL = sa.text(
    "SELECT CAST(a.attname AS text) FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.confrelid "
    "AND a.attnum = ANY (c.confkey) WHERE c.contype = 'f' AND c.confrelid = CAST(:name AS regclass)"
)
_LONGEST_STAND_IN = 16

Row = Mapping[str, Any]
Reading = Callable[[], AbstractContextManager[sa.Connection]]


@dataclass(frozen=True, slots=True)
class Move:
    """A write as its neighbours see it.

    Args:
        old: What is known of the row as it is; empty if it is to be created.
        new: What is known of it as it is to be; empty if it is to be deleted.
    """

    old: Row
    new: Row

    def has_changed(self, columns: Sequence[str]) -> bool:
        """True if the values of the columns become others."""
        return _values(self.old, columns) != _values(self.new, columns)


class RowOrder:
    """Knows how the rows of one table depend on each other, as far as its constraints say.

    Args:
        reading: Opens a connection to read with, which may be one that a transaction has open.
        unique: Sets of columns that are unique together, the key among them.
    """

    def __init__(self, reading: Reading, table: sa.Table, unique: Collection[frozenset[str]]) -> None:
        self._reading = reading
        self._table = table
        self.unique = [tuple(sorted(each)) for each in unique if each]

    @cached_property
    def references(self) -> list[Reference]:
        """The references of the table to itself."""
        with self._reading() as connection:
            found = [each for each in read_references(connection, self._table) if each.is_own]
            if all(each.referred for each in found):
                return found
            key = sa.inspect(connection).get_pk_constraint(self._table.name, schema=self._table.schema)
        return [replace(each, referred=each.referred or tuple(key["constrained_columns"])) for each in found]

    @cached_property
    def referred(self) -> frozenset[str]:
        """The columns, other than the primary key, that rows of whatever table refer to."""
        with self._reading() as connection:
            if connection.dialect.name == "postgresql":
                name = name_of(connection.dialect, self._table)
                return frozenset(connection.scalars(_REFERRED_ON_POSTGRESQL, {"name": name}))
            found = read_all_references(connection, self._table)
        return frozenset(name for each in found if each.referred_table == self._table.name for name in each.referred)

    @property
    def matters(self) -> bool:
        """False if no row can stand in the way of another one: only the key is unique, and no row refers to one."""
        return len(self.unique) > 1 or bool(self.references)

    def may_come_right(self, error: Exception) -> bool:
        """True if a row may be written once others of the table have been: they have, or lack, what it needs."""
        if isinstance(error, DeleteRefusedError | WriteRefusedError):
            return True
        if not isinstance(error, DBAPIError):
            return False
        code = code_of(error)
        if code in _REFERENCE:
            name = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
            return any(name is None or each.name == name for each in self.references)
        return code in _UNIQUE or code in _RAISED

    def units(self, moves: Sequence[Move]) -> list[list[int]]:
        """Puts writes into an order in which each comes after those that it needs.

        Of those that want one unique value the first in `moves` comes first, unless it needs a later one.

        Returns:
            Places in `moves`; those that need each other are in one list, and go together or not at all.
        """
        needed, earlier = self._needed(moves), self.rivals(moves)
        unit_of = list(range(len(moves)))
        while True:
            graph: dict[int, set[int]] = {unit: set() for unit in unit_of}
            for place in range(len(moves)):
                graph[unit_of[place]].update(unit_of[other] for other in (*needed[place], *earlier.get(place, ())))
            for unit, others in graph.items():
                others.discard(unit)
            try:
                order = {unit: number for number, unit in enumerate(TopologicalSorter(graph).static_order())}
                break
            except CycleError as error:
                circle = set(error.args[1])
                in_circle = [place for place in earlier if unit_of[place] in circle]
                if in_circle:
                    for place in in_circle:
                        del earlier[place]
                else:
                    unit_of = [min(circle) if unit in circle else unit for unit in unit_of]
        units: list[list[int]] = [[] for _ in order]
        for place, unit in enumerate(unit_of):
            units[order[unit]].append(place)
        return units

    def _needed(self, moves: Sequence[Move]) -> dict[int, set[int]]:
        """Which writes each of them needs."""
        gives: dict[Any, set[int]] = {}
        for place, move in enumerate(moves):
            for given in self._given(move):
                gives.setdefault(given, set()).add(place)
        return {
            place: {other for wanted in self._wanted(move) for other in gives.get(wanted, ())} - {place}
            for place, move in enumerate(moves)
        }

    def rivals(self, moves: Sequence[Move]) -> dict[int, list[int]]:
        """Returns which earlier writes, the nearest, want a unique value that a write wants as well, by places."""
        last: dict[Any, int] = {}
        found: dict[int, list[int]] = {}
        for place, move in enumerate(moves):
            for number, names in enumerate(self.unique):
                for key in _key("", number, move.new, names) if move.new and move.has_changed(names) else ():
                    if key in last:
                        found.setdefault(place, []).append(last[key])
                    last[key] = place
        return found

    def _given(self, move: Move) -> Iterator[Any]:
        """What others may wait for: a row to refer to, a unique value that is free, a reference that is gone."""
        for number, each in enumerate(self.references):
            if move.new and move.has_changed(each.referred):
                yield from _key("row", number, move.new, each.referred)
            if move.old and move.has_changed(each.columns):
                yield from _key("gone", number, move.old, each.columns)
        for number, names in enumerate(self.unique):
            if move.old and move.has_changed(names):
                yield from _key("free", number, move.old, names)

    def _wanted(self, move: Move) -> Iterator[Any]:
        for number, each in enumerate(self.references):
            if move.new:
                yield from _key("row", number, move.new, each.columns)
            elif move.old:
                yield from _key("gone", number, move.old, each.referred)
        for number, names in enumerate(self.unique):
            if move.new and move.has_changed(names):
                yield from _key("free", number, move.new, names)

    def exchanged(self, moves: Sequence[Move]) -> dict[str, list[int]]:
        """Returns which rows hold unique values that others are to have: column -> places in `moves`.

        Columns that rows refer to are left out: what follows the row there would not come back.
        """
        found: dict[str, list[int]] = {}
        for names in self.unique:
            changed = [place for place, move in enumerate(moves) if move.has_changed(names)]
            wanted = {key for place in changed for key in _key("", 0, moves[place].new, names)}
            held = [place for place in changed if not wanted.isdisjoint(_key("", 0, moves[place].old, names))]
            for place in held if held and self.referred.isdisjoint(names) else ():
                name = next(each for each in names if moves[place].has_changed([each]))
                found.setdefault(name, []).append(place)
        return found


def stand_in(codec: ColumnCodec, number: int) -> Any:
    """Returns a value that no other row is likely to have, for a moment within a transaction."""
    if codec.facts.family == "int":
        return 2 ** ((codec.int_bits or 32) - 1) - 1 - number
    if codec.facts.family == "uuid":
        return uuid4()
    return f"~{token_hex()}"[: min(codec.facts.length or _LONGEST_STAND_IN, _LONGEST_STAND_IN)]


def _values(row: Row, columns: Sequence[str]) -> list[Any]:
    return [row.get(name) for name in columns]


def _key(kind: str, number: int, row: Row, columns: Sequence[str]) -> Iterator[Any]:
    """Names a set of values, so that they can be found again; nothing of values that are not all known."""
    values = tuple(_values(row, columns))
    if None not in values and all(value.__hash__ is not None for value in values):
        yield kind, number, values
