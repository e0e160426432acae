"""Reads a table from the database: its columns with their codecs, and what identifies a row."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache, partial
from typing import Any, TypeGuard

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import ReflectedColumn
from sqlalchemy.engine.reflection import Inspector
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from sync_pipelines.errors import ConfigurationError
from sync_pipelines.targets.column_types import build_codec, build_flexible_codec
from sync_pipelines.targets.columns import ColumnCodec
from sync_pipelines.targets.failures import database_name, passing_failures
from sync_pipelines.targets.storage import NamedType

# PostgreSQL types that Python has a value for; all others are compared as the database writes them.
_UNDERSTOOD = frozenset(
    {
        "smallint",
        "integer",
        "bigint",
        "numeric",
        "real",
        "double precision",
        "text",
        "character varying",
        "character",
        "citext",
        "boolean",
        "date",
        "timestamp without time zone",
        "timestamp with time zone",
        "time without time zone",
        "time with time zone",
        "interval",
        "bytea",
        "json",
        "jsonb",
        "uuid",
    }
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
_IS_PLAIN = sa.text("SELECT relkind = 'r' AND NOT relhassubclass FROM pg_class WHERE oid = CAST(:name AS regclass)")
# SQLite compares names of types only up to a bracket; these are the ones whose values follow the name.
_SQLITE_NUMERIC = ("NUMERIC", "DECIMAL")
_ASKED_VALUES_KEPT = 100_000


@dataclass(frozen=True, slots=True)
class ReflectedTable:
    """A table as it is in the database.

    Args:
        table: To build statements with; its types carry canonical values.
        codecs: Column name -> codec, in table order.
        generated: Columns that the database computes and nobody may write.
        loose: Columns that find different texts equal, in a way that only the database knows.
        unique_keys: Sets of columns each of which identifies a row.
        label: The table's name with its schema, for people.
        has_addresses: True if its rows have addresses: it is a plain table of PostgreSQL.
    """

    table: sa.Table
    codecs: dict[str, ColumnCodec]
    generated: frozenset[str]
    loose: frozenset[str]
    unique_keys: tuple[frozenset[str], ...]
    label: str
    has_addresses: bool = False

    def close_names(self, column: str) -> str:
        """Says which columns have a name like that one, else which there are."""
        close = _close(column, self.codecs)
        return f"did you mean {', '.join(close)}?" if close else f"it has: {', '.join(self.codecs)}"


@dataclass(frozen=True, slots=True)
class _Details:
    """What SQLAlchemy's reflection leaves out: the database's names of types, and how text columns compare.

    It also gives unique indexes that PostgreSQL marks invalid, and overlooks `VARCHAR(40) NOT NULL UNIQUE` on SQLite.
    """

    type_names: dict[str, str]
    folds: dict[str, Callable[[str], str]]
    loose: frozenset[str]
    unique_keys: tuple[frozenset[str], ...]
    has_addresses: bool = False


def reflect_table(database: sa.Engine, declared: sa.Table | str) -> ReflectedTable:
    """Reads the table from the database.

    Args:
        database: Where the table is.
        declared: The table's name, with or without schema, or a SQLAlchemy table, whose Python types and Python-side
            defaults are then used.

    Raises:
        ConfigurationError: There is no such table, or the database is neither PostgreSQL nor SQLite.
        RetryableError: The database can't be reached.
    """
    if database.dialect.name not in {"postgresql", "sqlite"}:
        raise ConfigurationError(f"SqlTable writes to PostgreSQL and SQLite, not to {database.dialect.name}")
    name, schema = _split(declared)
    with passing_failures(database):
        inspector = sa.inspect(database)
        if not inspector.has_table(name, schema=schema):
            raise ConfigurationError(_no_table(database, inspector, name, schema))
        return _reflect(database, inspector, sa.Table(name, sa.MetaData(), schema=schema), declared)


def _split(declared: sa.Table | str) -> tuple[str, str | None]:
    if isinstance(declared, sa.Table):
        return declared.name, declared.schema
    schema, _, name = declared.rpartition(".")
    return name, schema or None


def _no_table(database: sa.Engine, inspector: Inspector, name: str, schema: str | None) -> str:
    schemas = inspector.get_schema_names()
    label = f"{schema}.{name}" if schema else name
    message = f"the database {database_name(database)} has no table {label!r}"
    if schema is not None and schema not in schemas:
        return f"{message}: there is no schema {schema!r}; there are: {', '.join(schemas)}"
    names = [*inspector.get_table_names(schema=schema), *inspector.get_view_names(schema=schema)]
    if close := _close(name, names):
        return f"{message}; did you mean {', '.join(close)}?"
    elsewhere = [f"{other}.{name}" for other in schemas if name in inspector.get_table_names(schema=other)]
    if elsewhere:
        return f"{message}; did you mean {', '.join(elsewhere)}?"
    return f"{message}; it has: {', '.join(sorted(names)[:20]) or 'no tables'}"


def _close(name: str, names: Iterable[str]) -> list[str]:
    by_lower = {other.lower(): other for other in names}
    return [by_lower[close] for close in get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)]


def _reflect(database: sa.Engine, inspector: Inspector, bare: sa.Table, declared: sa.Table | str) -> ReflectedTable:
    reader = _read_postgres if database.dialect.name == "postgresql" else _read_sqlite
    details = reader(database, bare)
    with warnings.catch_warnings():
        # Types that SQLAlchemy doesn't know are expected here, and handled.
        warnings.filterwarnings("ignore", message="Did not recognize type", category=sa.exc.SAWarning)
        columns = inspector.get_columns(bare.name, schema=bare.schema)
    own: dict[str, sa.Column[Any]] = {}
    if isinstance(declared, sa.Table):
        own = {column.name: column for column in declared.columns}
    codecs: dict[str, ColumnCodec] = {}
    for column in columns:
        name = column["name"]
        codec = _codec(database, column, details.type_names[name], own.get(name))
        codecs[name] = replace(codec, fold=details.folds[name]) if name in details.folds else codec
        bare.append_column(sa.Column(name, codec.storage, **_defaults(own.get(name))))
    return ReflectedTable(
        table=bare,
        codecs=codecs,
        generated=frozenset(column["name"] for column in columns if _is_generated(column)),
        loose=details.loose,
        unique_keys=details.unique_keys,
        label=_label(inspector, bare),
        has_addresses=details.has_addresses,
    )


def _label(inspector: Inspector, table: sa.Table) -> str:
    schema = table.schema or (inspector.default_schema_name if inspector.dialect.name == "postgresql" else None)
    return f"{schema}.{table.name}" if schema else table.name


def _is_generated(column: ReflectedColumn) -> bool:
    identity = column.get("identity")
    return "computed" in column or (identity is not None and identity["always"])


def _defaults(own: sa.Column[Any] | None) -> dict[str, Any]:
    """The Python-side defaults of an application's own table, which its other writers rely on too."""
    found = {"default": getattr(own, "default", None), "onupdate": getattr(own, "onupdate", None)}
    return {
        name: sa.Sequence(default.name, schema=default.schema) if isinstance(default, sa.Sequence) else default.arg
        for name, default in found.items()
        if default is not None
    }


def _codec(database: sa.Engine, column: ReflectedColumn, type_name: str, own: sa.Column[Any] | None) -> ColumnCodec:
    name, kind, dialect = column["name"], column["type"], database.dialect
    declared = None if own is None else own.type
    if dialect.name == "sqlite":
        if declared is None and isinstance(kind, sa.Numeric) and not type_name.upper().startswith(_SQLITE_NUMERIC):
            return build_flexible_codec(name, type_name)
        return build_codec(name, declared or kind, dialect=dialect, type_name=type_name)
    if _has_python_values(declared):
        return build_codec(name, declared, dialect=dialect, type_name=type_name)
    understood = _SIZE.sub("", type_name).removesuffix("[]") in _UNDERSTOOD or isinstance(kind, sa.Enum)
    ask = None if understood else _ask(database, type_name)
    return build_codec(name, kind, dialect=dialect, type_name=type_name, ask=ask)


def _has_python_values(declared: Any) -> TypeGuard[TypeEngine[Any]]:
    """True for types that give the application Python values of its own, which the database can't tell."""
    if isinstance(declared, sa.Enum):
        return declared.enum_class is not None
    return isinstance(declared, sa.types.TypeDecorator) and not isinstance(declared, sa.Interval)


def _ask(database: sa.Engine, type_name: str) -> Callable[[str], str]:
    value: sa.BindParameter[str] = sa.bindparam("value", type_=sa.Text())
    statement = sa.select(sa.cast(sa.cast(sa.cast(value, sa.Text()), NamedType(type_name)), sa.Text()))
    return lru_cache(maxsize=_ASKED_VALUES_KEPT)(partial(_asked, database, statement))


def _asked(database: sa.Engine, statement: sa.Select[Any], text: str) -> str:
    """Lets the database convert text to a type and back.

    Raises:
        ValueError: The database refuses it.
        RetryableError: The database can't be reached.
    """
    try:
        with passing_failures(database), database.connect() as connection:
            return str(connection.execute(statement, {"value": text}).scalar_one())
    except DBAPIError as error:
        raise ValueError(str(error.orig).partition("\n")[0]) from error


def _read_postgres(database: sa.Engine, table: sa.Table) -> _Details:
    name = database.dialect.identifier_preparer.format_table(table).replace("%%", "%")  # it becomes a bound value
    with database.connect() as connection:
        rows = connection.execute(_CATALOG, {"name": name}).all()
        unique = connection.execute(_UNIQUE_INDEXES, {"name": name}).scalars().all()
        is_plain = connection.execute(_IS_PLAIN, {"name": name}).scalar_one()
    return _Details(
        type_names={row[0]: row[1] for row in rows},
        folds={},
        loose=frozenset(row[0] for row in rows if not row[2]),
        unique_keys=tuple(frozenset(columns) for columns in unique),
        has_addresses=bool(is_plain),
    )


def _read_sqlite(database: sa.Engine, table: sa.Table) -> _Details:
    quote = database.dialect.identifier_preparer.quote_identifier
    prefix = f"PRAGMA {quote(table.schema)}." if table.schema else "PRAGMA "
    indexes: list[dict[str, str]] = []
    with database.connect() as connection:
        columns = connection.exec_driver_sql(f"{prefix}table_xinfo({quote(table.name)})").mappings().all()
        for index in connection.exec_driver_sql(f"{prefix}index_list({quote(table.name)})").mappings().all():
            parts = connection.exec_driver_sql(f"{prefix}index_xinfo({quote(index['name'])})").mappings().all()
            collations = {part["name"]: part["coll"] for part in parts if part["key"]}
            if index["unique"] and not index["partial"] and None not in collations:  # None is an expression
                indexes.append(collations)
    by_column = {name: found for collations in indexes for name, found in collations.items()}
    primary_key = frozenset(column["name"] for column in columns if column["pk"])
    return _Details(
        type_names={column["name"]: column["type"] for column in columns},
        folds={name: _SQLITE_FOLDS[found] for name, found in by_column.items() if found in _SQLITE_FOLDS},
        loose=frozenset(name for name, found in by_column.items() if found not in {"BINARY", *_SQLITE_FOLDS}),
        unique_keys=(primary_key, *(frozenset(collations) for collations in indexes)),
    )


def _lower_ascii(text: str) -> str:
    return "".join(character.lower() if character.isascii() else character for character in text)


def _without_blanks(text: str) -> str:
    return text.rstrip(" ")


_SQLITE_FOLDS: dict[str, Callable[[str], str]] = {"NOCASE": _lower_ascii, "RTRIM": _without_blanks}
