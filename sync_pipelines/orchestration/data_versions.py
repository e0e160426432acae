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
    DagsterInvariantViolationError,
    DataVersion,
    MetadataValue,
    OpExecutionContext,
    Output,
)
from dagster._check import CheckError
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from sync_pipelines.database.data_versions import DataVersions
from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.orchestration.keys import source_key
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.runs.comparing_run import SnapshotRef

DATA_VERSION_TAG = "dagster/data_version"
"""In the metadata of the external assets that we define for sources; nobody else's have it."""
_READER = "sync job"
_FETCHED = "Fetched."


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

    What takes only some items says nothing of the others: its observation has no data version. Of an asset of somebody
    else, who knows best what its version is, nothing is reported: any event would be a change for who looks at it.
    """
    key = source_key(job)
    last = _last_materialised(context, key)
    if _is_theirs(context, key, last):
        return
    metadata = {"items": MetadataValue.int(snapshot.items), _READER: MetadataValue.text(job.name)}
    version: str | None = None
    if snapshot.part is not None:
        source = key.to_user_string()
        workspace.source_parts.note(source, job.name, snapshot.part)
        version = workspace.source_parts.version(source)  # another reader may have noted something meanwhile
    context.log_event(AssetObservation(key, description=_FETCHED, metadata=metadata, tags=version_tags(version)))
    if version is not None and version != _version_in(last):
        told = "What was fetched differs from before."
        context.log_event(AssetMaterialization(key, description=told, metadata=metadata, tags=version_tags(version)))


def _last_materialised(context: OpExecutionContext, key: AssetKey) -> AssetMaterialization | None:
    """Returns the last materialisation that Dagster still has."""
    event = context.instance.get_latest_materialization_event(key)
    return event.asset_materialization if event is not None else None


def _version_in(materialisation: AssetMaterialization | None) -> str | None:
    tags = materialisation.tags if materialisation is not None else None
    return (tags or {}).get(DATA_VERSION_TAG)


def _is_theirs(context: OpExecutionContext, key: AssetKey, last: AssetMaterialization | None) -> bool:
    """True if the asset is somebody else's: by the definitions, by a run that planned it, or by who reported it last.

    The definitions would not say it of other code locations, and a run's own process may not have loaded all of them.
    """
    planned = context.instance.event_log_storage.get_latest_planned_materialization_info(key)
    return (
        planned is not None or (last is not None and not _is_of_a_fetch(last)) or _is_run_by_the_project(context, key)
    )


def _is_of_a_fetch(materialisation: AssetMaterialization) -> bool:
    """True of what a fetch has reported, also one of a version that did not name the sync."""
    metadata = materialisation.metadata
    return _READER in metadata or (materialisation.description == _FETCHED and "items" in metadata)


def _is_run_by_the_project(context: OpExecutionContext, key: AssetKey) -> bool:
    """True if the project defines how the asset is made or observed, whether or not that has ever been done."""
    graph = _asset_graph(context)
    return graph.has(key) and graph.get(key).is_executable


def _asset_graph(context: OpExecutionContext) -> AssetGraph:
    """Returns all assets of the code location; of a job that is executed in a test, those that it knows."""
    try:
        return context.repository_def.asset_graph
    except (CheckError, DagsterInvariantViolationError):
        return context.job_def.asset_layer.asset_graph.source_asset_graph
