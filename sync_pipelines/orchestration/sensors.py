"""A sensor per sync that wakes the drain when single items wait. It only wakes: the inbox table is the queue."""

from collections.abc import Callable
from datetime import timedelta

from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
)

from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.orchestration.jobs import drain_job_name
from sync_pipelines.orchestration.start import sensor_status
from sync_pipelines.orchestration.tags import run_tags
from sync_pipelines.runner.changes.drain import DrainLimits
from sync_pipelines.runner.context.workspace import open_workspace, utc_now

LOOK_EVERY_S = 5
_GIVEN_UP_AFTER = timedelta(seconds=DrainLimits().longest_s + 300)
_PAUSE = timedelta(seconds=30)
_UNDER_WAY = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
]


def build_sensor(job: AnyJob) -> SensorDefinition:
    """Builds the sensor of a sync, running from the start unless told otherwise."""
    return SensorDefinition(
        name=f"{drain_job_name(job)}_sensor",
        job_name=drain_job_name(job),
        evaluation_fn=_look(job),
        minimum_interval_seconds=LOOK_EVERY_S,
        description=f"Starts {drain_job_name(job)} when single items of {job.name} wait in the inbox.",
        default_status=sensor_status(),
    )


def _look(job: AnyJob) -> Callable[[SensorEvaluationContext], RunRequest | SkipReason]:
    def look(context: SensorEvaluationContext) -> RunRequest | SkipReason:
        with open_workspace() as workspace:
            waiting, now = workspace.inbox.next_try(job.name), workspace.clock()
        if not waiting.count:
            return SkipReason("no single items are waiting")
        if not waiting.is_due(now):
            at = waiting.next_try_at
            return SkipReason(f"{waiting.count:,} items have failed and wait for their next try, at {at:%H:%M:%S} UTC")
        if is_under_way(context.instance, drain_job_name(job)):
            return SkipReason(f"{waiting.count:,} items are waiting; a run that applies them is under way")
        if has_just_failed(context.instance, drain_job_name(job)):
            return SkipReason(
                f"{waiting.count:,} items are waiting; the last run that was to apply them failed, and the next one "
                f"starts {_PAUSE.seconds} s after it"
            )
        return RunRequest(tags=run_tags(job, "drain"))

    return look


def has_just_failed(instance: DagsterInstance, job_name: str) -> bool:
    """Returns True if its last run failed a moment ago: a target that is down needs no run every few seconds."""
    filters = RunsFilter(job_name=job_name, updated_after=utc_now() - _PAUSE)
    records = instance.get_run_records(filters, limit=1)
    return bool(records) and records[0].dagster_run.status is DagsterRunStatus.FAILURE


def is_under_way(instance: DagsterInstance, job_name: str) -> bool:
    """Returns True if a run of it is queued or running; one that has lasted far too long is taken for dead."""
    filters = RunsFilter(job_name=job_name, statuses=_UNDER_WAY, created_after=utc_now() - _GIVEN_UP_AFTER)
    return bool(instance.get_run_records(filters, limit=1))
