"""A Dagster job per sync that tries failed items again, and the sensor that starts them when some are due."""

from collections.abc import Iterator

from dagster import (
    Config,
    JobDefinition,
    Nothing,
    OpExecutionContext,
    Out,
    SensorEvaluationContext,
    SensorResult,
    op,
)
from pydantic import Field

from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.orchestration.jobs import Event, drain_job_name, events_of, job_of_one_op
from sync_pipelines.orchestration.location import CODE_LOCATION, HELD_WORKSPACE
from sync_pipelines.orchestration.metadata import Metadata, retry_metadata
from sync_pipelines.orchestration.ops import op_name
from sync_pipelines.orchestration.sensors import LocationSensor, start_runs
from sync_pipelines.orchestration.tags import op_tags
from sync_pipelines.runner.calls.target_driver import describe_target
from sync_pipelines.runner.changes.retry_failures import RetryRun, what_is_due
from sync_pipelines.runner.context.workspace import Workspace

LOOK_EVERY_S = 30


def retry_job_name(sync_job: AnyJob) -> str:
    """Returns the name of the Dagster job that tries failed items again."""
    return f"{sync_job.dagster_name}_retry"


def names_of_jobs(sync_job: AnyJob) -> list[str]:
    """Returns the names of all Dagster jobs of a sync: the whole run, the drain, the retry."""
    return [sync_job.dagster_name, drain_job_name(sync_job), retry_job_name(sync_job)]


class RetryConfig(Config):
    """What the launchpad asks for."""

    only: list[str] = Field(
        default_factory=list, description="Try the items with these external ids, due or not, also if given up."
    )
    everything: bool = Field(default=False, description="Try all that are open or given up, whenever they are due.")


_FAILURES = RetryConfig.to_config_schema().as_field()  # made once, as that of a whole run


def build_retry_job(sync_job: AnyJob) -> JobDefinition:
    """Yields the Dagster job that tries the failed items of a sync again that are due."""

    @op(
        name=op_name(sync_job, "retry"),
        description=f"Tries the failed items of {sync_job.name} again that are due. A failed item stops no other.",
        out=Out(Nothing),
        config_schema=_FAILURES,
        tags=op_tags(sync_job, "apply"),
    )
    def retry(context: OpExecutionContext) -> Iterator[Event]:
        config = RetryConfig(**context.op_config)

        def carry_out(run: RetryRun, _workspace: Workspace) -> SyncResults:
            return run.run(config.only, everything=config.everything)

        yield from events_of(context, sync_job, RetryRun, carry_out, _metadata_of_retry)

    described = f"Tries the failed items of {sync_job.name} again that are due. A sensor starts it."
    return job_of_one_op(retry, "retry", sync_job, retry_job_name(sync_job), described)


def _metadata_of_retry(sync_job: AnyJob, run: RetryRun, _workspace: Workspace) -> Metadata | None:
    if run.results is None or not run.results.fetched:
        return None
    return retry_metadata(run.results, describe_target(sync_job))


def build_retry_sensor() -> LocationSensor:
    """Builds the sensor that starts the retries of all syncs."""
    return LocationSensor(
        "sync_retry_sensor",
        _look,
        LOOK_EVERY_S,
        "Starts the job that tries failed items again, of each sync that has some due.",
        lambda sync_job: retry_job_name(sync_job) if sync_job.retry is not None else None,
    )


def _look(context: SensorEvaluationContext) -> SensorResult:
    due: dict[AnyJob, str] = {}
    otherwise: list[str] = []
    with HELD_WORKSPACE.opened() as workspace:
        waiting = set(workspace.failures.jobs_waiting())
        syncs = [job for job in CODE_LOCATION.in_sight_of(context) if job.retry is not None and job.name in waiting]
        leases = workspace.leases.all_in_force() if syncs else {}
        for job in syncs:
            due_at = workspace.failures.next_due_at(job.name, what_is_due(job, workspace, None))
            if due_at is None:
                continue
            if due_at > workspace.clock():
                otherwise.append(f"{job.name}: failed items wait for their next try, at {due_at:%Y-%m-%d %H:%M:%S} UTC")
            elif (lease := leases.get(job.name)) is not None:
                told = f"failed items are due; a run of the sync is under way in {lease.holder.described}"
                otherwise.append(f"{job.name}: {told}")
            else:
                due[job] = "failed items are due"
    return start_runs(context, "retry", retry_job_name, due, otherwise or ["no failed items wait for another try"])
