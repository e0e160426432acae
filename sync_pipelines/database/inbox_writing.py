"""Stores deliveries over a connection of its own, for a receiver to which microseconds count.

On PostgreSQL all that came together is one parameter of one statement that the server has prepared, and that commits by
itself: a single question and a single answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row
from sqlalchemy.exc import DBAPIError

from sync_pipelines.database.inbox import Inbox
from sync_pipelines.database.inbox_storing import NewDelivery, Stored, store_deliveries
from sync_pipelines.database.ledger import Ledger, storable
from sync_pipelines.database.ledger_faults import ledger_failures

_COLUMNS = {
    "job": "text",
    "kind": "text",
    "external_id": "text",
    "item": "text",
    "payload": "text",
    "headers": "json",
    "delivery_id": "text",
    "received_at": "timestamptz",
}

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class InboxWriter:
    """Stores deliveries that wait. For one thread."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._inbox = Inbox(ledger)
        self._connection: Connection | None = None
        names = ", ".join(_COLUMNS)
        typed = ", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())
        # numbers are given in the order of the rows, because they are given after sorting
        self._statement = (
            f"INSERT INTO {ledger.tables.inbox.fullname} ({names}, state, attempts) "  # noqa: S608 - our names
            f"SELECT {names}, 'waiting', 0 "
            f"FROM ROWS FROM (json_to_recordset(%s::json) AS ({typed})) WITH ORDINALITY AS given({names}, position) "
            "ORDER BY position ON CONFLICT DO NOTHING RETURNING id, job, delivery_id"
        )

    def store_many(self, deliveries: Sequence[NewDelivery]) -> list[Stored]:
        """Stores deliveries durably, as `Inbox.store_many` does.

        Raises:
            UnavailableError: The ledger does not answer just now.
            RunError: It can't be used until a person acts.
            DBAPIError: One of the deliveries can't be stored, and so none is.
        """
        if self._ledger.database.dialect.name != "postgresql":
            return self._inbox.store_many(deliveries)
        is_fresh = self._connection is None
        try:
            return store_deliveries(self._open(), self._ledger.tables.inbox, deliveries, self._insert)
        except DBAPIError as error:
            self.close()
            if not is_fresh and error.connection_invalidated:
                return self.store_many(deliveries)  # the server was restarted since the last delivery
            with ledger_failures(self._ledger.database):
                raise

    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = self._ledger.database.connect().execution_options(isolation_level="AUTOCOMMIT")
        return self._connection

    def _insert(self, connection: Connection, deliveries: Sequence[NewDelivery]) -> Sequence[Row[Any]]:
        rows = _encode([_document(each) for each in deliveries])
        return connection.exec_driver_sql(self._statement, (rows,)).all()

    def close(self) -> None:
        """Closes the connection; the next delivery opens another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()


def _document(delivery: NewDelivery) -> dict[str, object]:
    return {
        "job": delivery.job,
        "kind": delivery.kind,
        "external_id": storable(delivery.external_id),
        "item": delivery.item,
        "payload": delivery.payload,
        "headers": delivery.headers,
        "delivery_id": delivery.delivery_id,
        "received_at": delivery.received_at.isoformat(),
    }
