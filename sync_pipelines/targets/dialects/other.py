"""Tables of any other database, as SQLAlchemy describes them. Nobody has tried these."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import ReflectedColumn
from sqlalchemy.engine.reflection import Inspector
from sqlalchemy.exc import DBAPIError

from sync_pipelines.database.faults import first_line
from sync_pipelines.targets.dialects.profile import Details, DialectProfile
from sync_pipelines.targets.types.choose_codec import build_codec, build_declared_codec, has_python_values
from sync_pipelines.targets.types.codec import ColumnCodec

# Some databases take no more than a thousand values in a list.
_VALUES_PER_LOOKUP = 900
_LOOK_ALIKE = (("a", "A"), ("a", "a "), ("a", "\u00e1"))


def other_profile(database: sa.Engine) -> DialectProfile:
    """Returns the profile of a database of which no more is known than SQLAlchemy knows."""
    name = database.dialect.name
    return DialectProfile(
        read=_read,
        lists_in_pages=not database.dialect.supports_server_side_cursors,
        has_tuples=False,
        values_per_lookup=_VALUES_PER_LOOKUP,
        note=f"SqlTable has not been tried on {name}: it was on PostgreSQL, SQLite and MariaDB. Let the first sync "
        "run twice, and look whether the second run changes nothing; it goes page by page at any size",
    )


def _read(database: sa.Engine, table: sa.Table) -> Details:
    return Details(
        make_codec=partial(_codec, database.dialect),
        unique_keys=_unique_keys(sa.inspect(database), table),
        why_no_key=partial(_why_no_key, database, table),
    )


def _codec(dialect: sa.Dialect, column: ReflectedColumn, own: sa.Column[Any] | None) -> ColumnCodec:
    kind = column["type"]
    codec = build_codec(column["name"], kind, dialect=dialect, type_name=_type_name(dialect, kind))
    # the types of SQLAlchemy know what their database's drivers want
    codec = replace(codec, storage=kind)
    declared = None if own is None else own.type
    return build_declared_codec(codec, declared, dialect) if has_python_values(declared) else codec


def _type_name(dialect: sa.Dialect, kind: sa.types.TypeEngine[Any]) -> str:
    try:
        return kind.compile(dialect=dialect)
    except sa.exc.CompileError:
        return type(kind).__name__


def _unique_keys(inspector: Inspector, table: sa.Table) -> tuple[frozenset[str], ...]:
    name, schema = table.name, table.schema
    groups: list[Sequence[str | None]] = [inspector.get_pk_constraint(name, schema=schema)["constrained_columns"]]
    groups += [constraint["column_names"] for constraint in _offered(inspector.get_unique_constraints, name, schema)]
    groups += [
        index["column_names"]
        for index in _offered(inspector.get_indexes, name, schema)
        # those of expressions, and partial ones, identify nothing
        if index["unique"] and None not in index["column_names"] and not _has_condition(index)
    ]
    return tuple(frozenset(column for column in group if column) for group in groups if group)


def _has_condition(index: Any) -> bool:
    return any(
        name.endswith("_where") and value is not None for name, value in index.get("dialect_options", {}).items()
    )


def _offered(read: Callable[..., list[Any]], name: str, schema: str | None) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sa.exc.SAWarning)
        try:
            return read(name, schema=schema)
        except NotImplementedError:
            return []


def _why_no_key(database: sa.Engine, table: sa.Table, name: str) -> str | None:
    """Asks the database itself whether it takes different texts in that column for the same."""
    column: sa.ColumnElement[Any] = table.c[name]
    if not isinstance(column.type, sa.String):
        return None
    for first, second in _LOOK_ALIKE:
        texts = sa.union_all(
            sa.select(column.label("text")).where(sa.false()),
            sa.select(sa.literal(first, column.type).label("text")),
        ).subquery()
        query = sa.select(sa.func.count()).select_from(texts).where(texts.c.text == sa.literal(second, column.type))
        try:
            with database.connect() as connection:
                same = connection.scalar(query)
        except DBAPIError as error:
            return f"can't be checked for how its text is compared: {first_line(error)}"
        if same:
            return f"finds the texts {first!r} and {second!r} equal; a key needs a collation that tells them apart"
    return None
