"""dlt's merge with the strategies `upsert` and, where rows are to be deleted, `cdc`; rows that are equal are skipped.

The table exists beforehand with the same key, index and CHECKs as for everybody else. Files are loaded as CSV through
COPY; dlt's other formats were not tried here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import dlt
import psycopg2  # noqa: F401 - what dlt imports late
import pyarrow as pa
from sqlalchemy.engine import make_url

from benchmarks.tables import TABLE, WARM_UP
from benchmarks.task import Report, Run, Task
from benchmarks.work import KEY, Work

_WARM_UP_ITEMS = 20
_HINTS: dict[str, Any] = {
    "price": {"data_type": "decimal", "precision": 12, "scale": 2},
    "changed_at": {"data_type": "timestamp"},
}
_ARROW = pa.schema(
    [
        ("sku", pa.string()),
        ("name", pa.string()),
        ("stock", pa.int64()),
        ("price", pa.decimal128(12, 2)),
        ("changed_at", pa.timestamp("us", tz="UTC")),
        ("color", pa.string()),
        ("size", pa.string()),
        ("brand", pa.string()),
        ("category", pa.string()),
    ]
)


def prepare(task: Task) -> Run:
    """Makes the pipeline and lets it load a few items into another table, with which dlt makes its own tables."""
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    os.environ["RUNTIME__LOG_LEVEL"] = "ERROR"
    os.environ["DLT_DATA_DIR"] = task.folder
    pipeline = dlt.pipeline(
        "bench",
        pipelines_dir=task.folder,
        destination=dlt.destinations.postgres(credentials=_with_host(task.url)),
        dataset_name="public",
    )
    arrow = task.contestant == "dlt-arrow"
    _run(pipeline, WARM_UP, Work(task.scenario, _WARM_UP_ITEMS), arrow=arrow)

    def run() -> Report:
        _run(pipeline, TABLE, task.work, arrow=arrow)
        return Report()

    return run


def _with_host(url: str) -> str:
    """The URL with the host that dlt asks for; a socket's folder stays in the query, which counts for the driver."""
    parsed = make_url(url)
    missing: dict[str, Any] = {"host": parsed.host or "localhost", "password": parsed.password or "none"}
    return parsed.set(**missing).render_as_string(hide_password=False)


def _run(pipeline: Any, table: str, work: Work, *, arrow: bool) -> None:
    strategy = "cdc" if work.deletes else "upsert"
    disposition: Any = {"disposition": "merge", "strategy": strategy, "skip_unchanged_rows": True}
    items: Iterator[Any] = _tables(work) if arrow else work.pages()
    resource = dlt.resource(items, name=table, primary_key=KEY, write_disposition=disposition, columns=_HINTS)
    pipeline.run(resource, loader_file_format="csv").raise_on_failed_jobs()


def _tables(work: Work) -> Iterator[pa.Table]:
    for page in work.pages():
        yield pa.Table.from_pylist(page, schema=_ARROW)
