"""Parquet files written page by page: complete only when they have their name, read back in the same pages."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from sync_pipelines.errors import ConfigurationError, RunError

_SUMMARY = b"sync_pipelines.summary"
Row = tuple[Any, ...]


class PageWriter:
    """Writes pages of rows to a Parquet file that appears under its name only when it is complete.

    Args:
        path: Where the file is to be.
        schema: Its columns.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.rows = 0
        self._schema = schema
        self._unfinished = path.with_name(path.name + ".part")
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        """Begins the file, over one that an earlier attempt left unfinished."""
        _make_folder(self.path.parent)
        self._writer = pq.ParquetWriter(self._unfinished, self._schema, compression="zstd", compression_level=1)
        return self

    def write(self, rows: Sequence[Row]) -> None:
        """Writes one page (a row group of its own). No rows, no page."""
        if not rows:
            return
        if self._writer is None:
            raise RunError(f"{self.path.name} is not open")
        columns = list(zip(*rows, strict=True))
        arrays = [pa.array(column, type=each.type) for column, each in zip(columns, self._schema, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self.rows += len(rows)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Completes the file with a summary and gives it its name, durably."""
        if self._writer is None:
            raise RunError(f"{self.path.name} is not open")
        self._writer.add_key_value_metadata({_SUMMARY: json.dumps(summary).encode()})
        self._writer.close()
        self._writer = None
        _make_durable(self._unfinished)
        self._unfinished.replace(self.path)
        _make_durable(self.path.parent)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Removes what was not finished."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._unfinished.unlink(missing_ok=True)


def read_pages(path: Path, columns: Sequence[str] | None = None) -> Iterator[list[Row]]:
    """Yields the pages of a complete file, each a list of rows, one page in memory at a time.

    Raises:
        RunError: The file is not there (any more).
    """
    with _open(path) as file:
        for number in range(file.num_row_groups):
            table = file.read_row_group(number, columns=list(columns) if columns else None)
            yield list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def read_summary(path: Path) -> dict[str, Any]:
    """The summary that `finish` was given.

    Raises:
        RunError: The file is not there (any more).
    """
    with _open(path) as file:
        found = (file.metadata.metadata or {}).get(_SUMMARY, b"{}")
    summary: dict[str, Any] = json.loads(found)
    return summary


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise RunError(
            f"{path.name} of run {path.parent.name} is not in the snapshot store; it was cleaned up, or this process "
            "has another data folder (SYNC_PIPELINES_DATA_DIR). Start a new run instead of re-executing this one."
        ) from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"the snapshot folder {folder} can't be made: {error.strerror}. Check SYNC_PIPELINES_DATA_DIR."
        ) from error


def _make_durable(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
