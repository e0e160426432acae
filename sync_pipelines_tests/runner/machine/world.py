"""A real table and a real ledger for the state machine, and ways to break both."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Engine, event

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.guards import Guards
from sync_pipelines.engine.retry import Retry
from sync_pipelines.runner.workspace import Workspace, open_workspace
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.soft_delete import SoftDelete
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines_tests.runner.machine.model import FEW, SHARE, Item, Marked, State

_TABLE = (
    "CREATE TABLE stock (sku VARCHAR(20) PRIMARY KEY, quantity INTEGER CHECK (quantity >= 0), "
    "active BOOLEAN NOT NULL DEFAULT TRUE)"
)
_INSERT = "INSERT INTO stock (sku, quantity) VALUES (:sku, :quantity)"
_examples = count()


class DeathError(BaseException):
    """What a process sees of a power cut: nothing it does gets through any more."""


class World:
    """The database of one test; each example has a sync of a name of its own, and an empty table.

    Args:
        database: Holds the table.
        settings: Say where the ledger is.
        ledger: For whoever looks at the ledger; runs open one of their own.
        kind: `functions` for a job with per-record functions, `table` for one with a table target, `marks` for the same
            with deletes that mark rows.
    """

    def __init__(self, database: Engine, settings: Settings, ledger: Workspace, *, kind: str) -> None:
        self.database = database
        self.settings = settings
        self.ledger = ledger
        self.kind = kind
        self.name = "stock"
        self._do(_TABLE)

    def begin(self) -> None:
        """Makes the world new for an example."""
        self.name = f"stock-{next(_examples)}"
        self._do("DELETE FROM stock")

    def _do(self, statement: str, **values: Any) -> None:
        with self.database.begin() as connection:
            connection.execute(sa.text(statement), values)

    def rows(self) -> dict[str, State]:
        with self.database.connect() as connection:
            found = connection.execute(sa.text("SELECT sku, quantity, active FROM stock")).all()
        return {row.sku: row.quantity if row.active else Marked(row.quantity) for row in found}

    def write(self, sku: str, quantity: int | None) -> None:
        """What somebody else writes; None deletes."""
        self._do("DELETE FROM stock WHERE sku = :sku", sku=sku)
        if quantity is not None:
            self._do(_INSERT, sku=sku, quantity=quantity)

    def job(self, fetch: Callable[[], Any] = list, **fields: Any) -> SyncJob[Any, Any]:
        target = self._functions() if self.kind == "functions" else {"target": self._table()}
        if self.kind == "marks" and fields.get("deletes") == "hard":
            fields = {**fields, "deletes": "soft"}
        given = {
            "name": self.name,
            "fetch_external": fetch,
            "get_external_id": "sku",
            "should_skip": lambda item: item["skip"],
            "guards": Guards(few=FEW, max_delete_share=SHARE, max_shrink_share=SHARE),
        }
        return SyncJob(**{**given, **target, **fields})

    def _table(self) -> SqlTable:
        mark = SoftDelete("active", deleted=False) if self.kind == "marks" else None
        return SqlTable(table="stock", key="sku", columns=["quantity"], database=self.database, soft_delete=mark)

    def _functions(self) -> dict[str, Any]:
        def find_local(sku: str) -> Any:
            with self.database.connect() as connection:
                query = sa.text("SELECT sku, quantity FROM stock WHERE sku = :sku")
                found = connection.execute(query, {"sku": sku}).mappings().one_or_none()
                return dict(found) if found is not None else None

        def create(item: Item) -> None:
            quantity = int(item["quantity"])
            self._do(_INSERT, sku=str(item["sku"]), quantity=quantity)

        def update(item: Item, local: Any) -> None:
            statement = "UPDATE stock SET quantity = :quantity WHERE sku = :sku"
            self._do(statement, sku=local["sku"], quantity=item["quantity"])

        return {
            "find_local": find_local,
            "create": create,
            "update": update,
            "delete": lambda local: self._do("DELETE FROM stock WHERE sku = :sku", sku=local["sku"]),
            "list_local": lambda: list(self.rows()),
            "has_changed": lambda item, local: int(item["quantity"]) != local["quantity"],
        }

    @contextmanager
    def workspace(self) -> Iterator[Workspace]:
        """A ledger that is opened anew; a delivery that fails is not tried again."""
        with open_workspace(self.settings) as opened:
            yield replace(opened, retries=Retry(attempts=1))

    def bury(self) -> None:
        """Lets others know that whoever had the lease is dead, as its process number would."""
        leases = self.ledger.leases
        lease = leases.of_job(self.name)
        if lease is not None:
            leases.release(lease)


def _die() -> None:
    raise DeathError


@contextmanager
def dying(after: int, die: Callable[[], object] = _die) -> Iterator[None]:
    """After so many statements and commits of whatever connection, nothing that the block does gets through.

    What was not committed by then is rolled back, as a server does when its client is gone.
    """
    left, lock = after, threading.Lock()

    def live(*_: Any) -> None:
        nonlocal left
        with lock:
            left -= 1
            if left < 0:
                die()

    for name in ("before_cursor_execute", "commit"):
        event.listen(Engine, name, live)
    try:
        yield
    finally:
        for name in ("before_cursor_execute", "commit"):
            event.remove(Engine, name, live)
