"""Which tables refer to which, and what a delete does to rows that refer to the one that goes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from sync_pipelines.targets.table.reflection import unknown_types_expected

_ON_SQLITE = (  # SQLAlchemy's reflection does not tell what a delete does where a column says it refers to something
    'SELECT m.name, f.id, f."table", f."from", f."to", f.on_delete FROM {schema}.sqlite_master m '
    "JOIN pragma_foreign_key_list(m.name, ?) f WHERE m.type = 'table' ORDER BY m.name, f.id, f.seq"
)
_EFFECTS = ("CASCADE", "SET NULL", "SET DEFAULT")


@dataclass(frozen=True, slots=True)
class Reference:
    """Columns of a table that refer to rows of another one, or of the same.

    Args:
        referred: What they refer to; empty for the primary key.
        name: The constraint's, as far as the database tells.
        on_delete: What a delete of the other row does to this one: `CASCADE`, `SET NULL`, `SET DEFAULT`, or "".
        is_own: True if it is the same table.
    """

    table: str
    columns: tuple[str, ...]
    referred_table: str
    referred: tuple[str, ...]
    name: str | None
    on_delete: str
    is_own: bool


def read_references(connection: sa.Connection, table: sa.Table) -> list[Reference]:
    """Reads the references of a table."""
    if connection.dialect.name == "sqlite":
        return [each for each in read_all_references(connection, table) if each.table == table.name]
    inspector = sa.inspect(connection)
    with unknown_types_expected():
        found = inspector.get_foreign_keys(table.name, schema=table.schema)
    return list(_reflected(found, table.name, table.schema, inspector.default_schema_name))


def read_all_references(connection: sa.Connection, table: sa.Table) -> list[Reference]:
    """Reads the references of all tables in the schema of a table."""
    if connection.dialect.name == "sqlite":
        schema = table.schema or "main"
        quoted = connection.dialect.identifier_preparer.quote(schema)
        return list(_on_sqlite(connection.exec_driver_sql(_ON_SQLITE.format(schema=quoted), (schema,))))
    inspector = sa.inspect(connection)
    with unknown_types_expected():
        found = inspector.get_multi_foreign_keys(schema=table.schema)
    default = inspector.default_schema_name
    return [each for (_, name), given in found.items() for each in _reflected(given, name, table.schema, default)]


def _on_sqlite(rows: Iterable[Any]) -> Iterator[Reference]:
    for (table, _, referred_table), given in groupby(rows, key=lambda row: tuple(row[:3])):
        parts = list(given)
        referred = tuple(row[4] for row in parts if row[4] is not None)
        columns = tuple(row[3] for row in parts)
        is_own = table.lower() == referred_table.lower()
        yield Reference(table, columns, referred_table, referred, None, _effect(parts[0][5]), is_own)


def _reflected(found: Iterable[Any], table: str, schema: str | None, default: str | None) -> Iterator[Reference]:
    for each in found:
        is_own = each["referred_table"] == table and (each["referred_schema"] or default) == (schema or default)
        effect = _effect(each.get("options", {}).get("ondelete"))
        yield Reference(
            table,
            tuple(each["constrained_columns"]),
            each["referred_table"],
            tuple(each["referred_columns"]),
            each["name"],
            effect,
            is_own,
        )


def _effect(on_delete: str | None) -> str:
    action = (on_delete or "").upper()
    return next((each for each in _EFFECTS if action.startswith(each)), "")
