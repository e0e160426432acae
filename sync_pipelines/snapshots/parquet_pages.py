"""Parquet files written page by page: a page is a row group, and a file has its name once it is complete."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from sync_pipelines.errors import RunError
from sync_pipelines.snapshots.durable_files import give_name, is_local, make_file, make_folder, missing_file

_SUMMARY = b"sync_pipelines.summary"
Row = tuple[Any, ...]


class PageWriter:
    """Writes pages of rows to a Parquet file that appears under its name only when it is complete."""

    def __init__(self, path: UPath, schema: pa.Schema) -> None:
        self.path = path
        self.rows = 0
        self._schema = schema
        self._unfinished = path.with_name(path.name + ".part")
        self._writer: pq.ParquetWriter | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Begins the file, over one that an earlier attempt left unfinished."""
        make_folder(self.path.parent)
        with self._explaining_failures():
            make_file(self._unfinished)
        where = str(self._unfinished) if is_local(self._unfinished) else self._unfinished.open("wb")
        if not isinstance(where, str):
            self._stack.enter_context(where)
        self._writer = pq.ParquetWriter(
            where,
            self._schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=False,  # zstd finds what repeats, in half the time
            write_statistics=["position"],  # by which pages are found again
        )
        return self

    def write(self, rows: Sequence[Row]) -> None:
        """Writes one page (a row group of its own). No rows, no page."""
        if not rows:
            return
        columns = list(zip(*rows, strict=True))
        arrays = [pa.array(column, type=field.type) for column, field in zip(columns, self._schema, strict=True)]
        self.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def write_table(self, table: pa.Table) -> None:
        """Writes one page that is a table of the file's columns."""
        writer = self._open_writer()
        with self._explaining_failures():
            writer.write_table(table)
        self.rows += len(table)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Completes the file with a summary and gives it its name, durably."""
        writer = self._open_writer()
        writer.add_key_value_metadata({_SUMMARY: json.dumps(summary).encode()})
        with self._explaining_failures():
            writer.close()
            self._stack.close()
            give_name(self._unfinished, self.path)
        self._writer = None

    @contextmanager
    def _explaining_failures(self) -> Iterator[None]:
        """Says what to do when there is no room, or no right to write."""
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{self.path.name} of run {self.path.parent.name} can't be written to {self.path.parent.parent}: "
                f"{error.strerror or error}. Run the sync again when it can; SYNC_PIPELINES_DATA_DIR and "
                "SYNC_PIPELINES_SNAPSHOT_URL say where it is."
            ) from error

    def _open_writer(self) -> pq.ParquetWriter:
        if self._writer is None:
            raise RunError(f"{self.path.name} is not open")
        return self._writer

    def __exit__(self, *_error: object) -> None:
        """Removes what was not finished, whatever state it is in; the error that led here is the one to report."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            for tidy_up in (writer.close, self._stack.close, self._unfinished.unlink):
                with suppress(Exception):
                    tidy_up()


def read_pages(path: UPath, columns: Sequence[str] | None = None) -> Iterator[list[Row]]:
    """Yields the pages of a complete file, each a list of rows, one page in memory at a time."""
    with open_parquet(path) as file:
        for number in range(file.num_row_groups):
            table = file.read_row_group(number, columns=list(columns) if columns else None)
            yield list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def read_summary(path: UPath) -> dict[str, Any]:
    """Returns the summary that the file was finished with."""
    with open_parquet(path) as file:
        return summary_of(file)


def read_rows(path: UPath) -> int:
    """Returns how many rows a complete file has."""
    with open_parquet(path) as file:
        return int(file.metadata.num_rows)


def summary_of(file: pq.ParquetFile) -> dict[str, Any]:
    """Returns the summary of an opened file."""
    summary: dict[str, Any] = json.loads((file.metadata.metadata or {}).get(_SUMMARY, b"{}"))
    return summary


@contextmanager
def open_parquet(path: UPath) -> Iterator[pq.ParquetFile]:
    """Opens a complete file.

    Raises:
        RunError: The file is not there (any more).
    """
    with ExitStack() as stack:
        try:
            where = str(path) if is_local(path) else stack.enter_context(path.open("rb"))
            file = stack.enter_context(pq.ParquetFile(where))
        except FileNotFoundError as error:
            raise missing_file(path) from error
        yield file
