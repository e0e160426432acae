"""Deliveries for a target that marks deleted records: a delete marks once, an upsert restores."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from sync_pipelines import SoftDelete, SqlTable, SyncJob
from sync_pipelines_tests.runner.desk import Desk


def job(database: sa.Engine, **fields: Any) -> SyncJob[Any, Any]:
    with database.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE variants (sku varchar(9) PRIMARY KEY, stock integer, version integer, "
            "active boolean NOT NULL, supplier varchar(9))"
        )
        connection.exec_driver_sql(
            "INSERT INTO variants VALUES ('A', 1, 5, true, 'acme'), ('B', 1, 5, false, 'acme'), "
            "('C', 1, 5, true, 'other')"
        )
    target = SqlTable(
        table="variants", key="sku", columns=["stock", "version"], database=database, scope={"supplier": "acme"},
        soft_delete=SoftDelete("active", deleted=False),
    )  # fmt: skip
    return SyncJob(name="stock", fetch_external=list, get_external_id="sku", target=target, **fields)


def marks(database: sa.Engine) -> dict[str, bool]:
    with database.connect() as connection:
        found = connection.exec_driver_sql("SELECT sku, active FROM variants").all()
    return {row[0]: bool(row[1]) for row in found}


def test_a_delete_marks_once_and_never_outside_of_the_scope(desk: Desk, database: sa.Engine) -> None:
    given = job(database)
    gone = desk.delete("A", "B", "C", "D")
    desk.drain(given)
    assert desk.actions(*gone)[:2] == ["deleted", "unchanged"]
    assert desk.actions(gone[3]) == ["unchanged"]
    assert "its supplier is 'other', not 'acme'" in str(desk.show(gone[2]).message)
    assert marks(database) == {"A": False, "B": False, "C": True}
    back = desk.upsert({"sku": "A", "stock": 1, "version": 5}, {"sku": "B", "stock": 2, "version": 5})
    desk.drain(given)
    assert desk.actions(*back) == ["updated", "updated"]
    assert marks(database) == {"A": True, "B": True, "C": True}


def test_an_older_delivery_does_not_restore(desk: Desk, database: sa.Engine) -> None:
    given = job(database, get_version="version")
    [older] = desk.upsert({"sku": "B", "stock": 9, "version": 4})
    desk.drain(given)
    assert desk.actions(older) == ["skipped"]
    assert marks(database)["B"] is False
    [newer] = desk.upsert({"sku": "B", "stock": 9, "version": 6})
    desk.drain(given)
    assert desk.actions(newer) == ["updated"]
    assert marks(database)["B"] is True
