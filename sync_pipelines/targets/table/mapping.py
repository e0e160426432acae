"""Reads from items what goes into which column: the four ways of declaring `columns`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sync_pipelines.engine.items import field_names, read_field
from sync_pipelines.engine.places import note_place
from sync_pipelines.errors import ConfigurationError, ItemError

Reader = Callable[[Any], Any]
Columns = Mapping[str, str | Reader] | list[str] | tuple[str, ...] | Callable[[Any], Mapping[str, Any]] | None


class ItemMapping:
    """Reads from an item what is to be written.

    Args:
        columns: As `SqlTable` takes it.
    """

    def __init__(self, columns: Columns) -> None:
        self._function = columns if callable(columns) else None
        self.sources: dict[str, str | Reader] | None = None
        """Local column -> item field or function of the item; None if they depend on the item."""
        if columns is not None and not callable(columns):
            self.sources = _sources(columns)
        self._readers: dict[str, Reader] | None = None
        if self.sources is not None:
            self._readers = {
                name: _field_reader(source) if isinstance(source, str) else _function_reader(name, source)
                for name, source in self.sources.items()
            }

    @property
    def names(self) -> tuple[str, ...] | None:
        """The columns that are written, None if they depend on the item."""
        return None if self._readers is None else tuple(self._readers)

    @property
    def has_functions(self) -> bool:
        """True if a value is not simply a field of the item."""
        return self._function is not None or any(callable(source) for source in (self.sources or {}).values())

    @property
    def functions(self) -> dict[str, Reader]:
        """The functions of an item, by what errors call them."""
        whole = {} if self._function is None else {"columns": self._function}
        return whole | {f"column {name!r}": each for name, each in (self.sources or {}).items() if callable(each)}

    @property
    def names_are_fields(self) -> bool:
        """True if every field of an item that is a column is written."""
        return self.sources is None and self._function is None

    def column_of(self, field: str) -> str | None:
        """Returns the column that a field of the item is written to as it is; None if none is known."""
        if self.names_are_fields:
            return field
        return next((column for column, source in (self.sources or {}).items() if source == field), None)

    def field_of_key(self, column: str) -> str | None:
        """Returns the field of the item that a key column holds as it is; None if it is not simply a field."""
        if self._function is not None:
            return None
        source = (self.sources or {}).get(column, column)
        return source if isinstance(source, str) else None

    def read(self, item: Any, writable: Callable[[str], bool]) -> dict[str, Any]:
        """Gives local column -> the item's value, as the item holds it.

        Args:
            writable: Says whether a name is a column of the table that can be written.
        """
        if self._readers is not None:
            return {column: reader(item) for column, reader in self._readers.items()}
        if self._function is None:
            return {name: read_field(item, name) for name in field_names(item) if writable(name)}
        return self._called(item, writable)

    def read_key(self, item: Any, column: str) -> Any:
        """Gives the item's value for a key column: as mapped, else the field of the same name."""
        if self._readers is not None:
            return self._readers[column](item) if column in self._readers else read_field(item, column)
        if self._function is not None and column in (values := self._called(item, lambda _name: True)):
            return values[column]
        return read_field(item, column)

    def _called(self, item: Any, writable: Callable[[str], bool]) -> dict[str, Any]:
        try:
            values = self._function(item) if self._function is not None else {}
        except Exception as error:
            note_place(error, "columns")
            raise
        if not isinstance(values, Mapping):
            raise ItemError(f"the function given as columns returned {type(values).__name__}, not a mapping")
        for name in values:
            if not writable(name):
                raise ItemError(f"the function given as columns names {name!r}, which is no column that can be written")
        return dict(values)


def _sources(columns: Any) -> dict[str, str | Reader]:
    if isinstance(columns, Mapping):
        pairs = list(columns.items())
    elif isinstance(columns, list | tuple):
        pairs = [(name, name) for name in columns]
    else:
        raise _wrong(columns)
    if not pairs:
        raise ConfigurationError("SqlTable: columns is empty; leave it out to write every field that is a column")
    for name, source in pairs:
        if not isinstance(name, str) or not name or not (callable(source) or (isinstance(source, str) and source)):
            raise _wrong(columns)
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"SqlTable: columns names a column twice: {columns!r}")
    return dict(pairs)


def _field_reader(field: str) -> Reader:
    return lambda item: read_field(item, field)


def _function_reader(column: str, function: Reader) -> Reader:
    """Returns a reader whose errors know which column it is that the function failed to give."""

    def read(item: Any) -> Any:
        try:
            return function(item)
        except Exception as error:
            note_place(error, f"column {column!r}")
            raise

    return read


def _wrong(columns: Any) -> ConfigurationError:
    return ConfigurationError(
        f"SqlTable: columns={columns!r} is not understood; give a mapping of local column to item field or function, a "
        "list of names, a function from item to a mapping, or nothing"
    )
