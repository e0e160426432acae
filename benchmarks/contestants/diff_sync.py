"""DiffSync: both sides as objects in memory, its own diff, and what it decides written in bulk at the end."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Self

from diffsync import Adapter, DiffSyncModel
from sqlalchemy import Engine, bindparam, delete, insert, select, update

from benchmarks.contestants.sqlalchemy_table import connect, utc, variants
from benchmarks.task import Report, Run, Task
from benchmarks.work import COLUMNS, FIELDS, KEY, Work


class Variant(DiffSyncModel):
    """An item or a local record."""

    _modelname: ClassVar[str] = "variant"
    _identifiers: ClassVar[tuple[str, ...]] = (KEY,)
    _attributes: ClassVar[tuple[str, ...]] = FIELDS

    sku: str
    name: str
    stock: int
    price: Decimal
    changed_at: datetime
    color: str
    size: str
    brand: str
    category: str

    @classmethod
    def create(cls, adapter: Any, ids: dict[Any, Any], attrs: dict[Any, Any]) -> Self | None:
        """Notes a row to insert."""
        adapter.created.append({**ids, **attrs})
        return super().create(adapter, ids, attrs)

    def update(self, attrs: dict[Any, Any]) -> Self | None:
        """Notes a row to update."""
        updated = super().update(attrs)
        self.adapter.updated.append({f"new_{name}": getattr(self, name) for name in COLUMNS})  # type: ignore[union-attr]
        return updated

    def delete(self) -> Self | None:
        """Notes a row to delete."""
        self.adapter.gone.append({"gone": self.sku})  # type: ignore[union-attr]
        return super().delete()


class Shop(Adapter):
    """One side."""

    variant = Variant
    top_level: ClassVar[list[str]] = ["variant"]

    def __init__(self) -> None:
        super().__init__()
        self.created: list[dict[str, Any]] = []
        self.updated: list[dict[str, Any]] = []
        self.gone: list[dict[str, Any]] = []


def prepare(task: Task) -> Run:
    """Connects."""
    engine = connect(task)

    def run() -> Report:
        _sync(engine, task.work)
        return Report()

    return run


def _sync(engine: Engine, work: Work) -> None:
    source, local = Shop(), Shop()
    for page in work.pages():
        for item in page:
            source.add(Variant(**item))
    with engine.begin() as connection:
        for row in connection.execute(select(variants)).mappings():
            local.add(Variant(**{**{name: row[name] for name in COLUMNS}, "changed_at": utc(row["changed_at"])}))
        local.sync_from(source)
        if local.created:
            connection.execute(insert(variants), local.created)
        if local.updated:
            values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in FIELDS}
            statement = update(variants).where(variants.c.sku == bindparam(f"new_{KEY}")).values(values)
            connection.execute(statement, local.updated)
        if local.gone:
            connection.execute(delete(variants).where(variants.c.sku == bindparam("gone")), local.gone)
