"""Connections to PostgreSQL that notice that nobody is there any more, though the network says nothing of it.

A statement may take hours, so that no time limit can tell. Keepalives tell of a host that has vanished, but not where
something in between goes on acknowledging: a proxy, a load balancer, a tunnel. Who has heard nothing for a while asks
the server, over another connection, whether it is still at work on the statement.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg

from sync_pipelines.database.faults import LOST, state_of

V = TypeVar("V")

SILENT_S = 30.0
"""After so long without a word of the server it is asked, and again each time it has been silent for so long."""
_ANSWERS_WITHIN_S = 15.0
# A pooler in between has numbers of its own for its sessions: then it must do that somebody answers at all. A session
# that is at no statement has answered long ago, or has never been asked.
_IS_AT_WORK = (
    "SELECT pg_backend_pid() <> %(own)s OR EXISTS (SELECT FROM pg_stat_activity WHERE pid = %(asked)s "
    "AND (state IS NULL OR state NOT LIKE 'idle%%' OR state_change > clock_timestamp() - interval '5 s'))"
)


class WatchedConnection(psycopg.Connection[Any]):
    """A connection that fails once its server is silent and no longer at work for it."""

    arguments: dict[str, Any]
    """What it was made with, to make another one."""

    @classmethod
    def open(cls, *given: Any, **arguments: Any) -> WatchedConnection:
        """Connects as `psycopg.connect` does."""
        connection = cls.connect(*given, **arguments)
        connection.arguments = arguments | ({"conninfo": given[0]} if given else {})
        return connection

    def wait(self, gen: Generator[Any, Any, V], *given: Any, **options: Any) -> V:
        """Waits for an answer, as long as somebody is at work on it."""
        return super().wait(self._watched(gen), *given, **options)

    def _watched(self, gen: Generator[Any, Any, V]) -> Generator[Any, Any, V]:
        try:
            wanted, heard_s = next(gen), time.monotonic()
            while True:
                ready = yield wanted
                if ready:
                    heard_s = time.monotonic()
                elif time.monotonic() - heard_s >= SILENT_S:
                    self._require_at_work()
                    heard_s = time.monotonic()
                wanted = gen.send(ready)
        except StopIteration as end:
            value: V = end.value
            return value

    def _require_at_work(self) -> None:
        answers: list[bool] = []
        own = self.info.backend_pid
        asking = threading.Thread(target=_ask, args=(self.arguments, own, answers), name="watch", daemon=True)
        asking.start()
        asking.join(_ANSWERS_WITHIN_S)  # it may be waiting for the same silence
        if answers != [True]:
            self.pgconn.finish()
            raise psycopg.OperationalError(
                f"the server has said nothing for {SILENT_S:g} s, and is not at work for this connection any more"
            )


def _ask(arguments: dict[str, Any], asked: int, answers: list[bool]) -> None:
    try:
        with psycopg.connect(**arguments) as connection:
            values = {"own": connection.info.backend_pid, "asked": asked}
            row = connection.execute(_IS_AT_WORK, values).fetchone()
            answers.append(bool(row and row[0]))
    except psycopg.Error as error:
        answers.append(state_of(error) is not LOST)  # it says that it has no connection left: somebody is there
