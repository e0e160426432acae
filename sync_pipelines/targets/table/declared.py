"""What the declaration of a table says of it, before anything is connected."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from sqlalchemy import URL, Column, Table
from sqlalchemy.exc import SQLAlchemyError

from sync_pipelines.engine.targets import DeclaredColumn, DeclaredTable
from sync_pipelines.targets.table.mapping import ItemMapping

_SCHEMA_IS_DATABASE = frozenset({"mysql", "mariadb"})


def declared_table(table: str | Table, key: tuple[str, ...], mapping: ItemMapping, url: URL | None) -> DeclaredTable:
    """Returns what is known of a table.

    Args:
        key: The names of the key columns.
        url: Of its database; None if it is not known.
    """
    schema, _, _ = (table if isinstance(table, str) else table.fullname).rpartition(".")
    if isinstance(table, Table):
        schema = table.schema or ""
    return DeclaredTable(
        dialect="" if url is None else url.get_backend_name(),
        database=None if url is None else database_name(url, schema or None),
        table=table if isinstance(table, str) else table.fullname,
        uri=None if url is None else _address(url),
        columns=tuple(_columns(table, key, mapping)),
    )


def database_name(url: URL, schema: str | None) -> str | None:
    """Returns the name of a database, of a SQLite file that without its ending; None if the schema says it already."""
    name = url.database
    if not name or (schema and url.get_backend_name() in _SCHEMA_IS_DATABASE):
        return None
    if url.get_backend_name() != "sqlite":
        return name
    return None if name == ":memory:" or name.startswith("file:") else PurePath(name).stem


def _address(url: URL) -> str:
    """Returns the URL without user, password, driver and options, any of which may hold a secret."""
    return URL.create(url.get_backend_name(), host=url.host, port=url.port, database=url.database).render_as_string(
        hide_password=True
    )


def _columns(table: str | Table, key: tuple[str, ...], mapping: ItemMapping) -> Iterator[DeclaredColumn]:
    """Yields all columns of a SQLAlchemy `Table`; of a name those that the declaration names."""
    sources = mapping.sources or {}
    fields = {name: source for name, source in sources.items() if isinstance(source, str)}
    if sources:
        fields |= {name: field for name in key if name not in sources and (field := mapping.field_of_key(name))}
    if isinstance(table, Table):
        for column in table.columns:
            nullable = bool(column.nullable) and column.name not in key
            yield DeclaredColumn(column.name, _type_name(column), nullable, fields.get(column.name))
        return
    for name in dict.fromkeys((*key, *sources)):
        yield DeclaredColumn(name, None, name not in key, fields.get(name))


def _type_name(column: Column[object]) -> str:
    try:
        return str(column.type)
    except SQLAlchemyError:  # a type that only one database can spell
        return type(column.type).__name__
