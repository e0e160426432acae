"""A shop's table on each kind of database, and syncs into it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine, event

from sync_pipelines import Settings, SqlTable, SyncJob, SyncResults, run_sync
from sync_pipelines_tests.children import Child

REPOSITORY = Path(__file__).parents[2]
TABLE = re.compile(r"\b(?:TABLE(?: IF NOT EXISTS)?|INDEX|INTO|UPDATE|FROM|COPY)\s+(?P<name>\S+)")
STAGING = re.compile(r'sync_work\.\w+|"?(?:progress|stage|diffs|twice|export)_[0-9a-f]{12}_[0-9a-f]{12}"?')


class Shop:
    """The table `variants`, which takes no negative stock, and the sync `stock` into it.

    Args:
        database: Holds the table.
        settings: Keep the ledger in a folder of the test.
    """

    def __init__(self, database: Engine, settings: Settings) -> None:
        self.database = database
        self.settings = settings
        self.url = database.url.render_as_string(hide_password=False)
        self.do("CREATE TABLE variants (sku VARCHAR(20) PRIMARY KEY, stock INTEGER CHECK (stock >= 0))")

    def do(self, statement: str) -> None:
        with self.database.begin() as connection:
            connection.exec_driver_sql(statement)

    def fill(self, rows: dict[str, int]) -> None:
        with self.database.begin() as connection:
            given = [{"sku": sku, "stock": stock} for sku, stock in rows.items()]
            connection.execute(sa.text("INSERT INTO variants VALUES (:sku, :stock)"), given)

    def rows(self) -> dict[str, int]:
        with self.database.connect() as connection:
            return {row.sku: row.stock for row in connection.execute(sa.text("SELECT sku, stock FROM variants"))}

    def job(self, items: Any = (), **fields: Any) -> SyncJob[Any, Any]:
        target = SqlTable(table="variants", key="sku", columns=["stock"], database=self.database)
        fetch = items if callable(items) else lambda: list(items)
        return SyncJob(**{"name": "stock", "fetch_external": fetch, "target": target, **fields})

    def sync(self, items: Any, **fields: Any) -> SyncResults:
        return run_sync(self.job(items, **fields), settings=self.settings)

    def everything(self) -> Any:
        """The very bytes of a SQLite file; of PostgreSQL all tables of all schemas, and which version each row is."""
        if self.database.dialect.name == "sqlite":
            return Path(str(self.database.url.database)).read_bytes()
        inspector = sa.inspect(self.database)
        tables = {schema: sorted(inspector.get_table_names(schema)) for schema in inspector.get_schema_names()}
        with self.database.connect() as connection:
            rows = connection.execute(sa.text("SELECT CAST(xmin AS text), CAST(ctid AS text), * FROM variants")).all()
        return tables, rows

    @staticmethod
    def writes_to_target(statement: str) -> bool:
        """True if a statement writes to anything but a staging table: temporary, or in a file of ours."""
        verb = statement.split(maxsplit=1)[0]
        if verb not in {"INSERT", "UPDATE", "DELETE", "CREATE", "COPY", "ALTER", "TRUNCATE", "MERGE", "REPLACE"}:
            return False
        named = TABLE.search(statement)
        return named is None or STAGING.fullmatch(named.group("name")) is None

    @contextmanager
    def statements(self) -> Iterator[list[str]]:
        """What is sent to the database in the block."""
        sent: list[str] = []

        def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            sent.append(statement)

        event.listen(self.database, "before_cursor_execute", note)
        try:
            yield sent
        finally:
            event.remove(self.database, "before_cursor_execute", note)

    def child(self, act: str, number: int = 0) -> Child:
        """The sync in a process of its own."""
        command = [sys.executable, str(Path(__file__).with_name("child.py"))]
        return Child(
            [*command, act, self.url, str(self.settings.data_dir), str(number)],
            env={"PYTHONPATH": str(REPOSITORY), "PATH": os.defpath},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


@pytest.fixture
def shop(database: Engine, tmp_path: Path) -> Shop:
    """An empty table; the ledger is a file."""
    return Shop(database, Settings(data_dir=tmp_path / "data"))


def stock(sku: Any, quantity: Any) -> dict[str, Any]:
    """An item."""
    return {"sku": sku, "stock": quantity}
