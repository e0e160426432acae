"""Learns what a new sync looks like: from a table of the local database, from a sample of the items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from sync_pipelines.cli.job_file import Sketch, module_name
from sync_pipelines.database.connections import create_database
from sync_pipelines.engine.json_text import parse_json
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.targets.table.reflection import ReflectedTable, columns_of, reflect_table

_ID_FIELDS = ("sku", "id", "external_id", "uuid", "guid", "code", "number", "no", "key")
_TYPES = {bool: "bool", int: "int", float: "float", str: "str", dict: "dict[str, Any]", list: "list[Any]"}
_SERIAL = "id"


@dataclass(frozen=True)
class Column:
    """A column of the local table. `required` is true if a new record must have a value for it."""

    name: str
    required: bool


@dataclass(frozen=True)
class LocalTable:
    """What a mapping needs to know of a table.

    Args:
        columns: Those that can be written.
        unique_keys: The sets of columns that identify a record, the best first.
    """

    columns: Sequence[Column]
    unique_keys: Sequence[Sequence[str]]


def read_sample(path: Path) -> list[dict[str, Any]]:
    """Reads a sample: one item, or a list of items.

    Raises:
        ConfigurationError: The file is no JSON, or holds something else.
    """
    try:
        sample = parse_json(path.read_bytes(), decimals=False)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the sample {path} can't be read as JSON: {error}") from error
    items = sample if isinstance(sample, list) else [sample]
    if not items or not all(isinstance(item, dict) and item for item in items):
        raise ConfigurationError(f"the sample {path} must hold one item (a JSON object) or a list of items")
    return items


def read_table(url: str, name: str) -> LocalTable:
    """Reads a table's columns and keys.

    Raises:
        ConfigurationError: There is no such table, or nothing identifies its records.
    """
    database = create_database(url)
    try:
        reflected = reflect_table(database, name)
        described = columns_of(sa.inspect(database), reflected.table)
    finally:
        database.dispose()
    columns = [
        Column(each["name"], _is_required(each)) for each in described if each["name"] not in reflected.generated
    ]
    return LocalTable(columns, _unique_keys(reflected, [each.name for each in columns]))


def sketch_sync(name: str, table_name: str | None, table: LocalTable | None, items: Sequence[dict[str, Any]]) -> Sketch:
    """Puts together what is known, with guesses where neither a table nor sample items say it."""
    fields = _annotations(items)
    local_name = table_name or module_name(name)
    if table is not None:
        key = table.unique_keys[0]
        columns, remarks = _mapped(table, key, fields)
        return Sketch(name=name, table=local_name, key=key, columns=columns, fields=fields, remarks=remarks)
    flat = [field for field in fields if "[" not in fields[field].removeprefix("NotRequired[")]
    remarks = [f"No table was given to `new`; the names of the table {local_name} and its columns are guesses."]
    if nested := [field for field in fields if field not in flat]:
        remarks.append(f"Left out because they hold more than one value: {', '.join(nested)}.")
    columns = {field: field for field in flat} or {"id": "id", "name": "name"}
    return Sketch(
        name=name, table=local_name, key=[_guessed_key(list(columns))], columns=columns, fields=fields, remarks=remarks
    )


def _is_required(column: Mapping[str, Any]) -> bool:
    has_value = column.get("default") is not None or column.get("identity") or column.get("autoincrement") is True
    return not column["nullable"] and not has_value


def _unique_keys(reflected: ReflectedTable, order: Sequence[str]) -> list[list[str]]:
    """Lists natural keys before a bare serial number, few columns before many."""
    keys = [sorted(key, key=order.index) for key in reflected.unique_keys if key and key <= set(order)]
    keys = [key for key in keys if not set(key) & reflected.case_insensitive]
    if not keys:
        raise ConfigurationError(
            f"nothing identifies the records of {reflected.label!r}; give it a primary key or a unique index on the "
            f"columns that do: CREATE UNIQUE INDEX {reflected.table.name}_key ON {reflected.label} (...)"
        )
    return sorted(keys, key=lambda key: (key == [_SERIAL], len(key), key))


def _mapped(table: LocalTable, key: Sequence[str], fields: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Maps columns to fields, and remarks what the reader should know about the rest."""
    by_plain = {_plain(field): field for field in reversed(list(fields))}
    columns: dict[str, str] = {}
    left: list[Column] = []
    for column in table.columns:
        match = by_plain.get(_plain(column.name)) if fields else column.name
        if column.name in key:
            columns[column.name] = match or column.name
        elif match is None or (column.name == _SERIAL and not fields):
            left.append(column)
        else:
            columns[column.name] = match
    return columns, _remarks(table, key, fields, columns, left)


def _remarks(
    table: LocalTable, key: Sequence[str], fields: Mapping[str, str], columns: Mapping[str, str], left: Sequence[Column]
) -> list[str]:
    remarks: list[str] = []
    if needed := [column.name for column in left if column.required]:
        remarks.append(f"New records need a value for these columns too: {', '.join(needed)}.")
    if others := [column.name for column in left if not column.required]:
        remarks.append(f"Columns that are left alone: {', '.join(others)}.")
    if fields and (unknown := [columns[each] for each in key if columns[each] not in fields]):
        remarks.append(f"The sample has no field for the key: {', '.join(unknown)} is a guess.")
    if unused := [each for each in fields if each not in columns.values()]:
        remarks.append(f"Fields of the item that no column has a name for: {', '.join(unused)}.")
    if len(table.unique_keys) > 1:
        other_keys = "; ".join(", ".join(each) for each in table.unique_keys if each != key)
        remarks.append(f"Other columns that identify a record: {other_keys}.")
    return remarks


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _annotations(items: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Derives field -> annotation from all sample items."""
    names = dict.fromkeys(name for item in items for name in item)
    return {name: _annotation([item[name] for item in items if name in item], len(items)) for name in names}


def _annotation(values: Sequence[Any], items: int) -> str:
    kinds = dict.fromkeys(_TYPES[type(value)] for value in values if value is not None)
    if {"int", "float"} <= set(kinds):
        del kinds["int"]
    types = [*kinds] if kinds else ["Any"]
    if len(values) > sum(value is not None for value in values) and kinds:
        types.append("None")
    annotation = " | ".join(types)
    return annotation if len(values) == items else f"NotRequired[{annotation}]"


def _guessed_key(fields: Sequence[str]) -> str:
    plain = {_plain(field): field for field in reversed(fields)}
    for name in _ID_FIELDS:
        if field_name := plain.get(_plain(name)):
            return field_name
    return next((field for field in fields if _plain(field).endswith("id")), fields[0])
