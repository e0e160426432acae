"""The progress that a run reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Args:
        phase: `fetch`, `diff` or `apply`.
        fetched: Items taken from the source so far.
        done: Items (in `apply`: writes) that this phase has dealt with.
        total: How many there will be, None while that is unknown.
    """

    phase: str
    fetched: int
    done: int
    total: int | None = None


OnProgress = Callable[[Progress], object]
