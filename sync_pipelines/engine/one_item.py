"""The one place where whatever goes wrong with one item is caught, so that it never stops the others."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType


class OneItem:
    """Hands on what is raised in its block, which is about one item, instead of letting it end the work on all.

    Args:
        keep: Gets the error, and keeps it as the item's own. What it raises is raised.
        lets_through: Errors that are no item's own, and end the work.
    """

    __slots__ = ("_keep", "_lets_through")

    def __init__(
        self, keep: Callable[[Exception], object], lets_through: tuple[type[Exception], ...] | type[Exception] = ()
    ) -> None:
        self._keep = keep
        self._lets_through = lets_through

    def __enter__(self) -> None:
        """Begins with the item."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Hands the error on; lets through what ends a process, and what the caller wants to see."""
        if not isinstance(error, Exception) or isinstance(error, self._lets_through):
            return False
        self._keep(error)
        return True
