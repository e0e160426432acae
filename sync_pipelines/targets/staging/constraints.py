"""What a table does not allow, as far as it can be asked beforehand."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from sync_pipelines.targets.dialects.postgresql import name_of
from sync_pipelines.targets.table.reflection import columns_of

_WORD = re.compile(r"[^\W\d]\w*")
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_LITERAL = re.compile(r"'(?:[^']|'')*'")


_EXCLUDES = sa.text(
    "SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = CAST(:name AS regclass) AND contype = 'x')"
)
_UNIQUE_EXPRESSION = (
    "SELECT 1 FROM pragma_index_list(?1, ?2) l JOIN pragma_index_info(l.name, ?2) i "
    'WHERE l."unique" AND i.name IS NULL AND i.cid = -2'
)


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """Columns whose values must be in another table."""

    columns: tuple[str, ...]
    table: str
    schema: str | None
    referred: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Constraints:
    """The constraints of a table that are on staged columns only.

    Args:
        not_null: Columns that may not be null.
        checks: CHECK conditions, as SQL over the table's columns.
        check_names: The columns that the conditions name.
        unique: Sets of columns, other than the key, that must be unique together.
        order_counts: True if, whatever the columns, something besides the key must be unique: of two rows the first
            that is written is there.
    """

    not_null: frozenset[str] = frozenset()
    checks: tuple[str, ...] = ()
    check_names: frozenset[str] = field(default_factory=frozenset)
    foreign_keys: tuple[ForeignKey, ...] = ()
    unique: tuple[tuple[str, ...], ...] = ()
    order_counts: bool = False

    def names_in_checks(self) -> frozenset[str]:
        """The columns that the CHECK conditions name."""
        return self.check_names


def read_constraints(
    database: sa.Engine,
    table: sa.Table,
    key: Sequence[str],
    staged: Collection[str],
    unique_keys: Collection[frozenset[str]] = (),
) -> Constraints:
    """Reads the constraints of a table.

    Args:
        database: Where the table is.
        key: Its key columns.
        staged: The columns that are staged as they are written.
        unique_keys: Sets of columns that are known to be unique: on SQLite the inspector overlooks some.
    """
    inspector = sa.inspect(database)
    columns = columns_of(inspector, table)
    names = {column["name"] for column in columns}
    checks, in_checks = _checks(inspector, table, names, staged)
    foreign = [
        ForeignKey(tuple(each["constrained_columns"]), each["referred_table"], each["referred_schema"],
                   tuple(each["referred_columns"]))
        for each in inspector.get_foreign_keys(table.name, schema=table.schema)
        if set(each["constrained_columns"]) <= set(staged) and each["referred_columns"]
    ]  # fmt: skip
    unique = [tuple(sorted(each)) for each in unique_keys if each]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Skipped unsupported reflection", sa.exc.SAWarning)  # `_has_hidden` sees it
        constraints = inspector.get_unique_constraints(table.name, schema=table.schema)
        indexes = [each for each in inspector.get_indexes(table.name, schema=table.schema) if each["unique"]]
    unique += [tuple(sorted(each["column_names"])) for each in constraints]
    whole = [each for each in indexes if None not in each["column_names"]]
    unique += [tuple(sorted(str(name) for name in each["column_names"])) for each in whole]
    has_others = len(whole) < len(indexes) or any(set(each) != set(key) for each in unique)
    return Constraints(
        not_null=frozenset(each["name"] for each in columns if not each["nullable"] and each["name"] in staged),
        checks=checks,
        check_names=in_checks,
        foreign_keys=tuple(foreign),
        unique=tuple(dict.fromkeys(each for each in unique if set(each) <= set(staged) and set(each) != set(key))),
        order_counts=has_others or _has_hidden(database, table),
    )


def _has_hidden(database: sa.Engine, table: sa.Table) -> bool:
    """True if something must be unique that SQLAlchemy's reflection does not show."""
    with database.connect() as connection:
        if database.dialect.name == "postgresql":
            return bool(connection.scalar(_EXCLUDES, {"name": name_of(database.dialect, table)}))
        given = (table.name, table.schema or "main")
        return connection.exec_driver_sql(_UNIQUE_EXPRESSION, given).first() is not None


def _checks(
    inspector: Any, table: sa.Table, names: Collection[str], staged: Collection[str]
) -> tuple[tuple[str, ...], frozenset[str]]:
    conditions: list[str] = []
    used: set[str] = set()
    for each in inspector.get_check_constraints(table.name, schema=table.schema):
        mentioned = _mentioned(each["sqltext"], names)
        ours = [name for name in mentioned if name.startswith("sp_")]  # as the staging tables' own columns are called
        if mentioned and mentioned <= set(staged) and not ours:
            conditions.append(each["sqltext"])
            used |= mentioned
    return tuple(conditions), frozenset(used)


def _mentioned(condition: str, names: Collection[str]) -> set[str]:
    """The columns that a condition may mean; rather one too many."""
    text = _LITERAL.sub("''", condition)
    words = {quoted.replace('""', '"') for quoted in _QUOTED.findall(text)}
    lower = {word.lower() for word in _WORD.findall(_QUOTED.sub("", text))}
    return {name for name in names if name in words or name.lower() in lower}
