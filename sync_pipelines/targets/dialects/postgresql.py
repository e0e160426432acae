"""Tables of PostgreSQL: the catalogue says more of their columns than SQLAlchemy's reflection."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import ReflectedColumn
from sqlalchemy.exc import DBAPIError

from sync_pipelines.targets.db_errors import passing_failures
from sync_pipelines.targets.dialects.profile import Details, DialectProfile
from sync_pipelines.targets.types.choose_codec import build_codec, has_python_values
from sync_pipelines.targets.types.codec import ColumnCodec
from sync_pipelines.targets.types.sqlalchemy_types import NamedType

# PostgreSQL types that Python has a value for; all others are compared as the database writes them.
_UNDERSTOOD = re.compile(
    r"smallint|integer|bigint|numeric|real|double precision|text|character( varying)?|citext|boolean|date|"
    r"(timestamp|time) with(out)? time zone|interval|bytea|jsonb?|uuid"
)
_SIZE = re.compile(r"\([^)]*\)")
_CATALOG = sa.text(
    "SELECT a.attname, format_type(a.atttypid, a.atttypmod), coalesce(c.collisdeterministic, true) "
    "FROM pg_attribute a LEFT JOIN pg_collation c ON c.oid = a.attcollation "
    "WHERE a.attrelid = CAST(:name AS regclass) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
)
_UNIQUE_INDEXES = sa.text(
    "SELECT array_agg(CAST(a.attname AS text)) FROM pg_index i "
    "JOIN LATERAL unnest((CAST(i.indkey AS int2[]))[0:i.indnkeyatts - 1]) AS k(attnum) ON true "
    "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum "
    "WHERE i.indrelid = CAST(:name AS regclass) AND i.indisunique AND i.indisvalid "
    "AND i.indpred IS NULL AND i.indexprs IS NULL GROUP BY i.indexrelid"
)
_HAS_ADDRESSES = sa.text(  # which a role that may read some columns only does not see
    "SELECT relkind = 'r' AND NOT relhassubclass AND has_table_privilege(oid, 'SELECT') "
    "FROM pg_class WHERE oid = CAST(:name AS regclass)"
)
_ASKED_VALUES_KEPT = 100_000


def name_of(dialect: sa.Dialect, table: sa.Table) -> str:
    """Returns the table's name with its schema, quoted where need be, for a value: percent signs are not doubled."""
    return dialect.identifier_preparer.format_table(table).replace("%%", "%")


def _read(database: sa.Engine, table: sa.Table) -> Details:
    name = name_of(database.dialect, table)
    with database.connect() as connection:
        rows = connection.execute(_CATALOG, {"name": name}).all()
        unique = connection.execute(_UNIQUE_INDEXES, {"name": name}).scalars().all()
        has_addresses = connection.execute(_HAS_ADDRESSES, {"name": name}).scalar_one()
    return Details(
        make_codec=partial(_codec, database, {row[0]: row[1] for row in rows}),
        case_insensitive=frozenset(row[0] for row in rows if not row[2]),
        unique_keys=tuple(frozenset(columns) for columns in unique),
        has_addresses=bool(has_addresses),
    )


def _codec(
    database: sa.Engine, type_names: dict[str, str], column: ReflectedColumn, own: sa.Column[Any] | None
) -> ColumnCodec:
    name, kind, dialect = column["name"], column["type"], database.dialect
    declared, type_name = None if own is None else own.type, type_names[column["name"]]
    if has_python_values(declared):
        return build_codec(name, declared, dialect=dialect, type_name=type_name)
    understood = _UNDERSTOOD.fullmatch(_SIZE.sub("", type_name).removesuffix("[]")) or isinstance(kind, sa.Enum)
    ask = None if understood else _ask(database, type_name)
    return build_codec(name, kind, dialect=dialect, type_name=type_name, ask=ask)


def _ask(database: sa.Engine, type_name: str) -> Callable[[str], str]:
    value: sa.BindParameter[str] = sa.bindparam("value", type_=sa.Text())
    statement = sa.select(sa.cast(sa.cast(sa.cast(value, sa.Text()), NamedType(type_name)), sa.Text()))
    return lru_cache(maxsize=_ASKED_VALUES_KEPT)(partial(_asked, database, statement))


def _asked(database: sa.Engine, statement: sa.Select[Any], text: str) -> str:
    """Lets the database convert text to a type and back; text that it refuses is a `ValueError`."""
    try:
        with passing_failures(database), database.connect() as connection:
            return str(connection.execute(statement, {"value": text}).scalar_one())
    except DBAPIError as error:
        raise ValueError(str(error.orig).partition("\n")[0]) from error


POSTGRESQL = DialectProfile(read=_read, names_default_schema=True, has_staging=True)
