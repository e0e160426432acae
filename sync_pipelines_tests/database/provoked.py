"""What makes a database, or the operating system, really say each of its codes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

Code = TypeVar("Code")
Given = TypeVar("Given")


class Provoked(dict[Code, Callable[[Given], object]], Generic[Code, Given]):
    """Code -> what makes it be said, with what it is given."""

    def by(self, code: Code) -> Callable[[Callable[[Given], object]], Callable[[Given], object]]:
        """Notes a function that makes it be said."""

        def note(provoke: Callable[[Given], object]) -> Callable[[Given], object]:
            self[code] = provoke
            return provoke

        return note


@contextmanager
def waiting(first: Any, carry_out: Callable[[str], object], statement: str, after_s: float) -> Iterator[None]:
    """Has another session carry out a statement meanwhile, which waits for the first one, until that is rolled back."""
    thread = threading.Thread(target=carry_out, args=(statement,))
    thread.start()
    try:
        time.sleep(after_s)
        yield
    finally:
        first.rollback()
        thread.join()
