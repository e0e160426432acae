"""Reports to Dagster items that were applied outside of any run: a runless materialisation in the asset's history."""

from collections.abc import Callable
from typing import Any

from dagster import AssetMaterialization, DagsterInstance, MetadataValue

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.results import ItemResult
from sync_pipelines.orchestration.data_versions import version_tags
from sync_pipelines.orchestration.keys import asset_key
from sync_pipelines.settings.dagster import has_dagster_home


def dagster_reporter() -> Callable[[SyncJob[Any, Any], ItemResult], object] | None:
    """Returns what reports to the Dagster of `DAGSTER_HOME`; None where that is not set."""
    return reporter_to(DagsterInstance.get()) if has_dagster_home() else None


def reporter_to(instance: DagsterInstance) -> Callable[[SyncJob[Any, Any], ItemResult], object]:
    """Returns what reports to this Dagster."""

    def report(job: SyncJob[Any, Any], result: ItemResult) -> None:
        if result.action in {"unchanged", "skipped"}:
            return  # nothing was written
        instance.report_runless_asset_event(
            AssetMaterialization(
                asset_key(job),
                description=f"{result.external_id}: {result.action}, by a webhook in inline mode.",
                metadata={
                    "external id": MetadataValue.text(result.external_id),
                    "action": MetadataValue.text(result.action),
                },
                tags=version_tags(result.data_version),
            )
        )

    return report
