"""What `dg scaffold defs sync_pipelines.SyncComponent NAME` writes: a declaration that loads, to be changed."""

from typing import Any, Literal

from dagster import Scaffolder, ScaffoldRequest
from dagster.components.component_scaffolding import scaffold_component
from pydantic import BaseModel, Field

Kind = Literal["rest", "sql", "csv", "parquet", "json_lines", "dlt"]

_SOURCES: dict[str, dict[str, Any]] = {
    "rest": {
        "url": "https://erp.example.com/api/stock",
        "items_path": "data",
        "paging": {"page_number": {"size": 100}},
        "auth": {"bearer": {"token": "ERP_TOKEN"}},
    },
    "sql": {"query": "SELECT sku, quantity FROM stock", "database": "sqlite:///erp.sqlite"},
    "csv": {"path": "stock.csv", "columns": {"quantity": "integer"}},
    "parquet": {"path": "stock.parquet"},
    "json_lines": {"path": "stock.jsonl"},
    "dlt": {"resource": "my_project.sources.stock"},
}


class SyncScaffoldParams(BaseModel):
    """What the command can be told."""

    source: Kind = Field(default="csv", description="The kind of source: rest, sql, csv, parquet, json_lines or dlt.")
    job: str | None = Field(
        default=None, description="Dotted name of a SyncJob that is declared in Python, such as my_project.stock.JOB."
    )


class SyncScaffolder(Scaffolder[SyncScaffoldParams]):
    """Writes `defs.yaml`."""

    @classmethod
    def get_scaffold_params(cls) -> type[SyncScaffoldParams]:
        """Returns what the command can be told."""
        return SyncScaffoldParams

    def scaffold(self, request: ScaffoldRequest[SyncScaffoldParams]) -> None:
        """Writes it."""
        scaffold_component(request, scaffolded_attributes(request.target_path.name, request.params))


def scaffolded_attributes(folder: str, params: SyncScaffoldParams) -> dict[str, Any]:
    """Returns the attributes of a new component in that folder."""
    if params.job is not None:
        return {"job": params.job}
    return {
        "name": folder.lower().replace("_", "-"),
        "source": {params.source: _SOURCES[params.source]},
        "target": {"table": "stock_levels", "key": "sku", "columns": ["sku", "quantity"]},
        "schedule": {"every": "1 hour"},
    }
