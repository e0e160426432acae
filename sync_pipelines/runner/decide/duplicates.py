"""Indexes the external ids of a fetch on disk, so that memory does not grow with their number."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sync_pipelines.engine.versions import Version, supersedes

_LOOKUP = 500


class DuplicateIndex:
    """Knows for each external id the place of the item that counts.

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
        self._connection.execute(
            "CREATE TABLE seen (id TEXT PRIMARY KEY, position INTEGER NOT NULL, version TEXT) WITHOUT ROWID"
        )
        return self

    def add(self, ids: Iterable[tuple[str, int]]) -> None:
        """Adds ids with their positions, the later ones last: without versions, the later position of an id counts."""
        self._connection.execute("BEGIN")
        self._connection.executemany("INSERT OR REPLACE INTO seen (id, position) VALUES (?, ?)", ids)
        self._connection.execute("COMMIT")

    def add_versions(self, ids: Sequence[tuple[str, int, Version | None]]) -> None:
        """Adds ids with their positions, the later ones last, and their versions."""
        counting: dict[str, tuple[int, str | None]] = dict(self._versions([each[0] for each in ids]))
        for external_id, position, version in ids:
            known = counting.get(external_id)
            before = Version.from_text(known[1]) if known is not None and known[1] is not None else None
            if supersedes(version, before):
                counting[external_id] = (position, version.text if version is not None else None)
        self._connection.execute("BEGIN")
        rows = ((external_id, *place) for external_id, place in counting.items())
        self._connection.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", rows)
        self._connection.execute("COMMIT")

    def _versions(self, ids: Sequence[str]) -> Iterator[tuple[str, tuple[int, str | None]]]:
        for row in self._select("id, position, version", ids):
            yield row[0], (row[1], row[2])

    def positions(self, ids: Sequence[str]) -> dict[str, int]:
        """Returns the position that counts of each id that is in the index."""
        return dict(self._select("id, position", ids))

    def _select(self, columns: str, ids: Sequence[str]) -> Iterator[Any]:
        for start in range(0, len(ids), _LOOKUP):
            part = ids[start : start + _LOOKUP]
            marks = ", ".join("?" * len(part))
            yield from self._connection.execute(f"SELECT {columns} FROM seen WHERE id IN ({marks})", part)  # noqa: S608 - only our words and question marks

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Removes the index."""
        self._connection.close()
        self._path.unlink(missing_ok=True)
