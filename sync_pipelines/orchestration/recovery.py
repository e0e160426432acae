"""A sensor that marks Dagster runs failed whose process has died.

After a power cut Dagster's own record of a run stays "started" for ever, and its tag would keep the next run of the
sync in the queue. Our lease decides: a run that works renews it.
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from dagster import (
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    RunsFilter,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
)

from sync_pipelines.database.leases import Lease
from sync_pipelines.database.ledger_faults import LedgerLockedError
from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.orchestration.broken_files import CHECK, BrokenAsset, report_broken_files
from sync_pipelines.orchestration.keys import asset_key
from sync_pipelines.orchestration.location import CODE_LOCATION, HELD_WORKSPACE
from sync_pipelines.orchestration.retries import names_of_jobs
from sync_pipelines.orchestration.sensors import LocationSensor, some_of
from sync_pipelines.orchestration.tags import OUTCOME_TAG
from sync_pipelines.runner.context.lease import is_dead
from sync_pipelines.runner.context.workspace import Workspace

LOOK_EVERY_S = 10
_UNFINISHED = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
_START_UP = timedelta(minutes=5)
_ALL_ALIVE = "every run that Dagster shows as started is alive"


def build_recovery_sensor() -> LocationSensor:
    """Builds the sensor for all syncs."""
    return LocationSensor(
        "sync_recovery_sensor",
        _Recovery().look,
        LOOK_EVERY_S,
        "Marks runs failed whose process has died, so that the next run of their sync can start; and reports the check "
        f"{CHECK} of job files that can't be loaded.",
    )


class _Recovery:
    """Remembers what a tick has reported whose ledger failed: Dagster keeps no cursor of it."""

    def __init__(self) -> None:
        self._unsaved: tuple[tuple[BrokenAsset, ...], str | None, str] | None = None

    def look(self, context: SensorEvaluationContext) -> SensorResult:
        """Reports broken files, also if the ledger can't be opened; then marks runs failed."""
        cursor = self._report(context)
        is_ours = RunsOfSyncs(CODE_LOCATION.in_sight_of(context))
        with HELD_WORKSPACE.opened() as workspace:
            dead = _with_dead_lease(context.instance, workspace, is_ours)
            dead += _without_lease(context.instance, workspace, is_ours)
        self._unsaved = None
        told = [f"marked as failed, because their process has died: {', '.join(dead)}" if dead else _ALL_ALIVE]
        told += [f"can't be loaded: {each.key.to_user_string()}" for each in CODE_LOCATION.broken]
        return SensorResult(skip_reason=SkipReason(some_of(told)), cursor=cursor)

    def _report(self, context: SensorEvaluationContext) -> str:
        broken, before = CODE_LOCATION.broken, context.cursor
        known = before
        if self._unsaved is not None and self._unsaved[0] is broken and self._unsaved[1] == before:
            known = self._unsaved[2]
        cursor = report_broken_files(context.instance, broken, known)
        self._unsaved = (broken, before, cursor)
        return cursor


def _with_dead_lease(instance: DagsterInstance, workspace: Workspace, is_ours: "RunsOfSyncs") -> list[str]:
    """Runs whose lease has expired, or whose process is known to be dead."""
    expired = {lease.job for lease in workspace.leases.expired()}
    recovered: list[str] = []
    for lease in workspace.leases.held():
        if lease.job not in expired and not is_dead(lease.holder.process):
            continue
        with suppress(LedgerLockedError):  # a run that has stopped while it wrote has its row; it has expired anyway
            workspace.leases.release(lease)
        recovered += _fail(instance, lease, is_ours)
    return recovered


def _fail(instance: DagsterInstance, lease: Lease, is_ours: "RunsOfSyncs") -> list[str]:
    run = instance.get_run_by_id(lease.holder.dagster_run_id) if lease.holder.dagster_run_id else None
    if run is None or run.status not in _UNFINISHED:
        return []
    if not is_ours.is_one(run):
        return []  # its other steps may be at work in processes of their own, and whoever runs them sees that one died
    _report_failed(
        instance,
        run,
        f"The process of this run ({lease.holder.described}) died or stalled: it no longer renews its lease. "
        "Nothing is lost: run the sync again, or re-execute this run from failure.",
    )
    return [run.run_id]


def _without_lease(instance: DagsterInstance, workspace: Workspace, is_ours: "RunsOfSyncs") -> list[str]:
    """Runs that died before they took a lease, or between two ops: nobody has waited that long for one."""
    alive = {lease.holder.dagster_run_id for lease in workspace.leases.held()}
    longest = timedelta(seconds=workspace.wait_s) + workspace.lease + _START_UP
    silent_since = workspace.clock() - longest
    recovered: list[str] = []
    for record in instance.get_run_records(RunsFilter(statuses=_UNFINISHED)):
        run = record.dagster_run
        if run.run_id in alive or _last_sign_at(record.start_time, record.update_timestamp) >= silent_since:
            continue
        if is_ours(run):
            _report_failed(instance, run, "This run shows no sign of life: its process died. Run the sync again.")
            recovered.append(run.run_id)
    return recovered


class RunsOfSyncs:
    """Tells runs that do nothing but syncs from others, whose work no lease of ours speaks of.

    A tag is no sign of it: others may have one of the same name, and a run from an asset's page has none at first.
    """

    def __init__(self, sync_jobs: Sequence[AnyJob]) -> None:
        self._jobs = {name for job in sync_jobs for name in names_of_jobs(job)}
        self._assets = {asset_key(job) for job in sync_jobs}

    def __call__(self, run: DagsterRun) -> bool:
        """Returns True if it is a run of a sync's job, or materialises assets of syncs and no other."""
        has_only_syncs = bool(run.asset_selection and run.asset_selection <= self._assets)
        return CODE_LOCATION.has_launched(run) and (run.job_name in self._jobs or has_only_syncs)

    def is_one(self, run: DagsterRun) -> bool:
        """Returns True if it does a single sync, so that it is over when the process of that has died."""
        return self(run) and (run.job_name in self._jobs or len(run.asset_selection or ()) == 1)


def _last_sign_at(start_time: float | None, updated_at: datetime) -> datetime:
    started_at = datetime.fromtimestamp(start_time, updated_at.tzinfo) if start_time else updated_at
    return max(started_at, updated_at)


def _report_failed(instance: DagsterInstance, run: DagsterRun, message: str) -> None:
    instance.add_run_tags(run.run_id, {OUTCOME_TAG: "failed"})
    instance.report_run_failed(run, message)
