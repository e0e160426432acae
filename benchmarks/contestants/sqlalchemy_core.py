"""SQLAlchemy Core as its documentation teaches it: per page one SELECT by key, a bulk INSERT, a bulk UPDATE."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from benchmarks.contestants.sqlalchemy_table import connect, differs, variants
from benchmarks.task import Report, Run, Task
from benchmarks.work import FIELDS, KEY, Item, Work

_CHUNK = 1_000
_UPDATE = (
    update(variants)
    .where(variants.c.id == bindparam("row_id"))
    .values({name: bindparam(f"new_{name}") for name in FIELDS})
)


def prepare(task: Task) -> Run:
    """Connects."""
    engine = connect(task)

    def run() -> Report:
        with engine.begin() as connection:
            _sync(connection, task.work)
        return Report()

    return run


def _sync(connection: Connection, work: Work) -> None:
    seen: set[str] = set()
    for page in work.pages(_CHUNK):
        _write(connection, page)
        if work.deletes:
            seen.update(item[KEY] for item in page)
    if work.deletes:
        local = connection.execute(select(variants.c.id, variants.c.sku))
        gone = [{"row_id": row.id} for row in local if row.sku not in seen]
        connection.execute(delete(variants).where(variants.c.id == bindparam("row_id")), gone)


def _write(connection: Connection, page: list[Item]) -> None:
    found = connection.execute(select(variants).where(variants.c.sku.in_([item[KEY] for item in page])))
    local: dict[str, Any] = {row["sku"]: row for row in found.mappings()}
    new = [item for item in page if item[KEY] not in local]
    changed = [
        {"row_id": local[item[KEY]]["id"], **{f"new_{name}": item[name] for name in FIELDS}}
        for item in page
        if item[KEY] in local and differs(item, local[item[KEY]])
    ]
    if new:
        connection.execute(insert(variants), new)
    if changed:
        connection.execute(_UPDATE, changed)
