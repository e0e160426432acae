"""Tables of SQLite: its types are suggestions, and collations sit in the indexes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import ReflectedColumn

from sync_pipelines.targets.dialects.profile import Details, DialectProfile
from sync_pipelines.targets.types.choose_codec import build_blob_codec, build_codec, build_flexible_codec
from sync_pipelines.targets.types.codec import ColumnCodec

Fold = Callable[[str], str]
# SQLite compares names of types only up to a bracket; these are the ones whose values follow the name.
_NUMERIC = ("NUMERIC", "DECIMAL")
# In a STRICT table it keeps what it is given; elsewhere it is a name like any other.
_ANY = "ANY"
# Of a NOT NULL it loses no row, and replaces a value by the column's default.
_CONFLICT_RULE = re.compile(r"(?<!NULL)\s+ON\s+CONFLICT\s+(REPLACE|IGNORE|FAIL|ROLLBACK)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Declared:
    """What a table says of its columns, by their names, and whether it is STRICT."""

    type_names: dict[str, str]
    folds: dict[str, Fold]
    is_strict: bool


@dataclass(frozen=True, slots=True)
class Definition:
    """Holds the statement that made a table or a trigger.

    Args:
        table: The table that it is, or that fires it.
    """

    table: str
    sql: str
    is_trigger: bool


def read_definitions(connection: sa.Connection, table: sa.Table) -> list[Definition]:
    """Reads the definitions of all tables and triggers that are where a table is."""
    master = sa.table("sqlite_master", *map(sa.column, ("type", "tbl_name", "sql")), schema=table.schema)
    query = sa.select(master.c.tbl_name, master.c.sql, master.c.type == "trigger")
    rows = connection.execute(query.where(master.c.type.in_(["table", "trigger"]), master.c.sql.is_not(None)))
    return [Definition(name, sql, bool(is_trigger)) for name, sql, is_trigger in rows]


def fires_on(definitions: Sequence[Definition], table: sa.Table, event: str) -> bool:
    """True if a trigger of the table may fire on `INSERT` or `UPDATE`; rather once too often."""
    return any(each.is_trigger and event in each.sql.upper() for each in _of_table(definitions, table))


def replaces_rows(definitions: Sequence[Definition], table: sa.Table) -> bool:
    """True if the table declares that a row takes the place of others with the same key or unique value."""
    return "REPLACE" in _conflict_rules(definitions, table)


def _conflict_rules(definitions: Sequence[Definition], table: sa.Table) -> set[str]:
    tables = (each.sql for each in _of_table(definitions, table) if not each.is_trigger)
    return {rule.upper() for sql in tables for rule in _CONFLICT_RULE.findall(sql)}


def _of_table(definitions: Sequence[Definition], table: sa.Table) -> list[Definition]:
    return [each for each in definitions if each.table.lower() == table.name.lower()]


def _states_conflict_rule(definitions: Sequence[Definition], table: sa.Table) -> bool:
    """True if statements must say themselves that a conflict is an error.

    Not where there are triggers: what the outer statement says goes for the statements in them too, in place of their
    own `INSERT OR REPLACE`. Then it is counted whether rows have gone.
    """
    fires = fires_on(definitions, table, "INSERT") or fires_on(definitions, table, "UPDATE")
    return bool(_conflict_rules(definitions, table)) and not fires


def _read(database: sa.Engine, table: sa.Table) -> Details:
    quote = database.dialect.identifier_preparer.quote_identifier
    prefix = f"PRAGMA {quote(table.schema)}." if table.schema else "PRAGMA "
    indexes: list[dict[str, str]] = []
    with database.connect() as connection:
        listed = connection.exec_driver_sql(f"{prefix}table_list({quote(table.name)})").mappings().all()
        is_strict = any(row["strict"] for row in listed)  # none is before 3.37, which does not list tables
        columns = connection.exec_driver_sql(f"{prefix}table_xinfo({quote(table.name)})").mappings().all()
        for index in connection.exec_driver_sql(f"{prefix}index_list({quote(table.name)})").mappings().all():
            parts = connection.exec_driver_sql(f"{prefix}index_xinfo({quote(index['name'])})").mappings().all()
            collations = {part["name"]: part["coll"] for part in parts if part["key"]}
            if index["unique"] and not index["partial"] and None not in collations:  # None is an expression
                indexes.append(collations)
        definitions = read_definitions(connection, table)
    by_column = {name: collation for collations in indexes for name, collation in collations.items()}
    primary_key = frozenset(column["name"] for column in columns if column["pk"])
    folds = {name: _FOLDS[collation] for name, collation in by_column.items() if collation in _FOLDS}
    type_names = {column["name"]: column["type"] for column in columns}
    return Details(
        make_codec=partial(_codec, database.dialect, _Declared(type_names, folds, is_strict)),
        case_insensitive=frozenset(
            name for name, collation in by_column.items() if collation not in {"BINARY", *_FOLDS}
        ),
        unique_keys=(primary_key, *(frozenset(collations) for collations in indexes)),
        states_conflict_rule=_states_conflict_rule(definitions, table),
    )


def _codec(dialect: sa.Dialect, table: _Declared, column: ReflectedColumn, own: sa.Column[Any] | None) -> ColumnCodec:
    name, kind, type_name = column["name"], column["type"], table.type_names[column["name"]]
    declared = None if own is None else own.type
    upper = type_name.upper()
    if declared is None and ((table.is_strict and upper == _ANY) or isinstance(kind, sa.types.NullType)):
        codec = build_flexible_codec(name, type_name, numeric=False)
    elif declared is None and isinstance(kind, sa.Numeric) and not upper.startswith(_NUMERIC):
        codec = build_flexible_codec(name, type_name, numeric=True)
    elif declared is None and isinstance(kind, sa.LargeBinary):
        codec = build_blob_codec(name, type_name)
    else:
        codec = build_codec(name, declared or kind, dialect=dialect, type_name=type_name)
    return replace(codec, fold=table.folds[name]) if name in table.folds else codec


def _lower_ascii(text: str) -> str:
    return "".join(character.lower() if character.isascii() else character for character in text)


def _without_blanks(text: str) -> str:
    return text.rstrip(" ")


_FOLDS: dict[str, Fold] = {"NOCASE": _lower_ascii, "RTRIM": _without_blanks}
# On SQLite a half-read result would keep everybody from writing.
SQLITE = DialectProfile(read=_read, has_staging=True, lists_in_pages=True)
