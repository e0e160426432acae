"""A sync that other processes can load by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dagster import JobDefinition, multiprocess_executor
from sqlalchemy import Column, Integer, MetaData, String, Table

from sync_pipelines import SqlTable, SyncJob
from sync_pipelines.database.connections import create_database
from sync_pipelines.orchestration.build import build_definitions
from sync_pipelines.settings.model import load_settings


def fetch() -> Iterator[dict[str, Any]]:
    """Gives 2,500 items, so that the plan has several chunks."""
    _note("fetch")
    yield from ({"sku": f"A-{number}", "stock": number} for number in range(2500))


def complete(_results: Any) -> None:
    """Fails when it is called for the first time, if calls are noted at all."""
    _note("complete")
    log = os.environ.get("CALLS_LOG")
    if log and Path(log).read_text(encoding="utf-8").split().count("complete") == 1:
        raise RuntimeError("no mail server")


def _note(what: str) -> None:
    log = os.environ.get("CALLS_LOG")
    if log:
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(f"{what}\n")


def _sync_job() -> SyncJob[Any, Any]:
    return SyncJob(
        name="erp-stock",
        fetch_external=fetch,
        get_external_id="sku",
        target=SqlTable(table="variants", key="sku", columns=["stock"]),
        on_complete=complete,
        asset_key="shop/stock",
    )


def spread_out_job() -> JobDefinition:
    """Each op in a process of its own."""
    executor = multiprocess_executor.configured({"max_concurrent": 1})
    return build_definitions([_sync_job()], executor).resolve_job_def("erp_stock")


def single_process_job() -> JobDefinition:
    """All ops in one process."""
    return build_definitions([_sync_job()]).resolve_job_def("erp_stock")


def create_variants() -> Callable[[], int]:
    """Creates the table in the configured database; gives a function that counts its rows."""
    settings = load_settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    url = settings.local_url()
    metadata = MetaData()
    Table("variants", metadata, Column("sku", String(20), primary_key=True), Column("stock", Integer))
    database = create_database(url)
    metadata.create_all(database)
    database.dispose()

    def count() -> int:
        database = create_database(url)
        with database.connect() as connection:
            found = connection.exec_driver_sql("SELECT count(*) FROM variants").scalar()
        database.dispose()
        return int(found or 0)

    return count
