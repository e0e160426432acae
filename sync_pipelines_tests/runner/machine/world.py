"""A real table and a real ledger for the state machine, and ways to break both."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, event

from sync_pipelines.engine.changes import Delete, Upsert
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.guards import Guards
from sync_pipelines.engine.results import ItemResult
from sync_pipelines.engine.retry import Retry
from sync_pipelines.runner.changes.single_item import apply_change, sync_single_item
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.targets.table.soft_delete import SoftDelete
from sync_pipelines_tests.runner.machine.missed_fetches import DELETE_AFTER
from sync_pipelines_tests.runner.machine.model import FEW, SHARE, Item, Marked, State, Versioned

_TABLE = (
    "CREATE TABLE stock (sku VARCHAR(20) PRIMARY KEY, quantity INTEGER CHECK (quantity >= 0), "
    "version INTEGER, active BOOLEAN NOT NULL DEFAULT TRUE, supplier VARCHAR(10) NOT NULL DEFAULT 'acme')"
)
_INSERT = "INSERT INTO stock (sku, quantity, supplier) VALUES (:sku, :quantity, :supplier)"
_SCOPED = {"table", "marks", "grace"}
_READS = ("SELECT", "PRAGMA", "BEGIN")
_examples = count()


class DeathError(BaseException):
    """What a process sees of a power cut: nothing it does gets through any more."""


class World:
    """The database of one test; each example has a sync of a name of its own, and an empty table.

    Args:
        database: Holds the table.
        settings: Say where the ledger is.
        ledger: For whoever looks at the ledger.
        working: The same, for runs.
        kind: `functions` for a job with per-record functions, `table` for one with a table target that shares its table
            with others, `marks` for the same with deletes that mark rows, `grace` for one with deletes that wait,
            `versions` for one whose items say which is the newer one.
    """

    def __init__(self, database: Engine, ledger: Workspace, working: Workspace, *, kind: str) -> None:
        self.database = database
        self.ledger = ledger
        self._working = replace(working, retries=Retry(attempts=1))
        self.kind = kind
        self.is_scoped = kind in _SCOPED
        self.holds_version = False
        self.troubled: set[str] = set()
        """The items that fail for the moment."""
        self.name = "stock"
        self._do(_TABLE)

    def begin(self, *, holds_version: bool = False) -> None:
        """Makes the world new for an example.

        Args:
            holds_version: True if there is a column for the version of an item.
        """
        self.holds_version = holds_version
        self.troubled = set()
        self.name = f"stock-{next(_examples)}"
        self._do("DELETE FROM stock")

    def _do(self, statement: str, **values: Any) -> None:
        with self.database.begin() as connection:
            connection.execute(sa.text(statement), values)

    def rows(self) -> dict[str, State]:
        with self.database.connect() as connection:
            found = connection.execute(sa.text("SELECT sku, quantity, version, active FROM stock")).all()
        return {row.sku: self._state(row) if row.active else Marked(row.quantity) for row in found}

    def _state(self, row: Any) -> State:
        return Versioned(row.quantity, row.version) if self.holds_version else int(row.quantity)

    def outside(self) -> set[str]:
        """The rows that are others'."""
        with self.database.connect() as connection:
            return set(connection.scalars(sa.text("SELECT sku FROM stock WHERE supplier <> 'acme'")))

    def newest(self) -> dict[str, int]:
        """The version of each record as far as it is known: by the record, or by the ledger."""
        table = self.ledger.ledger.tables.versions
        query = sa.select(table.c.external_id, table.c.version).where(table.c.job == self.name)
        with self.ledger.ledger.transaction() as connection:
            known = {sku: int(text.partition(":")[2]) for sku, text in connection.execute(query)}
        for sku, state in self.rows().items():
            held = state.version if isinstance(state, Versioned) else None
            if held is not None:
                known[sku] = max(held, known.get(sku, held))
        return known

    def writes_in_history(self, run_id: str) -> int:
        """Of how many writes of a run the ledger knows."""
        tables = self.ledger.ledger.tables
        rows = sa.select(sa.func.count()).where(tables.history.c.run_id == run_id)
        blocks = sa.select(sa.func.sum(tables.history_blocks.c.records))
        blocks = blocks.where(tables.history_blocks.c.run_id == run_id)
        with self.ledger.ledger.transaction() as connection:
            return int(connection.scalar(rows) or 0) + int(connection.scalar(blocks) or 0)

    def missed_fetches(self) -> tuple[int, dict[str, tuple[int, int]]]:
        """Which fetch was counted last, and for each record which one was without it last, and how many in a row."""
        table = self.ledger.ledger.tables.misses
        query = sa.select(table.c.external_id, table.c.fetch, table.c.misses).where(table.c.job == self.name)
        with self.ledger.ledger.transaction() as connection:
            found = {sku: (fetch, missed_fetches) for sku, fetch, missed_fetches in connection.execute(query)}
        return found.pop("", (0, 0))[0], found

    def write(self, sku: str, quantity: int | None, *, outside: bool = False) -> State | None:
        """What somebody else writes; None deletes."""
        self._do("DELETE FROM stock WHERE sku = :sku", sku=sku)
        if quantity is None:
            return None
        self._do(_INSERT, sku=sku, quantity=quantity, supplier="other" if outside else "acme")
        return Versioned(quantity, None) if self.holds_version else quantity

    def job(self, fetch: Callable[[], Any] = list, **fields: Any) -> SyncJob[Any, Any]:
        target = self._functions() if self.kind == "functions" else {"target": self._table()}
        if self.kind == "marks" and fields.get("deletes") == "hard":
            fields = {**fields, "deletes": "soft"}
        if self.kind == "grace" and fields.get("deletes") == "hard":
            fields = {**fields, "delete_after": DELETE_AFTER}
        if self.kind == "versions":
            fields = {**fields, "get_version": "version"}
        given = {
            "name": self.name,
            "fetch_external": fetch,
            "get_external_id": "sku",
            "should_skip": self._skips,
            "guards": Guards(few=FEW, max_delete_share=SHARE, max_shrink_share=SHARE),
        }
        return SyncJob(**{**given, **target, **fields})

    def _skips(self, item: Item) -> bool:
        if str(item["sku"]) in self.troubled:
            raise OSError("nobody can say at the moment")
        return bool(item["skip"])

    def _table(self) -> SqlTable:
        return SqlTable(
            table="stock",
            key="sku",
            columns=["quantity", "version"] if self.holds_version else ["quantity"],
            database=self.database,
            soft_delete=SoftDelete("active", deleted=False) if self.kind == "marks" else None,
            scope={"supplier": "acme"} if self.is_scoped else None,
        )

    def _functions(self) -> dict[str, Any]:
        def find_local(sku: str) -> Any:
            with self.database.connect() as connection:
                query = sa.text("SELECT sku, quantity FROM stock WHERE sku = :sku")
                found = connection.execute(query, {"sku": sku}).mappings().one_or_none()
                return dict(found) if found is not None else None

        def create(item: Item) -> None:
            quantity = int(item["quantity"])
            self._do(_INSERT, sku=str(item["sku"]), quantity=quantity, supplier="acme")

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

    def apply_single(self, change: Any) -> ItemResult:
        """Applies an item at once; only for its version the ledger is needed."""
        if self.kind == "versions":
            change = change if isinstance(change, Delete) else Upsert(change)
            return apply_change(self.job(), change, self._working.ledger)
        return sync_single_item(self.job(), change)

    @property
    def workspace(self) -> Workspace:
        """The ledger for a run; a delivery that fails is not tried again."""
        return self._working

    def bury(self) -> None:
        """Ends the connections of who is dead, and lets others know it, as the number of its process would."""
        self._working.ledger.database.dispose()
        leases = self.ledger.leases
        lease = leases.of_job(self.name)
        if lease is not None:
            leases.release(lease)


def _die() -> None:
    raise DeathError


@contextmanager
def dying(after: int, die: Callable[[], object] = _die) -> Iterator[None]:
    """After so many transactions that write, of whatever connection, nothing that the block does gets through.

    What was not committed by then is rolled back, as a server does when its client is gone. So deaths within one
    transaction, or between reads, all leave the same; a phase has ten or twenty that differ.
    """
    left, lock, writing = after, threading.Lock(), set[int]()

    def live(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if left < 0:
            die()
        if not statement.lstrip().upper().startswith(_READS):
            writing.add(id(connection))

    def commit(connection: Connection) -> None:
        nonlocal left
        with lock:
            if id(connection) in writing:
                writing.discard(id(connection))
                left -= 1
            if left < 0:
                die()

    for name, listener in (("before_cursor_execute", live), ("commit", commit)):
        event.listen(Engine, name, listener)
    try:
        yield
    finally:
        for name, listener in (("before_cursor_execute", live), ("commit", commit)):
            event.remove(Engine, name, listener)
