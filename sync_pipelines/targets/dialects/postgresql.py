"""Tables of PostgreSQL: the catalogue says more of their columns than SQLAlchemy's reflection."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine.interfaces import ReflectedColumn
from sqlalchemy.types import TypeEngine

from sync_pipelines.targets.dialects.postgresql_codec import (
    RANGES_OF_NUMERIC,
    CitextFolding,
    ask_database,
    build_money_codec,
    fold_range,
    kind_of_base,
)
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
# The last type that a column's type is made of is no domain.
_CATALOG = sa.text(
    "WITH RECURSIVE below AS ("
    "SELECT attnum, atttypid AS type, atttypmod AS size FROM pg_attribute "
    "WHERE attrelid = CAST(:name AS regclass) AND attnum > 0 AND NOT attisdropped "
    "UNION ALL SELECT below.attnum, t.typbasetype, t.typtypmod "
    "FROM below JOIN pg_type t ON t.oid = below.type WHERE t.typtype = 'd') "
    "SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type_name, "
    "format_type(below.type, below.size) AS base_type, coalesce(c.collisdeterministic, true) AS is_deterministic "
    "FROM pg_attribute a JOIN below ON below.attnum = a.attnum "
    "JOIN pg_type t ON t.oid = below.type AND t.typtype <> 'd' "
    "LEFT JOIN pg_collation c ON c.oid = a.attcollation WHERE a.attrelid = CAST(:name AS regclass) ORDER BY a.attnum"
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
        make_codec=partial(_codec, database, {row.name: (row.type_name, row.base_type) for row in rows}),
        case_insensitive=frozenset(row.name for row in rows if not row.is_deterministic),
        unique_keys=tuple(frozenset(columns) for columns in unique),
        has_addresses=bool(has_addresses),
    )


def _codec(
    database: sa.Engine, types: dict[str, tuple[str, str]], column: ReflectedColumn, own: sa.Column[Any] | None
) -> ColumnCodec:
    """Builds the codec of a column: that of a domain is the one of the type below it, and the database judges more."""
    name, kind, dialect = column["name"], column["type"], database.dialect
    declared, (type_name, base_type) = None if own is None else own.type, types[column["name"]]
    if has_python_values(declared):
        codec = build_codec(name, declared, dialect=dialect, type_name=type_name)
        return replace(codec, base_type=base_type)
    if base_type == "money":
        return replace(build_money_codec(database, name, type_name), base_type=base_type)
    understood = _UNDERSTOOD.fullmatch(_SIZE.sub("", base_type).removesuffix("[]"))
    if isinstance(kind, postgresql.DOMAIN):
        kind = kind_of_base(base_type) if understood else _enum_below(kind)
    ask = None if understood or isinstance(kind, sa.Enum) else _ask(database, type_name)
    codec = build_codec(name, kind, dialect=dialect, type_name=type_name, ask=ask)
    if isinstance(kind, postgresql.CITEXT):
        folding = CitextFolding(database)
        codec = replace(codec, fold=folding.fold, expect=folding.expect)
    if base_type in RANGES_OF_NUMERIC:
        codec = replace(codec, fold=fold_range)
    return replace(codec, base_type=type_name if ask else base_type)


def _enum_below(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    while isinstance(kind, postgresql.DOMAIN):
        kind = kind.data_type
    return kind


def _ask(database: sa.Engine, type_name: str) -> Callable[[str], str]:
    """Makes the function that has the database read text as a column of a type would, and write it.

    As an INSERT does, and unlike a CAST, this refuses what is too long.
    """
    record: Any = sa.func.json_to_record(sa.cast(sa.bindparam("record", type_=sa.Text()), sa.JSON()))
    row = record.table_valued(sa.column("value", NamedType(type_name))).render_derived(name="asked", with_types=True)
    statement = sa.select(sa.cast(row.c.value, sa.Text()))

    def ask(text: str) -> str:
        return str(ask_database(database, statement, {"record": json.dumps({"value": text})}))

    return lru_cache(maxsize=_ASKED_VALUES_KEPT)(ask)


POSTGRESQL = DialectProfile(read=_read, names_default_schema=True, has_staging=True)
