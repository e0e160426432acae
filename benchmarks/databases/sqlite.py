"""A SQLite file. Its starting state is a copy of a template file."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from benchmarks.tables import TABLE, WARM_UP, State, sqlite_ddl, sqlite_row, state_of
from benchmarks.work import COLUMNS, Work

_NAMES = ", ".join(COLUMNS)
_PREFIX = "sqlite:///"


def file_of(url: str) -> str:
    """The path in a URL."""
    return url.removeprefix(_PREFIX)


class SqlitePlace:
    """A file in a folder of the benchmark's own.

    Args:
        folder: Where the templates and the file are.
    """

    name = "sqlite"
    version = sqlite3.sqlite_version

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._file = folder / "run.sqlite"

    @property
    def url(self) -> str:
        """As a user writes it."""
        return f"{_PREFIX}{self._file}"

    def prepare(self, work: Work, extra_columns: tuple[str, ...] = ()) -> None:
        """Copies the template, which is made when it is first needed."""
        if extra_columns:
            raise NotImplementedError(f"no contestant on SQLite needs columns of its own: {extra_columns}")
        for left in self._folder.glob("run.sqlite*"):
            left.unlink()
        shutil.copyfile(self._template(work), self._file)
        with self._file.open("rb") as copied:
            os.fsync(copied.fileno())

    def state(self, work: Work) -> State:
        """Reads every row."""
        with closing(sqlite3.connect(self._file)) as connection:
            found = state_of(connection.execute(f"SELECT {_NAMES} FROM {TABLE}"))
            connection.execute("ATTACH ? AS template", (str(self._template(work)),))
            (moved,) = connection.execute(
                f"SELECT count(*) FROM {TABLE} v JOIN template.{TABLE} t ON t.sku = v.sku WHERE t.id <> v.id"
            ).fetchone()
        return replace(found, moved=moved)

    def _template(self, work: Work) -> Path:
        template = self._folder / f"template-{work.local_rows}.sqlite"
        if not template.exists():
            marks = ", ".join("?" for _ in COLUMNS)
            with closing(sqlite3.connect(template)) as connection, connection:
                for table in (TABLE, WARM_UP):
                    connection.execute(sqlite_ddl(table))
                rows = map(sqlite_row, work.local_items())
                connection.executemany(f"INSERT INTO {TABLE} ({_NAMES}) VALUES ({marks})", rows)
                connection.execute("ANALYZE")
        return template
