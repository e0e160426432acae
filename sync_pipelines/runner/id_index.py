"""Which external ids a fetch had, and where: on disk, so that memory does not grow with their number."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_LOOKUP = 500


class IdIndex:
    """External id -> place of the last item that has it.

    Args:
        path: A working file; an old one is overwritten, and it is removed at the end.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        """Begins an empty index."""
        self._path.unlink(missing_ok=True)
        self._connection = sqlite3.connect(self._path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute("CREATE TABLE seen (id TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID")
        return self

    def add(self, ids: Iterable[tuple[str, int]]) -> None:
        """Notes ids with their positions; the later position of an id wins."""
        self._connection.execute("BEGIN")
        self._connection.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?)", ids)
        self._connection.execute("COMMIT")

    def positions(self, ids: Sequence[str]) -> dict[str, int]:
        """The last position of each id that is in the index."""
        found: dict[str, int] = {}
        for start in range(0, len(ids), _LOOKUP):
            part = ids[start : start + _LOOKUP]
            marks = ", ".join("?" * len(part))
            query = f"SELECT id, position FROM seen WHERE id IN ({marks})"  # noqa: S608 - only question marks
            found.update(self._connection.execute(query, part))
        return found

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Removes the index."""
        self._connection.close()
        self._path.unlink(missing_ok=True)
