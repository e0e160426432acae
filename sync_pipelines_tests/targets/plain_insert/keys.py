"""Types of key columns, and the ways in which the key of one record is spelled."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from sync_pipelines_tests.targets.plain_insert.columns import STRICT


@dataclass(frozen=True)
class KeyKind:
    """A type of key column.

    Args:
        records: For each record the ways in which its key is spelled: those of items, and last the literal of others.
        refused: Keys that no record can have.
    """

    ddl: str
    records: tuple[tuple[Any, ...], ...]
    refused: tuple[Any, ...] = ()


def numbered(make: Callable[[int], tuple[Any, ...]], count: int = 60) -> tuple[tuple[Any, ...], ...]:
    return tuple(make(number) for number in range(1, count))


def _number(n: int) -> tuple[Any, ...]:
    return (n, str(n), f"0{n}", Decimal(n), str(n))


def _half(n: int) -> tuple[Any, ...]:
    return (f"{n}.5", f"0{n}.50", Decimal(f"{n}.5"), n + 0.5, f"{n}.50")


def _day(n: int) -> tuple[Any, ...]:
    day = date(2000 + n, 1, n % 28 + 1)
    return (day, str(day), f"'{day}'")


def _uuid(n: int) -> tuple[Any, ...]:
    value = uuid.UUID(int=n)
    return (value, str(value), value.hex, f"'{value}'")


def _anything(n: int) -> tuple[Any, ...]:
    forms = [(n, str(n)), (f"0{n}", f"'0{n}'"), (n + 0.5, f"{n}.5"), (bytes([n]), f"x'{n:02x}'"), (f"s{n}", f"'s{n}'")]
    return forms[n % 5]


def _numeric(n: int) -> tuple[Any, ...]:
    """Spells a key where text that looks like a number becomes one."""
    return [(n, f"0{n}", str(n)), (f"s{n}", f"'s{n}'"), (f"{n}.5", n + 0.5, f"{n}.5"), (bytes([n]), f"x'{n:02x}'")][
        n % 4
    ]


def _letters(n: int) -> str:
    return f"{'aZß'[n % 3]}{n:02}"


def _moments(n: int) -> tuple[Any, ...]:
    at = datetime(2024, 1, 1, n % 24, tzinfo=UTC) + timedelta(days=n)
    other = at.astimezone(timezone(timedelta(hours=2)))
    return (at, at.isoformat(), other, other.isoformat(), f"'{other.isoformat()}'")


POSTGRESQL_KEYS = (
    KeyKind("TEXT", numbered(lambda n: (_letters(n), f"'{_letters(n)}'"))),
    KeyKind("VARCHAR(3)", numbered(lambda n: (_letters(n), f"'{_letters(n)}'")), ("abcd", "ABC123", "ABC999")),
    KeyKind("CHAR(4)", numbered(lambda n: (_letters(n), f"{_letters(n)} ", f"'{_letters(n)}'")), ("abcde",)),
    KeyKind("word3", numbered(lambda n: (_letters(n), f"'{_letters(n)}'")), ("ABC123", "ABC999")),
    KeyKind("filled", numbered(lambda n: (f"a{n}", f"a{n}  ", f"'a{n}'")), ("ABC123", "ABC999")),
    KeyKind("short_word", numbered(lambda n: (_letters(n), f"'{_letters(n)}'")), ("bad", "ABC999")),
    KeyKind("small", numbered(_number), ("-5", 40_000)),
    KeyKind("amount", numbered(_half), ("99999",)),
    KeyKind("SMALLINT", numbered(_number), (40_000,)),
    KeyKind("INTEGER", numbered(_number), (2**40, "x")),
    KeyKind("BIGINT", numbered(_number), (2**70,)),
    KeyKind("NUMERIC", numbered(lambda n: (f"{n}.5", f"0{n}.50", Decimal(f"{n}.500"), f"{n}.5000")), ("x",)),
    KeyKind("NUMERIC(5, 1)", numbered(lambda n: (f"{n}.5", Decimal(f"{n}.50"), f"{n}.5")), ("99999",)),
    KeyKind("DOUBLE PRECISION", numbered(lambda n: (f"{n}.1", float(f"{n}.1"), f"{n}.10", f"{n}.1")), ("1e400", "x")),
    KeyKind("REAL", numbered(lambda n: (f"{n}.1", float(f"{n}.1"), f"{n}.1")), ("1e39", "1e-46")),
    KeyKind("DATE", numbered(_day), ("2024-02-30",)),
    KeyKind("TIMESTAMPTZ", numbered(_moments), ("x",)),
    KeyKind("UUID", numbered(_uuid), ("x",)),
    KeyKind("INET", numbered(lambda n: (f"10.0.0.{n}", f"10.0.0.{n}/32", f"'10.0.0.{n}'")), ("10.0.0.300",)),
    KeyKind("BYTEA", numbered(lambda n: (bytes([n]), f"\\x{n:02x}", f"\\x{n:02X}", f"'\\x{n:02x}'"))),
    KeyKind("NUMRANGE", numbered(lambda n: (f"[{n},{n}.50]", f"[{n}.0,{n}.5]", f"'[{n},{n}.500]'")), ("x",)),
    KeyKind("INTERVAL", numbered(lambda n: (f"{30 * n} days, 0:00:00", f"'{n} mons'"))),
    KeyKind("flags", tuple((f"{n:03b}", f"'{n:03b}'") for n in range(8)), ("1011", "1")),
)  # fmt: skip
SQLITE_KEYS = (
    KeyKind("", numbered(_anything)),
    KeyKind("BLOB", numbered(_anything)),
    KeyKind("STRING", numbered(_numeric)),
    KeyKind("INTEGER", numbered(_number), ("x",)),
    KeyKind("INT", numbered(_number), ("x",)),
    KeyKind("REAL", numbered(lambda n: (f"{n}.5", n + 0.5, f"{n}.50", f"{n}.5")), ("x",)),
    KeyKind("NUMERIC", numbered(lambda n: (f"{n}.5", n + 0.5, Decimal(f"{n}.50"), f"{n}.5")), ("x",)),
    KeyKind("TEXT", numbered(lambda n: [(f"0{n}", f"'0{n}'"), (f"s{n}", f"'s{n}'")][n % 2])),
    KeyKind("CHAR(4)", numbered(lambda n: [(f"s{n}", f"'s{n}'"), (f"s{n} ", f"'s{n} '")][n % 2])),
    KeyKind("TEXT COLLATE NOCASE", numbered(lambda n: (f"s{n}", f"S{n}", f"'s{n}'"))),
    KeyKind("TEXT COLLATE RTRIM", numbered(lambda n: (f"s{n}", f"s{n}  ", f"'s{n} '"))),
    KeyKind("ANY", numbered(lambda n: [(n, str(n)), (f"0{n}", f"'0{n}'"), (f"s{n}", f"'s{n}'")][n % 3])),
)  # fmt: skip
STRICT_KEYS = tuple(kind for kind in SQLITE_KEYS if kind.ddl.partition(" ")[0] in {*STRICT} - {"BLOB"})
