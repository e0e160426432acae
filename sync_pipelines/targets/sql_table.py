"""The declaration of a target that is one database table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import URL, Engine, Table

from sync_pipelines.database.connections import Limits, create_database, database_url, leave_out_ignored_errors
from sync_pipelines.database.sessions import with_known_state
from sync_pipelines.engine.targets import DeclaredTable, Identify
from sync_pipelines.errors import ConfigurationError, ItemError
from sync_pipelines.settings.model import load_settings
from sync_pipelines.targets.open_table import OpenedSqlTable, WritePolicy
from sync_pipelines.targets.table.declared import declared_table
from sync_pipelines.targets.table.mapping import ItemMapping
from sync_pipelines.targets.table.reflection import ReflectedTable, reflect_table
from sync_pipelines.targets.table.scope import EVERYTHING, check_scope, open_scope
from sync_pipelines.targets.table.soft_delete import SoftDelete, open_mark
from sync_pipelines.targets.types.codec import id_of, id_part
from sync_pipelines.targets.types.unwrap import plain, shortened

_CONTAINERS = (list, tuple, set, frozenset, Mapping)
"""What is no key: an item whose id has become one of these may be any record."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SqlTable:
    """A target that is one database table, declared instead of written. Declaring it connects to nothing.

    Args:
        table: The table's name, `"variants"` or `"shop.variants"`, or a SQLAlchemy `Table`, whose Python types (Enum
            classes, type decorators) and Python-side defaults are then used.
        key: The column whose value is the external id, or several columns. A primary key, unique constraint or unique
            index must make it unique.
        columns: What is written: a mapping of local column -> item field or function of the item, a list of names that
            are both, a function from item to a mapping of local column -> value, or None for every item field that is
            a column of the table.
        database: A SQLAlchemy `Engine` or a URL; by default the configured database, read when a run starts.
        compare: The columns that decide whether a found row has changed, by default all that are written.
        create_only: Columns that are written when a row is created and never again.
        soft_delete: How a delete marks a row instead of removing it, e.g. `SoftDelete("active", deleted=False)`. A
            marked row whose item comes back is an update that takes the mark off.
        scope: Which rows this sync answers for, e.g. `{"supplier": "acme"}`: those with this value, or with one of a
            list of values. A full sync deletes no others; new rows get a single value unless `columns` writes the
            column.

    Raises:
        ConfigurationError: A field is wrong; the message names it and its value.
    """

    table: str | Table
    key: str | Sequence[str]
    columns: Mapping[str, str | Callable[[Any], Any]] | Sequence[str] | Callable[[Any], Mapping[str, Any]] | None = None
    # A URL may hold a password, which a repr must not show.
    database: Engine | URL | str | None = field(default=None, repr=False)
    compare: Sequence[str] | None = None
    create_only: Sequence[str] = ()
    soft_delete: SoftDelete | None = None
    scope: Mapping[str, Any] | None = None
    _mapping: ItemMapping = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check_table(self.table)
        _check_database(self.database)
        _names("key", self.key)
        object.__setattr__(self, "scope", check_scope(self.scope) or None)
        columns: Any = dict(self.columns) if isinstance(self.columns, Mapping) else self.columns
        object.__setattr__(self, "_mapping", ItemMapping(columns))
        named = self._named_columns()
        self._check_soft_delete(named)
        self._check_written("compare", named["compare"])
        self._check_written("create_only", named["create_only"])
        if both := set(named["compare"]) & set(named["create_only"]):
            raise ConfigurationError(f"SqlTable: {sorted(both)} can't be both in compare and in create_only")

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The names of the key columns."""
        return (self.key,) if isinstance(self.key, str) else tuple(self.key)

    @property
    def item_functions(self) -> dict[str, Callable[[Any], Any]]:
        """The functions of an item that it is declared with, by what errors call them."""
        return self._mapping.functions

    def declared_table(self, configured: Callable[[], str | None]) -> DeclaredTable:
        """Returns what the declaration knows of its table, for those who show it; connects to nothing."""
        database = self.database if self.database is not None else configured()
        url: URL | None = database.url if isinstance(database, Engine) else None
        if isinstance(database, URL | str):
            with suppress(ConfigurationError):  # of a wrong setting: the first run says it, and nothing is shown of it
                url = database_url(database)
        return declared_table(self.table, self.key_columns, self._mapping, url)

    def identity(self) -> list[Any]:
        """Returns database, table, key and columns: a plan that was made for others must not be applied."""
        database = self._database()
        url = database.url if isinstance(database, Engine) else database_url(database)
        where = [url.get_backend_name(), url.host or url.query.get("host"), url.port, url.database]
        sources = None if self._mapping.sources is None else sorted(
            (name, source if isinstance(source, str) else "function") for name, source in self._mapping.sources.items()
        )  # fmt: skip
        named = self._named_columns()
        compare = None if self.compare is None else sorted(named["compare"])
        create_only = sorted(named["create_only"])
        table = self.table if isinstance(self.table, str) else self.table.fullname
        further = [repr(declared) for declared in (self.soft_delete, self.scope) if declared is not None]
        return [where, table, list(self.key_columns), sources, callable(self.columns), compare, create_only, *further]

    @property
    def external_id_field(self) -> str | None:
        """The field of an item whose text is its external id; None with several key columns, or one from a function."""
        return self._mapping.field_of_key(self.key_columns[0]) if len(self.key_columns) == 1 else None

    def external_id(self, item: Any) -> str:
        """Returns the item's external id, from the fields of its key columns; of several key columns their JSON array.

        Raises:
            ItemError: A field is missing, None or empty.
        """
        parts = []
        for column in self.key_columns:
            value = plain(self._mapping.read_key(item, column))
            if isinstance(value, ItemError):
                raise value  # a source that found a field it can't read leaves the error in its place
            if value is None or (isinstance(value, str) and not value.strip()):
                raise ItemError(f"the item has no external id: key column {column!r} would be {shortened(value)}")
            if isinstance(value, _CONTAINERS):
                raise ItemError(
                    f"key column {column!r} would be {shortened(value)}, a {type(value).__name__}; an id is text or a "
                    "number"
                )
            try:
                parts.append(id_part(value))
            except (TypeError, ValueError) as error:
                raise ItemError(
                    f"key column {column!r}: {shortened(value)} can't be an external id: {error}"
                ) from error
        return id_of(parts)

    @contextmanager
    def open(self, identify: Identify) -> Iterator[OpenedSqlTable]:
        """Connects, checks the declaration against the table, and yields the target to work on.

        Args:
            identify: Gives an item's external id.

        Raises:
            ConfigurationError: The table, a column or the key's uniqueness is missing; nothing has been written.
            RetryableError: The database can't be reached.
        """
        leave_out_ignored_errors()
        declared, limits = self._database(), Limits(**load_settings().database_limits())
        if isinstance(declared, Engine):
            yield self._opened(with_known_state(declared, limits.in_transactions(declared.url)), identify)
            return
        database = create_database(declared, limits=limits)
        try:
            yield self._opened(database, identify)
        finally:
            database.dispose()

    def _database(self) -> Engine | URL | str:
        """Returns the declared database, else the configured one."""
        return self.database if self.database is not None else load_settings().local_url()

    def _named_columns(self) -> dict[str, tuple[str, ...]]:
        """Returns field -> the columns of the table that it names."""
        return {
            "key": self.key_columns,
            "columns": self._mapping.names or (),
            "compare": _names("compare", () if self.compare is None else self.compare, may_be_empty=True),
            "create_only": _names("create_only", self.create_only, may_be_empty=True),
        }

    def _opened(self, database: Engine, identify: Identify) -> OpenedSqlTable:
        reflected = reflect_table(database, self.table)
        self._check_columns(reflected)
        _check_key(reflected, self.key_columns)
        named = self._named_columns()
        policy = WritePolicy(
            key=self.key_columns,
            written=self._mapping.names,
            compare=None if self.compare is None else frozenset(named["compare"]),
            create_only=frozenset(named["create_only"]),
            mark=open_mark(self.soft_delete, reflected) if self.soft_delete is not None else None,
            scope=open_scope(self.scope, reflected) if self.scope is not None else EVERYTHING,
        )
        return OpenedSqlTable(database, reflected, policy, self._mapping, identify)

    def _check_written(self, where: str, names: Sequence[str]) -> None:
        written = self._mapping.names
        for name in names:
            if name in self.key_columns:
                raise ConfigurationError(f"SqlTable: {where} names the key column {name!r}, which never changes")
            if written is not None and name not in written:
                raise ConfigurationError(
                    f"SqlTable: {where} names {name!r}, which is not written; written are: {', '.join(written)}"
                )

    def _check_soft_delete(self, named: Mapping[str, tuple[str, ...]]) -> None:
        """Refuses a declaration in which something else writes the column that marks rows."""
        if self.soft_delete is None:
            return
        if not isinstance(self.soft_delete, SoftDelete):
            raise ConfigurationError(
                f"SqlTable: soft_delete={self.soft_delete!r} is not understood; give SoftDelete(column, ...)"
            )
        column = self.soft_delete.column
        for where, names in {**named, "scope": tuple(self.scope or ())}.items():
            if column in names:
                raise ConfigurationError(
                    f"SqlTable: {where} names {column!r}, which soft_delete has for marking rows; leave it out there"
                )

    def _check_columns(self, reflected: ReflectedTable) -> None:
        for where, names in self._named_columns().items():
            for name in names:
                reflected.codec_of(name, where)
                if name in reflected.generated:
                    raise ConfigurationError(
                        f"SqlTable: {where} names the column {name!r} of {reflected.label!r}, which the database "
                        "generates and nobody can write; leave it out"
                    )
                if reason := reflected.unwritable.get(name):
                    raise ConfigurationError(
                        f"SqlTable: {where} names the column {name!r} of {reflected.label!r}, {reason}; leave it out"
                    )


def _check_table(table: Any) -> None:
    if isinstance(table, Table):
        return
    parts = table.split(".") if isinstance(table, str) else []
    if not 1 <= len(parts) <= 2 or not all(part.strip() for part in parts):  # noqa: PLR2004 - schema and table
        raise ConfigurationError(
            f"SqlTable: table={table!r} is not understood; give 'table', 'schema.table' or a SQLAlchemy Table "
            "(also for a name with a dot in it)"
        )


def _check_database(database: Any) -> None:
    if isinstance(database, str | URL):
        database_url(database)
    elif database is not None and not isinstance(database, Engine):
        raise ConfigurationError(
            f"SqlTable: database is a {type(database).__name__}; give a SQLAlchemy Engine, a URL, or nothing"
        )


def _names(where: str, declared: Any, *, may_be_empty: bool = False) -> tuple[str, ...]:
    names = (declared,) if isinstance(declared, str) else declared
    if (
        not isinstance(names, Sequence | set | frozenset)
        or not all(isinstance(name, str) and name for name in names)
        or len(set(names)) < len(names)
        or not (names or may_be_empty)
    ):
        raise ConfigurationError(f"SqlTable: {where}={declared!r} is not understood; give a column's name or several")
    return tuple(names)


def _check_key(reflected: ReflectedTable, key: tuple[str, ...]) -> None:
    if case_insensitive := sorted(set(key) & reflected.case_insensitive):
        raise ConfigurationError(
            f"SqlTable: the key column {case_insensitive[0]!r} of {reflected.label!r} has a collation that finds "
            "different texts equal; a key needs one that tells them apart"
        )
    for name in key:
        if reason := reflected.why_no_key(name):
            raise ConfigurationError(f"SqlTable: the key column {name!r} of {reflected.label!r} {reason}")
    if any(unique and unique <= set(key) for unique in reflected.unique_keys):
        return
    columns = ", ".join(key)
    name = f"{reflected.table.name}_{'_'.join(key)}_key"
    raise ConfigurationError(
        f"SqlTable: the key ({columns}) of {reflected.label!r} is not unique, so a record could not be told from "
        f"another; run: CREATE UNIQUE INDEX {name} ON {reflected.label} ({columns})"
    )
