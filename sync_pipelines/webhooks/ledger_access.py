"""The receiver's way to the ledger: opened when it is first needed, asked with little patience."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack

from sync_pipelines.database.inbox import Depth, Inbox
from sync_pipelines.database.inbox_storing import NewDelivery, Stored
from sync_pipelines.database.inbox_writing import InboxWriter
from sync_pipelines.database.ledger import Ledger, open_ledger
from sync_pipelines.database.migrate import is_current

ANSWERS_WITHIN_S = 5.0


class LedgerAccess:
    """Opens the ledger once; threads may share it.

    Args:
        answers_within_s: How long to wait for its answers.
    """

    def __init__(self, url: str, answers_within_s: float = ANSWERS_WITHIN_S) -> None:
        self._url = url
        self._answers_within_s = answers_within_s
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._ledger: Ledger | None = None
        self._writer: InboxWriter | None = None

    def ledger(self) -> Ledger:
        """Returns the ledger."""
        with self._lock:
            if self._ledger is None:
                opened = open_ledger(self._url, answers_within_s=self._answers_within_s)
                self._ledger = self._stack.enter_context(opened)
            return self._ledger

    def inbox(self) -> Inbox:
        """Returns the inbox."""
        return Inbox(self.ledger())

    def store(self, deliveries: Sequence[NewDelivery]) -> list[Stored]:
        """Stores deliveries in one transaction. For one thread."""
        ledger = self.ledger()
        if self._writer is None:
            self._writer = InboxWriter(ledger)
        return self._writer.store_many(deliveries)

    def depths(self, jobs: Sequence[str]) -> list[Depth]:
        """Counts what waits and what has failed."""
        return self.inbox().depths(jobs)

    def is_ready(self) -> bool:
        """Returns True if the database answers and has the tables that this version needs."""
        with self.ledger().transaction() as connection:
            return is_current(connection)

    def close(self) -> None:
        """Closes the connections."""
        with self._lock:
            if self._writer is not None:
                self._writer.close()
            self._ledger = self._writer = None
            self._stack.close()
