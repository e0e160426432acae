"""What Dagster shows of an asset before its first run: table, columns, lineage, kinds, file. Nothing is connected."""

import re
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from dagster import (
    BetaWarning,
    CodeReferencesMetadataValue,
    FreshnessPolicy,
    LocalFileCodeReference,
    MetadataValue,
    TableColumn,
    TableColumnConstraints,
    TableColumnDep,
    TableColumnLineage,
    TableSchema,
)

from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.engine.targets import DeclaredTable
from sync_pipelines.orchestration.keys import source_key
from sync_pipelines.settings.model import configured_database_url

MAX_KINDS = 3
"""Dagster takes no more."""
_SHORTEST_WINDOW = timedelta(minutes=1)
"""Dagster looks no closer."""
_SHOWN_TYPE = "unknown"
_KIND = re.compile(r"[A-Za-z0-9_.-]{1,63}")

# Dagster warns at each owner and each code reference that they may change, also where it passes them on itself. We pin
# the version that they are known to work with, and who reads the logs of a code location can't act on it.
for _module in (r"sync_pipelines\.", r"dagster\."):
    warnings.filterwarnings("ignore", r".*(`owners`|CodeReference)", BetaWarning, _module)


def definition_metadata(job: AnyJob, table: DeclaredTable | None) -> dict[str, Any]:
    """Returns what the declaration alone says of the asset, under the names that Dagster shows in their own places."""
    metadata: dict[str, Any] = {"sync job": job.name}
    if job.declared_at is not None:
        file, line = job.declared_at
        reference = LocalFileCodeReference(file_path=file, line_number=line, label=f"sync job {job.name}")
        metadata["dagster/code_references"] = CodeReferencesMetadataValue(code_references=[reference])
    return metadata if table is None else metadata | _table_metadata(job, table)


def declared_table_of(job: AnyJob) -> DeclaredTable | None:
    """Returns what the target's declaration says of its table; None of a target that is no table."""
    declared: Callable[..., DeclaredTable] | None = getattr(job.target, "declared_table", None)
    return None if declared is None else declared(configured_database_url)


def _table_metadata(job: AnyJob, table: DeclaredTable) -> dict[str, Any]:
    metadata: dict[str, Any] = {"dagster/table_name": table.full_name}
    if table.uri is not None:
        metadata["dagster/uri"] = table.uri
    if table.columns:
        metadata["dagster/column_schema"] = MetadataValue.table_schema(_schema(table))
    return metadata | lineage_metadata(job, table)


def lineage_metadata(job: AnyJob, table: DeclaredTable | None) -> dict[str, MetadataValue]:
    """Returns which field of the source each column holds, as far as the declaration says so.

    A run reports it as well: Dagster draws the lineage of columns from what the last one reported.
    """
    source = source_key(job)
    columns = () if table is None else table.columns
    fields = {column.name: [TableColumnDep(source, column.field)] for column in columns if column.field is not None}
    return {"dagster/column_lineage": MetadataValue.column_lineage(TableColumnLineage(fields))} if fields else {}


def _schema(table: DeclaredTable) -> TableSchema:
    return TableSchema(
        [
            TableColumn(
                column.name,
                column.type_name or _SHOWN_TYPE,
                constraints=None if column.nullable else TableColumnConstraints(nullable=False),
            )
            for column in table.columns
        ]
    )


def source_kind(job: AnyJob) -> str | None:
    """Returns the kind of system that the items come from, as its fetch function or the object of that method says."""
    fetch = job.fetch_external
    kind = getattr(getattr(fetch, "__self__", fetch), "source_kind", None)
    return kind if isinstance(kind, str) and _KIND.fullmatch(kind) else None


def kinds_of(job: AnyJob, table: DeclaredTable | None) -> set[str]:
    """Returns the badges of the asset: those of the job file; where there is room, source and database."""
    wanted = [*job.kinds, source_kind(job), table.dialect if table is not None else None]
    return set(list(dict.fromkeys(kind for kind in wanted if kind))[:MAX_KINDS])


def freshness_policy(job: AnyJob) -> FreshnessPolicy | None:
    """Returns Dagster's own policy beside our check `is_fresh`; None if nobody minds, or it can't look so closely."""
    window = job.fresh_after
    return FreshnessPolicy.time_window(window) if window is not None and window >= _SHORTEST_WINDOW else None
