"""Sources declared in YAML: each kind has the options of the Python name that it stands for."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from pydantic import Field

from sync_pipelines.component.choices import Choice
from sync_pipelines.component.places import within
from sync_pipelines.component.references import function_at, object_at
from sync_pipelines.component.rest import RestDeclaration
from sync_pipelines.component.templates import Declaration, Templated
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.sources.dlt import dlt_resource
from sync_pipelines.sources.files import MAX_FIELD_CHARS, csv_file, parquet_file
from sync_pipelines.sources.json_lines import json_lines
from sync_pipelines.sources.pages import PAGE_SIZE
from sync_pipelines.sources.sql_query import sql_query


def truth_value(text: str) -> bool:
    """Reads `true` and `false`, in small letters or capitals, and `1` and `0`.

    Raises:
        ValueError: The text is none of them.
    """
    values = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in values:
        raise ValueError(f"{text!r} is neither true nor false")
    return values[text.lower()]


CONVERTERS: dict[str, Callable[[str], Any]] = {
    "text": str,
    "integer": int,
    "decimal": Decimal,
    "float": float,
    "boolean": truth_value,
    "date": date.fromisoformat,
    "datetime": datetime.fromisoformat,
}
"""What the columns of a CSV file can be converted to by a word; any other is the dotted name of a function."""


class SqlDeclaration(Declaration):
    """The rows of a query, as `sql_query` reads them."""

    query: Templated[str]
    """SQL with parameters as `:name`."""
    database: Templated[str | None] = Field(default=None, repr=False)
    """A URL; by default the configured database of local records."""
    parameters: Templated[dict[str, Any] | None] = Field(default=None, repr=False)
    """Values for the query's `:names`."""
    page_size: Templated[int] = PAGE_SIZE
    """Rows in a page."""

    def build(self) -> Any:
        """Builds the source."""
        return self.make(sql_query, self.named())


class CsvDeclaration(Declaration):
    """A CSV file whose first line names the columns, as `csv_file` reads it."""

    path: Templated[str]
    """The file; a relative path follows the current directory."""
    columns: Templated[dict[str, Any] | None] = None
    """Column -> what it is converted to: text, integer, decimal, float, boolean, date, datetime, or a dotted name."""
    empty_as_none: Templated[bool] = False
    """True to make nothing of each value without a character."""
    delimiter: Templated[str] = ","
    """One character between values."""
    quotechar: Templated[str | None] = '"'
    """One character around values that contain the delimiter or a line break."""
    encoding: Templated[str] = "utf-8-sig"
    """A Python codec."""
    line_break_at_end: Templated[bool] = False
    """True if the last line ends, too: then a file without is refused."""
    page_size: Templated[int] = PAGE_SIZE
    """Items in a page."""
    max_field_chars: Templated[int] = MAX_FIELD_CHARS
    """Characters in one value at most."""

    def build(self) -> Any:
        """Builds the source."""
        options = self.named()
        if options.get("columns"):
            options["columns"] = {name: _converter(name, kind) for name, kind in options["columns"].items()}
        return self.make(csv_file, options)


def _converter(column: str, kind: Any) -> Any:
    with within("columns", column):
        if isinstance(kind, str) and "." not in kind and kind not in CONVERTERS:
            words = ", ".join(CONVERTERS)
            raise ConfigurationError(f"{kind!r} is no type; give {words}, or a dotted name such as 'my_project.price'")
        return CONVERTERS[kind] if isinstance(kind, str) and kind in CONVERTERS else function_at(kind)


class ParquetDeclaration(Declaration):
    """A Parquet file, as `parquet_file` reads it."""

    path: Templated[str]
    """The file; a relative path follows the current directory."""
    columns: Templated[list[str] | None] = None
    """Names of the columns to read; all by default."""
    page_size: Templated[int] = PAGE_SIZE
    """Items in a page."""

    def build(self) -> Any:
        """Builds the source."""
        return self.make(parquet_file, self.named())


class JsonLinesDeclaration(Declaration):
    """A file with a JSON object in each line, plain or gzipped, as `json_lines` reads it."""

    path: Templated[str]
    """The file; a relative path follows the current directory."""
    encoding: Templated[str] = "utf-8"
    """A Python codec."""
    decimals: Templated[bool] = True
    """True for numbers with a point as decimals with all their digits."""
    page_size: Templated[int] = PAGE_SIZE
    """Items in a page."""

    def build(self) -> Any:
        """Builds the source."""
        return self.make(json_lines, self.named())


class DltDeclaration(Declaration):
    """A dlt resource, as `dlt_resource` reads it."""

    resource: Any
    """Dotted name of a function that gives the resource or source, called at each fetch, or of a resource."""
    arguments: Templated[dict[str, Any]] = Field(default_factory=dict, repr=False)
    """What the function is called with. Secrets dlt finds itself, in its own configuration."""
    with_resources: Templated[str | None] = None
    """The one resource of a source that is read."""
    page_size: Templated[int] = PAGE_SIZE
    """Items in a page."""

    def build(self) -> Any:
        """Builds the source."""
        with within("resource"):
            resource = object_at(self.resource) if isinstance(self.resource, str) else self.resource
        if self.arguments or self.with_resources is not None:
            resource = _DltCall(resource, self.arguments, self.with_resources)
        return self.make(dlt_resource, {"resource": resource, "page_size": self.page_size})


@dataclass(frozen=True, slots=True)
class _DltCall:
    """Gives the dlt resource of one fetch."""

    made_by: Any
    arguments: dict[str, Any] = field(repr=False)
    selected: str | None

    def __call__(self) -> Any:
        made = self.made_by(**self.arguments) if callable(self.made_by) else self.made_by
        return made if self.selected is None else made.with_resources(self.selected)


class SourceChoice(Choice):
    """What is fetched."""

    noun = "kind of source"

    rest: RestDeclaration | None = None
    sql: SqlDeclaration | None = None
    csv: CsvDeclaration | None = None
    parquet: ParquetDeclaration | None = None
    json_lines: JsonLinesDeclaration | None = None
    dlt: DltDeclaration | None = None
    function: Any = None
    """Dotted name of a function of your own that gives items or pages."""

    def build(self) -> Any:
        """Builds what `SyncJob(fetch_external=...)` takes."""
        kind, options = self.chosen
        with within(kind):
            return function_at(options) if kind == "function" else options.build()
