"""Reads a table from the database: its columns with their codecs, and what identifies a row."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import ReflectedColumn
from sqlalchemy.engine.reflection import Inspector
from sqlalchemy.exc import DBAPIError

from sync_pipelines.database.faults import first_line
from sync_pipelines.errors import ConfigurationError, ItemError
from sync_pipelines.targets.db_errors import database_name, is_of_statement, passing_failures
from sync_pipelines.targets.dialects.mysql import MYSQL
from sync_pipelines.targets.dialects.other import other_profile
from sync_pipelines.targets.dialects.postgresql import POSTGRESQL
from sync_pipelines.targets.dialects.profile import DialectProfile
from sync_pipelines.targets.dialects.sqlite import SQLITE
from sync_pipelines.targets.table.row_changes import state_conflict_rule
from sync_pipelines.targets.types.codec import ColumnCodec

_PROFILES = {"postgresql": POSTGRESQL, "sqlite": SQLITE, "mysql": MYSQL, "mariadb": MYSQL}
_COMPARABLE = frozenset({"text", "int", "bool", "numeric", "date", "datetime", "uuid", "enum", "asked", "own"})


@dataclass(frozen=True, slots=True)
class ReflectedTable:
    """A table as it is in the database. What has no line here is as in `Details`.

    Args:
        table: To build statements with; its types carry canonical values.
        codecs: Column name -> codec, in table order.
        generated: Columns that the database computes and nobody may write.
        label: The table's name with its schema, for people.
    """

    table: sa.Table
    codecs: dict[str, ColumnCodec]
    generated: frozenset[str]
    case_insensitive: frozenset[str]
    unique_keys: tuple[frozenset[str], ...]
    label: str
    profile: DialectProfile
    has_addresses: bool
    unwritable: Mapping[str, str]
    why_no_key: Callable[[str], str | None]
    not_null: frozenset[str]

    def codec_of(self, column: str, where: str) -> ColumnCodec:
        """Returns the codec of a column that a declaration names.

        Args:
            where: The field of `SqlTable` that names it.

        Raises:
            ConfigurationError: The table lacks it.
        """
        if column in self.codecs:
            return self.codecs[column]
        close = _close(column, self.codecs)
        hint = f"did you mean {', '.join(close)}?" if close else f"it has: {', '.join(self.codecs)}"
        raise ConfigurationError(
            f"SqlTable: {where} names the column {column!r}, which the table {self.label!r} lacks; {hint}"
        )

    def comparable_codec_of(self, column: str, where: str) -> ColumnCodec:
        """Returns the codec of a column that a declaration compares with values of its own. Raises as `codec_of`."""
        codec = self.codec_of(column, where)
        if codec.facts.family in _COMPARABLE:
            return codec
        raise ConfigurationError(
            f"SqlTable: {where} names the column {column!r} of {self.label!r}, whose type {codec.type_name} is "
            "compared in a way of its own; take a column of text, whole numbers, booleans, dates or moments"
        )

    def declared_value(self, codec: ColumnCodec, value: Any, where: str) -> Any:
        """Converts a value that a declaration names; one that does not convert is a `ConfigurationError`."""
        try:
            return codec.from_item(value)
        except ItemError as error:
            raise ConfigurationError(f"SqlTable: {where} of {self.label!r}: {error}") from error


def reflect_table(database: sa.Engine, declared: sa.Table | str) -> ReflectedTable:
    """Reads the table from the database.

    Args:
        declared: The table's name, with or without schema, or a SQLAlchemy table, whose Python types and Python-side
            defaults are then used.

    Raises:
        ConfigurationError: There is no such table, or no sync can be trusted with it.
    """
    name, schema = _split(declared)
    with passing_failures(database):
        inspector = sa.inspect(database)
        if not inspector.has_table(name, schema=schema):
            raise ConfigurationError(_no_table(database, inspector, name, schema))
        try:
            return _reflect(database, inspector, sa.Table(name, sa.MetaData(), schema=schema), declared)
        except (DBAPIError, NotImplementedError) as error:
            if isinstance(error, DBAPIError) and not is_of_statement(error):
                raise
            raise ConfigurationError(
                f"the table {name!r} can't be read from {database_name(database)}: {first_line(error)}. If it is "
                f"SQLAlchemy's dialect {database.dialect.name} that can't, give find_local, create and update instead"
            ) from error


def columns_of(inspector: Inspector, table: sa.Table) -> list[ReflectedColumn]:
    """Returns the columns of a table. Types that SQLAlchemy doesn't know are expected, and handled."""
    with unknown_types_expected():
        return inspector.get_columns(table.name, schema=table.schema)


@contextmanager
def unknown_types_expected() -> Iterator[None]:
    """Leaves out what SQLAlchemy says of types that it doesn't know, whatever it is asked for: MySQL is read whole."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Did not recognize type", category=sa.exc.SAWarning)
        yield


def profile_of(database: sa.Engine) -> DialectProfile:
    """Returns the profile of the database's dialect."""
    return _PROFILES.get(database.dialect.name) or other_profile(database)


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
    profile = profile_of(database)
    details = profile.read(database, bare)
    columns = columns_of(inspector, bare)
    own: dict[str, sa.Column[Any]] = {}
    if isinstance(declared, sa.Table):
        own = {column.name: column for column in declared.columns}
    codecs: dict[str, ColumnCodec] = {}
    for column in columns:
        name = column["name"]
        codecs[name] = details.make_codec(column, own.get(name))
        bare.append_column(sa.Column(name, codecs[name].storage, **_defaults(own.get(name))))
    if details.states_conflict_rule:
        state_conflict_rule(bare)
    return ReflectedTable(
        table=bare,
        codecs=codecs,
        generated=details.generated.union(column["name"] for column in columns if _is_generated(column)),
        case_insensitive=details.case_insensitive,
        unique_keys=details.unique_keys,
        label=_label(inspector, profile, bare),
        profile=profile,
        has_addresses=details.has_addresses,
        unwritable=details.unwritable,
        why_no_key=details.why_no_key,
        not_null=frozenset(column["name"] for column in columns if not column["nullable"]),
    )


def _label(inspector: Inspector, profile: DialectProfile, table: sa.Table) -> str:
    schema = table.schema or (inspector.default_schema_name if profile.names_default_schema else None)
    return f"{schema}.{table.name}" if schema else table.name


def _is_generated(column: ReflectedColumn) -> bool:
    identity = column.get("identity")
    return "computed" in column or (identity is not None and identity["always"])


def _defaults(own: sa.Column[Any] | None) -> dict[str, Any]:
    """Returns the Python-side defaults of an application's own table, which its other writers rely on too."""
    defaults = {"default": getattr(own, "default", None), "onupdate": getattr(own, "onupdate", None)}
    return {
        name: sa.Sequence(default.name, schema=default.schema) if isinstance(default, sa.Sequence) else default.arg
        for name, default in defaults.items()
        if default is not None
    }
