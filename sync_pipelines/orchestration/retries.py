"""A Dagster job per sync that tries failed items again, and the sensor that starts it when some are due."""

from collections.abc import Callable, Iterator

from dagster import (
    Config,
    JobDefinition,
    Nothing,
    OpExecutionContext,
    Out,
    RunRequest,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
    op,
)
from pydantic import Field

from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.orchestration.jobs import Event, events_of, job_of_one_op
from sync_pipelines.orchestration.metadata import Metadata, retry_metadata
from sync_pipelines.orchestration.ops import op_name
from sync_pipelines.orchestration.sensors import has_just_failed, is_under_way
from sync_pipelines.orchestration.start import sensor_status
from sync_pipelines.orchestration.tags import run_tags
from sync_pipelines.runner.calls.target_driver import describe_target
from sync_pipelines.runner.changes.retry_failures import RetryRun, what_is_due
from sync_pipelines.runner.context.workspace import Workspace, open_workspace

LOOK_EVERY_S = 30


def retry_job_name(sync_job: AnyJob) -> str:
    """Returns the name of the Dagster job that tries failed items again."""
    return f"{sync_job.dagster_name}_retry"


class RetryConfig(Config):
    """What the launchpad asks for."""

    only: list[str] = Field(
        default_factory=list, description="Try the items with these external ids, due or not, also if given up."
    )
    everything: bool = Field(default=False, description="Try all that are open or given up, whenever they are due.")


def build_retry_job(sync_job: AnyJob) -> JobDefinition:
    """Yields the Dagster job that tries the failed items of a sync again that are due."""

    @op(
        name=op_name(sync_job, "retry"),
        description=f"Tries the failed items of {sync_job.name} again that are due. A failed item stops no other.",
        out=Out(Nothing),
        tags={"kind": "apply"},
    )
    def retry(context: OpExecutionContext, config: RetryConfig) -> Iterator[Event]:
        def carry_out(run: RetryRun, _workspace: Workspace) -> SyncResults:
            return run.run(config.only, everything=config.everything)

        yield from events_of(context, sync_job, RetryRun, carry_out, _metadata_of_retry)

    described = f"Tries the failed items of {sync_job.name} again that are due. A sensor starts it."
    return job_of_one_op(retry, "retry", retry_job_name(sync_job), described, run_tags(sync_job, "retry"))


def _metadata_of_retry(sync_job: AnyJob, run: RetryRun, _workspace: Workspace) -> Metadata | None:
    if run.results is None or not run.results.fetched:
        return None
    return retry_metadata(run.results, describe_target(sync_job))


def build_retry_sensor(sync_job: AnyJob) -> SensorDefinition:
    """Builds the sensor of a sync's retries, running from the start unless told otherwise."""
    name = retry_job_name(sync_job)
    return SensorDefinition(
        name=f"{name}_sensor",
        job_name=name,
        evaluation_fn=_look(sync_job),
        minimum_interval_seconds=LOOK_EVERY_S,
        description=f"Starts {name} when failed items of {sync_job.name} are due to be tried again.",
        default_status=sensor_status(),
    )


def _look(sync_job: AnyJob) -> Callable[[SensorEvaluationContext], RunRequest | SkipReason]:
    def look(context: SensorEvaluationContext) -> RunRequest | SkipReason:
        with open_workspace() as workspace:
            which = what_is_due(sync_job, workspace, None)
            due_at, now = workspace.failures.next_due_at(sync_job.name, which), workspace.clock()
            lease = workspace.leases.in_force(sync_job.name)
        if due_at is None:
            return SkipReason("no failed items wait for another try")
        if due_at > now:
            return SkipReason(f"failed items wait for their next try, at {due_at:%Y-%m-%d %H:%M:%S} UTC")
        if lease is not None:
            return SkipReason(f"failed items are due; a run of the sync is under way in {lease.holder.described}")
        if is_under_way(context.instance, retry_job_name(sync_job)):
            return SkipReason("failed items are due; a run that tries them again is under way")
        if has_just_failed(context.instance, retry_job_name(sync_job)):
            return SkipReason("failed items are due; the last run that was to try them again has just failed")
        return RunRequest(tags=run_tags(sync_job, "retry"))

    return look
