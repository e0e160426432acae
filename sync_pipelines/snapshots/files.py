"""Parquet files written page by page: complete only when they have their name, read back in the same pages."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from sync_pipelines.errors import ConfigurationError, RunError

_SUMMARY = b"sync_pipelines.summary"
Row = tuple[Any, ...]


def is_local(path: Path | UPath) -> bool:
    """True for a path of this machine's file system, False for one in an object store."""
    return isinstance(path, Path)


class PageWriter:
    """Writes pages of rows to a Parquet file that appears under its name only when it is complete.

    Args:
        path: Where the file is to be.
        schema: Its columns.
    """

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
        arrays = [pa.array(column, type=each.type) for column, each in zip(columns, self._schema, strict=True)]
        self.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def write_table(self, table: pa.Table) -> None:
        """Writes one page that is a table of the file's columns."""
        writer = self._open_writer()
        with self._told():
            writer.write_table(table)
        self.rows += len(table)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Completes the file with a summary and gives it its name, durably."""
        writer = self._open_writer()
        writer.add_key_value_metadata({_SUMMARY: json.dumps(summary).encode()})
        with self._told():
            writer.close()
            self._stack.close()
            give_name(self._unfinished, self.path)
        self._writer = None

    @contextmanager
    def _told(self) -> Iterator[None]:
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Removes what was not finished, whatever state it is in; the error that led here is the one to be told."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            for tidy_up in (writer.close, self._stack.close, self._unfinished.unlink):
                with suppress(Exception):
                    tidy_up()


def read_pages(path: UPath, columns: Sequence[str] | None = None) -> Iterator[list[Row]]:
    """Yields the pages of a complete file, each a list of rows, one page in memory at a time.

    Raises:
        RunError: The file is not there (any more).
    """
    with open_parquet(path) as file:
        for number in range(file.num_row_groups):
            table = file.read_row_group(number, columns=list(columns) if columns else None)
            yield list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def read_summary(path: UPath) -> dict[str, Any]:
    """The summary that `finish` was given.

    Raises:
        RunError: The file is not there (any more).
    """
    with open_parquet(path) as file:
        return summary_of(file)


def read_rows(path: UPath) -> int:
    """How many rows a complete file has."""
    with open_parquet(path) as file:
        return int(file.metadata.num_rows)


def summary_of(file: pq.ParquetFile) -> dict[str, Any]:
    """The summary of an opened file."""
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


def write_json(path: UPath, form: Mapping[str, Any]) -> None:
    """Writes a small file that appears under its name only when it is complete."""
    make_folder(path.parent)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(json.dumps(form), encoding="utf-8")
    give_name(unfinished, path)


def read_json(path: UPath) -> dict[str, Any]:
    """Reads what `write_json` wrote.

    Raises:
        RunError: The file is not there (any more).
    """
    try:
        form: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise missing_file(path) from error
    return form


def missing_file(path: UPath) -> RunError:
    """What to say when a file of a run is gone."""
    return RunError(
        f"{path.name} of run {path.parent.name} is not in the snapshot store; it was cleaned up, or this process "
        "has another data folder (SYNC_PIPELINES_DATA_DIR). Start a new run instead of re-executing this one."
    )


def make_folder(folder: UPath) -> None:
    """Makes a folder in the snapshot store.

    Raises:
        ConfigurationError: It can't be made.
    """
    _make(folder, f"snapshot folder {folder}", "SYNC_PIPELINES_DATA_DIR and SYNC_PIPELINES_SNAPSHOT_URL")


def make_work_folder(folder: Path) -> None:
    """Makes the local folder of a run's working files.

    Raises:
        ConfigurationError: It can't be made.
    """
    _make(folder, f"folder {folder} of working files", "SYNC_PIPELINES_DATA_DIR")


def _make(folder: Path | UPath, shown: str, settings: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"the {shown} can't be made: {error.strerror or error}. Check {settings}.") from error


def give_name(unfinished: UPath, path: UPath) -> None:
    """Gives a finished file its name, durably; an object store keeps what it has taken."""
    if is_local(path):
        _make_durable(unfinished)
    else:
        with suppress(FileNotFoundError):
            path.unlink()
    unfinished.rename(path)
    if is_local(path):
        _make_durable(path.parent)


def _make_durable(path: UPath) -> None:
    descriptor = os.open(str(path), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
