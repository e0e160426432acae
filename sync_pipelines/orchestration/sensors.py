"""The sensors of a code location: one of each kind, whatever the number of its syncs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from dagster import (
    DagsterRunStatus,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
)
from dagster._core.definitions.target import AutomationTarget

from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.orchestration.jobs import drain_job_name
from sync_pipelines.orchestration.location import CODE_LOCATION, HELD_WORKSPACE, SharedSensor
from sync_pipelines.orchestration.tags import KIND_TAG, run_tags
from sync_pipelines.runner.changes.drain import DrainLimits
from sync_pipelines.runner.context.workspace import utc_now

STARTED_AT_ONCE = 50
"""How many runs a tick may start, so that it ends in time when a thousand syncs have something to do."""
LOOK_EVERY_S = 5
_SHOWN = 5
_GIVEN_UP_AFTER = timedelta(seconds=DrainLimits().longest_s + 300)
_PAUSE = timedelta(seconds=30)
_UNDER_WAY = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
]


class _Targets(Sequence[AutomationTarget]):
    """The Dagster jobs that a sensor may start: those of all syncs that the process has definitions of by then.

    It counts as empty. Dagster wants every job of a sensor in each repository that has the sensor, but asks only if
    there are any; and a process, of tests say, may have definitions of several repositories. All that it needs to know
    otherwise, for what a tick asks for, comes from going through them.
    """

    def __init__(self, job_name: Callable[[AnyJob], str | None]) -> None:
        self._job_name = job_name

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]

    def __iter__(self) -> Iterator[AutomationTarget]:
        names = map(self._job_name, CODE_LOCATION.syncs())
        return (AutomationTarget(name) for name in names if name is not None)


class LocationSensor(SharedSensor, SensorDefinition):
    """A sensor that all syncs of a code location share.

    It is one object however many definitions it is merged from, so Dagster takes it for one sensor.

    Args:
        name: Its name in Dagster.
        look: Evaluates it.
        every_s: Seconds between two looks.
        description: What it does.
        job_name: Returns the name of the Dagster job that it may start for a sync, None if it starts none.
    """

    def __init__(
        self,
        name: str,
        look: Callable[[SensorEvaluationContext], SensorResult | SkipReason],
        every_s: int,
        description: str,
        job_name: Callable[[AnyJob], str | None] = lambda _job: None,
    ) -> None:
        super().__init__(
            name=name,
            evaluation_fn=look,
            minimum_interval_seconds=every_s,
            description=description,
        )
        self._may_start = _Targets(job_name)

    @property
    def targets(self) -> Sequence[AutomationTarget]:
        """Returns the Dagster jobs that it may start."""
        return self._may_start

    def resolve_run_requests(self, run_requests: Sequence[RunRequest], *_args: Any, **_kwargs: Any) -> Any:
        """Returns the runs that it asks for, each of which names its job."""
        return run_requests


def build_inbox_sensor() -> LocationSensor:
    """Builds the sensor that wakes the drains of all syncs. It only wakes: the inbox table is the queue."""
    return LocationSensor(
        "sync_inbox_sensor",
        _look,
        LOOK_EVERY_S,
        "Starts the job that applies single items, of each sync that has some waiting in the inbox.",
        drain_job_name,
    )


def _look(context: SensorEvaluationContext) -> SensorResult:
    with HELD_WORKSPACE.opened() as workspace:
        waiting, now = workspace.inbox.waiting_by_job(), workspace.clock()
    due: dict[AnyJob, str] = {}
    later: list[str] = []
    for job in CODE_LOCATION.in_sight_of(context):
        if (found := waiting.get(job.name)) is None:
            continue
        if found.is_due(now):
            due[job] = f"{found.count:,} items are waiting"
        else:
            at = found.next_try_at
            told = f"{found.count:,} items have failed and wait for their next try, at {at:%H:%M:%S} UTC"
            later.append(f"{job.name}: {told}")
    return start_runs(context, "drain", drain_job_name, due, later or ["no single items are waiting"])


def start_runs(
    context: SensorEvaluationContext,
    kind: str,
    job_name: Callable[[AnyJob], str],
    due: Mapping[AnyJob, str],
    otherwise: Sequence[str],
) -> SensorResult:
    """Asks for a run of each sync that has something due, unless such a run is under way or has just failed.

    Args:
        kind: What the runs have in their tag, `drain` or `retry`.
        job_name: Returns the name of a sync's job that does it.
        due: Sync -> what is due of it.
        otherwise: What to say if no run starts, of the syncs that have nothing due.
    """
    if not due:
        return SensorResult(skip_reason=SkipReason(some_of(otherwise)))
    under_way, failed = _under_way(context, kind), _just_failed(context, kind)
    free = [job for job in due if job_name(job) not in under_way | failed]
    if free:
        chosen = _next_of(free, context.cursor)
        started = [RunRequest(job_name=job_name(job), tags=run_tags(job, kind)) for job in chosen]
        return SensorResult(run_requests=started, cursor=chosen[-1].name)
    why_not = [f"{job.name}: {due[job]}; {_why_not(job_name(job) in under_way)}" for job in due]
    return SensorResult(skip_reason=SkipReason(some_of(why_not)))


def _next_of(syncs: Sequence[AnyJob], last: str | None) -> list[AnyJob]:
    """Returns as many as a tick may start, in turns: those that always fail would keep the others from ever starting.

    Args:
        syncs: In the order of their names.
        last: The name of the last one that was started; None if none was.
    """
    return sorted(syncs, key=lambda job: last is not None and job.name <= last)[:STARTED_AT_ONCE]


def some_of(sentences: Sequence[str]) -> str:
    """Joins the first sentences, and counts the others."""
    rest = len(sentences) - _SHOWN
    return "; ".join(sentences[:_SHOWN]) + (f"; and {rest:,} more" if rest > 0 else "")


def _why_not(is_under_way: bool) -> str:  # noqa: FBT001 - private, and called once
    if is_under_way:
        return "a run that does it is under way"
    return f"the last run that was to do it failed, and the next one starts {_PAUSE.seconds} s after it"


def _under_way(context: SensorEvaluationContext, kind: str) -> set[str]:
    """Returns the jobs with a run that is queued or running; one that has lasted far too long is taken for dead."""
    which = RunsFilter(tags={KIND_TAG: kind}, statuses=_UNDER_WAY, created_after=utc_now() - _GIVEN_UP_AFTER)
    return {run.job_name for run in CODE_LOCATION.runs(context.instance, which)}


def _just_failed(context: SensorEvaluationContext, kind: str) -> set[str]:
    """Returns the jobs whose last run failed a moment ago: a target that is down needs no run every few seconds."""
    which = RunsFilter(tags={KIND_TAG: kind}, updated_after=utc_now() - _PAUSE)
    last = {run.job_name: run.status for run in reversed(CODE_LOCATION.runs(context.instance, which))}
    return {name for name, status in last.items() if status is DagsterRunStatus.FAILURE}
