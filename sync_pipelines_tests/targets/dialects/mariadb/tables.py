"""Makes and opens the table of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from sync_pipelines.targets.open_table import OpenedSqlTable
from sync_pipelines.targets.sql_table import SqlTable


def make(database: sa.Engine, *statements: str) -> None:
    """Executes statements, all in one transaction where the server allows it."""
    with database.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


@contextmanager
def opened(database: sa.Engine, **fields: Any) -> Iterator[OpenedSqlTable]:
    """The table `things`, whose key is `sku`, unless the fields say otherwise."""
    given_fields: dict[str, Any] = {"table": "things", "key": "sku", "database": database}
    table = SqlTable(**given_fields | fields)
    with table.open(table.external_id) as target:
        yield target
