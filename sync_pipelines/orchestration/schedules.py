"""A schedule per sync that has an interval."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from dagster import (
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    DefaultScheduleStatus,
    RunRequest,
    RunsFilter,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SkipReason,
)

from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.engine.intervals import Due, Interval
from sync_pipelines.orchestration.location import CODE_LOCATION
from sync_pipelines.orchestration.tags import DUE_TAG, run_tags

_SCHEDULE_TAG = "dagster/schedule_name"  # Dagster's own, on every run that a schedule starts
_LOOKED_AT = 20  # a schedule of another code location may have the same name


def schedule_name(job: AnyJob, interval: Interval) -> str:
    """Names the schedule after how often it runs: `erp_inventory_every_5_hours`."""
    return f"{job.dagster_name}_{interval.label}"


def build_schedule(job: AnyJob, status: DefaultScheduleStatus) -> ScheduleDefinition | None:
    """Builds the schedule of a sync; None for a sync without an interval.

    Args:
        status: Its state until somebody starts or stops it by hand.
    """
    interval = job.interval
    if interval is None:
        return None
    return ScheduleDefinition(
        name=schedule_name(job, interval),
        job_name=job.dagster_name,
        cron_schedule=list(interval.cron_lines) if len(interval.cron_lines) > 1 else interval.cron_lines[0],
        execution_timezone=interval.timezone,
        description=f"Runs {job.name} {interval.description}.",
        default_status=status,
        execution_fn=_evaluate(job, interval),
        owners=list(job.owners) or None,
    )


def _evaluate(job: AnyJob, interval: Interval) -> Callable[[ScheduleEvaluationContext], RunRequest | SkipReason]:
    def evaluate(context: ScheduleEvaluationContext) -> RunRequest | SkipReason:
        last_due_at = None if interval.is_exact else _last_due_at(context.instance, schedule_name(job, interval))
        decision = interval.decide(context.scheduled_execution_time, last_due_at)
        if not isinstance(decision, Due):
            return SkipReason(decision.reason)
        if _waits_already(context.instance, job):
            return SkipReason(f"a run of {job.name} waits in the queue already; it will fetch everything new as well")
        due_at = decision.due_at.isoformat()
        return RunRequest(tags={**run_tags(job, "full"), DUE_TAG: due_at})

    return evaluate


_NOT_WHOLE = ("only", "dry_run", "apply_plan")


def _waits_already(instance: DagsterInstance, job: AnyJob) -> bool:
    """Returns True if a full run of the sync has not started yet: one run makes up for any number of ticks."""
    waiting = RunsFilter(job_name=job.dagster_name, statuses=[DagsterRunStatus.QUEUED, DagsterRunStatus.NOT_STARTED])
    return any(not _is_limited(run) for run in CODE_LOCATION.runs(instance, waiting))


def _is_limited(run: DagsterRun) -> bool:
    """Returns True if somebody launched it for some items only, or for a plan."""
    ops: dict[str, Any] = dict(run.run_config).get("ops", {})  # type: ignore[assignment]  # typed as object
    configs = (op_config.get("config", {}) for op_config in ops.values())
    return any(config.get("limit") is not None or any(map(config.get, _NOT_WHOLE)) for config in configs)


def _last_due_at(instance: DagsterInstance, schedule: str) -> datetime | None:
    """Returns the occasion of the newest scheduled run, so that one missed while nothing ran is made up for once."""
    newest = CODE_LOCATION.runs(instance, RunsFilter(tags={_SCHEDULE_TAG: schedule}), limit=_LOOKED_AT)
    due_at = newest[0].tags.get(DUE_TAG) if newest else None
    return datetime.fromisoformat(due_at).astimezone(UTC) if due_at is not None else None
