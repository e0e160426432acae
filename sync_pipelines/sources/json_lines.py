"""JSON lines files as sources: one object a line, streamed, and a bad line fails alone."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast

from sync_pipelines.engine.completeness import reading_source
from sync_pipelines.engine.json_text import Pairs, parse_json
from sync_pipelines.engine.pages import batches
from sync_pipelines.errors import ConfigurationError, ItemError
from sync_pipelines.sources.files import reading, unchanged
from sync_pipelines.sources.pages import PAGE_SIZE, Fetch, Page, check_page_size
from sync_pipelines.sources.unreadable_item import UnreadableItem

_LONGEST_LINE_BYTES = 1 << 26
_LINE_BREAK = b"\n"


def json_lines(
    path: str | Path, *, encoding: str = "utf-8", decimals: bool = True, page_size: int = PAGE_SIZE
) -> Fetch:
    """Makes a source of a JSON lines file, plain or gzipped: `fetch_external=json_lines("stock.jsonl.gz")`.

    Each line is one JSON object and one item; blank lines are left out. A line that can't be read (no JSON, no object,
    an object that has a name twice, undecodable bytes, more than 64 MiB) fails as one item whose message names file and
    line, and the others go on.

    Nothing is read and the file need not exist until a sync fetches. A relative path follows the current directory.

    Args:
        path: The file; with the suffix `.gz` it is unpacked while it is read.
        encoding: A Python codec in which a line break is a single byte. A byte order mark of UTF-8 is left out.
        decimals: True for numbers with a point or an exponent as `Decimal` with all their digits, false for floats.
        page_size: Items in a page.

    Returns:
        A callable without arguments that streams pages of dicts. While it is iterated it raises `FetchError`, naming
        the file, if that is missing, unreadable or its gzip is broken.

    Raises:
        ConfigurationError: An option is not valid.

    Source:
        https://jsonlines.org for the format; RFC 8259 section 4 on names that repeat.
    """
    check_page_size(page_size)
    return _JsonLines(Path(path), _checked_encoding(encoding), decimals, page_size)


def _checked_encoding(encoding: str) -> str:
    try:
        name = codecs.lookup(encoding).name
        one_byte = "\n".encode(name.removesuffix("-sig")) == _LINE_BREAK
    except (LookupError, TypeError) as error:
        raise ConfigurationError(f"json_lines(encoding={encoding!r}): Python has no such text encoding") from error
    if not one_byte:
        raise ConfigurationError(
            f"json_lines(encoding={encoding!r}): a line break is more than one byte there; convert the file to UTF-8"
        )
    return name.removesuffix("-sig")


@dataclass(frozen=True, slots=True)
class _JsonLines:
    source_kind: ClassVar[str] = "json"
    path: Path
    encoding: str
    decimals: bool
    page_size: int

    def __call__(self) -> Iterator[Page]:
        with reading_source(str(self.path)) as said, _opened(self.path) as file, unchanged(file, said):
            yield from batches(self._items(file), self.page_size)

    def _items(self, file: BinaryIO) -> Iterator[dict[str, Any]]:
        for number, line in enumerate(_lines(file), 1):
            text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if text.strip():
                yield self._item(text, f"{self.path}, line {number}")

    def _item(self, line: bytes, place: str) -> dict[str, Any]:
        if len(line) > _LONGEST_LINE_BYTES:
            return UnreadableItem(
                f"{place} is longer than {_LONGEST_LINE_BYTES:,} bytes; is each item on its own line?"
            )
        try:
            text = line.decode(self.encoding)
        except UnicodeError as error:
            return UnreadableItem(f"{place}: not {self.encoding}, give json_lines(encoding=...): {error}")
        try:
            item = parse_json(text, decimals=self.decimals, object_of_pairs=_object_of_pairs)
        except (ValueError, ItemError) as error:
            return UnreadableItem(f"{place}: {error}")
        if not isinstance(item, dict):
            return UnreadableItem(f"{place}: a {type(item).__name__} where each line must be one JSON object")
        return item


def _object_of_pairs(pairs: Pairs) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        repeated = [repr(name) for name, count in Counter(name for name, _ in pairs).items() if count > 1]
        raise ItemError(f"an object has more than one {', '.join(repeated)}")
    return fields


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yields the lines of the file; of one that is too long, only enough to see that."""
    while line := file.readline(_LONGEST_LINE_BYTES + 1):
        rest = line
        while len(rest) > _LONGEST_LINE_BYTES and not rest.endswith(_LINE_BREAK):
            rest = file.readline(_LONGEST_LINE_BYTES + 1)
        yield line


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with reading(path, EOFError, zlib.error), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        yield cast("BinaryIO", file)
