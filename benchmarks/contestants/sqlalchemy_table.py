"""The table as SQLAlchemy knows it, for the contestants that use its Core or its ORM."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any

from sqlalchemy import BigInteger, DateTime, Engine, Integer, Numeric, String, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.task import Task
from benchmarks.work import FIELDS


class Base(DeclarativeBase):
    """The registry of mapped classes."""


class Variant(Base):
    """A row of `variants`."""

    __tablename__ = "variants"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    sku: Mapped[str] = mapped_column(String, unique=True)
    name: Mapped[str]
    stock: Mapped[int]
    price: Mapped[Any] = mapped_column(Numeric(12, 2))
    changed_at: Mapped[Any] = mapped_column(DateTime(timezone=True))
    color: Mapped[str]
    size: Mapped[str]
    brand: Mapped[str]
    category: Mapped[str]


variants: Any = Variant.__table__


def connect(task: Task) -> Engine:
    """An engine that has connected once."""
    url = make_url(task.url)
    if url.get_backend_name() == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    engine = create_engine(url)
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
    return engine


def differs(item: Mapping[str, Any], local: Mapping[str, Any]) -> bool:
    """True if a column differs. SQLite gives back times without their zone, which is UTC."""
    return any(item[name] != (utc(local[name]) if name == "changed_at" else local[name]) for name in FIELDS)


def utc(value: Any) -> Any:
    """The time with its zone."""
    return value if value.tzinfo else value.replace(tzinfo=UTC)
