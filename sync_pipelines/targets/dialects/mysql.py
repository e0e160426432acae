"""Tables of MySQL and MariaDB: what `information_schema` says of them, and the session that a sync works in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import ReflectedColumn
from sqlalchemy.exc import DBAPIError

from sync_pipelines.errors import ConfigurationError
from sync_pipelines.targets.dialects.mysql_codec import MysqlColumn, build_mysql_codec, why_no_key, why_unwritable
from sync_pipelines.targets.dialects.mysql_collations import Collation
from sync_pipelines.targets.dialects.profile import Details, DialectProfile
from sync_pipelines.targets.types.choose_codec import build_declared_codec, has_python_values
from sync_pipelines.targets.types.codec import ColumnCodec

_SERVER = sa.text("SELECT @@character_set_client, @@character_set_connection, @@max_allowed_packet")
_ENGINE = sa.text(
    "SELECT t.TABLE_NAME AS table_name, t.ENGINE AS engine, e.TRANSACTIONS AS transactions "
    "FROM information_schema.TABLES t LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE "
    "WHERE t.TABLE_SCHEMA = coalesce(:schema, database()) AND t.TABLE_NAME = :name"
)
_COLUMNS = sa.text(
    "SELECT TABLE_NAME AS table_name, COLUMN_NAME AS name, DATA_TYPE AS data_type, COLUMN_TYPE AS type_name, "
    "CHARACTER_SET_NAME AS charset, COLLATION_NAME AS collation, CHARACTER_MAXIMUM_LENGTH AS length, "
    "CHARACTER_OCTET_LENGTH AS octets, NUMERIC_SCALE AS scale, DATETIME_PRECISION AS fraction, "
    "IS_NULLABLE = 'YES' AS nullable, lower(EXTRA) AS extra "
    "FROM information_schema.COLUMNS "
    "WHERE TABLE_SCHEMA = coalesce(:schema, database()) AND TABLE_NAME = :name ORDER BY ORDINAL_POSITION"
)
_INDEXES = sa.text(
    "SELECT TABLE_NAME AS table_name, INDEX_NAME AS index_name, COLUMN_NAME AS column_name "
    "FROM information_schema.STATISTICS "
    "WHERE TABLE_SCHEMA = coalesce(:schema, database()) AND TABLE_NAME = :name AND NON_UNIQUE = 0"
)
# MariaDB's JSON is text with a check.
_JSON_CHECKS = sa.text(
    "SELECT TABLE_NAME AS table_name, CHECK_CLAUSE AS clause FROM information_schema.CHECK_CONSTRAINTS "
    "WHERE CONSTRAINT_SCHEMA = coalesce(:schema, database()) AND TABLE_NAME = :name "
    "AND CHECK_CLAUSE LIKE 'json_valid(%'"
)
# Strict: a value that does not fit is an error and is not cut. A zero in an AUTO_INCREMENT column is a zero.
# Moments are written and read in UTC. The server, other sessions, and triggers (which keep the mode that they were made
# with) notice nothing, and a session that is handed back to the application's pool is as it was.
_IN_ORDER = (
    "SET @sync_pipelines_mode = @@SESSION.sql_mode, @sync_pipelines_zone = @@SESSION.time_zone, "
    "SESSION sql_mode = concat(@@SESSION.sql_mode, ',STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO'), "
    "SESSION time_zone = '+00:00'"
)
_AS_BEFORE = "SET SESSION sql_mode = @sync_pipelines_mode, SESSION time_zone = @sync_pipelines_zone"


@contextmanager
def _in_order(connection: sa.Connection) -> Iterator[None]:
    connection.exec_driver_sql(_IN_ORDER)
    try:
        yield
    finally:
        _put_back(connection)


def _put_back(connection: sa.Connection) -> None:
    """Puts the session back as it was; one that can't be is thrown away."""
    if connection.invalidated or connection.closed:
        return
    try:
        connection.exec_driver_sql(_AS_BEFORE)
    except DBAPIError:
        connection.invalidate()


def _read(database: sa.Engine, table: sa.Table) -> Details:
    with database.connect() as connection:
        charset, connected_by, packet_bytes = connection.execute(_SERVER).one()
        if {charset, connected_by} != {"utf8mb4"}:
            raise ConfigurationError(
                f"SqlTable: this connection's character set is {charset}, which can't carry all text; "
                "write ?charset=utf8mb4 at the end of the database URL"
            )
        _require_transactions(table, _rows(connection, _ENGINE, table))
        rows = _rows(connection, _COLUMNS, table)
        indexes = _rows(connection, _INDEXES, table)
        checks = _rows(connection, _JSON_CHECKS, table) if database.dialect.is_mariadb else []  # type: ignore[attr-defined]
    json_checks = {row["clause"] for row in checks}
    columns = {row["name"]: _column(row, json_checks, int(packet_bytes)) for row in rows}
    collations = {
        name: Collation(database, str(column.charset), column.collation)
        for name, column in columns.items()
        if column.collation
    }
    return Details(
        make_codec=partial(_codec, database.dialect, columns, collations),
        unique_keys=_unique_keys(indexes),
        generated=frozenset(row["name"] for row in rows if is_generated(row["extra"])),
        unwritable={name: reason for name, column in columns.items() if (reason := why_unwritable(column))},
        why_no_key=partial(_why_no_key, columns, collations),
    )


def _rows(connection: sa.Connection, query: sa.TextClause, table: sa.Table) -> list[Mapping[str, Any]]:
    """Returns the query's rows of the table; names of tables are compared there without regard to case."""
    rows = connection.execute(query, {"schema": table.schema, "name": table.name}).mappings().all()
    return [dict(row) for row in rows if row["table_name"] == table.name] or [dict(row) for row in rows]


def _require_transactions(table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        if row["engine"] is not None and row["transactions"] != "YES":
            raise ConfigurationError(
                f"SqlTable: the table {table.name!r} is kept by {row['engine']}, which has no transactions: a batch "
                f"that fails half-way could not be taken back. Run: ALTER TABLE {table.name} ENGINE = InnoDB"
            )


def _unique_keys(indexes: Sequence[Mapping[str, Any]]) -> tuple[frozenset[str], ...]:
    by_name: dict[str, set[str | None]] = {}
    for row in indexes:
        by_name.setdefault(row["index_name"], set()).add(row["column_name"])
    # None is an expression
    return tuple(frozenset(name for name in names if name) for names in by_name.values() if None not in names)


def _column(row: Mapping[str, Any], json_checks: set[str], packet_bytes: int) -> MysqlColumn:
    name, data_type = row["name"], row["data_type"].lower()
    quoted = name.replace("`", "``")
    return MysqlColumn(
        name=name,
        data_type="json_text" if f"json_valid(`{quoted}`)" in json_checks else data_type,
        type_name=row["type_name"],
        charset=row["charset"],
        collation=row["collation"],
        length=row["length"],
        octets=row["octets"],
        scale=row["scale"],
        fraction=row["fraction"] or 0,
        nullable=bool(row["nullable"]),
        fills_itself="auto_increment" in row["extra"],
        packet_bytes=packet_bytes,
    )


def is_generated(extra: str) -> bool:
    """True if that EXTRA is of a generated column; `default_generated` is MySQL's word for a default to compute."""
    return "generated" in extra.replace(",", " ").split()


def _codec(
    dialect: sa.Dialect,
    columns: Mapping[str, MysqlColumn],
    collations: Mapping[str, Collation],
    column: ReflectedColumn,
    own: sa.Column[Any] | None,
) -> ColumnCodec:
    name = column["name"]
    codec = build_mysql_codec(columns[name])
    if name in collations and codec.facts.family == "text":
        codec = replace(codec, fold=collations[name].fold, expect=collations[name].expect)
    declared = None if own is None else own.type
    if has_python_values(declared) or isinstance(declared, sa.Interval):
        return build_declared_codec(codec, declared, dialect)
    return codec


def _why_no_key(columns: Mapping[str, MysqlColumn], collations: Mapping[str, Collation], name: str) -> str | None:
    return why_no_key(columns[name]) or (collations[name].why_no_key() if name in collations else None)


# Drivers send updates and deletes one by one, and wait for each.
MYSQL = DialectProfile(read=_read, in_order=_in_order, rows_at_once=100)
