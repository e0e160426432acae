"""CSV and Parquet files as sources: streamed page by page, so that memory does not grow with the file."""

from __future__ import annotations

import codecs
import csv
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import SEEK_END
from pathlib import Path
from typing import IO, Any, ClassVar

from sync_pipelines.engine.completeness import Reading, reading_source
from sync_pipelines.engine.pages import batches
from sync_pipelines.errors import ConfigurationError, FetchError, ItemError
from sync_pipelines.sources.arrow_values import rows_of_batch
from sync_pipelines.sources.pages import PAGE_SIZE, Fetch, Page, check_page_size

MAX_FIELD_CHARS = 10_000_000
"""Characters in one value of a CSV file unless somebody says otherwise."""
_MOST_CHARS = 2**31 - 1
_BLOCK_BYTES = 1 << 20
_TAIL_BYTES = 8  # of even length: in UTF-16 a character is two bytes
_SHOWN_CHARACTERS = 80
# What a converter raises about a value; anything else is a defect of the converter and stops the fetch.
_CONVERSION_ERRORS = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError)


def csv_file(  # noqa: PLR0913 - keyword options of a file format, each with a default
    path: str | Path,
    *,
    columns: Mapping[str, Callable[[str], Any]] | None = None,
    empty_as_none: bool = False,
    delimiter: str = ",",
    quotechar: str | None = '"',
    encoding: str = "utf-8-sig",
    line_break_at_end: bool = False,
    page_size: int = PAGE_SIZE,
    max_field_chars: int = MAX_FIELD_CHARS,
) -> Fetch:
    """Makes a source of a CSV file whose first line names the columns: `fetch_external=csv_file("stock.csv")`.

    Values are text exactly as written: "007" stays "007" and " 5" keeps its space. Empty lines are left out.

    Where a converter refuses a value, the field holds an `ItemError` that names file, line and value. That item then
    fails with its external id and the others go on. The raw text in its place would do the same for a typed column of
    a target, but a text column, or a `create` of yours, might store it unseen.

    Nothing is read and the file need not exist until a sync fetches. A relative path follows the current directory.

    Args:
        path: The file.
        columns: Column -> converter of its text, e.g. `{"quantity": int, "price": Decimal}`. All columns are read;
            those not named here stay text.
        empty_as_none: True to make None of each value without a character; converters do not see it then.
        delimiter: One character between values; ";" and a tab are common.
        quotechar: One character around values that contain the delimiter or a line break; None if quotes mean nothing.
        encoding: A Python codec. The default reads UTF-8 with and without a byte order mark; Excel's older files want
            "cp1252".
        line_break_at_end: True if whoever writes the file ends its last line too, as nearly all programs do: then one
            without is an error. A file that is cut off within its last value looks whole otherwise.
        page_size: Items in a page.
        max_field_chars: Characters in one value at most: where a quote is left open, the rest of the file is one value.

    Returns:
        A callable without arguments that streams pages of dicts. While it is iterated it raises `FetchError`, naming
        file and line, for a missing or unreadable file, a missing header, two columns of one name, a line with too many
        or too few values, a value that is too long, broken quotes and undecodable bytes; `ConfigurationError` for a
        converter of a column that the file lacks.

    Raises:
        ConfigurationError: An option is not valid.
    """
    check_page_size(page_size)
    _check_one_character("delimiter", delimiter)
    if quotechar is not None:
        _check_one_character("quotechar", quotechar)
    if delimiter == quotechar:
        raise ConfigurationError(f"csv_file: {delimiter!r} can't be both delimiter and quotechar")
    try:
        "".encode(encoding)
    except (LookupError, TypeError) as error:
        raise ConfigurationError(f"csv_file(encoding={encoding!r}): Python has no such text encoding") from error
    if type(max_field_chars) is not int or not 1 <= max_field_chars <= _MOST_CHARS:
        raise ConfigurationError(f"csv_file(max_field_chars={max_field_chars!r}): give a whole number from 1")
    for column, convert in (columns or {}).items():
        if not callable(convert):
            raise ConfigurationError(f"csv_file(columns=...): the converter of {column!r} is {convert!r}, not callable")
    options = (empty_as_none, delimiter, quotechar, encoding, line_break_at_end, page_size, max_field_chars)
    return _CsvFile(Path(path), dict(columns or {}), *options)


def parquet_file(path: str | Path, *, columns: Sequence[str] | None = None, page_size: int = PAGE_SIZE) -> Fetch:
    """Makes a source of a Parquet file: `fetch_external=parquet_file("stock.parquet")`.

    Values have their exact types: decimals are `Decimal`, times with a zone are aware, bytes are bytes, lists and
    structs are lists and dicts, maps are lists of pairs, dictionary-encoded values are the values. Nanoseconds, which
    Python's times lack, are cut off.

    Where Python can't hold a value, such as a year after 9999 or text that is not UTF-8, the field holds an `ItemError`
    that names file, row and column. That item then fails with its external id and the others go on.

    Nothing is read and the file need not exist until a sync fetches. A relative path follows the current directory.

    Args:
        path: The file.
        columns: Names of the columns to read; all by default.
        page_size: Items in a page.

    Returns:
        A callable without arguments that streams pages of dicts. While it is iterated it raises `FetchError`, naming
        the file, if that is missing, broken or has two columns of one name; `ConfigurationError` if it lacks a column.

    Raises:
        ConfigurationError: An option is not valid.
    """
    check_page_size(page_size)
    if isinstance(columns, str):
        raise ConfigurationError(f"parquet_file(columns={columns!r}): give a list of names")
    return _ParquetFile(Path(path), None if columns is None else tuple(columns), page_size)


@dataclass(frozen=True, slots=True)
class _CsvFile:
    source_kind: ClassVar[str] = "csv"
    path: Path
    converters: Mapping[str, Callable[[str], Any]]
    empty_as_none: bool
    delimiter: str
    quotechar: str | None
    encoding: str
    line_break_at_end: bool
    page_size: int
    max_field_chars: int

    def __call__(self) -> Iterator[Page]:
        # Python has one limit for all readers of the process; what is within it is held against our own.
        csv.field_size_limit(max(csv.field_size_limit(), self.max_field_chars))
        with (
            reading_source(str(self.path)) as said,
            reading(self.path),
            self.path.open(encoding=self.encoding, newline="") as file,
            unchanged(file, said),
        ):
            self._check_last_line()
            reader = csv.reader(
                file,
                delimiter=self.delimiter,
                quotechar=self.quotechar,
                quoting=csv.QUOTE_MINIMAL if self.quotechar else csv.QUOTE_NONE,
                strict=True,
            )
            records = _Records(self.path, self.encoding, reader, self.max_field_chars)
            names = self._checked_header(records)
            items = (self._item(names, values, f"{self.path}, line {records.line}") for values in records)
            yield from batches(items, self.page_size)

    def _check_last_line(self) -> None:
        """Refuses a file that was cut off within its last line, as far as one can see that."""
        if not self.line_break_at_end:
            return
        with self.path.open("rb") as file:
            file.seek(max(0, file.seek(0, SEEK_END) - _TAIL_BYTES))
            tail = file.read().decode(self.encoding, "ignore")
        if tail and not tail.endswith(("\n", "\r")):
            raise FetchError(
                f"{self.path} has no line break at its end: it was cut off, or is still being written; if it is whole, "
                "leave out csv_file(line_break_at_end=True)"
            )

    def _checked_header(self, records: _Records) -> list[str]:
        names = next(records, None)
        if names is None:
            raise FetchError(f"{self.path} is empty: its first line must name the columns")
        if nameless := [str(number) for number, name in enumerate(names, 1) if not name.strip()]:
            raise FetchError(
                f"{self.path}, line {records.line}: column {', '.join(nameless)} of the header has no name"
            )
        if repeated := _repeated(names):
            raise FetchError(f"{self.path}, line {records.line}: the header names {_listed(repeated)} more than once")
        if missing := [column for column in self.converters if column not in names]:
            raise ConfigurationError(
                f"csv_file(columns=...) converts {_listed(missing)}, but the header of {self.path} has {_listed(names)}"
            )
        records.header = names
        return names

    def _item(self, names: list[str], values: list[str], place: str) -> dict[str, Any]:
        item: dict[str, Any] = dict(zip(names, values, strict=True))
        if self.empty_as_none:
            item = {name: value or None for name, value in item.items()}
        for name, convert in self.converters.items():
            if item[name] is not None:
                item[name] = _converted(convert, item[name], f"{place}: {name}")
        return item


@dataclass(slots=True)
class _Records:
    """The records of a CSV file that are as long as its header; empty lines are left out."""

    path: Path
    encoding: str
    reader: Any
    max_field_chars: int
    header: list[str] = field(default_factory=list)
    line: int = 0

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        values = self._read()
        while not values:
            values = self._read()
        if self.header and len(values) != len(self.header):
            raise FetchError(
                f"{self.path}, line {self.line}: {len(values)} values where the header has {len(self.header)} columns "
                f"({_listed(self.header)}); a value with a delimiter or a line break needs quotes"
            )
        return values

    def _read(self) -> list[str]:
        # A record with quoted line breaks ends further down; people look for where it starts.
        self.line = self.reader.line_num + 1
        try:
            values: list[str] = next(self.reader)
        except csv.Error as error:
            raise (
                self._too_long()
                if "field limit" in str(error)
                else FetchError(f"{self.path}, line {self.line}: {error}")
            ) from error
        except UnicodeError as error:
            line = _undecodable_line(self.path, self.encoding)
            raise FetchError(
                f"{self.path}, line {line}: not {self.encoding}, give csv_file(encoding=...): {error}"
            ) from error
        if max(map(len, values), default=0) > self.max_field_chars:
            raise self._too_long()
        return values

    def _too_long(self) -> FetchError:
        return FetchError(
            f"{self.path}, line {self.line}: a value has more than {self.max_field_chars:,} characters; is a quote "
            "left open there? If such values are right, give csv_file(max_field_chars=...)"
        )


def _undecodable_line(path: Path, encoding: str) -> int:
    """Finds the line of the first bytes that do not decode: text is decoded in blocks, far ahead of the reader."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            state = decoder.getstate()
            try:
                line += decoder.decode(block).count("\n")
            except UnicodeError:
                decoder.setstate(state)
                return line + _line_breaks_before_error(decoder, block)
    return line


def _line_breaks_before_error(decoder: codecs.IncrementalDecoder, block: bytes) -> int:
    # Byte by byte: a decoder that fails does not say what it had decoded before.
    count = 0
    for number in range(len(block)):
        try:
            count += decoder.decode(block[number : number + 1]).count("\n")
        except UnicodeError:
            break
    return count


def _converted(convert: Callable[[str], Any], text: str, place: str) -> Any:
    try:
        return convert(text)
    except _CONVERSION_ERRORS as error:
        shown = repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")
        name = getattr(convert, "__name__", repr(convert))
        return ItemError(f"{place} is {shown}, which {name} does not convert ({type(error).__name__}: {error})")


@dataclass(frozen=True, slots=True)
class _ParquetFile:
    source_kind: ClassVar[str] = "parquet"
    path: Path
    columns: tuple[str, ...] | None
    page_size: int

    def __call__(self) -> Iterator[Page]:
        import pyarrow as pa  # noqa: PLC0415 - a job that reads a CSV file should not wait for it
        import pyarrow.parquet as pq  # noqa: PLC0415 - as above

        with (
            reading_source(str(self.path)) as said,
            reading(self.path, pa.ArrowException),
            # Either option alone would hold a whole row group, and writers make a million rows one group.
            # The times of older writers, in nanoseconds, would turn the year 9999 into 1816 without a word.
            pq.ParquetFile(
                self.path, buffer_size=_BLOCK_BYTES, pre_buffer=False, coerce_int96_timestamp_unit="us"
            ) as file,
        ):
            names = self._checked_names(file.schema_arrow.names)
            first = 1
            for batch in file.iter_batches(batch_size=self.page_size, columns=names):
                yield rows_of_batch(batch, names, lambda row, first=first: f"{self.path}, row {first + row}")  # type: ignore[misc]
                first += len(batch)
            said.ended("the file's end")

    def _checked_names(self, present: list[str]) -> list[str]:
        if repeated := _repeated(present):
            raise FetchError(f"{self.path} has more than one column called {_listed(repeated)}")
        names = present if self.columns is None else list(self.columns)
        if missing := [name for name in names if name not in present]:
            raise ConfigurationError(
                f"parquet_file(columns=...) wants {_listed(missing)}, but {self.path} has {_listed(present)}"
            )
        return names


@contextmanager
def unchanged(file: IO[Any], said: Reading) -> Iterator[None]:
    """Says that the file was read to its end; leaves a doubt if somebody wrote to it meanwhile."""
    before = os.fstat(file.fileno())
    yield
    after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        said.doubt("the file was written to while it was read; let it appear under its name once it is whole")
    said.ended("the file's end")


@contextmanager
def reading(path: Path, *also: type[Exception]) -> Iterator[None]:
    """Names the file in whatever the operating system, or the reader of the format, has to say about it."""
    errors: tuple[type[Exception], ...] = (OSError, *also)
    try:
        yield
    except FileNotFoundError as error:
        raise FetchError(f"{path} does not exist (looked for it at {path.absolute()})") from error
    except errors as error:
        raise FetchError(f"{path} can't be read: {error}") from error


def _check_one_character(option: str, value: object) -> None:
    if not isinstance(value, str) or len(value) != 1 or value in "\r\n":
        raise ConfigurationError(f"csv_file({option}={value!r}): give one character")


def _repeated(names: list[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
