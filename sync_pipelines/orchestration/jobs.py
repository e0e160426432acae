"""A Dagster job per sync that runs it whole, and one that applies the single items that wait."""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from dagster import (
    AssetCheckEvaluation,
    AssetMaterialization,
    AssetSelection,
    ExecutorDefinition,
    JobDefinition,
    Nothing,
    OpDefinition,
    OpExecutionContext,
    Out,
    Output,
    ResourceDefinition,
    in_process_executor,
    job,
    op,
)
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.orchestration.checks import evaluations
from sync_pipelines.orchestration.data_versions import version_tags
from sync_pipelines.orchestration.keys import asset_key
from sync_pipelines.orchestration.metadata import Metadata, drain_metadata
from sync_pipelines.orchestration.ops import SelectionConfig, failing_clearly, op_name, tag_outcome
from sync_pipelines.orchestration.tags import op_tags, run_tags
from sync_pipelines.runner.calls.target_driver import describe_target
from sync_pipelines.runner.changes.drain import Drain, DrainLimits
from sync_pipelines.runner.changes.retry_failures import RetryRun
from sync_pipelines.runner.context.run_log import RunReport
from sync_pipelines.runner.context.workspace import Workspace, open_workspace

Items = TypeVar("Items", Drain, RetryRun)
Event = AssetMaterialization | AssetCheckEvaluation | Output[None]
Resources = Mapping[str, ResourceDefinition] | None


class OneAssetJob(UnresolvedAssetJobDefinition):
    """A job that materialises one asset and its checks, and looks at no other asset of the code location for that.

    Dagster's own looks at all of them, for each job: with a thousand syncs that takes most of a minute.
    """

    def resolve(
        self,
        asset_graph: AssetGraph,
        default_executor_def: ExecutorDefinition | None = None,
        resource_defs: Resources = None,
    ) -> JobDefinition:
        """Builds the job out of the asset's own part of the graph."""
        [key] = self.selection.selected_keys  # type: ignore[attr-defined] # what AssetSelection.assets gives has them
        of_asset = {asset_graph.assets_def_for_key(each) for each in (key, *asset_graph.get(key).check_keys)}
        return super().resolve(AssetGraph.from_assets(list(of_asset)), default_executor_def, resource_defs)


def build_at_need(
    sync_job: AnyJob, name: str, build: Callable[[Resources], JobDefinition]
) -> UnresolvedAssetJobDefinition:
    """Returns a job of that name, which `build` makes at need out of the code location's resources."""

    class Job(UnresolvedAssetJobDefinition):
        def resolve(
            self,
            asset_graph: AssetGraph,  # noqa: ARG002 - it may lack the asset
            default_executor_def: ExecutorDefinition | None = None,  # noqa: ARG002 - each has its own
            resource_defs: Resources = None,
        ) -> JobDefinition:
            return build(resource_defs)

    return Job(name=name, selection=AssetSelection.assets(asset_key(sync_job)))


def build_sync_job(sync_job: AnyJob, executor: ExecutorDefinition = in_process_executor) -> OneAssetJob:
    """Builds the Dagster job that fetches, diffs and applies everything, and checks the result."""
    key = asset_key(sync_job)
    node = "__".join(key.path)
    in_launchpad = SelectionConfig().model_dump()
    return OneAssetJob(
        name=sync_job.dagster_name,
        selection=AssetSelection.assets(key),
        description=f"Syncs {sync_job.name} whole: fetch, diff, apply. {sync_job.description}".strip(),
        config={"ops": {node: {"config": in_launchpad}}},
        tags=run_tags(sync_job, "full"),
        executor_def=executor,
        owners=list(sync_job.owners) or None,
    )


def drain_job_name(sync_job: AnyJob) -> str:
    """Returns the name of the Dagster job that applies single items."""
    return f"{sync_job.dagster_name}_items"


def build_drain_job(sync_job: AnyJob) -> JobDefinition:
    """Yields the Dagster job that applies what waits in the inbox, in batches, until it is empty."""

    @op(
        name=op_name(sync_job, "drain"),
        description=f"Applies the single items of {sync_job.name} that wait in the inbox, newest per id.",
        out=Out(Nothing),
        tags=op_tags(sync_job, "apply"),
    )
    def drain(context: OpExecutionContext) -> Iterator[Event]:
        def carry_out(run: Drain, workspace: Workspace) -> SyncResults:
            return run.run(DrainLimits(idle_wait_s=workspace.idle_wait_s))

        yield from events_of(context, sync_job, Drain, carry_out, _metadata_of_drain)

    described = f"Applies the single items of {sync_job.name} that wait in the inbox. A sensor starts it."
    return job_of_one_op(drain, "drain", sync_job, drain_job_name(sync_job), described)


def job_of_one_op(
    op_definition: OpDefinition, kind: str, sync_job: AnyJob, name: str, description: str
) -> JobDefinition:
    """Builds a Dagster job whose only step is that op.

    Args:
        kind: What its runs do: `drain` or `retry`.
    """

    @job(
        name=name,
        description=description,
        executor_def=in_process_executor,
        tags=run_tags(sync_job, kind),
        owners=list(sync_job.owners) or None,
    )
    def dagster_job() -> None:
        op_definition.alias(kind)()

    return dagster_job


def events_of(
    context: OpExecutionContext,
    sync_job: AnyJob,
    kind: type[Items],
    carry_out: Callable[[Items, Workspace], SyncResults],
    metadata_of: Callable[[AnyJob, Items, Workspace], Metadata | None],
) -> Iterator[Event]:
    """Carries out a run that applies single items.

    An op that fails must yield its events: Dagster drops those that it has only logged.

    Args:
        metadata_of: Sync job, run, workspace -> what the history of the asset says of the run, also if it breaks off;
            None if the run did nothing.
    """
    with failing_clearly(context), open_workspace() as workspace:
        run = kind(sync_job, workspace, RunReport(context.log), context.run_id, workspace.wait_s)
        try:
            results = carry_out(run, workspace)
        finally:  # what was applied before it broke off is in the asset's history too
            metadata = metadata_of(sync_job, run, workspace)
            if run.results is not None and metadata is not None:
                tags = version_tags(workspace.data_versions.current(sync_job.name))
                yield AssetMaterialization(asset_key(sync_job), metadata=metadata, tags=tags)
                yield from evaluations(sync_job, workspace, run.results)
    tag_outcome(context, results.outcome)
    yield Output(None)


def _metadata_of_drain(sync_job: AnyJob, drained: Drain, workspace: Workspace) -> Metadata | None:
    if drained.results is None or not drained.applied:
        return None
    [depth] = workspace.inbox.depths([sync_job.name])
    return drain_metadata(drained.results, drained.applied, describe_target(sync_job), depth)
