"""Data versions in Dagster's events: what a materialisation of a sync's asset carries, and how a fetch is reported.

Dagster takes a materialisation without a data version for a change. Of an external asset its automation looks at
materialisations only, observations it shows. So a fetch is an observation, and a materialisation of the source as well
when what was fetched differs from what the last materialisation carries.
"""

import warnings
from collections.abc import Mapping

from dagster import (
    AssetKey,
    AssetMaterialization,
    AssetObservation,
    BetaWarning,
    DataVersion,
    MetadataValue,
    OpExecutionContext,
    Output,
)

from sync_pipelines.database.data_versions import DataVersions
from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.orchestration.keys import source_key
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.runs.comparing_run import SnapshotRef

DATA_VERSION_TAG = "dagster/data_version"


def version_tags(version: str | None) -> Mapping[str, str] | None:
    """Returns the tags of an event that say the data version."""
    return {DATA_VERSION_TAG: version} if version is not None else None


def version_of(versions: DataVersions, job: AnyJob) -> DataVersion | None:
    """Returns the data version of a sync's asset as Dagster wants it."""
    version = versions.current(job.name)
    return DataVersion(version) if version is not None else None


def versioned_output(metadata: Mapping[str, MetadataValue], version: DataVersion | None) -> Output[None]:
    """Returns what materialises a sync's asset, without a warning in each run's log that Dagster may change this."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BetaWarning)
        return Output(None, metadata=metadata, data_version=version)


def report_fetch(context: OpExecutionContext, job: AnyJob, workspace: Workspace, snapshot: SnapshotRef) -> None:
    """Reports what was fetched as an observation of the source, and a change of it as a materialisation.

    What takes only some items says nothing of the others: its observation has no data version. Nor has that of an asset
    that somebody else materialises, who knows best what its version is.
    """
    key = source_key(job)
    metadata = {"items": MetadataValue.int(snapshot.items), "sync job": MetadataValue.text(job.name)}
    version: str | None = None
    if snapshot.part is not None and not _is_made_by_a_run(context, key):
        source = key.to_user_string()
        workspace.source_parts.note(source, job.name, snapshot.part)
        version = workspace.source_parts.version(source)  # another reader may have noted something meanwhile
    context.log_event(AssetObservation(key, description="Fetched.", metadata=metadata, tags=version_tags(version)))
    if version is not None and version != _last_materialised(context, key):
        told = "What was fetched differs from before."
        context.log_event(AssetMaterialization(key, description=told, metadata=metadata, tags=version_tags(version)))


def _last_materialised(context: OpExecutionContext, key: AssetKey) -> str | None:
    """Returns the data version of the last materialisation that Dagster still has; None if that has none."""
    event = context.instance.get_latest_materialization_event(key)
    materialisation = event.asset_materialization if event is not None else None
    tags = materialisation.tags if materialisation is not None else None
    return (tags or {}).get(DATA_VERSION_TAG)


def _is_made_by_a_run(context: OpExecutionContext, key: AssetKey) -> bool:
    """True if some run has planned to materialise the asset, of this code location or of another one.

    The definitions would not say it of other locations, and a run's own process may not have loaded all of them.
    """
    return context.instance.event_log_storage.get_latest_planned_materialization_info(key) is not None
