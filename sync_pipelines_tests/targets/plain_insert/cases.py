"""Random tables and items, and what comes of them: by one plain INSERT or UPDATE per item, and by a sync."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from sync_pipelines_tests.targets.plain_insert.columns import POSTGRESQL, SQLITE, STRICT, Kind
from sync_pipelines_tests.targets.plain_insert.keys import POSTGRESQL_KEYS, SQLITE_KEYS, STRICT_KEYS, KeyKind
from sync_pipelines_tests.targets.plain_insert.values import REFUSED

Item = dict[str, Any]
ITEMS = 24
_COMPOSITE, _HAS_ROW, _IS_REFUSED = 0.25, 0.4, 0.06
_WITHOUT_EQUALITY = frozenset({"JSON", "POINT", "temper"})


@dataclass
class Case:
    """A table, rows that others have left in it, and items.

    Args:
        rows: SQL literals, column by column.
        items: Item, and what a plain INSERT is given for each column.
        was_there: Numbers of the items whose record is in the table before.
    """

    seed: int
    keys: list[KeyKind]
    kinds: list[Kind]
    suffix: str
    rows: list[tuple[str, ...]] = field(default_factory=list)
    items: list[tuple[Item, list[Any]]] = field(default_factory=list)

    @property
    def key_names(self) -> list[str]:
        return [f"k{number}" for number in range(len(self.keys))]

    @property
    def names(self) -> list[str]:
        return [f"v{number}" for number in range(len(self.kinds))]

    def create(self, table: str) -> list[str]:
        """The statements that make the table with its rows."""
        keys = [f"{name} {kind.ddl}" for name, kind in zip(self.key_names, self.keys, strict=True)]
        values = [f"{name} {kind.ddl}" for name, kind in zip(self.names, self.kinds, strict=True)]
        not_null = ", ".join(f"{name} NOT NULL" for name in keys)
        columns = f"{not_null}, {', '.join(values)}, PRIMARY KEY ({', '.join(self.key_names)})"
        inserts = [f"INSERT INTO {table} VALUES ({', '.join(row)})" for row in self.rows]
        return [f"DROP TABLE IF EXISTS {table}", f"CREATE TABLE {table} ({columns}) {self.suffix}", *inserts]

    def __str__(self) -> str:
        lines = [f"seed {self.seed}", *self.create("things")[1:], *(repr(item) for item, _ in self.items)]
        return "\n".join(lines)


def make_case(seed: int, dialect: str) -> Case:
    """Makes the case of a seed, always the same."""
    rng = random.Random(f"{dialect} {seed}")
    is_strict = dialect == "sqlite" and rng.random() < 0.3
    keys = POSTGRESQL_KEYS if dialect == "postgresql" else STRICT_KEYS if is_strict else SQLITE_KEYS
    kinds = POSTGRESQL if dialect == "postgresql" else STRICT if is_strict else SQLITE
    chosen = rng.sample(keys, 2 if rng.random() < _COMPOSITE else 1)
    case = Case(seed, chosen, rng.choices([*kinds.values()], k=rng.randint(1, 4)), "STRICT" if is_strict else "")
    count = min(ITEMS, *(len(kind.records) for kind in chosen))
    records = [rng.sample(kind.records, count) for kind in chosen]
    for number in range(count):
        _add_record(case, rng, [of_kind[number] for of_kind in records])
    rng.shuffle(case.items)
    return case


def _add_record(case: Case, rng: random.Random, spelled: Sequence[tuple[Any, ...]]) -> None:
    if rng.random() < _HAS_ROW:
        held = [rng.choice(kind.local if not _is_strictly(case, kind) else kind.local[:1]) for kind in case.kinds]
        case.rows.append((*(each[-1] for each in spelled), *held))
    given = [
        (value, _plain_key(value, kind))
        for kind, value in zip(case.keys, map(rng.choice, _items_of(spelled)), strict=True)
    ]
    if rng.random() < _IS_REFUSED and case.keys[0].refused:
        value = rng.choice(case.keys[0].refused)
        given[0] = (value, REFUSED if case.suffix or _is_sqlite(case) else _plain_key(value, case.keys[0]))
    given += [kind.make(rng) for kind in case.kinds]
    names = [*case.key_names, *case.names]
    case.items.append(
        ({name: value for name, (value, _) in zip(names, given, strict=True)}, [plain for _, plain in given])
    )


def _is_sqlite(case: Case) -> bool:
    return case.keys[0] in SQLITE_KEYS


def _is_strictly(case: Case, kind: Kind) -> bool:
    return case.suffix == "STRICT" and kind.ddl != "ANY"


def _items_of(spelled: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [each[:-1] for each in spelled]


def _plain_key(value: Any, kind: KeyKind) -> Any:
    if kind in SQLITE_KEYS:
        return value if isinstance(value, str | int | float | bytes) else float(value)
    return f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)


def insert_plainly(database: sa.Engine, case: Case, table: str) -> set[int]:
    """Writes each item in a savepoint of its own, and gives the numbers of those that are refused."""
    refused: set[int] = set()
    mark = "?" if database.dialect.name == "sqlite" else "%s"
    names = [*case.key_names, *case.names]
    insert = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(mark for _ in names)})"
    is_row = " AND ".join(f"{name} = {mark}" for name in case.key_names)
    update = f"UPDATE {table} SET {', '.join(f'{name} = {mark}' for name in case.names)} WHERE {is_row}"
    size = len(case.keys)
    with database.begin() as connection:
        for number, (_, plain) in enumerate(case.items):
            if REFUSED in plain:
                refused.add(number)
                continue
            try:
                with connection.begin_nested():
                    changed = connection.exec_driver_sql(update, (*plain[size:], *plain[:size]))
                    if not changed.rowcount:
                        connection.exec_driver_sql(insert, tuple(plain))
            except (DBAPIError, OverflowError):
                refused.add(number)
    return refused


def differences(database: sa.Engine, case: Case, table: str, expected: str) -> list[Any]:
    """The rows of two tables that are not the same."""
    if database.dialect.name == "sqlite":
        return _differences_on_sqlite(database, case, table, expected)
    same_key = " AND ".join(f"a.{name} = b.{name}" for name in case.key_names)
    differs = " OR ".join(_differs(name, kind) for name, kind in zip(case.names, case.kinds, strict=True))
    query = (
        f"SELECT a::text, b::text FROM {table} a FULL JOIN {expected} b ON {same_key} "
        f"WHERE a.k0 IS NULL OR b.k0 IS NULL OR {differs}"
    )
    with database.begin() as connection:
        connection.exec_driver_sql("SET LOCAL enable_mergejoin = on")
        return list(connection.exec_driver_sql(query).all())


def _differs(name: str, kind: Kind) -> str:
    text = "::text" if kind.ddl in _WITHOUT_EQUALITY and kind.strict else "::jsonb" if kind.ddl == "JSON" else ""
    return f"a.{name}{text} IS DISTINCT FROM b.{name}{text}"


def _differences_on_sqlite(database: sa.Engine, case: Case, table: str, expected: str) -> list[Any]:
    names = [*case.key_names, *case.names]
    # text as bytes: it may be none in UTF-8
    value = "CASE typeof({0}) WHEN 'text' THEN CAST({0} AS BLOB) ELSE {0} END"
    columns = ", ".join(f"{value}, typeof({{0}}) IN ('integer', 'real'), typeof({{0}})".format(name) for name in names)
    with database.connect() as connection:
        left, right = (
            {_comparable(row) for row in connection.exec_driver_sql(f"SELECT {columns} FROM {each}").all()}
            for each in (table, expected)
        )
    left, right = left - right, right - left
    near = {(mine, theirs) for mine in left for theirs in right if _are_near(mine, theirs)}
    return sorted(map(str, (left | right) - {each for pair in near for each in pair}))


def _are_near(row: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """True if they differ by the last bit of floats only: SQLite reads digits beyond the 19th of text as it can."""
    return all(
        one == two or (type(one) is type(two) is float and abs(one - two) <= math.ulp(one))
        for one, two in zip(row, other, strict=True)
    )


def _comparable(row: Sequence[Any]) -> tuple[Any, ...]:
    """A row with its kinds of storage: of numbers that are equal it does not matter which."""
    return tuple(
        part
        for value, is_number, kind in zip(row[::3], row[1::3], row[2::3], strict=True)
        for part in (value, "number" if is_number else kind)
    )
