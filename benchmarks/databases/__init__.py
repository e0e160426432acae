"""The databases that are measured: each puts its table into a scenario's starting state and says what it holds."""

from __future__ import annotations

from typing import Protocol

from benchmarks.tables import State
from benchmarks.work import Work


class Place(Protocol):
    """A database of the benchmark's own."""

    @property
    def name(self) -> str:
        """`postgresql` or `sqlite`."""

    @property
    def url(self) -> str:
        """As a user writes it."""

    @property
    def version(self) -> str:
        """Of the server or the library."""

    def prepare(self, work: Work, extra_columns: tuple[str, ...] = ()) -> None:
        """Puts the table into the starting state and everything to rest; what other contestants left is gone."""

    def state(self, work: Work) -> State:
        """What the table holds now."""
