"""The text of a new job file, from a sketch of the sync. Pure: it reads and writes nothing."""

from __future__ import annotations

import keyword
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sync_pipelines.cli.output import one_line

_WIDTH = 100
_PLAIN_NAME = re.compile(r"[\w.-]+")
_FACADE = ("from sync_pipelines import ConfigurationError, SqlTable, SyncJob",)
_INSIDE = (
    "from sync_pipelines.engine.declaration import SyncJob",
    "from sync_pipelines.errors import ConfigurationError",
    "from sync_pipelines.targets.sql_table import SqlTable",
)
_ADVICE = (
    'Further fields: schedule, e.g. sync_intervals.hours(1); deletes "hard" removes local records that a complete '
    "fetch no longer has; should_skip leaves items alone; on_complete is called with the results; owners, kinds and "
    "tags for Dagster."
)


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """What is known of a sync that is to be written.

    Args:
        key: The columns that identify a local record.
        columns: Local column -> field of the item.
        fields: Field of the item -> its annotation; empty if no item is known.
        remarks: What the reader of the file should know.
        inside: True if the file will lie in this package itself, which does not import its own facade.
    """

    name: str
    table: str
    key: Sequence[str]
    columns: Mapping[str, str]
    fields: Mapping[str, str] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    inside: bool = False


def job_file_text(sketch: Sketch) -> str:
    """Writes the sketch down as a module that declares the sync job."""
    blocks = [_head(sketch), _item_class(sketch), _fetch(sketch), _declaration(sketch)]
    return "\n\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def module_name(job_name: str) -> str:
    """Returns the file's name without its ending: `erp_inventory`."""
    return job_name.replace("-", "_")


def quoted(text: str) -> str:
    """Writes the text as a literal, in the quotes that a formatter would use."""
    literal = repr(text)
    if literal.startswith('"') or '"' in text:
        return literal
    return f'"{literal[1:-1]}"'


def _head(sketch: Sketch) -> list[str]:
    shown = f" into the local table `{sketch.table}`" if _PLAIN_NAME.fullmatch(sketch.table) else ""
    typing_names = "Any, NotRequired, TypedDict" if _has_optional(sketch) else "Any, TypedDict"
    return [
        f'"""The sync `{sketch.name}`: items of an external system{shown}."""',
        "",
        "from collections.abc import Iterator",
        f"from typing import {typing_names if _is_class(sketch) else 'Any'}",
        "",
        *(_INSIDE if sketch.inside else _FACADE),
    ]


def _has_optional(sketch: Sketch) -> bool:
    return any(annotation.startswith("NotRequired[") for annotation in sketch.fields.values())


def _is_class(sketch: Sketch) -> bool:
    """Returns True if the fields' names allow a class."""
    return bool(sketch.fields) and all(
        name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("__") for name in sketch.fields
    )


def _item_type(sketch: Sketch) -> str:
    words = re.split(r"[-_]", sketch.name)
    return "".join(word.capitalize() for word in words) + "Item" if _is_class(sketch) else "dict[str, Any]"


def _item_class(sketch: Sketch) -> list[str]:
    if not _is_class(sketch):
        return []
    fields = [f"    {name}: {annotation}" for name, annotation in sketch.fields.items()]
    docstring = '    """One item as the external system gives it."""'
    return [f"class {_item_type(sketch)}(TypedDict):", docstring, "", *fields]


def _fetch(sketch: Sketch) -> list[str]:
    return [
        f"def fetch() -> Iterator[{_item_type(sketch)}]:",
        '    """Returns all items of the external system."""',
        "    # Ask the external system here, and yield items one by one or in pages (lists, DataFrames) as they come.",
        "    # The function may be async. If it raises half-way, nothing is applied.",
        f'    raise ConfigurationError("fetch is not written yet; write it in {module_name(sketch.name)}.py")',
    ]


def _declaration(sketch: Sketch) -> list[str]:
    key = [quoted(column) for column in sketch.key]
    return [
        f"JOB: SyncJob[{_item_type(sketch)}, Any] = SyncJob(",
        f"    name={quoted(sketch.name)},",
        "    fetch_external=fetch,",
        "    target=SqlTable(",
        f"        table={quoted(sketch.table)},",
        *_comment("The column whose value identifies a record on both sides, or several."),
        f"        key={key[0] if len(key) == 1 else '(' + ', '.join(key) + ')'},",
        *_comment("Local column on the left; on the right the item's field, or a function of the item."),
        "        columns={",
        *(f"            {quoted(column)}: {quoted(source)}," for column, source in sketch.columns.items()),
        "        },",
        *(line for remark in sketch.remarks for line in _comment(remark)),
        "    ),",
        *_comment(_ADVICE, indent=4),
        '    description="What an operator should know about this sync.",',
        ")",
    ]


def _comment(text: str, indent: int = 8) -> list[str]:
    prefix = " " * indent + "# "
    return textwrap.wrap(
        one_line(text), _WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_on_hyphens=False
    )
